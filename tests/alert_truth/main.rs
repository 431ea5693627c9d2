//! Compares the shipped low-quota alert with the truth: 200 random traffic patterns in simulated time, the limiter's
//! own record of what happened, and a real Prometheus that evaluates the shipped rule over the scraped values.
//!
//! The naive rule `remaining / limit < 0.1` is evaluated for comparison.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "the table is for the reader")]

mod patterns;
mod rules;

use std::collections::BTreeSet;
use std::fmt::Write;

use patterns::{Pattern, SCRAPES};
use rules::{Evaluated, Prometheus};

const PATTERNS: u64 = 200;
/// Evaluation interval of the rules, in seconds.
const EVALUATION: f64 = 15.0;
/// Windows wait this long for late responses before they close.
const GRACE: f64 = 2.0;
/// The look-back of the rule: it may still fire this long after the last low window.
const LOOK_BACK: f64 = 300.0;

/// The result of a rule over all patterns at one scrape interval.
#[derive(Default)]
struct Score {
    with_low: u32,
    in_time: u32,
    ever: u32,
    false_alarms: u32,
}

impl Score {
    fn add(&mut self, pattern: &Pattern, firing: &BTreeSet<u64>, scrape: f64) {
        let active = |from: f64, to: f64| firing.iter().any(|at| (from..=to).contains(&(*at as f64)));
        if let Some(first) = pattern.low_ends.first() {
            self.with_low += 1;
            self.in_time += u32::from(active(*first, first + GRACE + 2.0 * scrape + EVALUATION));
            self.ever += u32::from(active(*first, pattern.end));
        }
        let explained = |at: f64| {
            // The alert may also fire before the window ends.
            pattern.low_ends.iter().any(|end| (end - 10.0..=end + GRACE + LOOK_BACK + 2.0 * scrape).contains(&at))
        };
        self.false_alarms += u32::from(firing.iter().any(|at| !explained(*at as f64)));
    }
}

#[test]
fn shipped_rule_finds_every_low_window_without_false_alarms() {
    // Each pattern has its own runtime with simulated time.
    let patterns: Vec<Pattern> = (0..PATTERNS).map(patterns::play).collect();
    let with_low = patterns.iter().filter(|pattern| !pattern.low_ends.is_empty()).count();
    assert!((50..190).contains(&with_low), "patterns of both kinds are needed, {with_low} of {PATTERNS} are low");

    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(compare(&patterns));
}

async fn compare(patterns: &[Pattern]) {
    let prometheus = Prometheus::over(patterns).await;
    let shipped = rules::shipped("ClerkRateLimitLow");
    let naive = "clerk_ratelimit_remaining / (clerk_ratelimit_limit > 0) < 0.1".to_owned();
    let mut table = String::from(
        "| rule | scrape | patterns with a low window | found in time | found at all | patterns with a false alarm |\n\
         |---|---|---|---|---|---|\n",
    );
    for (name, rule) in [("shipped", &shipped), ("naive", &naive)] {
        let Evaluated { firing } = prometheus.evaluate(rule, patterns, EVALUATION).await;
        for (index, scrape) in SCRAPES.into_iter().enumerate() {
            let mut score = Score::default();
            for (number, pattern) in patterns.iter().enumerate() {
                let none = BTreeSet::new();
                score.add(pattern, firing.get(&(number, scrape)).unwrap_or(&none), scrape as f64);
            }
            let Score { with_low, in_time, ever, false_alarms } = score;
            let percent = |count: u32| f64::from(count) * 100.0 / f64::from(with_low);
            writeln!(
                table,
                "| {name} | {scrape} s | {with_low} | {:.0} % | {:.0} % | {false_alarms} |",
                percent(in_time),
                percent(ever),
            )
            .unwrap();
            if name == "shipped" {
                assert_eq!((in_time, false_alarms), (with_low, 0), "scrape {index}\n{table}");
            }
        }
    }
    println!("{table}");
}
