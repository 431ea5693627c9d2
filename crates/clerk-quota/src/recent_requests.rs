//! Our own requests of the last windows, to the nearest part of a window.

use std::collections::VecDeque;
use std::time::Duration;

use super::Moment;

/// Parts of a window that are told apart.
const PARTS: u32 = 32;
/// Windows that are remembered.
const WINDOWS: u32 = 3;

/// How many requests there were when, and in which window they were counted.
#[derive(Debug, Clone, Default)]
pub(super) struct RecentRequests {
    /// Requests, by the beginning of each part and the number of the window, in order.
    parts: VecDeque<((Moment, u64), u64)>,
}

impl RecentRequests {
    /// A request at `at` in a window with this number; windows are so long.
    pub(super) fn add(&mut self, at: Moment, window: u64, length: Duration) {
        let part = (at.rounded_down(length / PARTS), window);
        let place = self.parts.partition_point(|(other, _)| *other < part);
        match self.parts.get_mut(place) {
            Some((other, requests)) if *other == part => *requests += 1,
            _ => self.parts.insert(place, (part, 1)),
        }
        let newest = self.parts.back().map_or(part.0, |((begin, _), _)| *begin);
        while self.parts.front().is_some_and(|((begin, _), _)| begin.after(length.saturating_mul(WINDOWS)) < newest) {
            self.parts.pop_front();
        }
    }

    /// Requests from this moment on, and all of its part, that were counted in windows before this one.
    pub(super) fn before(&self, window: u64, from: Moment, length: Duration) -> u64 {
        let from = from.rounded_down(length / PARTS);
        let late = self.parts.iter().rev().take_while(|((begin, _), _)| *begin >= from);
        late.filter(|((_, number), _)| *number < window).map(|(_, requests)| requests).sum()
    }
}
