//! The shipped dashboards: panels, queries and variables.

use serde_json::Value;

use super::directory;

/// A file of `dashboards/`.
pub(crate) struct Shipped {
    /// Its name without `.json`.
    pub(crate) name: String,
    pub(crate) json: Value,
}

/// A query and its place.
pub(crate) struct Asked<'a> {
    pub(crate) dashboard: &'a str,
    /// Title of the panel or annotation, or name of the variable.
    pub(crate) place: String,
    pub(crate) text: &'a str,
    pub(crate) legend: &'a str,
}

/// All shipped dashboards.
pub(crate) fn all() -> Vec<Shipped> {
    let mut files: Vec<_> = std::fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let shipped = files.iter().map(|path| Shipped {
        name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
        json: serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap(),
    });
    shipped.collect()
}

impl Shipped {
    /// All panels that are not headings.
    pub(crate) fn panels(&self) -> impl Iterator<Item = &Value> {
        list(&self.json["panels"]).iter().filter(|panel| panel["type"] != "row")
    }

    /// Variables with a query.
    pub(crate) fn variables(&self) -> impl Iterator<Item = &Value> {
        list(&self.json["templating"]["list"]).iter().filter(|variable| variable["type"] == "query")
    }

    /// Annotations from the data source.
    pub(crate) fn annotations(&self) -> impl Iterator<Item = &Value> {
        list(&self.json["annotations"]["list"]).iter().filter(|annotation| annotation["builtIn"] != 1)
    }

    /// Queries of the panels.
    pub(crate) fn panel_queries(&self) -> Vec<Asked<'_>> {
        let targets = self.panels().flat_map(|panel| {
            let title = text(&panel["title"]);
            list(&panel["targets"]).iter().map(move |target| Asked {
                dashboard: &self.name,
                place: format!("{title} {}", text(&target["refId"])),
                text: text(&target["expr"]),
                legend: target["legendFormat"].as_str().unwrap_or_default(),
            })
        });
        targets.collect()
    }

    /// Queries of the annotations.
    pub(crate) fn annotation_queries(&self) -> Vec<Asked<'_>> {
        let queries = self.annotations().map(|annotation| Asked {
            dashboard: &self.name,
            place: format!("annotation {}", text(&annotation["name"])),
            text: text(&annotation["expr"]),
            legend: annotation["textFormat"].as_str().unwrap_or_default(),
        });
        queries.collect()
    }

    /// Metric and label of each variable's `label_values`.
    pub(crate) fn variable_queries(&self) -> Vec<(Asked<'_>, &str)> {
        let queries = self.variables().map(|variable| {
            let inner = text(&variable["definition"]).strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap();
            let (selector, label) = inner.rsplit_once(',').unwrap();
            let place = format!("variable {}", text(&variable["name"]));
            (Asked { dashboard: &self.name, place, text: selector, legend: "" }, label.trim())
        });
        queries.collect()
    }
}

/// A string of the JSON.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

/// A list of the JSON.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
