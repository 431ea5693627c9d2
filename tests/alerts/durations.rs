//! How long alerts fire after their cause has ended: the documents match the rules.

use std::collections::BTreeMap;

use crate::{Rule, read, rules};

/// Minutes of a duration such as 15m or 1h.
fn minutes(duration: &str) -> u64 {
    let (number, unit) = duration.split_at(duration.len() - 1);
    let number: u64 = number.parse().unwrap_or_else(|error| panic!("{duration}: {error}"));
    match unit {
        "m" => number,
        "h" => 60 * number,
        _ => panic!("{duration}: not in minutes"),
    }
}

/// How long after its end an expression still detects a condition. Functions that require a condition at all times
/// (`min_over_time(...) > 0` and similar) end immediately.
fn look_back(expression: &str) -> u64 {
    let ranges = ["increase(", "avg_over_time("].into_iter().flat_map(|function| {
        expression.split(function).skip(1).map(|after| {
            let (_, range) = after.split_once('[').unwrap();
            minutes(range.split(']').next().unwrap())
        })
    });
    // The ranges of recording rules with these suffixes.
    let names = [":recent5m", ":down5m", ":spare5m", ":low5m", ":high5m"];
    let recorded = names.iter().any(|name| expression.contains(name)).then_some(5);
    ranges.chain(recorded).max().unwrap_or(0)
}

/// Look-back and `keep_firing_for` of each alert that has either, in minutes.
fn ends() -> BTreeMap<String, (u64, u64)> {
    let mut ends = BTreeMap::new();
    for Rule { alert, expr, keep_firing_for, .. } in rules() {
        let (Some(alert), Some(keep)) = (alert, keep_firing_for) else { continue };
        let found = (look_back(&expr), minutes(&keep));
        let before = ends.insert(alert.clone(), found);
        assert!(before.is_none_or(|before| before == found), "{alert}: the same for all severities");
    }
    ends
}

#[test]
fn runbooks_state_when_the_alert_ends() {
    for (alert, (look_back, keep)) in ends() {
        let runbook = read(&format!("docs/runbooks/{alert}.md"));
        let words = runbook.split_whitespace().collect::<Vec<_>>().join(" ");
        let (_, ends) = words.split_once("The alert ends up to ").unwrap_or_else(|| panic!("{alert}: no end time"));
        let total = format!("{} minutes after ", look_back + keep);
        assert!(ends.starts_with(&total), "{alert}: ends up to {total}, not {ends:.40}");
        if look_back > 0 {
            let parts = format!("{look_back} minutes of look-back, then {keep} of `keep_firing_for`.");
            assert!(ends.contains(&parts), "{alert}: {parts}");
        }
        if alert == "ClerkRateLimitLow" || alert == "ClerkRateLimitExhausted" {
            let hourly = format!("Of an hourly bucket it ends {keep} minutes after ");
            assert!(ends.contains(&hourly), "{alert}: {hourly}");
        }
    }
}

#[test]
fn alerting_md_has_the_same_times() {
    let documentation = read("docs/alerting.md");
    for (alert, (look_back, keep)) in ends() {
        let row = format!("| {alert} | {look_back} min | {keep} min | {} min |", look_back + keep);
        assert!(documentation.contains(&row), "docs/alerting.md has no row {row}");
    }
}

#[test]
fn rate_limit_runbooks_begin_with_the_top_caller_and_end_with_a_check() {
    let mut begins = BTreeMap::new();
    for Rule { alert, annotations, .. } in rules() {
        // That of metered operations is the top caller of a week.
        let of_requests = |alert: &String| annotations.contains_key("top_caller") && !alert.starts_with("ClerkMetered");
        let Some(alert) = alert.filter(of_requests) else { continue };
        let runbook = read(&format!("docs/runbooks/{alert}.md"));
        let begin = runbook.strip_prefix(&format!("# {alert}\n\n")).unwrap();
        let (begin, rest) = begin.split_once("\n## Meaning\n").unwrap();
        assert!(begin.starts_with("## Who spends it\n"), "{alert}");
        assert!(!begin.contains("clerk_instance=\""), "{alert}: only one team has this instance");
        for part in ["clerk_ratelimit_requests:recent1m", "/api/v1/top", "landing page", "clerk-overview"] {
            assert!(begin.contains(part), "{alert}: {part}");
        }
        let (_, check) =
            rest.split_once("\n### Did it work?\n").unwrap_or_else(|| panic!("{alert}: no verification section"));
        assert!(check.contains("```promql\n"), "{alert}: no verification query");
        begins.insert(begin.to_owned(), alert);
    }
    assert_eq!(begins.len(), 1, "all begin in the same way: {begins:?}");
}

#[test]
fn look_back_is_the_longest_range_of_counters() {
    assert_eq!(look_back("increase(a[5m]) / increase(b[15m]) > 0"), 15);
    assert_eq!(look_back("a:recent5m > 0 unless last_over_time(b[15m])"), 5);
    assert_eq!(look_back("min without (instance, pod) (a:down5m)"), 5);
    assert_eq!(look_back("min_over_time(a[10m]) > 5 and rate(b[6h]) > 0"), 0);
    assert_eq!((minutes("1h"), minutes("14m")), (60, 14));
}
