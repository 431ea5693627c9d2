//! What the limiter would do with recorded requests, in simulated time.
//!
//! It runs the queue of the dry run, with the recorded time in flight of each request.

use std::time::Duration;

use super::dry_run::{DryRunQueue, Entered};
use super::{LimiterOptions, Priority, key};
use clerk_quota::route::Entity;
use clerk_quota::{Bucket, Moment, Scope};

/// A recorded request.
#[derive(Debug, Clone, Copy)]
pub struct RecordedRequest {
    /// The bucket that counts it.
    pub bucket: Bucket,
    /// The owner of the budget, for buckets of [`Scope::Entity`].
    pub entity: Option<Entity>,
    /// When it came.
    pub started: Moment,
    /// How long it was in flight.
    pub took: Duration,
}

/// What the limiter would have done with the requests so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ThrottleTotals {
    /// Sent at once.
    pub at_once: u64,
    /// Sent after a wait.
    pub delayed: u64,
    /// Rejected at once or after a wait, because the limit had no room in time.
    pub shed: u64,
    /// Waits of all delayed requests.
    pub total_wait: Duration,
    /// The longest wait of a delayed request.
    pub longest_wait: Duration,
}

/// The limiter in simulated time, with one priority.
///
/// Time must not run backwards: pass requests in the order in which they came.
#[derive(Debug)]
pub struct ThrottleSimulation {
    queue: DryRunQueue,
    max_wait: Duration,
    at_once: u64,
    shed: u64,
}

impl ThrottleSimulation {
    /// Creates an idle limiter whose requests wait at most `max_wait`.
    #[must_use]
    pub fn new(options: LimiterOptions, max_wait: Duration) -> Self {
        Self { queue: DryRunQueue::new(options), max_wait, at_once: 0, shed: 0 }
    }

    /// Adds a request. Returns whether it is sent at once.
    pub fn request(&mut self, request: &RecordedRequest) -> bool {
        let RecordedRequest { bucket, entity, started, took } = *request;
        let entered = if bucket.scope() == Scope::Unlimited {
            Entered::Now
        } else {
            self.queue.enter((key(bucket, entity), Priority::High.into()), started, self.max_wait, took)
        };
        match entered {
            Entered::Now => self.at_once += 1,
            Entered::Shed(_) => self.shed += 1,
            Entered::Waiting => {}
        }
        entered == Entered::Now
    }

    /// Simulates everything until `now`, such as the waits of queued requests.
    pub fn advance(&mut self, now: Moment) {
        self.queue.advance(now);
    }

    /// Returns the totals of the requests that no longer wait.
    #[must_use]
    pub fn totals(&self) -> ThrottleTotals {
        let waits = self.queue.waits();
        ThrottleTotals {
            at_once: self.at_once,
            delayed: waits.left,
            shed: self.shed + waits.expired,
            total_wait: waits.total,
            longest_wait: waits.longest,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use clerk_quota::Limit;

    const WINDOW: Duration = Duration::from_secs(10);

    fn at(millis: u64) -> Moment {
        Moment::from_unix(Duration::from_millis(1_000_000_000_000 + millis))
    }

    fn request(started: u64) -> RecordedRequest {
        let took = Duration::from_millis(50);
        RecordedRequest { bucket: Bucket::Instance, entity: None, started: at(started), took }
    }

    fn simulation(max_wait: Duration) -> ThrottleSimulation {
        let limit = Limit { requests: 40, window: WINDOW };
        ThrottleSimulation::new(LimiterOptions::default().limit(limit), max_wait)
    }

    #[test]
    fn burst_beyond_the_limit_waits_for_the_next_window() {
        let mut simulation = simulation(Duration::from_secs(11));
        for _ in 0..50 {
            simulation.request(&request(0));
        }
        simulation.advance(at(60_000));
        let totals = simulation.totals();
        assert_eq!((totals.at_once, totals.delayed, totals.shed), (40, 10, 0));
        assert!(totals.longest_wait > Duration::from_secs(9) && totals.longest_wait < Duration::from_secs(11));
        assert!(totals.total_wait >= Duration::from_secs(90));
    }

    #[test]
    fn unlimited_routes_never_wait() {
        let mut simulation = simulation(WINDOW);
        for _ in 0..1000 {
            let jwks = RecordedRequest { bucket: Bucket::Unlimited, ..request(0) };
            assert!(simulation.request(&jwks));
        }
    }

    proptest! {
        #[test]
        fn every_request_is_sent_or_shed(gaps in proptest::collection::vec(0_u64..600, 1..200)) {
            let mut simulation = simulation(Duration::from_secs(5));
            let mut now = 0;
            for gap in &gaps {
                now += gap;
                simulation.request(&request(now));
            }
            simulation.advance(at(now + 120_000));
            let totals = simulation.totals();
            prop_assert_eq!(totals.at_once + totals.delayed + totals.shed, gaps.len() as u64);
            prop_assert!(totals.longest_wait <= Duration::from_secs(5) + Duration::from_millis(1));
        }
    }
}
