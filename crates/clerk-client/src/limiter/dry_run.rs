//! What the limiter would do, before it is switched on: a second queue and log, in which requests wait and leave as if
//! limited, while they really leave at once.
//!
//! The time in flight of simulated requests is unknown; the recent average is used. A 429 caused by the missing limiter
//! does not count here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::bucket_limiter::Ending;
use super::queue::{Enqueued, Grant, Key, Poll, Queue};
use super::sender::Sender;
use super::shares::CallerShare;
use super::{Limiter, LimiterOptions, ShedReason, key};
use clerk_quota::route::Entity;
use clerk_quota::{Bucket, Moment, Scope};

/// Time in flight assumed before the first response.
const UNKNOWN_LATENCY: Duration = Duration::from_millis(100);

/// Maximum number of events between two calls; the rest follows with the next call.
const MAX_EVENTS: usize = 100_000;

/// The shortest time step, so that time always advances.
const STEP: Duration = Duration::from_micros(100);

/// What the limiter would do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThrottleForecast {
    /// It would leave at once.
    Now,
    /// It would be queued.
    Queued {
        /// Estimated wait; later requests of higher priority go first.
        wait: Duration,
    },
    /// It would be rejected.
    Shed(ShedReason),
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entered {
    Now,
    Waiting,
    Shed(ShedReason),
}

/// Waits of requests that were queued and have left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Waits {
    pub(super) left: u64,
    pub(super) total: Duration,
    pub(super) longest: Duration,
    /// Requests whose wait was longer than they had expected.
    pub(super) expired: u64,
}

impl Waits {
    fn add(&mut self, wait: Duration) {
        self.left += 1;
        self.total = self.total.saturating_add(wait);
        self.longest = self.longest.max(wait);
    }
}

/// The simulated queue, advanced by each call.
#[derive(Debug)]
pub(super) struct DryRunQueue {
    queue: Queue,
    /// Simulated requests in flight, by the time of their end and a unique number.
    in_flight: BTreeMap<(Moment, u64), Grant>,
    /// Deadlines of the waiting requests.
    deadlines: BTreeSet<(Moment, u64, Key)>,
    /// When the waiting requests came, and their time in flight.
    waiting: FxHashMap<u64, (Moment, Duration)>,
    waits: Waits,
    number: u64,
    /// Everything up to then has been simulated.
    now: Moment,
}

impl DryRunQueue {
    /// Seeded: the result must not depend on the random numbers of other queues.
    pub(super) fn new(options: LimiterOptions) -> Self {
        Self {
            // As if shared: a request that is never sent finds nothing out.
            queue: Queue::new(options, fastrand::Rng::with_seed(0)).shared(true),
            in_flight: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            waiting: FxHashMap::default(),
            waits: Waits::default(),
            number: 0,
            now: Moment::default(),
        }
    }

    pub(super) fn reconfigure(&mut self, options: LimiterOptions) {
        self.queue.reconfigure(options);
    }

    pub(super) fn set_shares(&mut self, shares: Vec<CallerShare>, now: Moment) {
        self.advance(now);
        self.queue.set_shares(shares, self.now);
        self.collect(self.now);
    }

    /// Adds a request at `now`. `known` is the real queue, which knows the server.
    fn submit(
        &mut self,
        known: &mut Queue,
        (key, sender): (Key, Sender),
        now: Moment,
        max_wait: Duration,
    ) -> ThrottleForecast {
        let latency = known.latency().unwrap_or(UNKNOWN_LATENCY);
        self.queue.adopt(key, known, now);
        match self.enter((key, sender), now, max_wait, latency) {
            Entered::Now => ThrottleForecast::Now,
            Entered::Waiting => {
                let earliest = self.queue.earliest(key, sender, now).at.filter(|at| *at > now);
                let next_end = self.in_flight.keys().next().map(|(at, _)| *at);
                let wait = earliest.or(next_end).map_or(latency, |at| at.since(now));
                ThrottleForecast::Queued { wait }
            }
            Entered::Shed(reason) => ThrottleForecast::Shed(reason),
        }
    }

    /// Adds a request at `now` that is in flight for `latency` once it has left.
    pub(super) fn enter(
        &mut self,
        (key, sender): (Key, Sender),
        now: Moment,
        max_wait: Duration,
        latency: Duration,
    ) -> Entered {
        self.advance(now);
        let deadline = now.after(max_wait);
        let (entered, _) = self.queue.enqueue(key, sender, now, deadline);
        self.collect(now);
        match entered {
            Enqueued::Go(_, grant) => {
                self.depart(grant, now, latency);
                Entered::Now
            }
            Enqueued::Wait(id) => {
                self.deadlines.insert((deadline, id, key));
                self.waiting.insert(id, (now, latency));
                Entered::Waiting
            }
            Enqueued::Shed(shed) => Entered::Shed(shed.reason),
        }
    }

    /// Simulates everything until `now`.
    pub(super) fn advance(&mut self, now: Moment) {
        for _ in 0..MAX_EVENTS {
            let next_end = self.in_flight.keys().next().map(|(at, _)| *at);
            let next_deadline = self.deadlines.first().map(|(at, ..)| *at);
            let next_turn = self.next_turn();
            let Some(at) = [next_end, next_deadline, next_turn].into_iter().flatten().min().filter(|at| *at <= now)
            else {
                break;
            };
            self.now = self.now.max(at);
            if next_end == Some(at)
                && let Some((_, grant)) = self.in_flight.pop_first()
            {
                self.queue.end(grant, Ending::Lost, self.now);
                self.queue.release(|| self.now);
            } else if next_deadline == Some(at)
                && let Some((_, id, key)) = self.deadlines.pop_first()
            {
                // A request that has left meanwhile no longer waits.
                self.waits.expired += u64::from(self.waiting.remove(&id).is_some());
                self.queue.leave(key, id, self.now);
            } else {
                self.queue.dispatch(self.now);
                self.now = self.now.after(STEP);
            }
            self.collect(self.now);
        }
        self.now = self.now.max(now);
    }

    /// When the first head may leave, if that depends on time only.
    fn next_turn(&mut self) -> Option<Moment> {
        let looks = self.queue.firsts(self.now).into_iter().filter_map(|(key, id)| {
            match self.queue.poll(key, id, self.now).0 {
                Poll::Wait(look) => look.map(|look| look.at),
                Poll::Go(grant) => {
                    self.queue.put_grant(id, grant);
                    Some(self.now)
                }
            }
        });
        looks.min().map(|at| at.max(self.now))
    }

    /// Moves granted requests in flight.
    fn collect(&mut self, now: Moment) {
        for (id, grant) in self.queue.take_grants() {
            let (came, latency) = self.waiting.remove(&id).unwrap_or((now, UNKNOWN_LATENCY));
            self.waits.add(now.since(came));
            self.depart(grant, now, latency);
        }
    }

    /// The waits of the requests that were queued and have left.
    pub(super) const fn waits(&self) -> Waits {
        self.waits
    }

    fn depart(&mut self, grant: Grant, now: Moment, latency: Duration) {
        self.number += 1;
        self.in_flight.insert((now.after(latency), self.number), grant);
    }
}

impl Limiter {
    /// Returns what the limiter would do with a request now, if it limited all requests of this method.
    ///
    /// Call it once per request: the request then waits and leaves as returned. Only the requests of this process
    /// count.
    #[must_use]
    pub fn dry_run(
        &self,
        bucket: Bucket,
        entity: Option<Entity>,
        sender: impl Into<Sender>,
        max_wait: Duration,
    ) -> ThrottleForecast {
        if bucket.scope() == Scope::Unlimited {
            return ThrottleForecast::Now;
        }
        let state = &mut *self.state.lock();
        let now = self.clock.now();
        if state.dry_run.is_none() {
            let mut dry_run = DryRunQueue::new(state.queue.options());
            dry_run.set_shares(state.queue.shares().to_vec(), now);
            state.dry_run = Some(Box::new(dry_run));
        }
        let Some(dry_run) = &mut state.dry_run else { return ThrottleForecast::Now };
        dry_run.submit(&mut state.queue, (key(bucket, entity), sender.into()), now, max_wait)
    }

    /// Returns whether a request would have to wait now, given the requests really sent.
    #[must_use]
    pub fn would_throttle(&self, bucket: Bucket, entity: Option<Entity>, sender: impl Into<Sender>) -> bool {
        bucket.scope() != Scope::Unlimited
            && self.state.lock().queue.would_throttle(key(bucket, entity), sender.into(), self.clock.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limiter::Priority;
    use clerk_quota::Limit;

    const WINDOW: Duration = Duration::from_secs(10);
    const KEY: Key = (Bucket::Instance, None);

    fn at(millis: u64) -> Moment {
        Moment::from_unix(Duration::from_millis(1_000_000_000 + millis))
    }

    struct Simulation {
        known: Queue,
        dry_run: DryRunQueue,
        max_wait: Duration,
    }

    impl Simulation {
        fn new(max_wait: u64) -> Self {
            let limit = Some(Limit { requests: 40, window: WINDOW });
            let options = LimiterOptions { limit, max_in_flight: 100, ..LimiterOptions::default() };
            let known = Queue::new(options, fastrand::Rng::with_seed(1));
            Self { known, dry_run: DryRunQueue::new(options), max_wait: Duration::from_secs(max_wait) }
        }

        /// How many of `requests` would leave at once, wait and be shed.
        fn submit(&mut self, requests: u32, priority: Priority, now: u64) -> [u32; 3] {
            let mut counts = [0; 3];
            for _ in 0..requests {
                match self.dry_run.submit(&mut self.known, (KEY, priority.into()), at(now), self.max_wait) {
                    ThrottleForecast::Now => counts[0] += 1,
                    ThrottleForecast::Queued { .. } => counts[1] += 1,
                    ThrottleForecast::Shed(_) => counts[2] += 1,
                }
            }
            counts
        }
    }

    #[test]
    fn requests_beyond_the_limit_are_shed_or_queued_by_max_wait() {
        assert_eq!(Simulation::new(5).submit(60, Priority::High, 0), [40, 0, 20]);
        assert_eq!(Simulation::new(30).submit(60, Priority::High, 0), [40, 20, 0]);
    }

    #[test]
    fn shed_requests_use_no_quota_but_queued_ones_do() {
        let mut shed = Simulation::new(5);
        shed.submit(60, Priority::High, 0);
        let mut queued = Simulation::new(30);
        queued.submit(60, Priority::High, 0);
        // Three windows later all quota is back if no request waited; if some did, after six.
        assert_eq!(shed.submit(40, Priority::High, 30_000), [40, 0, 0]);
        assert_eq!(queued.submit(40, Priority::High, 60_000), [40, 0, 0]);
        // Just after queued requests have left, there is no room.
        let mut busy = Simulation::new(30);
        busy.submit(80, Priority::High, 0);
        let [now, ..] = busy.submit(10, Priority::High, 15_000);
        assert!(now < 10, "{now}");
    }

    #[test]
    fn low_priority_leaves_its_reserve() {
        assert_eq!(Simulation::new(5).submit(60, Priority::Low, 0), [36, 0, 24]);
    }

    #[test]
    fn queued_forecast_estimates_the_wait() {
        let mut simulation = Simulation::new(30);
        simulation.submit(40, Priority::High, 0);
        let forecast = simulation.dry_run.submit(
            &mut simulation.known,
            (KEY, Priority::High.into()),
            at(1_000),
            simulation.max_wait,
        );
        let ThrottleForecast::Queued { wait } = forecast else { panic!("{forecast:?}") };
        assert!((8.0..10.5).contains(&wait.as_secs_f64()), "{wait:?}");
    }
}
