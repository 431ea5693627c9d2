//! One window of a budget, and the use that was seen in it.

use std::time::Duration;

use super::Moment;

/// Requests of a window that are followed one by one until their responses say what is left.
const MAX_UNSTATED: usize = 4096;

/// What a response says of a budget's window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Statement {
    /// When the head of the response came.
    pub at: Moment,
    /// Requests that are left.
    pub remaining: u64,
    pub limit: Option<u64>,
    /// The end of the server's window, and how exact that is.
    pub end: Option<(Moment, Duration)>,
    /// Until then it surely lasts: by when the request was sent, and the least that the rounded reset stands for.
    pub sure_end: Option<Moment>,
    /// Requests of an earlier window that were sent later than the one that is answered, and of which nothing was said.
    pub untold: u64,
}

/// What the server said last, and what happened since.
#[derive(Debug, Clone, Copy)]
struct Said {
    remaining: u64,
    at: Moment,
    end: Option<(Moment, Duration)>,
    /// The request that was answered with it, counted from the first one of the window.
    ordinal: u64,
    /// Requests of an earlier window that were sent after it.
    untold: u64,
}

/// A request of which nothing was said.
#[derive(Debug, Clone, Copy)]
struct Unstated {
    ordinal: u64,
    started: Moment,
}

/// What tells of use by others: as many requests were used as the server said, and these of ours could be among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Evidence {
    /// Requests that are used and not ours.
    pub others: u64,
    /// Whether Clerk's headers say so, and not a refusal alone.
    pub is_named: bool,
    /// Our requests were counted from here on, ...
    pub from: Moment,
    /// ... and up to here.
    pub to: Moment,
    /// Requests of others of the fleet that may be among them, once the common log told.
    pub theirs: Option<u64>,
}

/// One window of a budget.
#[derive(Debug, Clone)]
pub(super) struct Window {
    /// Greater than those of the windows before it.
    pub number: u64,
    pub start: Moment,
    pub end: Moment,
    /// Whether its bounds are our own reckoning, and the server named none yet.
    pub is_guess: bool,
    /// Requests that were started here and may have been counted.
    pub counted: u64,
    /// Requests that were started here.
    begun: u64,
    in_flight: u64,
    /// The most that were started within a stretch as long as a window, where windows slide.
    pub most_in_stretch: u64,
    /// Requests per window, as the newest response named it.
    pub limit: Option<u64>,
    said: Option<Said>,
    /// Until then it surely lasts, where the server named its end.
    sure_end: Option<Moment>,
    least: Option<u64>,
    /// The fewest that the server said.
    pub least_said: Option<u64>,
    /// The requests whose responses said nothing of what is left, or are yet to come; by their place, in order.
    unstated: Vec<Unstated>,
    /// Further ones, for want of room.
    unstated_beyond: u64,
    /// Whether a response was a 429.
    pub throttled: bool,
    /// Time of the first and of the last request or response, in order of time.
    pub seen: Option<(Moment, Moment)>,
    /// The strongest sign of others' use.
    pub evidence: Option<Evidence>,
}

impl Window {
    pub(super) fn new(number: u64, start: Moment, end: Moment) -> Self {
        Self {
            number,
            start,
            end,
            is_guess: false,
            counted: 0,
            begun: 0,
            in_flight: 0,
            most_in_stretch: 0,
            limit: None,
            said: None,
            sure_end: None,
            least: None,
            least_said: None,
            unstated: Vec::new(),
            unstated_beyond: 0,
            throttled: false,
            seen: None,
            evidence: None,
        }
    }

    /// A request is sent at `started`; gives its place among those of this window.
    pub(super) fn begin(&mut self, started: Moment) -> u64 {
        self.counted += 1;
        self.begun += 1;
        self.in_flight += 1;
        if self.unstated.len() >= MAX_UNSTATED {
            let after = self.said.map_or(0, |said| said.ordinal);
            let dropped = self.unstated.drain(..MAX_UNSTATED / 2).filter(|it| it.ordinal > after).count();
            self.unstated_beyond += dropped as u64;
        }
        self.unstated.push(Unstated { ordinal: self.begun, started });
        self.begun
    }

    /// A request of this place was not counted.
    pub(super) fn refund(&mut self, ordinal: u64) {
        self.counted = self.counted.saturating_sub(1);
        self.state(ordinal);
    }

    /// A request ended whose response said nothing of what is left.
    pub(super) fn end_unstated(&mut self) {
        self.least = self.least_left();
    }

    /// A request of this window is over.
    pub(super) const fn end_request(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Whether nothing is known of it: nothing was seen, and nothing is in flight.
    pub(super) const fn is_untold(&self) -> bool {
        self.seen.is_none() && self.in_flight == 0
    }

    /// It is known what became of a request.
    fn state(&mut self, ordinal: u64) {
        if let Ok(place) = self.unstated.binary_search_by_key(&ordinal, |it| it.ordinal) {
            self.unstated.remove(place);
        }
    }

    /// The response to the request of this place said what is left; 0 is a request of an earlier window.
    pub(super) fn say(&mut self, statement: &Statement, ordinal: u64) {
        if let Some(limit) = statement.limit {
            if self.limit.is_some_and(|known| known != limit) {
                // Numbers of another limit.
                self.said = None;
                self.least = None;
                self.least_said = None;
                self.evidence = None;
            }
            self.limit = Some(limit);
        }
        self.least = Some(self.least.map_or(statement.remaining, |least| least.min(statement.remaining)));
        self.least_said = self.least_said.into_iter().chain([statement.remaining]).min();
        self.state(ordinal);
        let Statement { at, remaining, end, sure_end, untold, .. } = *statement;
        self.sure_end = self.sure_end.max(sure_end);
        let new = Said { remaining, at, end, ordinal, untold };
        let is_newer = match self.said {
            // Within a fixed window nothing comes back, so that the fewest is the newest, whatever order responses come in.
            Some(said) if said.is_of_window(statement) => new.remaining <= said.remaining,
            Some(said) => statement.at >= said.at,
            None => true,
        };
        if is_newer {
            self.said = Some(new);
            self.unstated_beyond = 0;
        }
    }

    /// Requests that are left, where the server said so: what it said, less what was sent since.
    pub(super) fn left(&self) -> Option<u64> {
        self.said.map(|said| self.left_after(said))
    }

    /// Fewest requests that were left, by the server's word and what was sent since. The server's end is known to a second or
    /// so: what was sent about then may be of the next window, and makes this one no fuller.
    pub(super) fn least_left(&self) -> Option<u64> {
        let left = self.said.map(|said| {
            let since = self.unstated.iter().rev().take_while(|it| it.ordinal > said.ordinal);
            let since = since.filter(|it| self.sure_end.is_none_or(|end| it.started < end)).count();
            said.remaining.saturating_sub(since as u64 + self.unstated_beyond + said.untold)
        });
        self.least.into_iter().chain(left).min()
    }

    /// Something was seen at this time.
    pub(super) fn see(&mut self, at: Moment) {
        let (first, last) = self.seen.unwrap_or((at, at));
        self.seen = Some((first.min(at), last.max(at)));
    }

    /// A sign that others use the budget: the strongest one counts.
    pub(super) fn suspect(&mut self, evidence: Evidence) {
        if self.evidence.is_none_or(|known| known.others < evidence.others) {
            self.evidence = Some(evidence);
        }
    }

    fn left_after(&self, said: Said) -> u64 {
        said.remaining.saturating_sub(self.untold_after(said.ordinal) + said.untold)
    }

    /// Requests that were sent after that of this place, and of which nothing was said.
    pub(super) fn untold_after(&self, ordinal: u64) -> u64 {
        let since = self.unstated.len() - self.unstated.partition_point(|it| it.ordinal <= ordinal);
        since as u64 + self.unstated_beyond
    }
}

impl Said {
    /// Whether the statement is of the same window of the server's, as far as it names its ends.
    fn is_of_window(&self, statement: &Statement) -> bool {
        match (self.end, statement.end) {
            (Some((ours, coarse)), Some((theirs, resolution))) => ours.distance(theirs) <= coarse.max(resolution),
            _ => true,
        }
    }
}
