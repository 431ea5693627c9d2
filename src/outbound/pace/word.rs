//! What the server last said of a budget, and what happened since.

use std::time::Duration;

use crate::quota::Moment;

/// The server's newest word on how much is left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word {
    /// When it was said.
    pub(super) at: Moment,
    /// Requests that were left.
    remaining: u64,
    /// When the server will have given something back: the end of its window, or a moment of a sliding one.
    pub(super) until: Moment,
    /// Requests that may have come, or will come, off the remaining: those in flight then, and all since.
    drawn: u64,
    /// Requests of our log that the server had given back already.
    ahead: u64,
    /// Requests of our log that went since.
    returned: u64,
}

/// What an answer says, beside our log at that time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Statement {
    pub(super) at: Moment,
    pub(super) remaining: u64,
    pub(super) limit: Option<u64>,
    pub(super) reset: Option<Duration>,
    /// Requests in flight, without the answered one, and requests over, with it.
    pub(super) in_flight: u64,
    pub(super) over: u64,
}

impl Word {
    /// Takes in a statement that is not older than the word before. `window` is the budget's.
    pub(super) fn after(before: Option<Self>, statement: Statement, rolling: bool, window: Duration) -> Self {
        let Statement { at, mut remaining, limit, reset, in_flight, over } = statement;
        let mut until = at.after(reset.unwrap_or(window));
        if let Some(before) = before.filter(|before| !rolling && at < before.until)
            && until < before.until.after(window / 2)
        {
            // Within a fixed window nothing comes back: the fewest is the newest, whatever order answers come in. Resets
            // are often rounded up, so that the earliest is the truest.
            remaining = remaining.min(before.remaining);
            until = until.min(before.until).max(at);
        }
        let ahead = limit.map_or(0, |limit| (over + remaining).saturating_sub(limit));
        Self { at, remaining, until, drawn: in_flight, ahead, returned: 0 }
    }

    /// A request leaves.
    pub(super) const fn draw(&mut self) {
        self.drawn += 1;
    }

    /// A request that was drawn was not counted.
    pub(super) const fn give_back(&mut self) {
        self.drawn = self.drawn.saturating_sub(1);
    }

    /// So many requests of our log are a window old.
    pub(super) const fn add_returned(&mut self, count: u64) {
        self.returned += count;
    }

    /// Requests that may leave. Where windows slide, what is a window old has come back; in a fixed one nothing has.
    pub(super) fn credit(&self, rolling: bool) -> u64 {
        let back = if rolling { self.returned.saturating_sub(self.ahead) } else { 0 };
        (self.remaining + back).saturating_sub(self.drawn)
    }
}
