//! The alerts' expressions without recorded series: Grafana's own recording rules need a database that accepts writes.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use clerk_exporter::metrics::catalogue;

use crate::promql::{self, Selector};
use crate::rules::Group;

/// What is recorded from its own last result, which an expression does not have. This one looks back: the last time at
/// which a stop began must be later than the last time with spans. It looks every 5 minutes, so a stop is found up to
/// 5 minutes later. The hour before ends 5 minutes earlier than in the recording rule, so that one of these times is in
/// it, however few spans there were.
const STOPPED: (&str, &str) = (
    "job:clerk_telemetry_calls:stopped",
    "\
job:clerk_telemetry_calls:increase10m == 0
and on (job, namespace, cluster)
(
  max by (job, namespace, cluster) (
    max_over_time(
      (
        (
          job:clerk_telemetry_calls:increase10m == 0
          and on (job, namespace, cluster)
          (min_over_time(job:clerk_telemetry_calls:increase10m[1h:10m] offset 15m) >= 20)
          and on (job, namespace, cluster)
          (
            (
              min_over_time(job:clerk_telemetry_calls:increase10m[1h:10m] offset 10050m)
              or min_over_time(job:clerk_telemetry_calls:increase10m[1h:10m] offset 1410m)
            )
            > 0
          )
        )
        + time()
      )[1d:5m]
    )
  )
  > on (job, namespace, cluster)
  max by (job, namespace, cluster) (
    max_over_time(((job:clerk_telemetry_calls:increase10m > 0) * 0 + time())[1d:5m])
  )
)
",
);

/// The expressions of all alerts of the groups, in their order.
pub(super) fn alerts(groups: &[Group]) -> anyhow::Result<Vec<String>> {
    let mut records = BTreeMap::<&str, String>::new();
    let mut alerts = Vec::new();
    for rule in groups.iter().flat_map(|group| &group.rules) {
        let is_stopped = rule.record.as_deref() == Some(STOPPED.0);
        let expression = inline(if is_stopped { STOPPED.1 } else { &rule.expr }, &records)
            .with_context(|| rule.alert.clone().or_else(|| rule.record.clone()).unwrap_or_default())?;
        match &rule.record {
            Some(record) => drop(records.insert(record, expression)),
            None => alerts.push(expression),
        }
    }
    Ok(alerts)
}

/// The expression with the recorded series replaced by their expressions.
fn inline(expression: &str, records: &BTreeMap<&str, String>) -> anyhow::Result<String> {
    let mut problem = None;
    let mut lines = Vec::new();
    for line in expression.trim_end().lines() {
        let indent = &line[..line.len() - line.trim_start().len()];
        lines.push(promql::rewrite(line, |selector| {
            if !selector.metric.contains(':') {
                return None;
            }
            match replacement(selector, records, indent) {
                Ok(text) => Some(text),
                Err(error) => {
                    problem = Some(error);
                    None
                }
            }
        }));
    }
    match problem {
        Some(problem) => Err(problem),
        None => Ok(lines.join("\n")),
    }
}

fn replacement(selector: Selector<'_>, records: &BTreeMap<&str, String>, indent: &str) -> anyhow::Result<String> {
    let recorded = records.get(selector.metric);
    let recorded = recorded.with_context(|| format!("{} is used before it is recorded", selector.metric))?;
    let mut text = String::from("(\n");
    for line in filtered(recorded, selector)?.lines() {
        text.push_str(&format!("{indent}  {line}\n"));
    }
    text.push_str(&format!("{indent})"));
    if let Some(range) = selector.range {
        ensure!(range.contains(':'), "{}[{range}]: a subquery needs a step", selector.metric);
        text.push_str(&format!("[{range}]"));
    }
    Ok(text)
}

/// The expression with the matchers of the selector at each metric that has their labels. The others are conditions on
/// the whole process, which no such label distinguishes.
fn filtered(expression: &str, wanted: Selector<'_>) -> anyhow::Result<String> {
    if wanted.matchers.is_empty() {
        return Ok(expression.to_owned());
    }
    let mut found = false;
    let text = promql::rewrite(expression, |selector| {
        let family = catalogue::ALL.iter().find(|family| family.name == selector.metric)?;
        if !wanted.labels().all(|label| family.labels.contains(&label)) {
            return None;
        }
        found = true;
        let range = selector.range.map(|range| format!("[{range}]")).unwrap_or_default();
        let both: Vec<&str> =
            [selector.matchers, wanted.matchers].into_iter().filter(|matchers| !matchers.is_empty()).collect();
        Some(format!("{}{{{}}}{range}", selector.metric, both.join(", ")))
    });
    ensure!(found, "{}: no metric has the labels of {{{}}}", wanted.metric, wanted.matchers);
    Ok(text)
}
