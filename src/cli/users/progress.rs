//! How far it is, for people: a line on standard error, if that is a terminal.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::args::TargetArgs;
use clerk_client::limiter;
use clerk_client::outbound::Outbound;
use clerk_quota::Bucket;

/// Time between two looks of the line, so that it does not seem dead while the rate limit makes it wait.
const TICK: Duration = Duration::from_millis(250);

/// A line of progress, or none.
#[derive(Debug)]
pub(super) struct ProgressLine {
    bar: ProgressBar,
}

impl ProgressLine {
    /// Whether somebody would see it, and see nothing else at the same time.
    pub(super) fn is_visible(target: &TargetArgs) -> bool {
        let has_data = target.output.is_none() && std::io::stdout().is_terminal();
        std::io::stderr().is_terminal() && !has_data
    }

    /// No line.
    pub(super) fn hidden() -> Self {
        Self { bar: ProgressBar::hidden() }
    }

    /// `total` is unknown where it could not be had; a request brings so many users at most.
    pub(super) fn start(total: Option<u64>, done: u64, per_request: u32, outbound: &Arc<Outbound>) -> Self {
        let template = match total {
            Some(_) => "{human_pos}/{human_len} users [{bar:24}] {rate}, {quota}, {left} to go",
            None => "{spinner} {human_pos} users, {rate}, {quota}",
        };
        let rate = move |state: &ProgressState| {
            (state.pos().saturating_sub(done)) as f64 / state.elapsed().as_secs_f64().max(0.001)
        };
        let (for_quota, for_left) = (Arc::clone(outbound), Arc::clone(outbound));
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .with_key("rate", move |state: &ProgressState, out: &mut dyn fmt::Write| {
                let _ = write!(out, "{:.0} users/s", rate(state));
            })
            .with_key("quota", move |_: &ProgressState, out: &mut dyn fmt::Write| {
                let _ = out.write_str(&quota_left(&for_quota));
            })
            .with_key("left", move |state: &ProgressState, out: &mut dyn fmt::Write| {
                let users = state.len().unwrap_or_default().saturating_sub(state.pos());
                let _ = out.write_str(&time_left(users, rate(state), f64::from(per_request), &for_left));
            });
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr()).with_style(style);
        bar.set_position(done);
        bar.enable_steady_tick(TICK);
        Self { bar }
    }

    pub(super) fn advance(&self, users: u64) {
        self.bar.inc(users);
        // Users who came meanwhile.
        if self.bar.length().is_some_and(|length| length < self.bar.position()) {
            self.bar.set_length(self.bar.position());
        }
    }

    /// Writes a line to standard error without spoiling the other one.
    pub(super) fn say(&self, text: &str) {
        // Nobody can be told that nobody can be told.
        self.bar.suspend(|| drop(writeln!(anstream::stderr(), "{text}")));
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn quota_left(outbound: &Outbound) -> String {
    let now = outbound.clock.now();
    let snapshot = outbound.ledger.lock().snapshot(now);
    let instance = snapshot.bucket(Bucket::Instance);
    match instance.map(|bucket| (bucket.remaining, bucket.limit)) {
        Some((Some(left), Some(limit))) => format!("{left} of {limit} requests left"),
        _ => "requests left unknown".to_owned(),
    }
}

/// By what was reached so far, or by what the rate limit allows in the long run, whichever is slower: the first window
/// promises too much.
fn time_left(users: u64, rate: f64, per_request: f64, outbound: &Outbound) -> String {
    let now = outbound.clock.now();
    let snapshot = outbound.ledger.lock().snapshot(now);
    let allowed = snapshot.bucket(Bucket::Instance).and_then(|bucket| {
        let share = 1.0 - limiter::LimiterOptions::default().reserve;
        Some(bucket.limit? as f64 * share / bucket.window.as_secs_f64() * per_request)
    });
    let rate = allowed.map_or(rate, |allowed| rate.min(allowed));
    match Duration::try_from_secs_f64((users as f64 / rate).ceil()) {
        Ok(left) if rate > 0.0 => humantime::format_duration(left).to_string(),
        _ => "unknown time".to_owned(),
    }
}
