//! Every query of every dashboard against a real Prometheus that scrapes the demo.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::expected;
use super::shipped::{self, Asked, Shipped};

/// Longer than a busy machine needs for a minute of demo.
const DEADLINE: Duration = Duration::from_secs(240);

#[tokio::test]
async fn every_query_succeeds_with_the_demo() {
    let world = World::start().await;
    let boards = shipped::all();
    let mut open: BTreeMap<String, String> = BTreeMap::new();
    for board in &boards {
        open.extend(queries(board));
    }
    let asked = open.len();
    let mut twice: BTreeMap<String, String> = BTreeMap::new();
    let deadline = Instant::now() + DEADLINE;
    loop {
        let mut still = BTreeMap::new();
        for (place, query) in open {
            match world.ask(&query).await {
                Ok(series) if series.is_empty() => _ = still.insert(place, query),
                Ok(series) => {
                    let may = expected::REPLICAS.iter().any(|listed| *listed == place);
                    if let Some(labels) = shown_twice(&series).filter(|_| !may) {
                        twice.insert(place, format!("{labels:?} {query}"));
                    }
                }
                Err(error) => panic!("{place}: {error}\n{query}"),
            }
        }
        open = still;
        let unexpected: Vec<_> = open.iter().filter(|(place, _)| expected::empty(place).is_none()).collect();
        if unexpected.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "no data, and not listed in tests/dashboards/expected.rs: {unexpected:#?}");
        sleep(Duration::from_secs(2)).await;
    }
    assert!(twice.is_empty(), "shown for each replica, and not listed in tests/dashboards/expected.rs: {twice:#?}");
    // All queries succeed, and empty ones are listed.
    assert!(asked > 100 && open.len() < asked, "{asked} queries, {} empty", open.len());
}

/// All queries of a dashboard by place, as Grafana would send them.
fn queries(board: &Shipped) -> Vec<(String, String)> {
    let place = |query: &Asked<'_>| format!("{} / {}", query.dashboard, query.place);
    let mut queries: Vec<_> =
        board.panel_queries().iter().map(|query| (place(query), substitute(query.text))).collect();
    queries.extend(board.annotation_queries().iter().map(|query| (place(query), substitute(query.text))));
    // `label_values(metric, label)` has values exactly if the metric has series with that label.
    queries.extend(board.variable_queries().iter().map(|(query, label)| {
        let query_text = format!("count by ({label}) ({})", substitute(query.text));
        (place(query), query_text)
    }));
    queries
}

/// Expands macros, and variables as if All were selected.
pub(super) fn substitute(query: &str) -> String {
    let filled = query.replace("$__rate_interval", "20s").replace("$__interval", "1s");
    let filled = filled.replace("$__range_s", "300").replace("$__range", "5m");
    let variables = ["$clerk_instance", "$instance", "$job", "$bucket", "$caller", "$route"];
    let filled = variables.iter().fold(filled, |text, variable| text.replace(variable, ".+"));
    assert!(!filled.contains('$'), "not filled in: {filled}");
    filled
}

/// Labels of a series that differs from another one only in which process it is of.
fn shown_twice(series: &[BTreeMap<String, String>]) -> Option<BTreeMap<String, String>> {
    let mut seen = BTreeSet::new();
    let labels = series.iter().map(|labels| {
        let mut labels = labels.clone();
        labels.retain(|name, _| !matches!(name.as_str(), "instance" | "pod"));
        labels
    });
    labels.into_iter().find(|labels| !seen.insert(labels.clone()))
}

/// The demo, and a Prometheus that scrapes it every second, as if it were two replicas, for the duration of the test.
struct World {
    prometheus: String,
    client: reqwest::Client,
    _directory: tempfile::TempDir,
    _children: [Child; 2],
}

impl World {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [exporter, simulator, prometheus] = free_ports().map(|port| format!("127.0.0.1:{port}"));
        let demo = Command::new(env!("CARGO_BIN_EXE_clerk-exporter"))
            .args(["demo", "--web.listen-address", &exporter, "--simulator.listen-address", &simulator])
            .arg("--gateway.listen-address=127.0.0.1:0")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let replica = exporter.replace("127.0.0.1", "localhost");
        let server = spawn_prometheus(directory.path(), &prometheus, &[exporter, replica]);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let prometheus = format!("http://{prometheus}");
        let world = Self { prometheus, client, _directory: directory, _children: [demo, server] };
        let deadline = Instant::now() + DEADLINE;
        while !world.ask("clerk_exporter_build_info").await.is_ok_and(|series| !series.is_empty()) {
            assert!(Instant::now() < deadline, "Prometheus does not scrape the demo");
            sleep(Duration::from_millis(200)).await;
        }
        world
    }

    /// Labels of the result's series. NaN and infinity are errors: a panel would show them.
    async fn ask(&self, query: &str) -> Result<Vec<BTreeMap<String, String>>, String> {
        let mut url = reqwest::Url::parse(&self.prometheus).unwrap().join("/api/v1/query").unwrap();
        url.query_pairs_mut().append_pair("query", query);
        let response = self.client.get(url).send().await.map_err(|error| error.to_string())?;
        let body = response.text().await.map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        if answer["status"] != "success" {
            return Err(answer["error"].to_string());
        }
        let series = shipped::list(&answer["data"]["result"]);
        for one in series {
            let value: f64 = shipped::text(&one["value"][1]).parse().map_err(|_| one.to_string())?;
            if !value.is_finite() {
                return Err(format!("{value} in {one}"));
            }
        }
        series
            .iter()
            .map(|one| serde_json::from_value(one["metric"].clone()).map_err(|error| error.to_string()))
            .collect()
    }
}

fn spawn_prometheus(directory: &Path, address: &str, exporters: &[String]) -> Child {
    let config = directory.join("prometheus.yml");
    let text = format!(
        "global: {{ scrape_interval: 1s }}\n\
         scrape_configs: [{{ job_name: clerk, static_configs: [{{ targets: {exporters:?} }}] }}]\n"
    );
    std::fs::write(&config, text).unwrap();
    Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("this test needs Prometheus: apt-get install prometheus")
}

/// Ports that were free a moment ago.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

#[test]
fn listed_empty_queries_exist() {
    let places: Vec<String> =
        shipped::all().iter().flat_map(|board| queries(board).into_iter().map(|(place, _)| place)).collect();
    for (listed, reason) in expected::EMPTY {
        assert!(places.iter().any(|place| place == listed), "{listed} ({reason}) is no query");
    }
}
