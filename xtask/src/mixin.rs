//! The rules as jsonnet, with places for what the mixin's `_config` changes.

use std::path::Path;

use anyhow::ensure;

use crate::promql;
use crate::rules::{self, Rule};

/// Path of the groups, relative to the root of the repository.
pub(crate) const PATH: &str = "mixin/alerts/groups.libsonnet";

/// The folder of the mixin's copies of the dashboards: it is installed without the rest of the repository.
pub(crate) const DASHBOARDS: &str = "mixin/dashboards";

const HEAD: &str = "\
// Generated from alerts/clerk.rules.yml, which explains the rules, by: cargo xtask generate
function(values) [
";

/// The numbers in the alerts' expressions that have a key in `_config.thresholds`: alert, where it stands, key.
const THRESHOLDS: [(&str, &str, &str); 12] = [
    ("ClerkRateLimitBlockedForLong", "> 60", "blockedSeconds"),
    ("ClerkRateLimitHeadersMalformed", "> 0.01", "headersMalformedRatio"),
    ("ClerkProbeFailing", "> 0.5", "probeFailureRatio"),
    ("ClerkClockOffset", "> 5", "clockOffsetSeconds"),
    ("ClerkClockOffset", "< -5", "clockOffsetSeconds"),
    ("ClerkGatewayQueueSaturated", "> 0.1", "queueWaitRatio"),
    ("ClerkGatewayShedding", "> 0.01", "shedRatio"),
    ("ClerkGatewayRetryAmplification", "> 0.1", "retryRatio"),
    ("ClerkCacheTierDown", "> 0.5", "cacheErrorRatio"),
    ("ClerkWebhookSignatureFailures", ">= 3", "webhookBadSignatures"),
    ("ClerkWebhookSignatureFailures", "> 0.1", "webhookBadSignatureRatio"),
    ("ClerkTelemetrySpansLate", "> 0.01", "spansLateRatio"),
];

/// The groups of the repository at `root` as a function of the values that jsonnet puts in.
pub(crate) fn make(root: &Path) -> anyhow::Result<String> {
    let mut text = HEAD.to_owned();
    for group in rules::read(root)? {
        text.push_str(&format!("  {{\n    name: '{}',\n", group.name));
        if let Some(interval) = &group.interval {
            text.push_str(&format!("    interval: '{interval}',\n"));
        }
        text.push_str("    rules: [\n");
        for rule in &group.rules {
            text.push_str(&jsonnet(rule)?);
        }
        text.push_str("    ],\n  },\n");
    }
    text.push_str("]\n");
    Ok(text)
}

fn jsonnet(rule: &Rule) -> anyhow::Result<String> {
    let mut text = String::from("      {\n");
    for (key, value) in [("record", &rule.record), ("alert", &rule.alert)] {
        if let Some(value) = value {
            text.push_str(&format!("        {key}: '{value}',\n"));
        }
    }
    let expression = expression(rule)?;
    if rule.expr.ends_with('\n') {
        text.push_str("        expr: |||\n");
        for line in expression.lines() {
            text.push_str(&format!("          {line}\n"));
        }
        text.push_str("        ||| % values,\n");
    } else {
        text.push_str(&format!("        expr: {} % values,\n", quoted(&expression)));
    }
    for (key, value) in [("'for'", &rule.pending), ("keep_firing_for", &rule.keep_firing_for)] {
        if let Some(value) = value {
            text.push_str(&format!("        {key}: '{value}',\n"));
        }
    }
    if rule.alert.is_some() {
        text.push_str(&format!("        labels: {{ severity: '{}' }},\n        annotations: {{\n", rule.severity));
        for (key, value) in &rule.annotations {
            text.push_str(&format!("          {key}: {},\n", quoted(value)));
        }
        text.push_str("        },\n");
    }
    text.push_str("      },\n");
    Ok(text)
}

/// The expression as a format of jsonnet: the selector at each metric of the exporter, and the thresholds.
fn expression(rule: &Rule) -> anyhow::Result<String> {
    ensure!(!rule.expr.contains('%'), "% in an expression would be a format: {}", rule.expr);
    let mut text = promql::rewrite(&rule.expr, |selector| {
        if selector.metric.contains(':') {
            return None;
        }
        let range = selector.range.map(|range| format!("[{range}]")).unwrap_or_default();
        let matchers = match selector.matchers {
            "" => "%(only)s".to_owned(),
            matchers => format!("{{%(first)s{matchers}}}"),
        };
        Some(format!("{}{matchers}{range}", selector.metric))
    });
    for (_, number, key) in THRESHOLDS.iter().filter(|(alert, ..)| Some(*alert) == rule.alert.as_deref()) {
        let comparison = number.trim_end_matches(|digit: char| digit.is_ascii_digit() || digit == '.');
        let ends = text.matches(&format!("{number}\n")).count();
        if rule.severity == "info" && ends == 0 {
            continue;
        }
        ensure!(ends == 1, "{:?}: {number} stands {ends} times at the end of a line", rule.alert);
        text = text.replace(&format!("{number}\n"), &format!("{comparison}%({key})s\n"));
    }
    Ok(text)
}

/// A text in single quotes, which PromQL and templates rarely contain.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_threshold_is_in_a_rule() {
        let text = make(crate::root()).unwrap();
        for (alert, _, key) in THRESHOLDS {
            assert!(text.contains(&format!("%({key})s")), "{alert}: {key}");
        }
    }
}
