//! Corrects senders' clocks that are ahead.
//!
//! A span cannot end after it arrived. If one seems to, the sender's clock is ahead by at least the difference, and all
//! its spans are moved back by the largest difference of the last minute. A clock that is behind cannot be told from
//! spans that took long to arrive.

use std::collections::VecDeque;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::Sender;
use clerk_quota::Moment;

/// The largest lead that is taken for a wrong clock. A span from further ahead is left where it is, in the future.
pub const MAX_LEAD: Duration = Duration::from_secs(5 * 60);

/// How long a lead counts.
const LOOK_BACK: Duration = Duration::from_secs(60);

/// Resolution of the look-back.
const SLOT: Duration = Duration::from_secs(10);

/// The leads of the senders whose clocks are ahead. The others need no memory.
#[derive(Debug, Clone)]
pub struct SenderClocks {
    /// Begin and the largest lead of each sender, oldest first.
    slots: VecDeque<(Moment, FxHashMap<Sender, Duration>)>,
    max_senders: usize,
    forgotten: u64,
}

impl SenderClocks {
    /// Creates an empty list for this many senders in each 10 s.
    #[must_use]
    pub const fn new(max_senders: usize) -> Self {
        Self { slots: VecDeque::new(), max_senders, forgotten: 0 }
    }

    /// Takes in the ends of spans that arrived at `now`. Returns by how much the sender's spans are to be moved back.
    pub fn correct(&mut self, now: Moment, sender: Sender, ends: impl Iterator<Item = Moment>) -> Duration {
        while self.slots.front().is_some_and(|(begun, _)| now.since(*begun) >= LOOK_BACK + SLOT) {
            self.slots.pop_front();
        }
        let lead = ends.map(|end| end.since(now)).filter(|lead| *lead <= MAX_LEAD).max().unwrap_or_default();
        if lead > Duration::ZERO {
            self.note(now, sender, lead);
        }
        let known = self.slots.iter().filter_map(|(_, leads)| leads.get(&sender)).max();
        lead.max(known.copied().unwrap_or_default())
    }

    fn note(&mut self, now: Moment, sender: Sender, lead: Duration) {
        if self.slots.back().is_none_or(|(begun, _)| now.since(*begun) >= SLOT) {
            self.slots.push_back((now, FxHashMap::default()));
        }
        let Some((_, leads)) = self.slots.back_mut() else { return };
        if leads.len() >= self.max_senders && !leads.contains_key(&sender) {
            self.forgotten += 1;
            return;
        }
        let largest = leads.entry(sender).or_default();
        *largest = lead.max(*largest);
    }

    /// Returns how often a lead was not remembered because there were too many senders.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }
}
