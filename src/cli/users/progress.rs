//! Progress on standard error, if that is a terminal.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::args::TargetArgs;
use clerk_client::limiter;
use clerk_client::outbound::Outbound;
use clerk_quota::Bucket;

/// Time between redraws, so that the line moves while requests wait for the rate limit.
const TICK: Duration = Duration::from_millis(250);

/// The progress line; it may be hidden.
#[derive(Debug)]
pub(super) struct ProgressLine {
    bar: ProgressBar,
}

impl ProgressLine {
    /// Whether standard error is a terminal that does not show the users as well.
    pub(super) fn is_visible(target: &TargetArgs) -> bool {
        let has_data = target.output.is_none() && std::io::stdout().is_terminal();
        std::io::stderr().is_terminal() && !has_data
    }

    /// A hidden line.
    pub(super) fn hidden() -> Self {
        Self { bar: ProgressBar::hidden() }
    }

    /// `per_request` is the maximum number of users per request.
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
        // Users may be created during the export.
        if self.bar.length().is_some_and(|length| length < self.bar.position()) {
            self.bar.set_length(self.bar.position());
        }
    }

    /// Writes a line to standard error above the progress line.
    pub(super) fn say(&self, text: &str) {
        // A failure to write to standard error cannot be reported.
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

/// By the rate so far, or by the rate limit if that is slower: the first window is faster than the average.
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
