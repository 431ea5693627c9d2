//! The dashboards' source.

#![expect(clippy::unwrap_used, reason = "what is built here was put there some lines before")]

mod basis;
mod cells;
mod gateway;
mod instance;
mod metered;
mod overview;
mod panel;
mod sources;
mod spending;
mod telemetry;

use serde_json::{Value, json};

use panel::{Panel, datasource};

const REPOSITORY: &str = env!("CARGO_PKG_REPOSITORY");
const RUNBOOKS: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/runbooks/");

/// Classic JSON of Grafana 10.4 and 11.0; later ones migrate it when they load it.
const SCHEMA_VERSION: u8 = 39;
const PLUGIN_VERSION: &str = "11.0.0";

/// All dashboards: file name without `.json`, and content.
pub(crate) fn all() -> Vec<(&'static str, Value)> {
    [overview::dashboard(), instance::dashboard(), gateway::dashboard()].map(|board| (board.uid, board.build())).into()
}

/// Expands the label matchers of a query: `{#}` for metrics of an exporter, `{@}` of a Clerk instance, `{@b}` of one of
/// its buckets.
fn expand(query: &str) -> String {
    let exporter = r#"job=~"$job",instance=~"$instance""#;
    let clerk_instance = format!(r#"{exporter},clerk_instance=~"$clerk_instance""#);
    let bucket = format!(r#"{clerk_instance},bucket=~"$bucket""#);
    query
        .replace("{@b", &format!("{{{bucket}"))
        .replace("{@", &format!("{{{clerk_instance}"))
        .replace("{#", &format!("{{{exporter}"))
}

/// A dashboard under construction: rows of panels, from left to right and from top to bottom.
struct Board {
    uid: &'static str,
    title: &'static str,
    description: &'static str,
    variables: Vec<Value>,
    panels: Vec<Value>,
    bottom: usize,
}

impl Board {
    fn new(uid: &'static str, title: &'static str, description: &'static str) -> Self {
        let variables = vec![
            json!({
                "type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "refresh": 1,
                "hide": 0, "includeAll": false, "multi": false, "options": [], "regex": "", "skipUrlSync": false,
                "current": {},
            }),
            variable("job", "Job", "clerk_exporter_build_info", true),
            variable("instance", "Instance", r#"clerk_exporter_build_info{job=~"$job"}"#, true),
        ];
        Self { uid, title, description, variables, panels: Vec::new(), bottom: 0 }
    }

    /// A variable with the values of the label of this name.
    fn variable(mut self, name: &str, label: &str, metric: &str, several: bool) -> Self {
        self.variables.push(variable(name, label, &expand(metric), several));
        self
    }

    /// A heading.
    fn row(mut self, title: &str) -> Self {
        let id = self.panels.len() + 1;
        self.panels.push(json!({
            "id": id, "type": "row", "title": title, "collapsed": false, "panels": [],
            "gridPos": { "x": 0, "y": self.bottom, "w": 24, "h": 1 },
        }));
        self.bottom += 1;
        self
    }

    /// Adds panels side by side, with their widths (of 24).
    fn line(mut self, height: usize, panels: impl IntoIterator<Item = (usize, Panel)>) -> Self {
        let mut left = 0;
        for (width, panel) in panels {
            let place = json!({ "x": left, "y": self.bottom, "w": width, "h": height });
            let id = self.panels.len() + 1;
            self.panels.push(panel.build(id, place));
            left += width;
        }
        assert_eq!(left, 24, "{}: a line of panels is as wide as the page", self.uid);
        self.bottom += height;
        self
    }

    fn build(self) -> Value {
        json!({
            "id": null, "uid": self.uid, "title": self.title, "description": self.description,
            "tags": ["clerk", "rate-limit", "prometheus"],
            "timezone": "browser", "editable": true, "graphTooltip": 1, "refresh": "30s",
            "time": { "from": "now-3h", "to": "now" }, "timepicker": {}, "weekStart": "", "fiscalYearStartMonth": 0,
            "liveNow": false, "schemaVersion": SCHEMA_VERSION, "version": 1,
            "annotations": { "list": annotations() },
            "links": links(),
            "templating": { "list": self.variables },
            "panels": self.panels,
        })
    }
}

fn variable(name: &str, label: &str, metric: &str, several: bool) -> Value {
    let query = format!("label_values({metric}, {name})");
    let mut variable = json!({
        "type": "query", "name": name, "label": label, "datasource": datasource(), "definition": query,
        "query": { "query": query, "refId": format!("Variable-{name}"), "qryType": 1 },
        "refresh": 2, "sort": 1, "multi": several, "includeAll": several, "hide": 0, "regex": "", "options": [],
        "skipUrlSync": false, "current": {},
    });
    if several {
        // `.+` instead of a list of all values, which would miss values that appear after the dashboard was loaded.
        variable["allValue"] = json!(".+");
    }
    variable
}

fn annotations() -> Value {
    let built_in = json!({
        "builtIn": 1, "datasource": { "type": "grafana", "uid": "-- Grafana --" }, "enable": true, "hide": true,
        "iconColor": "rgba(0, 211, 255, 1)", "name": "Annotations & Alerts", "type": "dashboard",
    });
    // The empty alternative includes alerts of an exporter, which have no Clerk instance.
    let alerts = json!({
        "datasource": datasource(), "enable": true, "hide": false, "iconColor": "red", "name": "Clerk alerts",
        "expr": r#"ALERTS{alertname=~"Clerk.*",alertstate="firing",clerk_instance=~"$clerk_instance|"}"#,
        "titleFormat": "{{alertname}}", "textFormat": "{{clerk_instance}} {{bucket}}", "tagKeys": "severity",
        "step": "60s", "useValueForTime": false,
    });
    let reloads = json!({
        "datasource": datasource(), "enable": false, "hide": false, "iconColor": "blue",
        "name": "Configuration reloads",
        "expr": expand("clerk_exporter_config_last_reload_success_timestamp_seconds{#} * 1000"),
        "titleFormat": "Configuration loaded", "textFormat": "{{instance}}", "tagKeys": "job",
        "step": "60s", "useValueForTime": true,
    });
    json!([built_in, alerts, reloads])
}

fn links() -> Value {
    let out = |title: &str, icon: &str, url: &str| {
        json!({
            "type": "link", "title": title, "icon": icon, "url": url, "targetBlank": true, "tooltip": "", "tags": [],
            "asDropdown": false, "includeVars": false, "keepTime": false,
        })
    };
    json!([
        {
            "type": "dashboards", "title": "Clerk dashboards", "icon": "external link", "url": "", "tooltip": "",
            "tags": ["clerk"], "asDropdown": false, "includeVars": true, "keepTime": true, "targetBlank": false,
        },
        out("Runbooks", "doc", RUNBOOKS.trim_end_matches('/')),
        out("Metrics", "info", &format!("{REPOSITORY}/blob/main/docs/metrics.md")),
        out("Repository", "external link", REPOSITORY),
    ])
}

/// The firing alerts, each with a link to its runbook.
fn alerts_table(with_clerk_instance: bool) -> Panel {
    let table = Panel::table("Firing alerts", "Firing alerts of the shipped rules. Click one to open its runbook.")
        .label("alertname", "Alert", cells::runbook_link())
        .label("severity", "Severity", cells::severity());
    let (table, by) = if with_clerk_instance {
        let table = table.label("clerk_instance", "Clerk instance", cells::instance_link());
        (table, "alertname, severity, clerk_instance, bucket")
    } else {
        (table, "alertname, severity, bucket")
    };
    let alerts = r#"ALERTS{alertname=~"Clerk.*",alertstate="firing",clerk_instance=~"$clerk_instance|"}"#;
    table
        .label("bucket", "Bucket", json!({}))
        .labels_of(&format!("count by ({by}) ({alerts})"))
        .sorted("Severity", false)
        .no_value("No alert is firing")
}
