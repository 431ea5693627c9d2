//! Counts of a bucket's closed windows, and how full they were.

use std::collections::VecDeque;

use super::Moment;
use super::budget::{Budget, Context, share, used_of_left};
use super::histogram::Histogram;
use super::snapshot::ClosedWindow;
use super::window::Window;

/// Upper bounds of the histogram of windows by their highest use.
const USAGE_BOUNDS: [f64; 8] = [0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99];

/// Closed windows that are retained: five minutes of 10 s windows.
const RECENT_WINDOWS: usize = 30;

/// Counts of closed windows.
#[derive(Debug, Clone, Default)]
pub(super) struct ClosedWindows {
    pub windows: u64,
    pub low: u64,
    pub exhausted: u64,
    /// Set from the first window with known use.
    pub usage: Option<Histogram>,
    /// The last windows, oldest first.
    recent: VecDeque<ClosedWindow>,
    /// End of the last low window.
    pub low_at: Option<Moment>,
    /// Other clients' requests in the last window, and its end.
    pub unseen: Option<(u64, Moment)>,
}

impl ClosedWindows {
    /// Shows the histogram from now on.
    pub(super) fn show_usage(&mut self) -> &mut Histogram {
        self.usage.get_or_insert_with(|| Histogram::new(&USAGE_BOUNDS))
    }

    /// Returns the last windows, oldest first.
    pub(super) fn recent(&self) -> impl DoubleEndedIterator<Item = ClosedWindow> + '_ {
        self.recent.iter().copied()
    }

    /// Counts a closed window by its highest use.
    pub(super) fn close(&mut self, budget: &Budget, window: &Window, context: &Context) {
        if window.is_unobserved() {
            return;
        }
        let seen = window.seen.unwrap_or((window.start, window.start));
        let limit = window.limit.or(budget.limit).or(context.config.limit);
        let min_remaining = min_remaining(budget, window, limit, context);
        let is_refused = window.throttled;
        let exhausted = is_refused || min_remaining == Some(0);
        let left =
            if exhausted { Some(0.0) } else { min_remaining.zip(limit).and_then(|(left, limit)| share(left, limit)) };
        let low = left.is_some_and(|left| left < context.config.low_threshold);
        // A rejection shows that nothing was left, but not how often, if the use is not known.
        let used = left.map(used_of_left).filter(|_| min_remaining.is_some() || knows_use(window, context));
        self.windows += 1;
        self.low += u64::from(low);
        self.exhausted += u64::from(exhausted);
        self.low_at = self.low_at.max(low.then_some(window.end));
        self.unseen = budget.unseen(window, context).map(|others| (others, window.end));
        if self.recent.len() == RECENT_WINDOWS {
            self.recent.pop_front();
        }
        self.recent.push_back(ClosedWindow { seen, usage: used, low, exhausted, ended: window.end });
        if let Some(used) = used {
            self.show_usage().observe(used);
        }
    }
}

/// Returns the fewest remaining requests: as the server reported, else as counted, if the count is complete.
fn min_remaining(budget: &Budget, window: &Window, limit: Option<u64>, context: &Context) -> Option<u64> {
    // A sliding window frees quota meanwhile, so requests sent since the report are not subtracted.
    let reported = if budget.timeline.slides() { window.least_reported } else { window.least_left() };
    if let Some(left) = reported {
        return Some(left);
    }
    let limit = limit.filter(|_| knows_use(window, context))?;
    let counted = if context.is_fleet { budget.fleet_counted(window)? } else { window.counted };
    Some(limit.saturating_sub(counted.max(window.most_in_stretch)))
}

/// Returns whether the count of a window covers all use.
fn knows_use(window: &Window, context: &Context) -> bool {
    context.counted_by.is_some() && window.start >= context.since
}
