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

/// Creations of M2M tokens by a caller.
fn creations(caller: &str, values: &str) -> String {
    let labels = "job=\"clerk\", instance=\"a\", clerk_instance=\"prod\", operation=\"m2m_create\"";
    format!(
        "      - {{ series: 'clerk_metered_operations_total{{{labels}, caller=\"{caller}\", source=\"gateway\"}}', \
         values: {values} }}\n"
    )
}

/// A value of the billing month that stays the same.
fn of_the_month(instance: &str, metric: &str, value: &str) -> String {
    let operation = if metric.ends_with("_seconds") { "" } else { ", operation=\"m2m_create\"" };
    format!(
        "      - {{ series: '{metric}{{job=\"clerk\", instance=\"{instance}\", clerk_instance=\"prod\"{operation}}}', \
         values: {value}x80 }}\n"
    )
}

#[test]
fn metered_operations_count_from_their_first() {
    let series = [OLD, &creations("web", "1000+2x80"), &creations("import", "_x40 90x40")].concat();
    let place = "clerk-instance / Metered operations by caller C";
    shows(&series, place, "11m", &[("import", 90.0), ("web", 40.0)]);
}

#[test]
fn bill_is_the_forecast_beyond_the_free_part() {
    let bill = "clerk-instance / Billing month, and its forecast E";
    let month = |instance: &str, so_far: &str| {
        let value = |metric: &str, value: &str| of_the_month(instance, &format!("clerk_metered_{metric}"), value);
        let end = value("month_end_timestamp_seconds", "101200");
        let plan = value("free_operations", "2500") + &value("operation_price_usd", "0.01");
        value("month_operations", so_far) + &end + &plan
    };
    // 3000 operations since the process started a day ago: 496 more in the 100000 s until the end of the month.
    let used = creations("web", "1000+25x80");
    shows(&[OLD, &month("a", "12500"), &used].concat(), bill, "20m", &[("", 105.0)]);
    shows(&[OLD, &month("a", "12500")].concat(), bill, "20m", &[("", 100.0)]);
    shows(&[OLD, &month("a", "100"), &used].concat(), bill, "20m", &[("", 0.0)]);
    // Two gateways with a common Redis know the same, others add up.
    let two = [OLD, &month("a", "2600"), &month("b", "2600")].concat();
    let of_both =
        |metric: &str| ["a", "b"].map(|it| of_the_month(it, metric, "0").replace(", operation=\"m2m_create\"", ""));
    let gateways = of_both("clerk_gateway_queue_depth").concat();
    let shared = of_both("clerk_gateway_budget_shared").concat();
    shows(&two, bill, "20m", &[("", 1.0)]);
    shows(&[&two[..], &gateways, &shared].concat(), bill, "20m", &[("", 1.0)]);
    shows(&[&two[..], &gateways].concat(), bill, "20m", &[("", 27.0)]);
}
