//! What pacing would do with requests, before it is switched on: a queue and a log of their own, in which the requests
//! wait and leave as they would, while they really leave at once.
//!
//! What is not known is how long those would be in flight that have not left: as long as requests were lately. A 429 that
//! comes only since nothing is paced yet does not count here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::bucket_limiter::Ending;
use super::queue::{Enqueued, Grant, Key, Poll, Queue};
use super::{Limiter, LimiterOptions, Priority, ShedReason, key};
use clerk_quota::route::Entity;
use clerk_quota::{Bucket, Moment, Scope};

/// How long a request is taken to be in flight before any was seen.
const UNKNOWN_LATENCY: Duration = Duration::from_millis(100);

/// Most that happens in the queue between two questions; what is left happens with the next one.
const MAX_EVENTS: usize = 100_000;

/// The shortest step of time, so that there is always one.
const STEP: Duration = Duration::from_micros(100);

/// What pacing would do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThrottleForecast {
    /// It would leave at once.
    Now,
    /// It would wait, about so long.
    Queued {
        /// As it looks now; those of higher priority who come later go first.
        wait: Duration,
    },
    /// It would not be sent.
    Shed(ShedReason),
}

/// A queue that lives on the questions that are put to it.
#[derive(Debug)]
pub(super) struct DryRunQueue {
    queue: Queue,
    /// When those who left come back, with a number that tells them apart.
    in_flight: BTreeMap<(Moment, u64), Grant>,
    /// Until when those who wait would do so.
    deadlines: BTreeSet<(Moment, u64, Key)>,
    number: u64,
    /// Until then, everything has happened.
    now: Moment,
}

impl DryRunQueue {
    /// What would happen does not depend on the random numbers that others draw.
    pub(super) fn new(options: LimiterOptions) -> Self {
        Self {
            // As if shared: what never leaves finds nothing out.
            queue: Queue::new(options, fastrand::Rng::with_seed(0)).shared(true),
            in_flight: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            number: 0,
            now: Moment::default(),
        }
    }

    pub(super) fn reconfigure(&mut self, options: LimiterOptions) {
        self.queue.reconfigure(options);
    }

    /// What becomes of a request that asks at `now`. `known` is the queue that knows the server.
    fn ask(
        &mut self,
        known: &mut Queue,
        (key, priority): (Key, Priority),
        now: Moment,
        max_wait: Duration,
    ) -> ThrottleForecast {
        let latency = known.latency().unwrap_or(UNKNOWN_LATENCY);
        self.queue.adopt(key, known, now);
        self.advance(now, latency);
        let deadline = now.after(max_wait);
        let (entered, _) = self.queue.enqueue(key, priority, now, deadline);
        self.collect(now, latency);
        match entered {
            Enqueued::Go(_, grant) => {
                self.depart(grant, now, latency);
                ThrottleForecast::Now
            }
            Enqueued::Wait(id) => {
                self.deadlines.insert((deadline, id, key));
                let earliest = self.queue.earliest(key, priority, now).filter(|at| *at > now);
                let next_end = self.in_flight.keys().next().map(|(at, _)| *at);
                let wait = earliest.or(next_end).map_or(latency, |at| at.since(now));
                ThrottleForecast::Queued { wait }
            }
            Enqueued::Shed(shed) => ThrottleForecast::Shed(shed.reason),
        }
    }

    /// Lets happen what happens until `now`.
    fn advance(&mut self, now: Moment, latency: Duration) {
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
                // A request that has left meanwhile does not wait any more.
                self.queue.leave(key, id, self.now);
            } else {
                self.queue.dispatch(self.now);
                self.now = self.now.after(STEP);
            }
            self.collect(self.now, latency);
        }
        self.now = self.now.max(now);
    }

    /// When the first of those who are next may leave, if that is a matter of time.
    fn next_turn(&mut self) -> Option<Moment> {
        let looks = self.queue.heads().into_iter().filter_map(|(key, id)| match self.queue.poll(key, id, self.now).0 {
            Poll::Wait(look) => look,
            Poll::Go(grant) => {
                self.queue.put_grant(id, grant);
                Some(self.now)
            }
        });
        looks.min().map(|at| at.max(self.now))
    }

    /// Sees off those whose turn has come.
    fn collect(&mut self, now: Moment, latency: Duration) {
        for grant in self.queue.take_grants() {
            self.depart(grant, now, latency);
        }
    }

    fn depart(&mut self, grant: Grant, now: Moment, latency: Duration) {
        self.number += 1;
        self.in_flight.insert((now.after(latency), self.number), grant);
    }
}

impl Limiter {
    /// What would become of a request that asked for a permit now and waited at most `max_wait`, if all requests for
    /// which this is asked were paced: to see what pacing would do before it is switched on. To be asked once for each
    /// request; it is then taken to wait and leave as is said here. Sees the requests of this process only.
    #[must_use]
    pub fn dry_run(
        &self,
        bucket: Bucket,
        entity: Option<Entity>,
        priority: Priority,
        max_wait: Duration,
    ) -> ThrottleForecast {
        if bucket.scope() == Scope::Unlimited {
            return ThrottleForecast::Now;
        }
        let state = &mut *self.state.lock();
        let options = state.queue.options();
        let dry_run = state.dry_run.get_or_insert_with(|| Box::new(DryRunQueue::new(options)));
        dry_run.ask(&mut state.queue, (key(bucket, entity), priority), self.clock.now(), max_wait)
    }

    /// Whether a request that asked for a permit now would have to wait, beside those that were really sent.
    #[must_use]
    pub fn would_throttle(&self, bucket: Bucket, entity: Option<Entity>, priority: Priority) -> bool {
        bucket.scope() != Scope::Unlimited
            && self.state.lock().queue.would_throttle(key(bucket, entity), priority, self.clock.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clerk_quota::Limit;

    const WINDOW: Duration = Duration::from_secs(10);
    const KEY: Key = (Bucket::Instance, None);

    fn at(millis: u64) -> Moment {
        Moment::from_unix(Duration::from_millis(1_000_000_000 + millis))
    }

    struct Asked {
        known: Queue,
        dry_run: DryRunQueue,
        max_wait: Duration,
    }

    impl Asked {
        fn new(max_wait: u64) -> Self {
            let limit = Some(Limit { requests: 40, window: WINDOW });
            let options = LimiterOptions { limit, max_in_flight: 100, ..LimiterOptions::default() };
            let known = Queue::new(options, fastrand::Rng::with_seed(1));
            Self { known, dry_run: DryRunQueue::new(options), max_wait: Duration::from_secs(max_wait) }
        }

        /// How many of so many would leave at once, wait and be shed.
        fn ask(&mut self, requests: u32, priority: Priority, now: u64) -> [u32; 3] {
            let mut counts = [0; 3];
            for _ in 0..requests {
                match self.dry_run.ask(&mut self.known, (KEY, priority), at(now), self.max_wait) {
                    ThrottleForecast::Now => counts[0] += 1,
                    ThrottleForecast::Queued { .. } => counts[1] += 1,
                    ThrottleForecast::Shed(_) => counts[2] += 1,
                }
            }
            counts
        }
    }

    #[test]
    fn what_is_beyond_the_limit_is_shed_or_queued_by_max_wait() {
        assert_eq!(Asked::new(5).ask(60, Priority::High, 0), [40, 0, 20]);
        assert_eq!(Asked::new(30).ask(60, Priority::High, 0), [40, 20, 0]);
    }

    #[test]
    fn those_who_were_shed_use_nothing_and_those_who_wait_do() {
        let mut shed = Asked::new(5);
        shed.ask(60, Priority::High, 0);
        let mut queued = Asked::new(30);
        queued.ask(60, Priority::High, 0);
        // Three windows later all is free where no request waited, and those who did have long left.
        assert_eq!(shed.ask(40, Priority::High, 30_000), [40, 0, 0]);
        assert_eq!(queued.ask(40, Priority::High, 60_000), [40, 0, 0]);
        // Just after those who waited have left, there is no room beside them.
        let mut busy = Asked::new(30);
        busy.ask(80, Priority::High, 0);
        let [now, ..] = busy.ask(10, Priority::High, 15_000);
        assert!(now < 10, "{now}");
    }

    #[test]
    fn bulk_work_leaves_its_reserve() {
        assert_eq!(Asked::new(5).ask(60, Priority::Low, 0), [36, 0, 24]);
    }

    #[test]
    fn a_wait_says_about_how_long_it_is() {
        let mut asked = Asked::new(30);
        asked.ask(40, Priority::High, 0);
        let forecast = asked.dry_run.ask(&mut asked.known, (KEY, Priority::High), at(1_000), asked.max_wait);
        let ThrottleForecast::Queued { wait } = forecast else { panic!("{forecast:?}") };
        assert!((8.0..10.5).contains(&wait.as_secs_f64()), "{wait:?}");
    }
}
