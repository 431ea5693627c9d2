//! Every metric and label in a dashboard query exists.

use clerk_exporter::metrics::catalogue::{self, Kind, MetricFamily, MetricGroup};

use super::promql::{self, Selector};
use super::shipped;

/// The series that Prometheus writes for alerting rules, with the labels that the shipped rules keep.
const ALERTS: MetricFamily = MetricFamily {
    name: "ALERTS",
    kind: Kind::Gauge,
    help: "",
    labels: &["alertname", "alertstate", "severity", "clerk_instance", "bucket"],
    part: MetricGroup::Exporter,
};

/// The family of a series.
pub(crate) fn family(metric: &str) -> Option<&'static MetricFamily> {
    catalogue::ALL.iter().chain([&ALERTS]).find(|family| match family.kind {
        Kind::Histogram => {
            metric.strip_prefix(family.name).is_some_and(|end| ["_bucket", "_sum", "_count"].contains(&end))
        }
        Kind::Counter | Kind::Gauge => metric == family.name,
    })
}

/// The labels of a series in Prometheus.
fn labels(metric: &str) -> Vec<&'static str> {
    let family = family(metric).unwrap_or_else(|| panic!("{metric} is not in the catalogue"));
    let bound = metric.ends_with("_bucket").then_some("le");
    family.labels.iter().copied().chain(["job", "instance"]).chain(bound).collect()
}

#[test]
fn every_metric_and_label_of_every_query_exists() {
    for board in shipped::all() {
        let mut queries = board.panel_queries();
        queries.extend(board.annotation_queries());
        for query in queries {
            let (place, read) = (format!("{} / {}", query.dashboard, query.place), promql::read(query.text));
            assert!(!read.selectors.is_empty(), "{place} has no query");
            let mut known = Vec::new();
            for Selector { metric, matchers, .. } in &read.selectors {
                let labels = labels(metric);
                for (label, ..) in matchers {
                    assert!(labels.contains(&label.as_str()), "{place}: {metric} has no label {label}");
                }
                known.extend(labels);
            }
            let legend = query.legend.split("{{").skip(1).map(|part| part.split("}}").next().unwrap().trim());
            for label in read.grouping.iter().map(String::as_str).chain(legend) {
                assert!(known.contains(&label), "{place}: no series of the query has a label {label}");
            }
        }
        for (query, label) in board.variable_queries() {
            for selector in promql::read(query.text).selectors {
                assert!(labels(&selector.metric).contains(&label), "{} has no label {label}", selector.metric);
            }
        }
    }
}

#[test]
fn a_series_is_found_by_the_name_it_has_in_prometheus() {
    assert_eq!(family("clerk_up"), Some(&catalogue::UP));
    assert_eq!(family("clerk_probe_duration_seconds_bucket"), Some(&catalogue::PROBE_DURATION));
    assert_eq!(family("clerk_probe_duration_seconds"), None);
    assert_eq!(family("clerk_upp"), None);
    assert_eq!(family("clerk_gateway_queue_wait_seconds_count"), Some(&catalogue::GATEWAY_QUEUE_WAIT));
}
