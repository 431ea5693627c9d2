//! Panels, with the settings that all of them share.

use serde_json::{Map, Value, json};

/// The data source of every panel, query, variable and annotation: the one selected at the top of the dashboard.
pub(crate) fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// Remaining share of a quota: below 10 % (the default of `low_threshold`) red, below 20 % orange.
pub(crate) const HEADROOM: &[(f64, &str)] = &[(f64::MIN, "red"), (0.1, "orange"), (0.2, "green")];
/// Used share: from 80 % orange, from 90 % red.
pub(crate) const USAGE: &[(f64, &str)] = &[(f64::MIN, "green"), (0.8, "orange"), (0.9, "red")];
/// Events that should never occur. `increase()` extrapolates, so that one event may count as 0.9.
pub(crate) const NONE_WANTED: &[(f64, &str)] = &[(f64::MIN, "green"), (0.5, "red")];
/// Events to be aware of.
pub(crate) const FEW_WANTED: &[(f64, &str)] = &[(f64::MIN, "green"), (0.5, "orange")];
/// Age of the last successful probe. Probes run every 15 s by default; the alert fires at two minutes.
pub(crate) const AGE: &[(f64, &str)] = &[(f64::MIN, "green"), (60.0, "orange"), (120.0, "red")];
/// Grafana makes `$__rate_interval` at least four times this. Without it, an unconfigured data source yields 60 s; with
/// a scrape every 60 s that is one sample, and no rate.
const MIN_STEP: &str = "30s";
/// No colour by value.
pub(crate) const NEUTRAL: &[(f64, &str)] = &[(f64::MIN, "text")];

/// One panel.
#[derive(Clone)]
pub(crate) struct Panel {
    kind: &'static str,
    pub(crate) title: String,
    description: String,
    unit: &'static str,
    defaults: Map<String, Value>,
    custom: Map<String, Value>,
    options: Map<String, Value>,
    overrides: Vec<Value>,
    targets: Vec<Value>,
    transformations: Vec<Value>,
    links: Vec<Value>,
}

impl Panel {
    fn new(kind: &'static str, title: &str, description: &str, options: Value) -> Self {
        let mut panel = Self {
            kind,
            title: title.to_owned(),
            description: description.to_owned(),
            unit: "short",
            defaults: Map::new(),
            custom: Map::new(),
            options: object(options),
            overrides: Vec::new(),
            targets: Vec::new(),
            transformations: Vec::new(),
            links: Vec::new(),
        };
        panel.set("color", json!({ "mode": "thresholds" }));
        panel.set("mappings", json!([]));
        panel.thresholds(NEUTRAL)
    }

    /// One number, with its recent history behind it.
    pub(crate) fn stat(title: &str, description: &str, expr: &str) -> Self {
        let options = json!({
            "colorMode": "value", "graphMode": "none", "justifyMode": "auto", "orientation": "auto",
            "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
            "textMode": "auto", "wideLayout": true, "showPercentChange": false,
        });
        Self::new("stat", title, description, options).instant(expr, "")
    }

    /// Bars, one per series.
    pub(crate) fn bars(title: &str, description: &str, expr: &str, legend: &str) -> Self {
        let options = json!({
            "displayMode": "basic", "orientation": "horizontal", "valueMode": "color", "namePlacement": "auto",
            "showUnfilled": true, "sizing": "auto", "minVizWidth": 8, "minVizHeight": 16, "maxVizHeight": 32,
            "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
            "legend": { "showLegend": false, "displayMode": "list", "placement": "bottom", "calcs": [] },
        });
        Self::new("bargauge", title, description, options).min(0.0).instant(expr, legend)
    }

    /// Lines over time.
    pub(crate) fn graph(title: &str, description: &str) -> Self {
        let options = json!({
            "legend": { "calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": true },
            "tooltip": { "mode": "multi", "sort": "desc" },
        });
        let mut panel = Self::new("timeseries", title, description, options);
        panel.set("color", json!({ "mode": "palette-classic" }));
        panel.custom = object(json!({
            "axisBorderShow": false, "axisCenteredZero": false, "axisColorMode": "text", "axisLabel": "",
            "axisPlacement": "auto", "barAlignment": 0, "drawStyle": "line", "fillOpacity": 8, "gradientMode": "none",
            "hideFrom": { "legend": false, "tooltip": false, "viz": false }, "insertNulls": false,
            "lineInterpolation": "linear", "lineWidth": 2, "pointSize": 5, "scaleDistribution": { "type": "linear" },
            "showPoints": "never", "spanNulls": false, "stacking": { "group": "A", "mode": "none" },
            "thresholdsStyle": { "mode": "off" },
        }));
        panel
    }

    /// Closed windows by usage: time to the right, usage upwards, more windows brighter.
    pub(crate) fn heatmap(title: &str, description: &str, expr: &str) -> Self {
        let options = json!({
            "calculate": false, "cellGap": 1, "cellValues": { "unit": "short", "decimals": 1 },
            "color": { "mode": "scheme", "scheme": "Oranges", "fill": "dark-orange", "exponent": 0.5, "reverse": false,
                       "scale": "exponential", "steps": 64 },
            "exemplars": { "color": "rgba(255,0,255,0.7)" },
            "filterValues": { "le": 1e-9 }, "legend": { "show": true }, "rowsFrame": { "layout": "auto" },
            "showValue": "never", "tooltip": { "mode": "single", "showColorScale": true, "yHistogram": false },
            "yAxis": { "axisPlacement": "left", "reverse": false, "unit": "percentunit" },
        });
        let mut panel = Self::new("heatmap", title, description, options);
        panel.custom = object(json!({
            "hideFrom": { "legend": false, "tooltip": false, "viz": false }, "scaleDistribution": { "type": "linear" },
        }));
        panel.target(expr, "{{le}}", json!({ "range": true, "format": "heatmap" }))
    }

    /// Coloured states over time, one band per series.
    pub(crate) fn states(title: &str, description: &str, expr: &str, legend: &str) -> Self {
        let options = json!({
            "alignValue": "left", "mergeValues": true, "rowHeight": 0.8, "showValue": "auto",
            "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true },
            "tooltip": { "mode": "single", "sort": "none" },
        });
        let mut panel = Self::new("state-timeline", title, description, options);
        panel.custom = object(json!({
            "fillOpacity": 75, "hideFrom": { "legend": false, "tooltip": false, "viz": false }, "insertNulls": false,
            "lineWidth": 0, "spanNulls": false,
        }));
        panel.query(expr, legend)
    }

    /// A table; [`Panel::column`] adds its columns.
    pub(crate) fn table(title: &str, description: &str) -> Self {
        let options = json!({
            "cellHeight": "sm", "showHeader": true,
            "footer": { "countRows": false, "fields": "", "reducer": ["sum"], "show": false },
        });
        let mut panel = Self::new("table", title, description, options);
        panel.custom = object(json!({
            "align": "auto", "cellOptions": { "type": "auto" }, "filterable": false, "inspect": false,
        }));
        panel
    }

    fn set(&mut self, key: &str, value: Value) {
        self.defaults.insert(key.to_owned(), value);
    }

    fn target(mut self, expr: &str, legend: &str, more: Value) -> Self {
        let ref_id = char::from(b'A' + u8::try_from(self.targets.len()).unwrap());
        let mut target = object(json!({
            "datasource": datasource(), "editorMode": "code", "expr": super::expand(expr), "refId": ref_id.to_string(),
        }));
        if !legend.is_empty() {
            target.insert("legendFormat".to_owned(), json!(legend));
        }
        if expr.contains("$__rate_interval") {
            target.insert("interval".to_owned(), json!(MIN_STEP));
        }
        target.extend(object(more));
        self.targets.push(Value::Object(target));
        self
    }

    /// Adds a query of the current values.
    pub(crate) fn instant(self, expr: &str, legend: &str) -> Self {
        self.target(expr, legend, json!({ "instant": true, "range": false }))
    }

    /// Adds a query over time.
    pub(crate) fn query(self, expr: &str, legend: &str) -> Self {
        self.target(expr, legend, json!({ "instant": false, "range": true }))
    }

    /// Adds a column: the values of an instant query, with this name.
    pub(crate) fn column(self, name: &str, expr: &str, properties: Value) -> Self {
        let panel = self.target(expr, "", json!({ "instant": true, "range": false, "format": "table" }));
        let ref_id = panel.targets.last().and_then(|target| target["refId"].as_str()).unwrap().to_owned();
        panel.renamed(&format!("Value #{ref_id}"), name, properties)
    }

    /// Adds a column with a label.
    pub(crate) fn label(self, label: &str, name: &str, properties: Value) -> Self {
        self.renamed(label, name, properties)
    }

    /// The names are stored in the transformation that [`Panel::sorted`] completes.
    fn renamed(mut self, from: &str, to: &str, properties: Value) -> Self {
        if self.transformations.is_empty() {
            self.transformations.push(json!({ "id": "merge", "options": {} }));
            self.transformations.push(json!({ "id": "organize", "options": {
                "excludeByName": { "Time": true }, "includeByName": {}, "indexByName": {}, "renameByName": {},
            } }));
        }
        let organize = &mut self.transformations[1]["options"];
        let index = organize["indexByName"].as_object().unwrap().len();
        organize["indexByName"][from] = json!(index);
        organize["renameByName"][from] = json!(to);
        self.field(to, properties)
    }

    /// Adds a query of a table that yields labels but no column.
    pub(crate) fn labels_of(self, expr: &str) -> Self {
        let mut panel = self.column("", expr, json!({}));
        let organize = &mut panel.transformations[1]["options"];
        let renamed = organize["renameByName"].as_object_mut().unwrap();
        let value = renamed.iter().find(|(_, name)| *name == "").map(|(value, _)| value.clone()).unwrap();
        renamed.remove(&value);
        organize["indexByName"].as_object_mut().unwrap().remove(&value);
        organize["excludeByName"][value] = json!(true);
        panel
    }

    /// Sorts a table by this column.
    pub(crate) fn sorted(mut self, column: &str, descending: bool) -> Self {
        self.options.insert("sortBy".to_owned(), json!([{ "displayName": column, "desc": descending }]));
        self
    }

    /// Settings of the series or column with this name.
    pub(crate) fn field(self, name: &str, properties: Value) -> Self {
        self.fields("byName", name, properties)
    }

    /// Settings of the series whose names match.
    pub(crate) fn fields(mut self, matcher: &str, name: &str, properties: Value) -> Self {
        let properties: Vec<Value> =
            object(properties).into_iter().map(|(id, value)| json!({ "id": id, "value": value })).collect();
        if !properties.is_empty() {
            self.overrides.push(json!({ "matcher": { "id": matcher, "options": name }, "properties": properties }));
        }
        self
    }

    /// Adds a limit as a dashed line.
    pub(crate) fn limit_line(self, expr: &str, name: &str, color: &str) -> Self {
        self.query(expr, name).field(
            name,
            json!({
                "color": { "mode": "fixed", "fixedColor": color },
                "custom.lineStyle": { "dash": [10, 10], "fill": "dash" },
                "custom.lineWidth": 1,
                "custom.fillOpacity": 0,
                "custom.stacking": { "group": "limit", "mode": "none" },
            }),
        )
    }

    pub(crate) fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    pub(crate) fn decimals(mut self, decimals: u8) -> Self {
        self.set("decimals", json!(decimals));
        self
    }

    pub(crate) fn min(mut self, min: f64) -> Self {
        self.set("min", json!(min));
        self
    }

    /// Bounds of the axis, which grows for values beyond them.
    pub(crate) fn soft_bounds(mut self, min: f64, max: f64) -> Self {
        self.custom.insert("axisSoftMin".to_owned(), json!(min));
        self.custom.insert("axisSoftMax".to_owned(), json!(max));
        self
    }

    /// The values are ratios.
    pub(crate) fn share(self) -> Self {
        let mut panel = self.unit("percentunit").min(0.0);
        panel.set("max", json!(1.0));
        panel
    }

    pub(crate) fn thresholds(mut self, steps: &[(f64, &str)]) -> Self {
        self.set("thresholds", thresholds(steps));
        self
    }

    /// Texts for values.
    pub(crate) fn mapped(mut self, words: &[(&str, &str, &str)]) -> Self {
        self.set("mappings", mappings(words));
        self
    }

    /// Text for a missing value.
    pub(crate) fn no_value(mut self, text: &str) -> Self {
        self.set("noValue", json!(text));
        if self.kind == "stat" {
            // Unknown is neutral; without this it would have the colour of the lowest values.
            let absent = json!({ "type": "special", "options": {
                "match": "null+nan", "result": { "text": text, "color": "text", "index": 99 },
            } });
            self.defaults["mappings"].as_array_mut().unwrap().push(absent);
        }
        self
    }

    /// Stacked bars instead of lines: for counts of events.
    pub(crate) fn stacked_bars(mut self) -> Self {
        self.custom.insert("drawStyle".to_owned(), json!("bars"));
        self.custom.insert("fillOpacity".to_owned(), json!(80));
        self.custom.insert("lineWidth".to_owned(), json!(0));
        self.stacked()
    }

    pub(crate) fn stacked(mut self) -> Self {
        self.custom.insert("stacking".to_owned(), json!({ "group": "A", "mode": "normal" }));
        if self.custom["drawStyle"] == "line" {
            self.custom.insert("fillOpacity".to_owned(), json!(25));
            self.custom.insert("lineWidth".to_owned(), json!(1));
        }
        self
    }

    /// Isolated values get a point: for series with gaps.
    pub(crate) fn points(mut self) -> Self {
        self.custom.insert("showPoints".to_owned(), json!("auto"));
        self.custom.insert("pointSize".to_owned(), json!(7));
        self
    }

    /// Shades of one colour: for events that are all bad.
    pub(crate) fn shades(mut self, color: &str) -> Self {
        self.set("color", json!({ "mode": "shades", "fixedColor": color }));
        self
    }

    /// Values hold until the next one.
    pub(crate) fn steps(mut self) -> Self {
        self.custom.insert("lineInterpolation".to_owned(), json!("stepAfter"));
        self
    }

    /// Shows these statistics of each series in the legend.
    pub(crate) fn legend(mut self, calcs: &[&str]) -> Self {
        self.options["legend"]["calcs"] = json!(calcs);
        self.options["legend"]["displayMode"] = json!("table");
        self
    }

    /// Names of the series.
    pub(crate) fn named(mut self, legend: &str) -> Self {
        for target in &mut self.targets {
            target["legendFormat"] = json!(legend);
        }
        self
    }

    /// Shows the history behind the number.
    pub(crate) fn with_course(mut self) -> Self {
        self.options.insert("graphMode".to_owned(), json!("area"));
        for target in &mut self.targets {
            target["instant"] = json!(false);
            target["range"] = json!(true);
        }
        self
    }

    /// Adds a link to the runbook of an alert.
    pub(crate) fn runbook(self, alert: &str) -> Self {
        self.linked(&format!("Runbook: {alert}"), &format!("{}{alert}.md", super::RUNBOOKS))
    }

    /// Adds a link.
    pub(crate) fn linked(mut self, title: &str, url: &str) -> Self {
        self.links.push(json!({ "targetBlank": true, "title": title, "url": url }));
        self
    }

    /// The panel at its position.
    pub(crate) fn build(mut self, id: usize, place: Value) -> Value {
        self.set("unit", json!(self.unit));
        if !self.custom.is_empty() {
            self.defaults.insert("custom".to_owned(), Value::Object(self.custom));
        }
        let mut panel = object(json!({
            "id": id, "type": self.kind, "title": self.title, "description": self.description, "gridPos": place,
            "datasource": datasource(), "targets": self.targets, "options": self.options,
            "fieldConfig": { "defaults": self.defaults, "overrides": self.overrides },
            "pluginVersion": super::PLUGIN_VERSION,
        }));
        if !self.transformations.is_empty() {
            if panel["targets"].as_array().is_some_and(|targets| targets.len() == 1) {
                // Grafana numbers the values only if there are several queries.
                let organize = self.transformations[1].to_string().replace("Value #A", "Value");
                self.transformations[1] = organize.parse().unwrap();
            }
            panel.insert("transformations".to_owned(), Value::Array(self.transformations));
        }
        if !self.links.is_empty() {
            panel.insert("links".to_owned(), Value::Array(self.links));
        }
        Value::Object(panel)
    }
}

/// Colours by value, each from its lower bound.
pub(crate) fn thresholds(steps: &[(f64, &str)]) -> Value {
    let steps: Vec<Value> = steps
        .iter()
        .map(|(from, color)| json!({ "color": color, "value": if *from == f64::MIN { Value::Null } else { json!(from) } }))
        .collect();
    json!({ "mode": "absolute", "steps": steps })
}

/// Texts and colours for single values.
pub(crate) fn mappings(words: &[(&str, &str, &str)]) -> Value {
    let options: Map<String, Value> = words
        .iter()
        .enumerate()
        .map(|(index, (value, text, color))| {
            ((*value).to_owned(), json!({ "text": text, "color": color, "index": index }))
        })
        .collect();
    json!([{ "type": "value", "options": options }])
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("not an object: {other}"),
    }
}
