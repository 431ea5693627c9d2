//! When each request came, left and ended, and the promises that can be checked by that alone.

use std::time::Duration;

use proptest::test_runner::TestCaseError;

use crate::traffic::{Caller, RESERVE, Traffic, WINDOW};

/// Quota returns late by up to this, so that waiters do not return in step.
const JITTER: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    /// In the order in which they came.
    pub(crate) number: u64,
    pub(crate) caller: usize,
    pub(crate) came: Duration,
    /// When it was sent, or shed.
    pub(crate) left: Duration,
    /// `None` if it was shed.
    pub(crate) ended: Option<Duration>,
}

impl Request {
    /// Whether it counts at a time, `late` longer than it must.
    fn counts_at(&self, at: Duration, late: Duration) -> bool {
        self.ended.is_some_and(|ended| self.left <= at && at < ended + WINDOW + late)
    }
}

#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) traffic: Traffic,
    /// In the order in which they came.
    pub(crate) requests: Vec<Request>,
}

/// Which requests of a caller may leave before another.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Others {
    /// Those that came before it: in one process.
    Earlier,
    /// Any: several processes do not know the order.
    All,
}

fn middle(pair: &[Duration]) -> Duration {
    pair[0] + (pair[1] - pair[0]) / 2
}

type Check = Result<(), TestCaseError>;

fn require(holds: bool, what: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(TestCaseError::fail(what())) }
}

impl Record {
    fn caller(&self, request: &Request) -> &Caller {
        &self.traffic.callers[request.caller]
    }

    fn part(&self, share: f64) -> u64 {
        (self.traffic.limit as f64 * share + 1e-9).floor() as u64
    }

    fn guarantee(&self, request: &Request) -> u64 {
        self.part(self.caller(request).min_share)
    }

    fn cap(&self, request: &Request) -> u64 {
        self.part(self.caller(request).max_share).max(1)
    }

    fn used(&self, caller: Option<usize>, at: Duration, late: Duration) -> u64 {
        let of_caller = |request: &&Request| caller.is_none_or(|caller| request.caller == caller);
        self.requests.iter().filter(of_caller).filter(|request| request.counts_at(at, late)).count() as u64
    }

    /// A request waits at most a window and `more` within its caller's guarantee, and is not shed if it was within it all the
    /// time. It is if fewer others of its caller than are guaranteed count or wait.
    pub(crate) fn check_guarantees(&self, others: Others, more: Duration) -> Check {
        let times = self.times();
        for request in self.requests.iter().filter(|request| self.guarantee(request) > 0) {
            let guarantee = self.guarantee(request);
            let is_within = |at: Duration| {
                let of_caller = self.requests.iter().filter(|other| other.caller == request.caller);
                let ahead = of_caller.filter(|other| match others {
                    Others::Earlier => other.number < request.number,
                    Others::All => other.number != request.number,
                });
                let ahead = ahead.filter(|other| other.counts_at(at, JITTER) || (other.came <= at && at <= other.left));
                (ahead.count() as u64) < guarantee
            };
            let from = times.partition_point(|at| *at < request.came);
            let to = times.partition_point(|at| *at <= request.left);
            let mut within = Duration::ZERO;
            for pair in times[from..to].windows(2) {
                within = if is_within(middle(pair)) { within + (pair[1] - pair[0]) } else { Duration::ZERO };
                require(within <= WINDOW + more, || format!("waited {within:?} within the guarantee: {request:?}"))?;
            }
            let is_shed = request.ended.is_none();
            let is_always = within == request.left - request.came && is_within(request.left);
            require(!(is_shed && is_always), || format!("shed within the guarantee: {request:?}"))?;
        }
        Ok(())
    }

    /// When anything changes.
    fn times(&self) -> Vec<Duration> {
        let mut times: Vec<_> = self.requests.iter().flat_map(|request| [request.came, request.left]).collect();
        let ends = self.requests.iter().filter_map(|request| request.ended);
        times.extend(ends.flat_map(|ended| [ended + WINDOW, ended + WINDOW + JITTER]));
        times.sort_unstable();
        times.dedup();
        times
    }

    /// No caller exceeds its cap in any period of one window.
    pub(crate) fn check_caps(&self) -> Check {
        for request in self.requests.iter().filter(|request| request.ended.is_some()) {
            let used = self.used(Some(request.caller), request.left, Duration::ZERO);
            let cap = self.cap(request);
            require(used <= cap, || format!("{used} of a cap of {cap}: {request:?}"))?;
        }
        Ok(())
    }

    /// All together never exceed the limit in any period of one window.
    pub(crate) fn check_limit(&self) -> Check {
        for request in self.requests.iter().filter(|request| request.ended.is_some()) {
            let used = self.used(None, request.left, Duration::ZERO);
            require(used <= self.traffic.limit, || format!("{used} of the limit: {request:?}"))?;
        }
        Ok(())
    }

    /// Whenever the limit has room, and a request waits whose caller is below its cap, one leaves within `slack`.
    pub(crate) fn check_use(&self, slack: Duration) -> Check {
        let times = self.times();
        let all: Vec<_> = times.windows(2).map(|pair| self.used(None, middle(pair), JITTER)).collect();
        let by_caller: Vec<Vec<_>> = (0..self.traffic.callers.len())
            .map(|caller| times.windows(2).map(|pair| self.used(Some(caller), middle(pair), JITTER)).collect())
            .collect();
        for request in &self.requests {
            let mut free = Duration::ZERO;
            for (place, pair) in times.windows(2).enumerate() {
                let own = by_caller[request.caller][place];
                let is_reserved = self.caller(request).is_low && own >= self.guarantee(request);
                let reserve = if is_reserved { (self.traffic.limit as f64 * RESERVE).ceil() as u64 } else { 0 };
                let waits = request.came <= pair[0] && pair[1] <= request.left;
                let has_room = own < self.cap(request) && all[place] + reserve < self.traffic.limit;
                free = if waits && has_room { free + (pair[1] - pair[0]) } else { Duration::ZERO };
                require(free <= slack, || format!("waits for {free:?} until {:?} in vain: {request:?}", pair[1]))?;
            }
        }
        Ok(())
    }
}
