//! How far it is, for people: a line on standard error, if that is a terminal.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::outbound::Outbound;
use crate::quota::Bucket;

/// Time between two looks of the line, so that it does not seem dead while the rate limit makes it wait.
const TICK: Duration = Duration::from_millis(250);

/// A line of progress, or none.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Whether somebody would see it.
    pub(super) fn is_visible() -> bool {
        std::io::stderr().is_terminal()
    }

    /// `total` is unknown where it could not be had.
    pub(super) fn start(total: Option<u64>, done: u64, outbound: &Arc<Outbound>) -> Self {
        if !Self::is_visible() {
            return Self { bar: ProgressBar::hidden() };
        }
        let template = match total {
            Some(_) => "{human_pos}/{human_len} users [{bar:24}] {rate}, {quota}, {eta} to go",
            None => "{spinner} {human_pos} users, {rate}, {quota}",
        };
        let outbound = Arc::clone(outbound);
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
                let _ = write!(out, "{:.0} users/s", state.per_sec());
            })
            .with_key("quota", move |_: &ProgressState, out: &mut dyn fmt::Write| {
                let _ = out.write_str(&quota_left(&outbound));
            });
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr()).with_style(style);
        bar.set_position(done);
        bar.reset_eta();
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
