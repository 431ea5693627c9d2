//! Distinguishes fixed windows from rolling ones by the resets that a server reports.

use std::time::Duration;

use super::Moment;

/// Number of moving resets from which windows count as rolling.
const ROLLING_SIGNS: u8 = 3;

/// The server's report of when the window resets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset {
    /// Time from the response to the reset.
    pub after: Duration,
    /// Precision of the value.
    pub resolution: Duration,
}

/// Detects servers without fixed windows, such as sliding windows and token buckets.
///
/// Their reset moves before it is reached, or follows the last one sooner than a window length.
#[derive(Debug, Clone, Default)]
pub struct WindowKindDetector {
    /// The longest reported time to a reset: the length of the server's window, if that is fixed.
    longest: Duration,
    /// The latest reset, and the number of recent signs that it moves.
    mark: Option<Moment>,
    signs: u8,
}

impl WindowKindDetector {
    /// Returns whether resets move with each request, so that they are not ends of windows.
    pub const fn is_rolling(&self) -> bool {
        self.signs >= ROLLING_SIGNS
    }

    /// Returns the longest time to a reset so far; zero before the first.
    pub const fn longest(&self) -> Duration {
        self.longest
    }

    /// Takes in the reset of a response that arrived at `at`.
    pub fn watch(&mut self, at: Moment, reset: Reset) {
        self.longest = self.longest.max(reset.after);
        let end = at.after(reset.after);
        let half = self.longest / 2;
        let Some(mark) = self.mark else {
            self.mark = Some(end);
            return;
        };
        if end <= mark {
            return;
        }
        let step = end.since(mark);
        if step > half {
            self.signs = self.signs.saturating_sub(1);
            self.mark = Some(end);
        } else if step > reset.resolution && half >= reset.resolution * 2 {
            self.signs = (self.signs + 1).min(2 * ROLLING_SIGNS);
            self.mark = Some(end);
        }
    }

    /// Starts over with this reset, because the server's windows changed, such as after a restart of the server.
    pub fn restart(&mut self, at: Moment, reset: Reset) {
        self.longest = reset.after;
        self.mark = Some(at.after(reset.after));
    }
}
