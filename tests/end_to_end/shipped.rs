//! The shipped files as users copy them: the demo's load goes below 10 %, the shipped rules fire, and the shipped
//! routes and inhibitions decide which receivers are notified.

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::client;
use clerk_test_support::process::Process;

use crate::clerk_exporter;
use crate::prometheus::{Alertmanager, Prometheus};
use crate::run::Run;
use crate::sink::{Alert, Sink};
use crate::truth;

/// If 1, the test also waits for the alerts to end, which the rules delay by 10 minutes.
const LONG: &str = "CLERK_EXPORTER_LONG_TESTS";
/// Much longer than a run takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(240);
/// Deadline including the end of the alerts.
const LONG_DEADLINE: Duration = Duration::from_secs(1800);

const LOW: &str = "ClerkRateLimitLow";
const EXHAUSTED: &str = "ClerkRateLimitExhausted";
const THROTTLED: &str = "ClerkRateLimitThrottled";
/// This instance of the demo goes below 10 % of its limit,
const PRODUCTION: &str = "production";
/// and this one exceeds its limit.
const DEVELOPMENT: &str = "development";

#[tokio::test]
async fn shipped_rules_routes_and_inhibitions_notify_of_the_demo_load() {
    let long = std::env::var_os(LONG).is_some_and(|value| value == "1");
    let run = Run::new(if long { LONG_DEADLINE } else { DEADLINE });
    let demo = Demo::start().await;
    run.say(&format!("demo at {}", demo.exporter));
    let sink = Sink::start(format!("http://{}/metrics", demo.exporter)).await;
    let alertmanager = Alertmanager::with_config(&routes_to(&format!("http://{}/notify", sink.address))).await;
    let _prometheus = Prometheus::in_folder(configured(&demo.exporter, &alertmanager.address.to_string())).await;
    run.say("Prometheus and Alertmanager run");

    for (instance, alert) in [(DEVELOPMENT, THROTTLED), (PRODUCTION, LOW)] {
        let told = arrival(&run, &sink, "firing", alert, instance).await;
        says_what_it_should(&told, alert, instance);
    }
    for instance in [DEVELOPMENT, PRODUCTION] {
        let low = truth::low_windows(&demo.record, instance).await[0];
        let told = sink.received().into_iter().find(|told| told.labels["clerk_instance"] == instance).unwrap();
        let (alert, took) = (&told.labels["alertname"], seconds(low, told.at));
        run.say(&format!("{instance}: {alert} came {took:.1} s after the end of the first low window"));
    }

    // The cause is notified; its forecast and its consequences are suppressed.
    for (quiet, causes) in [(LOW, &[EXHAUSTED, THROTTLED][..]), (EXHAUSTED, &[THROTTLED])] {
        let what = format!("{quiet} of {DEVELOPMENT} is inhibited");
        let by = run.until(&what, async || inhibitors(&alertmanager.alerts().await, quiet, DEVELOPMENT)).await;
        assert!(by.iter().all(|(alert, of)| causes.contains(&alert.as_str()) && of == DEVELOPMENT), "{quiet}: {by:?}");
    }
    let alerts = alertmanager.alerts().await;
    for (alert, instance) in [(LOW, PRODUCTION), (THROTTLED, DEVELOPMENT)] {
        assert_eq!(find(&alerts, alert, instance).unwrap()["status"]["state"], "active", "{alert} of {instance}");
    }
    let others = sink.received().into_iter().filter(|told| !told.labels["alertname"].starts_with("ClerkRateLimit"));
    assert_eq!(others.collect::<Vec<_>>(), [], "nothing else is wrong");

    if long {
        demo.calm_down().await;
        run.say("most requests do not count any more");
        for (instance, alert) in [(DEVELOPMENT, THROTTLED), (PRODUCTION, LOW)] {
            let ended = arrival(&run, &sink, "resolved", alert, instance).await;
            let low = truth::low_windows(&demo.record, instance).await;
            let took = seconds(*low.last().unwrap(), ended.at);
            run.say(&format!("{instance}: {took:.1} s after the end of the last low window"));
        }
        for Alert { status, labels, .. } in sink.received() {
            run.say(&format!("told: {} of {} {status}", labels["alertname"], labels["clerk_instance"]));
        }
        let told = |status| sink.received().iter().filter(|told| is(told, status, LOW, PRODUCTION)).count();
        assert_eq!((told("firing"), told("resolved")), (1, 1), "it does not flap");
    }
    demo.stop().await;
}

/// The running demo.
struct Demo {
    process: Process,
    /// Host and port of the exporter.
    exporter: String,
    /// URL of the simulated Clerk's record.
    record: String,
}

impl Demo {
    async fn start() -> Self {
        let mut process = Process::start(clerk_exporter().args([
            "demo",
            "--web.listen-address=127.0.0.1:0",
            "--simulator.listen-address=127.0.0.1:0",
            "--gateway.listen-address=127.0.0.1:0",
        ]));
        let after = |name: &'static str| move |line: &str| Some(line.strip_prefix(name)?.trim().to_owned());
        let metrics = process.line(after("Metrics:")).await;
        let exporter = metrics.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap().to_owned();
        let record = process.line(after("Its own record:")).await;
        Self { process, exporter, record }
    }

    /// Makes the simulated edge answer lookups of single users, eight of ten of the load's requests. They are then not
    /// counted; the exporter's own requests still are.
    async fn calm_down(&self) {
        let fault = json!({ "kind": "status", "status": 503, "body": "html" });
        let faults = json!({ "rules": [{ "fault": fault, "path_prefix": "/v1/users/user_", "counted": false }] });
        let url = self.record.replace("/truth", "/faults");
        let request = client().post(url).header("content-type", "application/json").body(faults.to_string());
        request.send().await.unwrap().error_for_status().unwrap();
    }

    async fn stop(mut self) {
        assert!(self.process.terminate().await.success(), "{}", self.process.output());
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn parse(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap()
}

/// The shipped Alertmanager configuration, with a webhook for each receiver and without waits. JSON is YAML.
fn routes_to(webhook: &str) -> String {
    let mut config = parse("deploy/alertmanager/alertmanager.yml");
    config["templates"] = json!([Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/alertmanager/clerk.tmpl")]);
    for receiver in config["receivers"].as_array_mut().unwrap() {
        receiver["webhook_configs"] = json!([{ "url": webhook, "send_resolved": true }]);
    }
    let route = config["route"].as_object_mut().unwrap();
    shorten(route);
    for route in route["routes"].as_array_mut().unwrap() {
        shorten(route.as_object_mut().unwrap());
    }
    config.to_string()
}

fn shorten(route: &mut serde_json::Map<String, Value>) {
    for wait in ["group_wait", "group_interval"] {
        if let Some(wait) = route.get_mut(wait) {
            *wait = json!("1s");
        }
    }
}

/// A folder with the shipped rules, and the shipped Prometheus configuration for these targets.
fn configured(exporter: &str, alertmanager: &str) -> tempfile::TempDir {
    let mut config = parse("deploy/prometheus/prometheus.yml");
    config["scrape_configs"][0]["static_configs"] = json!([{ "targets": [exporter] }]);
    config["alerting"]["alertmanagers"] = json!([{ "static_configs": [{ "targets": [alertmanager] }] }]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("prometheus.yml"), config.to_string()).unwrap();
    std::fs::create_dir(folder.path().join("rules")).unwrap();
    std::fs::write(folder.path().join("rules/clerk.rules.yml"), read("alerts/clerk.rules.yml")).unwrap();
    folder
}

async fn arrival(run: &Run, sink: &Sink, status: &str, alert: &str, instance: &str) -> Alert {
    let look = async || sink.received().into_iter().find(|told| is(told, status, alert, instance));
    run.until(&format!("{alert} of {instance} {status}: arrived"), look).await
}

fn is(told: &Alert, status: &str, alert: &str, instance: &str) -> bool {
    told.status == status && told.labels["alertname"] == alert && told.labels["clerk_instance"] == instance
}

/// The notification contains what an on-call engineer needs.
fn says_what_it_should(told: &Alert, alert: &str, instance: &str) {
    let expected = [
        ("alertname", alert),
        ("severity", "warning"),
        ("clerk_instance", instance),
        ("bucket", "instance"),
        ("job", "clerk-exporter"),
    ];
    for (label, value) in expected {
        assert_eq!(told.labels[label], value, "{told:?}");
    }
    assert!(!told.labels.contains_key("grafana_url"), "it is for the link only: {told:?}");
    assert_eq!(told.receiver, "clerk-ticket", "{told:?}");

    let note = |name: &str| told.annotations[name].as_str();
    let summary = ["rate limit", "throttles requests"];
    assert!(summary.iter().any(|words| note("summary").contains(words)), "{told:?}");
    for part in ["ucket instance", &format!("nstance {instance}"), "the last 5 minutes", "429"] {
        assert!(note("description").contains(part), "{part}: {told:?}");
    }
    let (_, runbook) = note("runbook_url").split_once("/blob/main/").unwrap();
    assert_eq!(runbook, format!("docs/runbooks/{alert}.md"));
    assert!(read(runbook).contains(alert), "{runbook}");
    let dashboard = format!("https://grafana.example.org/d/clerk-instance?var-clerk_instance={instance}&");
    let range = note("dashboard_url").strip_prefix(&dashboard).and_then(|range| range.strip_prefix("from="));
    let (from, to) = range.and_then(|range| range.split_once("&to=")).unwrap_or_else(|| panic!("{told:?}"));
    let at = |milliseconds: &str| SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds.parse().unwrap());
    // Half an hour before and after the evaluation that fired.
    assert_eq!(seconds(at(from), at(to)), 3600.0, "{told:?}");
    let evaluated = at(from) + Duration::from_secs(1800);
    assert!((0.0..120.0).contains(&seconds(evaluated, told.at)), "{told:?}");
    assert!(!note("top_caller").is_empty() && !note("top_caller").contains("error"), "{told:?}");
}

fn find<'a>(alerts: &'a [Value], alert: &str, instance: &str) -> Option<&'a Value> {
    let labels =
        |found: &&Value| found["labels"]["alertname"] == alert && found["labels"]["clerk_instance"] == instance;
    alerts.iter().find(labels)
}

/// Name and instance of the alerts that suppress this one; `None` if it is not suppressed.
fn inhibitors(alerts: &[Value], alert: &str, instance: &str) -> Option<Vec<(String, String)>> {
    let status = &find(alerts, alert, instance)?["status"];
    if status["state"] != "suppressed" {
        return None;
    }
    let by = status["inhibitedBy"].as_array().unwrap().iter().map(|fingerprint| {
        let by = alerts.iter().find(|alert| alert["fingerprint"] == *fingerprint)?;
        let label = |name: &str| by["labels"][name].as_str().unwrap().to_owned();
        Some((label("alertname"), label("clerk_instance")))
    });
    let by: Vec<_> = by.collect::<Option<_>>()?;
    if by.is_empty() { None } else { Some(by) }
}

/// Seconds between two times; negative if the second is earlier.
fn seconds(from: SystemTime, to: SystemTime) -> f64 {
    to.duration_since(from).map_or_else(|error| -error.duration().as_secs_f64(), |duration| duration.as_secs_f64())
}
