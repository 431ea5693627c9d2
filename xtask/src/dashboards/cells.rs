//! Settings of table columns.

use serde_json::{Value, json};

use super::panel::{mappings, thresholds};

/// A whole number.
pub(super) fn number() -> Value {
    json!({ "unit": "short", "decimals": 0, "custom.align": "right", "custom.width": 80 })
}

/// A count of events, with colours.
pub(super) fn count(steps: &[(f64, &str)]) -> Value {
    json!({
        "unit": "short", "decimals": 0, "custom.align": "right", "custom.width": 100, "custom.cellOptions": { "type": "color-text" },
        "thresholds": thresholds(steps), "mappings": absent(),
    })
}

/// A ratio, as coloured text.
pub(super) fn share(steps: &[(f64, &str)]) -> Value {
    json!({
        "unit": "percentunit", "decimals": 1, "custom.align": "right", "custom.width": 120, "custom.cellOptions": { "type": "color-text" },
        "thresholds": thresholds(steps), "mappings": absent(),
    })
}

/// A ratio, as a bar with its number.
pub(super) fn gauge(steps: &[(f64, &str)]) -> Value {
    json!({
        "unit": "percentunit", "decimals": 0, "min": 0, "max": 1, "custom.width": 210,
        "custom.cellOptions": { "type": "gauge", "mode": "basic", "valueDisplayMode": "text" },
        "thresholds": thresholds(steps), "mappings": absent(),
    })
}

/// The remaining share, if the usage is known.
pub(super) fn headroom() -> Value {
    let mut cell = gauge(super::panel::HEADROOM);
    cell["mappings"][0]["options"]["result"]["text"] = json!("use unknown");
    cell
}

/// An amount of money.
pub(super) fn usd() -> Value {
    json!({
        "unit": "currencyUSD", "decimals": 2, "custom.align": "right", "custom.width": 90,
        "custom.cellOptions": { "type": "color-text" },
        "thresholds": thresholds(&[(f64::MIN, "green"), (0.005, "orange")]), "mappings": absent(),
    })
}

/// A duration.
pub(super) fn seconds(steps: &[(f64, &str)]) -> Value {
    json!({
        "unit": "s", "decimals": 1, "custom.align": "right", "custom.width": 120, "custom.cellOptions": { "type": "color-text" },
        "thresholds": thresholds(steps), "mappings": absent(),
    })
}

/// A past time; the value is in milliseconds.
pub(super) fn ago() -> Value {
    json!({ "unit": "dateTimeFromNow", "custom.align": "left" })
}

/// Texts and colours for values.
pub(super) fn words(words: &[(&str, &str, &str)]) -> Value {
    json!({
        "mappings": mappings(words), "custom.align": "center", "custom.width": 95,
        "custom.cellOptions": { "type": "color-background", "mode": "basic" },
    })
}

/// A Clerk instance, with a link to its dashboard.
pub(super) fn instance_link() -> Value {
    json!({ "links": [{
        "title": "Windows and buckets of ${__value.text}", "targetBlank": false,
        "url": "/d/clerk-instance?${datasource:queryparam}&${job:queryparam}&${instance:queryparam}\
                &var-clerk_instance=${__value.text}&${__url_time_range}",
    }] })
}

/// The name of an alert, with a link to its runbook.
pub(super) fn runbook_link() -> Value {
    json!({ "custom.width": 250, "links": [{
        "title": "Runbook of ${__value.text}", "targetBlank": true,
        "url": format!("{}${{__value.text}}.md", super::RUNBOOKS),
    }] })
}

/// The severity of an alert.
pub(super) fn severity() -> Value {
    words(&[("critical", "critical", "red"), ("warning", "warning", "orange"), ("info", "info", "blue")])
}

/// Missing values have no colour.
fn absent() -> Value {
    json!([{ "type": "special", "options": {
        "match": "null+nan", "result": { "text": "–", "color": "text", "index": 0 },
    } }])
}
