//! What the server said to the request that was sent last of those that it told anything, and what was sent since.
//!
//! This holds for every kind of limiter: what was left when that request was counted, less what was sent later and may still
//! be in use. Windows of our own reckoning may not be the limiter's, where it has none or begins them with a request.

use std::collections::VecDeque;
use std::time::Duration;

use super::Moment;

/// Requests that are followed one by one; further ones count as sent just now.
const MAX_FOLLOWED: usize = 4096;

#[derive(Debug, Clone, Copy)]
struct Word {
    started: Moment,
    remaining: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct NewestWord {
    word: Option<Word>,
    /// Starts of the requests that were sent later, in order.
    since: VecDeque<Moment>,
    /// Those for which there was no room, and when the last of them was sent.
    beyond: u64,
    beyond_until: Moment,
}

impl NewestWord {
    /// A request is sent.
    pub(super) fn begin(&mut self, started: Moment) {
        if self.word.is_none_or(|word| started <= word.started) {
            return;
        }
        if self.since.len() < MAX_FOLLOWED {
            let place = self.since.partition_point(|at| *at <= started);
            self.since.insert(place, started);
        } else {
            self.beyond += 1;
            self.beyond_until = self.beyond_until.max(started);
        }
    }

    /// A request that was sent at `started` was not counted.
    pub(super) fn refund(&mut self, started: Moment) {
        if let Ok(place) = self.since.binary_search(&started) {
            self.since.remove(place);
        }
    }

    /// The response to the request that was sent at `started` said what is left.
    pub(super) fn say(&mut self, started: Moment, remaining: u64) {
        let is_newer = self.word.is_none_or(|word| match started.cmp(&word.started) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => remaining <= word.remaining,
            std::cmp::Ordering::Greater => true,
        });
        if is_newer {
            self.word = Some(Word { started, remaining });
            let known = self.since.partition_point(|at| *at <= started);
            self.since.drain(..known);
            if self.beyond_until <= started {
                self.beyond = 0;
            }
        }
    }

    /// The most that may be left: what was said, less what was sent since and may still be `remembered`.
    pub(super) fn left(&self, now: Moment, remembered: Duration) -> Option<u64> {
        let word = self.word?;
        let begin = now.before(remembered);
        let since = self.since.len() - self.since.partition_point(|at| *at <= begin);
        let beyond = if self.beyond_until > begin { self.beyond } else { 0 };
        Some(word.remaining.saturating_sub(since as u64 + beyond))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    fn at(millis: u64) -> Moment {
        Moment::from_unix(Duration::from_millis(1_000_000 + millis))
    }

    #[test]
    fn what_was_sent_since_comes_off_for_a_window() {
        let mut newest = NewestWord::default();
        newest.begin(at(0));
        assert_eq!(newest.left(at(0), WINDOW), None);
        newest.say(at(0), 40);
        (1..=3).for_each(|second| newest.begin(at(second * 1_000)));
        assert_eq!(newest.left(at(3_000), WINDOW), Some(37));
        newest.refund(at(2_000));
        assert_eq!(newest.left(at(3_000), WINDOW), Some(38));
        assert_eq!(newest.left(at(11_500), WINDOW), Some(39));
    }

    #[test]
    fn the_request_that_was_sent_last_has_the_word_whatever_order_responses_come_in() {
        let mut newest = NewestWord::default();
        newest.say(at(0), 40);
        (1..=4).for_each(|second| newest.begin(at(second * 1_000)));
        newest.say(at(3_000), 20);
        newest.say(at(2_000), 30);
        assert_eq!(newest.left(at(4_000), WINDOW), Some(19));
        newest.say(at(3_000), 18);
        newest.say(at(3_000), 25);
        assert_eq!(newest.left(at(4_000), WINDOW), Some(17));
    }

    #[test]
    fn requests_without_end_take_bounded_room() {
        let mut newest = NewestWord::default();
        newest.say(at(0), 10_000);
        (1..=6_000).for_each(|milli| newest.begin(at(milli)));
        assert!(newest.since.len() <= MAX_FOLLOWED);
        assert_eq!(newest.left(at(6_000), WINDOW), Some(4_000));
        newest.say(at(6_000), 5);
        assert_eq!(newest.left(at(6_000), WINDOW), Some(5));
    }
}
