//! Telling fixed windows from moving ones by the resets that a server names.

use std::time::Duration;

use super::Moment;

/// Signs of a moving reset that it takes to believe in one.
const ROLLING_SIGNS: u8 = 3;

/// The server's word on when the window resets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset {
    /// Time from the answer to the reset.
    pub after: Duration,
    /// How exact that is.
    pub resolution: Duration,
}

/// Looks for signs that a server has no fixed windows: its reset moves on before it has come, or comes again sooner
/// after the last one than a window is long. Sliding windows and token buckets do that.
#[derive(Debug, Clone, Default)]
pub struct WindowKindDetector {
    /// The longest time to a reset that the server named: the length of its window, if that is fixed.
    longest: Duration,
    /// The server's latest reset, and the number of recent signs that it moves.
    mark: Option<Moment>,
    signs: u8,
}

impl WindowKindDetector {
    /// Whether resets move on with each request, so that they are no ends of windows.
    pub const fn is_rolling(&self) -> bool {
        self.signs >= ROLLING_SIGNS
    }

    /// The longest time to a reset so far; zero before the first.
    pub const fn longest(&self) -> Duration {
        self.longest
    }

    /// Takes in the reset of an answer made at `at`.
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

    /// The server tells another story, such as after a restart: its windows begin anew with this reset.
    pub fn restart(&mut self, at: Moment, reset: Reset) {
        self.longest = reset.after;
        self.mark = Some(at.after(reset.after));
    }
}
