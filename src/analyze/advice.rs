//! The configuration that follows from an analysis.

use std::fmt::Write as _;

use super::report::{LimitSource, Report, SavingReport};

/// A policy that saves a smaller share of the requests is left out.
const WORTHWHILE: f64 = 0.01;

/// Of the lifetimes that are tried, the shortest that saves this part of what the longest saves.
const GOOD_PART: f64 = 0.8;

/// A configuration file, complete but for the names of the secrets' files.
pub(super) fn configuration(report: &Report, source: &LimitSource) -> String {
    let mut text = String::from(
        "instances:\n  - name: prod\n    secret_key_file: /run/secrets/clerk_prod    # the file of your secret key\n",
    );
    match source {
        LimitSource::Default => {}
        LimitSource::Plan(plan) => {
            let _ = writeln!(text, "    plan: {plan}");
        }
        LimitSource::Flag => {
            let (requests, seconds) = (report.limit.requests, report.limit.window_seconds);
            let _ = writeln!(text, "    limit: {{ requests: {requests}, window: {seconds}s }}");
        }
    }
    text.push_str("gateway:\n  sole: true                  # if no other gateway serves the instance\n  policies:\n");
    let mut line = |setting: &str, why: &str| {
        let _ = writeln!(text, "    {setting:<36} # {why}");
    };
    line("retry: on", &format!("{} responses were 429", throttled(report)));
    let saving = |policy: &str| report.savings.iter().find(|saving| saving.policy == policy);
    for (policy, setting) in [("coalesce", "coalesce"), ("batch", "batch")] {
        if let Some(saving) = saving(policy) {
            line(&format!("{setting}: {}", on_off(saving.share >= WORTHWHILE)), &saves(saving));
        }
    }
    match lifetime(report) {
        Some(cache) => {
            let ttl = cache.ttl_seconds.unwrap_or_default();
            line(&format!("cache: {{ mode: on, ttl: {ttl}s }}"), &saves(cache));
        }
        None => line("cache: off", "few reads are repeated"),
    }
    let is_tight = report.buckets.iter().any(|bucket| bucket.low_windows > 0) || throttled(report) > 0;
    let why = match (report.pacing.delayed, report.pacing.longest_wait_seconds) {
        (delayed, Some(longest)) => format!("delays {delayed} requests, by at most {longest:.1} s"),
        _ => "delays none of these requests".to_owned(),
    };
    line(&format!("pace: {}", on_off(is_tight || report.pacing.delayed > 0)), &why);
    if lifetime(report).is_some() {
        text.push_str(
            "  # Changes that do not pass the gateway end cached responses only with Clerk's webhooks:\n  # webhooks: { \
             signing_secret_files: [/run/secrets/clerk_webhook] }\n",
        );
    }
    text
}

fn throttled(report: &Report) -> u64 {
    report.buckets.iter().map(|bucket| bucket.throttled).sum()
}

/// The lifetime to take; none if even the longest saves little.
fn lifetime(report: &Report) -> Option<&SavingReport> {
    let mut caches = report.savings.iter().filter(|saving| saving.policy == "cache");
    let longest = caches.clone().next_back().filter(|saving| saving.share >= WORTHWHILE)?;
    caches.find(|saving| saving.share >= longest.share * GOOD_PART)
}

fn on_off(is_on: bool) -> &'static str {
    if is_on { "on" } else { "off" }
}

fn saves(saving: &SavingReport) -> String {
    format!("saves at most {:.1} % of the requests", saving.share * 100.0)
}
