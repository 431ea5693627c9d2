//! From a load on Clerk to a delivered alert, and to its resolution.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use clerk_exporter::metrics::catalogue::{self, Kind, MetricFamily, MetricGroup};
use reqwest::header::ACCEPT;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::client;
use clerk_test_support::KEY;
use clerk_test_support::process::Process;

use crate::clerk_exporter;
use crate::load::Load;
use crate::prometheus::{ALERT, Alertmanager, OPENMETRICS_JOB, Prometheus, TEXT_JOB};
use crate::run::Run;
use crate::sink::Sink;
use crate::truth;

/// Much longer than a run takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);
/// Alias of the instance.
const NAME: &str = "end-to-end";
/// 30 requests a second use up the simulator's 100 in 5 s before the window ends.
const PAUSE: Duration = Duration::from_millis(33);

#[tokio::test]
async fn load_fires_an_alert_and_its_end_resolves_it() {
    let run = Run::new(DEADLINE);
    let (_simulator, clerk) = start_simulator().await;
    run.say(&format!("simulated Clerk at {clerk}"));
    let folder = tempfile::tempdir().unwrap();
    let mut exporter = start_exporter(folder.path(), &clerk);
    let address = exporter.address().await;
    run.say(&format!("exporter at {address}"));
    let sink = Sink::start(format!("http://{address}/metrics")).await;
    let alertmanager = Alertmanager::start(&format!("http://{}/notify", sink.address)).await;
    run.say(&format!("Alertmanager at {}", alertmanager.address));
    let prometheus = Prometheus::start(address, sink.address, alertmanager.address).await;
    run.say("Prometheus runs");

    for job in [OPENMETRICS_JOB, TEXT_JOB] {
        let up = format!("up{{job=\"{job}\"}}");
        run.until(&format!("{up} is 1"), async || prometheus.value(&up).await.filter(|up| *up == 1.0)).await;
    }
    // Prometheus stores the names of the format that it scrapes.
    let openmetrics =
        run.until("OpenMetrics was read", async || some(prometheus.families(OPENMETRICS_JOB).await)).await;
    assert!(openmetrics.contains("clerk_probes") && !openmetrics.contains("clerk_probes_total"), "{openmetrics:?}");
    let text = run.until("the text format was read", async || some(prometheus.families(TEXT_JOB).await)).await;
    assert!(text.contains("clerk_probes_total") && !text.contains("clerk_probes"), "{text:?}");

    let low = format!("clerk_ratelimit_low_windows_total{{job=\"{OPENMETRICS_JOB}\", bucket=\"instance\"}}");
    let before = run.until("low windows are counted from 0", async || prometheus.value(&low).await).await;
    assert_eq!((before, sink.received()), (0.0, vec![]), "nothing has happened yet");

    let load = Load::start(format!("{clerk}/v1/users/count"), KEY, PAUSE);
    run.say("the load begins");
    run.until("a low window was counted", async || prometheus.value(&low).await.filter(|low| *low >= 1.0)).await;
    let firing = run.until("the alert arrives", async || sink.first("firing")).await;
    assert_eq!((firing.labels["alertname"].as_str(), firing.labels["clerk_instance"].as_str()), (ALERT, NAME));
    assert_eq!(firing.annotations["summary"], format!("less than 10 % of the rate limit of {NAME} was left"));
    run.until("every metric of the catalogue was scraped", async || {
        let series = prometheus.series(OPENMETRICS_JOB).await;
        of_the_exporter().flat_map(sample_names).all(|name| series.contains_key(&name)).then_some(())
    })
    .await;
    labels_are_those_of_the_catalogue(&prometheus).await;
    promtool_has_nothing_to_say(&text_format(address).await).await;

    let (requests, refused) = load.stop().await;
    run.say(&format!("the load ends after {requests} requests, {refused} of them answered with 429"));
    let resolved = run.until("the alert is resolved", async || sink.first("resolved")).await;
    assert_eq!(resolved.labels, firing.labels);

    let counted = prometheus.value(&low).await.unwrap();
    let happened = truth::low_windows(&format!("{clerk}/_simulator/truth"), "development-1").await.len();
    run.say(&format!("{counted} low windows counted of {happened} that the simulator knows of"));
    assert!(counted >= 1.0 && counted <= happened as f64);

    assert!(exporter.terminate().await.success(), "{}", exporter.output());
    let up = format!("up{{job=\"{OPENMETRICS_JOB}\"}}");
    run.until("the exporter has stopped and its target is down", async || {
        prometheus.value(&up).await.filter(|up| *up == 0.0)
    })
    .await;
    assert!(!exporter.output().contains(KEY), "the log shows the key");
}

async fn start_simulator() -> (Process, String) {
    let mut simulator = Process::start(clerk_exporter().args([
        "simulate",
        "--headers=x-ratelimit",
        "--listen-address=127.0.0.1:0",
        "--limit=instance=100/5s",
        "--users=1000",
    ]));
    let url = simulator.line(|line| Some(line.strip_prefix("Simulated Clerk: ")?.to_owned())).await;
    (simulator, url)
}

fn start_exporter(folder: &Path, clerk: &str) -> Process {
    let config = folder.join("clerk-exporter.yml");
    let text = format!(
        "probe: {{ interval: 1s }}\n\
         users: {{ schedule: \"*/5 * * * * *\" }}\n\
         instances:\n\
         - name: {NAME}\n  \
           secret_key_env: CLERK_SECRET_KEY\n  \
           api_url: {clerk}\n  \
           limit: {{ requests: 100, window: 5s }}\n  \
           users_limit: 5000\n"
    );
    std::fs::write(&config, text).unwrap();
    Process::start(
        clerk_exporter()
            .env("CLERK_SECRET_KEY", KEY)
            .arg("--web.listen-address=127.0.0.1:0")
            .arg("--config.file")
            .arg(config),
    )
}

/// An empty result is not ready yet.
fn some(names: BTreeSet<String>) -> Option<BTreeSet<String>> {
    if names.is_empty() { None } else { Some(names) }
}

/// The names of a family's samples in Prometheus.
fn sample_names(family: &MetricFamily) -> Vec<String> {
    match family.kind {
        Kind::Counter | Kind::Gauge => vec![family.name.to_owned()],
        Kind::Histogram => ["_bucket", "_sum", "_count"].iter().map(|end| format!("{}{end}", family.name)).collect(),
    }
}

/// The families of a program without a gateway.
fn of_the_exporter() -> impl Iterator<Item = &'static MetricFamily> {
    // Nothing is billed here, no month is kept, and there is no other exporter.
    let idle = ["clerk_metered_operations", "clerk_metered_month", "clerk_exporter_probe_leases"];
    let is_idle = move |name: &str| idle.iter().any(|start| name.starts_with(start));
    catalogue::ALL.iter().filter(move |family| family.part == MetricGroup::Exporter && !is_idle(family.name))
}

async fn labels_are_those_of_the_catalogue(prometheus: &Prometheus) {
    let series = prometheus.series(OPENMETRICS_JOB).await;
    for family in of_the_exporter() {
        for name in sample_names(family) {
            let mut expected: BTreeSet<&str> = ["__name__", "job", "instance"].into();
            expected.extend(family.labels);
            if name.ends_with("_bucket") {
                expected.insert("le");
            }
            for labels in &series[&name] {
                let names: BTreeSet<&str> = labels.keys().map(String::as_str).collect();
                assert_eq!(names, expected, "{name}");
                assert!(labels.get("clerk_instance").is_none_or(|instance| instance == NAME), "{labels:?}");
            }
        }
    }
    let known: BTreeSet<String> = of_the_exporter().flat_map(sample_names).collect();
    let unknown: Vec<_> = series.keys().filter(|name| !known.contains(*name) && !is_of_prometheus(name)).collect();
    assert!(unknown.is_empty(), "not in the catalogue: {unknown:?}");
}

/// Whether Prometheus adds this series to every target.
fn is_of_prometheus(name: &str) -> bool {
    name == "up" || name.starts_with("scrape_") || name == "ALERTS" || name == "ALERTS_FOR_STATE"
}

async fn text_format(exporter: SocketAddr) -> String {
    let request = client().get(format!("http://{exporter}/metrics")).header(ACCEPT, "text/plain;version=0.0.4");
    request.send().await.unwrap().text().await.unwrap()
}

async fn promtool_has_nothing_to_say(metrics: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("promtool: {error}; run scripts/setup"));
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).await.unwrap();
    let output = promtool.wait_with_output().await.unwrap();
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
}
