//! Rules for dashboards: those of Grafana's dashboard-linter, and some more.

use std::collections::BTreeSet;

use clerk_exporter::metrics::catalogue::Kind;
use serde_json::Value;

use super::contract::family;
use super::promql::{self, Selector};
use super::shipped::{self, Shipped, list, text};

/// Grafana units in use.
const UNITS: [&str; 10] =
    ["bool", "bool_yes_no", "bytes", "currencyUSD", "dateTimeFromNow", "ops", "percentunit", "reqps", "s", "short"];
/// Panels that are built into Grafana.
const CORE_PANELS: [&str; 7] = ["bargauge", "heatmap", "row", "stat", "state-timeline", "table", "timeseries"];

#[test]
fn dashboards_can_be_imported_and_provisioned_anywhere() {
    for Shipped { name, json } in shipped::all() {
        assert!(
            json["id"].is_null() && json["uid"] == *name,
            "{name}: the uid is the name of the file, the id is Grafana's"
        );
        assert!((8..=40).contains(&name.len()), "{name}: uid of 8 to 40 characters");
        assert!(!text(&json["title"]).is_empty() && !text(&json["description"]).is_empty(), "{name}");
        assert!(list(&json["tags"]).contains(&Value::from("clerk")), "{name}: dashboards link to each other by tag");
        assert!((39..=41).contains(&json["schemaVersion"].as_u64().unwrap()), "{name}");
        assert_eq!((&json["refresh"], &json["graphTooltip"]), (&Value::from("30s"), &Value::from(1)), "{name}");
        // Only a manual import fills these in; provisioning leaves them as they are.
        assert!(json.get("__inputs").is_none() && !json.to_string().contains("${DS_"), "{name}");
    }
}

#[test]
fn every_query_uses_the_selected_data_source() {
    for Shipped { name, json } in shipped::all() {
        let chooser = &json["templating"]["list"][0];
        assert_eq!((text(&chooser["name"]), text(&chooser["label"])), ("datasource", "Data source"), "{name}");
        assert_eq!((text(&chooser["type"]), text(&chooser["query"])), ("datasource", "prometheus"), "{name}");
        each_object(&json, &mut |object| {
            let Some(source) = object.get("datasource") else { return };
            let built_in = object.get("builtIn") == Some(&Value::from(1));
            let expected = if built_in { ("grafana", "-- Grafana --") } else { ("prometheus", "${datasource}") };
            assert_eq!((text(&source["type"]), text(&source["uid"])), expected, "{name}");
        });
    }
}

#[test]
fn variables_follow_the_time_range_and_offer_all() {
    for board in shipped::all() {
        let names: Vec<&str> = board.variables().map(|variable| text(&variable["name"])).collect();
        assert_eq!(names[..3], ["job", "instance", "clerk_instance"], "{}", board.name);
        for variable in board.variables() {
            let place = format!("{} / ${}", board.name, text(&variable["name"]));
            assert!(variable["datasource"].is_object() && variable["refresh"] == 2, "{place}");
            assert_eq!(variable["query"]["query"], variable["definition"], "{place}");
            assert!(text(&variable["label"]).split(' ').all(|word| word.starts_with(char::is_uppercase)), "{place}");
            // The dashboard of one instance is the exception.
            if (board.name.as_str(), text(&variable["name"])) != ("clerk-instance", "clerk_instance") {
                let all = (variable["multi"] == true, variable["includeAll"] == true, variable["allValue"].as_str());
                assert_eq!(all, (true, true, Some(".+")), "{place}");
            }
        }
    }
}

#[test]
fn panels_have_descriptions() {
    for board in shipped::all() {
        for panel in list(&board.json["panels"]) {
            let title = text(&panel["title"]);
            let place = format!("{} / {title}", board.name);
            assert!(!title.is_empty() && title.len() <= 60, "{place}");
            assert!(CORE_PANELS.contains(&text(&panel["type"])), "{place}");
            if panel["type"] == "row" {
                continue;
            }
            assert!(text(&panel["description"]).ends_with('.'), "{place}: a description is made of sentences");
            let defaults = &panel["fieldConfig"]["defaults"];
            assert!(UNITS.contains(&text(&defaults["unit"])), "{place}: unit {}", defaults["unit"]);
            assert!(!text(&defaults["noValue"]).is_empty(), "{place}: no text for a missing value");
            assert!(!list(&defaults["thresholds"]["steps"]).is_empty(), "{place}");
            if defaults["unit"] == "percentunit" {
                assert_eq!(defaults["min"], 0.0, "{place}: shares begin at 0");
            }
            let targets = list(&panel["targets"]);
            assert!(!targets.is_empty() && panel.get("interval").is_none(), "{place}");
            assert!(targets.iter().all(|target| target["hide"] != true), "{place}: hidden queries");
            let names: BTreeSet<&str> = targets.iter().map(|target| text(&target["refId"])).collect();
            assert_eq!(names.len(), targets.len(), "{place}: names of queries are unique");
        }
    }
}

#[test]
fn overrides_use_listed_units_and_existing_series() {
    for board in shipped::all() {
        for panel in board.panels() {
            let place = format!("{} / {}", board.name, text(&panel["title"]));
            let legends = list(&panel["targets"]).iter().filter_map(|target| target["legendFormat"].as_str());
            let columns = panel["transformations"][1]["options"]["renameByName"].as_object().into_iter().flatten();
            let known: Vec<&str> = legends.chain(columns.filter_map(|(_, name)| name.as_str())).collect();
            for over in list(&panel["fieldConfig"]["overrides"]) {
                if over["matcher"]["id"] == "byName" {
                    let name = text(&over["matcher"]["options"]);
                    let label = known.iter().any(|legend| legend.starts_with("{{"));
                    assert!(label || known.contains(&name), "{place}: nothing is called {name}");
                }
                for property in list(&over["properties"]).iter().filter(|property| property["id"] == "unit") {
                    assert!(UNITS.contains(&text(&property["value"])), "{place}: {property}");
                }
            }
        }
    }
}

#[test]
fn panels_do_not_overlap() {
    for board in shipped::all() {
        let mut taken = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for panel in list(&board.json["panels"]) {
            let place = format!("{} / {}", board.name, text(&panel["title"]));
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{place}: id is taken");
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
            assert!(x + w <= 24 && w > 0 && h > 0, "{place}: wider than the page");
            for (column, row) in (x..x + w).flat_map(|column| (y..y + h).map(move |row| (column, row))) {
                assert!(taken.insert((column, row)), "{place} overlaps another panel");
            }
        }
    }
}

#[test]
fn queries_match_selected_series_over_suitable_ranges() {
    for board in shipped::all() {
        for query in board.panel_queries() {
            let place = format!("{} / {}", query.dashboard, query.place);
            for selector in promql::read(query.text).selectors {
                check_matchers(&place, &selector);
                check_range(&place, &selector);
            }
        }
    }
}

/// Every applicable variable is used as a matcher.
fn check_matchers(place: &str, Selector { metric, matchers, .. }: &Selector) {
    let has = |label: &str, values: &[String]| {
        let found = matchers.iter().find(|(name, operator, _)| name == label && operator == "=~");
        assert!(
            found.is_some_and(|(.., value)| values.contains(value)),
            "{place}: {metric} without a matcher for {label}"
        );
    };
    if metric != "ALERTS" {
        has("job", &["$job".to_owned()]);
        has("instance", &["$instance".to_owned()]);
    }
    if family(metric).is_some_and(|family| family.labels.contains(&"clerk_instance")) {
        has("clerk_instance", &["$clerk_instance".to_owned(), "$clerk_instance|".to_owned()]);
    }
}

/// Counters whose series start with their first request, which `increase()` would miss.
const BORN_LATE: [&str; 2] = ["clerk_ratelimit_requests_total", "clerk_metered_operations_total"];

/// Counters are used as rates over an interval with enough samples.
fn check_range(place: &str, Selector { metric, range, calls, .. }: &Selector) {
    if BORN_LATE.contains(&metric.as_str()) {
        return;
    }
    let innermost = calls.last().map_or("", String::as_str);
    let family = family(metric).unwrap();
    let counts = family.kind == Kind::Counter || (family.kind == Kind::Histogram && metric != family.name);
    if counts {
        assert!(["rate", "increase"].contains(&innermost), "{place}: {metric} outside rate and increase");
    }
    match innermost {
        "rate" => assert_eq!(range.as_deref(), Some("$__rate_interval"), "{place}: {metric}"),
        // The time range of the dashboard is also allowed.
        "increase" => {
            assert!(matches!(range.as_deref(), Some("$__rate_interval" | "$__range")), "{place}: {metric} {range:?}");
        }
        // The number of scrapes with the series.
        "count_over_time" => {}
        _ => assert_eq!(range.as_deref(), None, "{place}: {metric}"),
    }
}

#[test]
fn top_consumers_include_series_started_in_the_range() {
    let mut ranked = 0;
    for board in shipped::all() {
        let is_late = |text: &str| BORN_LATE.iter().any(|metric| text.contains(metric));
        for query in board.panel_queries().into_iter().filter(|query| is_late(query.text)) {
            // A ratio over a long time, where a missing first burst does not matter.
            if query.place.starts_with("Retries per request") {
                continue;
            }
            let place = format!("{} / {}", query.dashboard, query.place);
            assert!(query.text.contains(" offset ") && query.text.contains("clerk_exporter_build_info"), "{place}");
            ranked += 1;
        }
        // Requests to the gateway are not what Clerk counts: cache hits are free, and a retry costs another request.
        for query in board.panel_queries() {
            let ranks = query.text.contains("topk") || query.place.starts_with("Top consumers");
            assert!(!ranks || !query.text.contains("clerk_gateway_requests_total"), "{}", query.place);
        }
    }
    assert!(ranked >= 12, "{ranked}");
}

#[test]
fn rates_have_two_samples_at_a_scrape_every_60_s() {
    for board in shipped::all() {
        for panel in board.panels() {
            for target in list(&panel["targets"]).iter() {
                let rate = text(&target["expr"]).contains("$__rate_interval");
                // Grafana takes four times this at least, whatever the data source: 2 minutes.
                let expected = if rate { Some("30s") } else { None };
                assert_eq!(target["interval"].as_str(), expected, "{} / {}", board.name, panel["title"]);
            }
        }
    }
}

#[test]
fn low_window_shares_use_buckets_with_known_usage() {
    let mut shares = 0;
    for board in shipped::all() {
        for query in board.panel_queries() {
            let place = format!("{} / {}", query.dashboard, query.place);
            let known = ["basis!~\"probe|configured|sampled\"", "basis=\"telemetry\""];
            let known = known.iter().any(|matcher| query.text.contains(matcher));
            if query.text.contains("low_windows_total") && query.text.contains(" / ") {
                assert!(known, "{place}");
                shares += 1;
            }
            let counted = ["clerk_ratelimit_usage_peak_ratio", "clerk_ratelimit_remaining"];
            if counted.iter().any(|metric| query.text.contains(metric)) {
                assert!(known, "{place}: no basis");
                let named = query.legend.is_empty() || query.legend.contains("{{basis}}");
                assert!(named, "{place}: no basis in the legend");
            }
        }
    }
    assert!(shares >= 3, "{shares}");
}

#[test]
fn links_lead_somewhere() {
    let boards = shipped::all();
    let uids: BTreeSet<&str> = boards.iter().map(|board| board.name.as_str()).collect();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut runbooks = 0;
    for board in &boards {
        each_object(&board.json, &mut |object| {
            let Some(url) = object.get("url").and_then(Value::as_str).filter(|url| !url.is_empty()) else { return };
            if let Some(rest) = url.strip_prefix("/d/") {
                let uid = rest.split('?').next().unwrap();
                assert!(uids.contains(uid), "{}: no dashboard {uid}", board.name);
                return;
            }
            let inside = url.strip_prefix("https://github.com/clerk-exporter/clerk-exporter");
            let inside = inside.unwrap_or_else(|| panic!("{}: {url}", board.name));
            let Some(path) = inside.strip_prefix("/blob/main/") else { return };
            if let Some(alert) = path.strip_prefix("docs/runbooks/").filter(|file| !file.starts_with("${")) {
                runbooks += 1;
                assert!(alert.starts_with("Clerk") && alert.ends_with(".md"), "{url}");
            }
            // The list of metrics is generated from the catalogue.
            if path != "docs/metrics.md" && !path.contains("${") {
                assert!(root.join(path).exists(), "{}: {path} is not there", board.name);
            }
        });
    }
    assert!(runbooks > 20, "panels lead to the runbooks of the alerts that they explain");
}

#[test]
fn panels_named_in_runbooks_exist() {
    let boards = shipped::all();
    let titles: BTreeSet<&str> = boards.iter().flat_map(Shipped::panels).map(|panel| text(&panel["title"])).collect();
    let runbooks = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks");
    let mut named = 0;
    for entry in std::fs::read_dir(runbooks).unwrap() {
        let path = entry.unwrap().path();
        let runbook = std::fs::read_to_string(&path).unwrap();
        for paragraph in runbook.split("\n\n").filter(|paragraph| paragraph.contains("ashboard `clerk-")) {
            for title in paragraph.split('"').skip(1).step_by(2) {
                let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
                assert!(titles.contains(title.as_str()), "{}: no panel is called {title}", path.display());
                named += 1;
            }
        }
    }
    assert!(named > 20, "runbooks lead to panels: {named}");
}

/// Calls `look` for every object in the JSON.
fn each_object(json: &Value, look: &mut dyn FnMut(&serde_json::Map<String, Value>)) {
    match json {
        Value::Object(object) => {
            look(object);
            object.values().for_each(|value| each_object(value, look));
        }
        Value::Array(values) => values.iter().for_each(|value| each_object(value, look)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
