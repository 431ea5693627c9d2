//! The chart's table of values, and its schema, against `values.yaml`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::tools::{CHART, output};
use crate::{parse, read};

/// Rows of the table: names of values, without their quotes, and the default.
fn rows() -> Vec<(Vec<String>, String)> {
    let page = read(&format!("{CHART}/README.md"));
    let (_, table) = page.split_once("| value | default | meaning |\n|---|---|---|\n").unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|')).map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let names = cells[0].split(", ").map(|name| name.trim_matches('`').to_owned());
        (names.collect(), cells[1].trim_matches('`').to_owned())
    });
    rows.collect()
}

/// The value of a dotted path.
fn at<'a>(values: &'a Value, path: &str) -> &'a Value {
    let pointer = format!("/{}", path.replace('.', "/"));
    values.pointer(&pointer).unwrap_or_else(|| panic!("values.yaml has no {path}"))
}

#[test]
fn table_of_values_has_all_of_them_with_their_defaults() {
    let values = parse(&read(&format!("{CHART}/values.yaml")));
    let mut listed = BTreeSet::new();
    for (names, default) in rows() {
        for name in names {
            let paths = match name.strip_prefix("<workload>") {
                Some(rest) => vec![format!("exporter{rest}"), format!("gateway{rest}")],
                None => vec![name],
            };
            for path in paths {
                let value = at(&values, &path);
                let is_given = default.starts_with(['"', '[', '{', 't', 'f']) || default.parse::<u64>().is_ok();
                assert!(!is_given || value.to_string().replace(',', ", ") == default, "{path}: {value}, not {default}");
                listed.insert(path);
            }
        }
    }
    assert!(listed.len() > 60, "{listed:?}");
    // A row of the section, or of something in it.
    let has = |path: &str| listed.iter().any(|row| row == path || row.starts_with(&format!("{path}.")));
    for (name, section) in values.as_object().unwrap() {
        assert!(has(name), "{name} is not in the table");
        if matches!(name.as_str(), "exporter" | "gateway" | "image" | "redis" | "web" | "log") {
            for key in section.as_object().unwrap().keys() {
                assert!(has(&format!("{name}.{key}")), "{name}.{key} is not in the table");
            }
        }
    }
}

/// Compares keys with the schema's, in both directions.
fn compare(values: &Value, schema: &Value, path: &str) {
    let (Some(values), Some(properties)) = (values.as_object(), schema["properties"].as_object()) else { return };
    if schema["additionalProperties"] != false {
        return;
    }
    for key in properties.keys().filter(|key| !matches!(key.as_str(), "global" | "enabled")) {
        assert!(values.contains_key(key), "values.yaml lacks {path}{key}");
    }
    for (key, value) in values {
        let below = properties.get(key).unwrap_or_else(|| panic!("the schema lacks {path}{key}"));
        compare(value, below, &format!("{path}{key}."));
    }
}

#[test]
fn schema_knows_exactly_the_values() {
    let values = parse(&read(&format!("{CHART}/values.yaml")));
    let schema: Value = serde_json::from_str(&read(&format!("{CHART}/values.schema.json"))).unwrap();
    compare(&values, &schema, "");
}

/// The next steps name each entry of a Secret that has to exist, and each URL.
#[test]
fn notes_say_what_to_do_next() {
    let install = ["install", "clerk", CHART, "--namespace=identity", "--dry-run=client"];
    let notes = |arguments: &[&str]| output("helm", &[install.as_slice(), arguments].concat());
    let production = notes(&[crate::chart::PRODUCTION]);
    for expected in [
        "clerk-keys, entry prod\n",
        "clerk-gateway-tls, entry tls.key\n",
        "clerk-redis, entry password\n",
        "https://clerk-clerk-exporter-gateway.identity.svc:10430\n",
        "send webhooks to https://clerk-hooks.example.com/webhooks/clerk\n",
    ] {
        assert!(production.contains(expected), "{expected}: {production}");
    }
    let plain = notes(&[]);
    for expected in ["clerk-keys, entry prod\n", "set serviceMonitor.enabled=true", "set prometheusRule.enabled=true"] {
        assert!(plain.contains(expected), "{expected}: {plain}");
    }
}
