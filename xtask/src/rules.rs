//! The alert rules as data.

use std::path::Path;
use std::{fs, slice};

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// The rules, relative to the root of the repository.
pub(crate) const RULES: &str = "alerts/clerk.rules.yml";

/// A recording or alerting rule.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    /// The name of what is recorded.
    pub(crate) record: Option<String>,
    /// The name of the alert.
    pub(crate) alert: Option<String>,
    /// The expression.
    pub(crate) expr: String,
    /// How long the condition must hold.
    pub(crate) pending: Option<String>,
    /// How long the alert lasts after it.
    pub(crate) keep_firing_for: Option<String>,
    /// The one label of an alert.
    pub(crate) severity: String,
    /// Annotations in the order of the file.
    pub(crate) annotations: Vec<(String, String)>,
}

/// Rules that are evaluated in order.
#[derive(Debug)]
pub(crate) struct Group {
    /// The name.
    pub(crate) name: String,
    /// How often it is evaluated, unless as often as Prometheus' configuration says.
    pub(crate) interval: Option<String>,
    /// The rules.
    pub(crate) rules: Vec<Rule>,
}

/// The annotations that every alert has, in the order in which people read them, and then the others.
const FIRST: [&str; 2] = ["summary", "description"];

fn text(value: &Value, key: &str) -> Option<String> {
    value[key].as_str().map(str::to_owned)
}

fn list(value: &Value) -> slice::Iter<'_, Value> {
    value.as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

fn rule(value: &Value) -> anyhow::Result<Rule> {
    let annotations = value["annotations"].as_object().into_iter().flatten();
    let mut annotations: Vec<(String, String)> =
        annotations.map(|(key, text)| (key.clone(), text.as_str().unwrap_or_default().to_owned())).collect();
    annotations.sort_by_key(|(key, _)| FIRST.iter().position(|first| first == key).unwrap_or(FIRST.len()));
    let known = ["record", "alert", "expr", "for", "keep_firing_for", "labels", "annotations"];
    for key in value.as_object().into_iter().flatten().map(|(key, _)| key) {
        ensure!(known.contains(&key.as_str()), "{RULES}: a rule has the unknown key {key}");
    }
    Ok(Rule {
        record: text(value, "record"),
        alert: text(value, "alert"),
        expr: text(value, "expr").with_context(|| format!("{RULES}: a rule without expr"))?,
        pending: text(value, "for"),
        keep_firing_for: text(value, "keep_firing_for"),
        severity: text(&value["labels"], "severity").unwrap_or_default(),
        annotations,
    })
}

/// The groups of the repository at `root`.
pub(crate) fn read(root: &Path) -> anyhow::Result<Vec<Group>> {
    let text_of_file = fs::read_to_string(root.join(RULES)).context(RULES)?;
    let file: Value = serde_saphyr::from_str(&text_of_file).context(RULES)?;
    let group = |value: &Value| {
        Ok(Group {
            name: text(value, "name").with_context(|| format!("{RULES}: a group without a name"))?,
            interval: text(value, "interval"),
            rules: list(&value["rules"]).map(rule).collect::<anyhow::Result<_>>()?,
        })
    };
    list(&file["groups"]).map(group).collect()
}

/// A duration of Prometheus with one unit, in seconds.
pub(crate) fn seconds(duration: &str) -> anyhow::Result<u64> {
    let unit = duration.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => anyhow::bail!("{duration} is no duration with one unit"),
    };
    let number: u64 = duration[..duration.len() - unit.len()].parse().context(duration.to_owned())?;
    Ok(number * factor)
}
