//! The panels on top consumers, evaluated by promtool over synthetic series.

use std::fmt::Write as _;
use std::process::Command;

use super::live::substitute;
use super::shipped;

/// A long-running target, scraped every 15 s.
const OLD: &str = r#"      - { series: 'clerk_exporter_build_info{job="clerk", instance="a"}', values: 1x80 }
      - { series: 'process_start_time_seconds{job="clerk", instance="a"}', values: -90000x80 }
"#;

/// A series of requests of a caller.
fn requests(caller: &str, values: &str) -> String {
    format!(
        "      - {{ series: 'clerk_ratelimit_requests_total{{job=\"clerk\", instance=\"a\", clerk_instance=\"prod\", \
         bucket=\"instance\", caller=\"{caller}\", route=\"/v1/users\", method=\"GET\", source=\"gateway\", \
         result=\"served\"}}', values: {values} }}\n"
    )
}

/// The query of a panel, as Grafana sends it for all instances and callers; `$__range` is 5 minutes.
fn query(place: &str) -> String {
    let boards = shipped::all();
    let queries: Vec<_> = boards.iter().flat_map(shipped::Shipped::panel_queries).collect();
    let found = queries.iter().find(|query| format!("{} / {}", query.dashboard, query.place) == place);
    substitute(found.unwrap_or_else(|| panic!("no query {place}")).text)
}

/// Lets promtool compare the panel's values per caller at a time.
fn shows(series: &str, place: &str, time: &str, expected: &[(&str, f64)]) {
    let query = query(place).replace('\'', "''");
    let mut samples = String::new();
    for (caller, value) in expected {
        let labels = if caller.is_empty() { String::new() } else { format!("caller=\"{caller}\"") };
        writeln!(samples, "          - {{ labels: '{{{labels}}}', value: {value} }}").unwrap();
    }
    let samples = if samples.is_empty() { " []\n".to_owned() } else { format!("\n{samples}") };
    let test = format!(
        "evaluation_interval: 15s\ntests:\n  - interval: 15s\n    input_series:\n{series}    promql_expr_test:\n      \
         - expr: 'round(sum by (caller) ({query}))'\n        eval_time: {time}\n        exp_samples:{samples}"
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("spending.test.yml");
    std::fs::write(&file, &test).unwrap();
    let output = Command::new("promtool").args(["test", "rules"]).arg(file).output();
    let output = output.unwrap_or_else(|error| panic!("promtool: {error}; run scripts/setup"));
    assert!(output.status.success(), "{place}\n{}\n{test}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn first_burst_of_a_new_caller_ranks_first() {
    let series = [OLD, &requests("web", "1000+2x80"), &requests("import", "_x40 90x40")].concat();
    for board in ["overview", "instance"] {
        let place = |letter: char| format!("clerk-{board} / Top consumers {letter}");
        shows(&series, &place('A'), "10m", &[("import", 90.0), ("web", 8.0)]);
        shows(&series, &place('A'), "12m", &[("web", 8.0)]);
        shows(&series, &place('B'), "11m", &[("import", 90.0), ("web", 40.0)]);
        // Prometheus started less than an hour ago: the value at its first scrape is the base.
        shows(&series, &place('C'), "11m", &[("import", 90.0), ("web", 89.0)]);
    }
    for panel in ["Top callers", "Top routes", "Callers and routes"] {
        let expected: &[(&str, f64)] =
            if panel == "Top routes" { &[("", 130.0)] } else { &[("import", 90.0), ("web", 40.0)] };
        shows(&series, &format!("clerk-gateway / {panel} A"), "11m", expected);
    }
    shows(&series, "clerk-gateway / Requests per minute, by caller A", "10m15s", &[("import", 90.0), ("web", 8.0)]);
}

#[test]
fn scrapes_every_60_s_show_the_last_minute() {
    // Every fourth sample; the values hold in between.
    let every_minute = |caller: &str, first: u64, step: u64| {
        let values: Vec<String> = (0..20).map(|minute| format!("{} _ _ _", first + minute * step)).collect();
        requests(caller, &values.join(" "))
    };
    let series = [OLD, &every_minute("web", 1000, 8), &every_minute("import", 0, 90)].concat();
    for time in ["10m", "10m15s", "10m45s"] {
        shows(&series, "clerk-overview / Top consumers A", time, &[("import", 90.0), ("web", 8.0)]);
    }
}

#[test]
fn new_prometheus_and_restarts_show_no_burst() {
    // No scrapes before 10m, and old counters.
    let late = OLD.replace("1x80", "_x40 1x40").replace("-90000x80", "_x40 -90000x40");
    let series = [&late, &requests("old", "_x40 70000x40")[..]].concat();
    for letter in ['A', 'B', 'C'] {
        let place = format!("clerk-overview / Top consumers {letter}");
        for time in ["10m", "10m45s", "12m", "16m"] {
            shows(&series, &place, time, &[]);
        }
    }
    // A series that started in a gap of the scrapes counts in full.
    let gap = OLD.replace("1x80", "1x20 stale _x20 1x20").replace("-90000x80", "-90000x20 stale _x20 -90000x20");
    let series = [&gap, &requests("web", "1000x20 stale _x20 1006x20")[..], &requests("born", "_x42 40x20")].concat();
    shows(&series, "clerk-overview / Top consumers C", "11m", &[("web", 6.0), ("born", 40.0)]);
    // The process restarts at 10m and counts from 0; `born` starts with it.
    let restarted = OLD.replace("-90000x80", "-90000x39 598x40");
    let series = [&restarted, &requests("web", "7000+2x39 2+2x40")[..], &requests("born", "_x40 40x40")].concat();
    shows(&series, "clerk-overview / Top consumers A", "10m15s", &[("web", 4.0), ("born", 40.0)]);
    shows(&series, "clerk-overview / Top consumers B", "10m15s", &[("web", 40.0), ("born", 40.0)]);
    // A first start counts in full.
    let first = OLD.replace("1x80", "_x40 1x40").replace("-90000x80", "_x40 590x40");
    let series = [&first, &requests("web", "_x40 30x40")[..]].concat();
    shows(&series, "clerk-overview / Top consumers A", "10m", &[("web", 30.0)]);
    shows(&series, "clerk-overview / Top consumers C", "10m", &[("web", 30.0)]);
}

#[test]
fn receivers_of_the_same_spans_count_once() {
    let replica = OLD.replace("instance=\"a\"", "instance=\"b\"");
    let spans = requests("job", "0+6x80").replace("source=\"gateway\"", "source=\"telemetry\"");
    let own = requests("web", "1000+2x80");
    let other = |series: &str| series.replace("instance=\"a\"", "instance=\"b\"");
    let series = [OLD, &replica, &spans, &other(&spans), &own, &other(&own)].concat();
    for board in ["overview", "instance"] {
        let place = format!("clerk-{board} / Top consumers A");
        shows(&series, &place, "10m", &[("job", 24.0), ("web", 16.0)]);
        shows(&series, &place.replace('A', "B"), "10m", &[("job", 120.0), ("web", 80.0)]);
    }
    shows(&series, "clerk-gateway / Top callers A", "10m", &[("job", 120.0), ("web", 80.0)]);
}
