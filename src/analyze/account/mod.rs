//! What the requests of the logs add up to.
//!
//! Windows come from the ledger that the exporter keeps of a live instance, on the time of the logs: each request begins and
//! ends in it when it did. The requests must come in the order in which they started.

mod busiest;
mod series;
mod spenders;

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use busiest::BusyWindow;
pub(crate) use spenders::{Counts, SpenderKey, Spenders};

use super::input::LogCall;
use busiest::Busiest;
use clerk_quota::snapshot::InstanceSnapshot;
use clerk_quota::{
    Attempt, AttemptEnd, Bucket, Coverage, Environment, InstanceLedger, KeyVerdict, Limit, Moment, Observation, Quota,
    RequestStart, Settings, Source,
};
use series::Series;

/// Requests in flight. Beyond, those that end first are ended early: a log that has more is not of one instance.
const MAX_IN_FLIGHT: usize = 1 << 16;

/// The source that the ledger counts requests under.
const SOURCE: Source = Source::Telemetry;

/// How long after its last request a window may stay open.
const CLOSING: Duration = Duration::from_secs(3 * 3600);

/// A limit, and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AssumedLimit {
    /// Requests per window of the instance's bucket.
    pub(crate) limit: Limit,
    /// Decides the documented limit.
    pub(crate) environment: Environment,
    /// Windows that end with a smaller share of the limit than this are low.
    pub(crate) low_threshold: f64,
}

/// A request that has started and not ended.
#[derive(Debug)]
struct InFlight {
    ended: Moment,
    number: u64,
    attempt: Attempt,
    call: LogCall,
}

/// The earliest end first, in a heap that has the largest on top.
impl Ord for InFlight {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.ended, other.number).cmp(&(self.ended, self.number))
    }
}

impl PartialOrd for InFlight {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for InFlight {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for InFlight {}

/// Takes in requests that end.
pub(crate) trait OnEnd {
    /// A request ended.
    fn ended(&mut self, call: &LogCall);
}

/// The sums.
#[derive(Debug)]
pub(crate) struct Account {
    ledger: InstanceLedger,
    length: Duration,
    in_flight: BinaryHeap<InFlight>,
    number: u64,
    /// When windows are looked at next.
    look_at: Moment,
    /// End of the last window that was looked at.
    looked_until: Moment,
    first: Option<Moment>,
    last: Moment,
    pub(crate) spenders: Spenders,
    pub(crate) busiest: Busiest,
    pub(crate) series: Series,
    /// Requests that started too long before the newest one, which are in no window.
    pub(crate) out_of_order: u64,
}

impl Account {
    pub(crate) fn new(assumed: &AssumedLimit) -> Self {
        let settings = Settings {
            name: Arc::from("log"),
            environment: assumed.environment,
            api_host: Arc::from(""),
            limit: Some(assumed.limit),
            users_limit: None,
            low_threshold: assumed.low_threshold,
            stale_after: CLOSING,
            sources: vec![SOURCE],
            coverage: Coverage::Sole,
            lateness: None,
        };
        let length = assumed.limit.window;
        Self {
            ledger: InstanceLedger::new(settings),
            length,
            in_flight: BinaryHeap::new(),
            number: 0,
            look_at: Moment::default(),
            looked_until: Moment::default(),
            first: None,
            last: Moment::default(),
            spenders: Spenders::new(length),
            busiest: Busiest::default(),
            series: Series::new(length),
            out_of_order: 0,
        }
    }

    /// A request starts. Call [`Account::end_until`] before.
    pub(crate) fn start(&mut self, call: LogCall) {
        let at = call.started;
        if self.first.is_none() {
            self.first = Some(at);
            // What was sent before the logs begin is unknown: the first window counts from its start, as a lower bound.
            self.ledger.count_since(at.rounded_down(self.length));
        }
        if at >= self.look_at {
            self.look(at);
        }
        self.last = self.last.max(at);
        self.spenders.add(&call);
        let LogCall { route, method, caller, .. } = call;
        let attempt = self.ledger.begin(&RequestStart { at, source: SOURCE, caller, route, method });
        self.number += 1;
        self.in_flight.push(InFlight { ended: call.ended(), number: self.number, attempt, call });
    }

    /// A request that is too late for the windows.
    pub(crate) fn late(&mut self, call: &LogCall) {
        self.out_of_order += 1;
        self.spenders.add_late(call);
    }

    /// Ends what is in flight and closes all windows.
    pub(crate) fn finish(&mut self, on_end: &mut impl OnEnd) {
        while let Some(first) = self.in_flight.pop() {
            let ended = first.ended;
            self.end(first, ended, on_end);
        }
        let end = self.last.after(self.length.max(CLOSING)).after(CLOSING);
        self.look(end);
        self.spenders.finish();
    }

    /// When the first and the last request started; `None` without any.
    pub(crate) fn span(&self) -> Option<(Moment, Moment)> {
        Some((self.first?, self.last))
    }

    /// The ledger's numbers. Call [`Account::finish`] first.
    pub(crate) fn snapshot(&mut self) -> InstanceSnapshot {
        let end = self.looked_until.max(self.last);
        self.ledger.snapshot(end)
    }

    /// Ends the requests that ended until `now`; `on_end` takes them in.
    pub(crate) fn end_until(&mut self, now: Moment, on_end: &mut impl OnEnd) {
        let is_over = |first: &InFlight, count: usize| first.ended <= now || count > MAX_IN_FLIGHT;
        while self.in_flight.peek().is_some_and(|first| is_over(first, self.in_flight.len()))
            && let Some(first) = self.in_flight.pop()
        {
            let ended = first.ended.min(now);
            self.end(first, ended, on_end);
        }
    }

    fn end(&mut self, request: InFlight, at: Moment, on_end: &mut impl OnEnd) {
        let InFlight { attempt, call, .. } = request;
        match call.status {
            Some(status) => {
                let observation = observation(&call, status, at);
                self.ledger.end(attempt, at, AttemptEnd::Answered(&observation));
            }
            None => {
                self.ledger.end(attempt, at, AttemptEnd::Unanswered);
            }
        }
        on_end.ended(&call);
    }

    /// Takes in the windows that have closed.
    fn look(&mut self, now: Moment) {
        self.look_at = now.rounded_down(self.length).after(self.length);
        self.ledger.advance(now);
        for window in self.ledger.recent_windows(Bucket::Instance) {
            if window.ended <= self.looked_until {
                continue;
            }
            self.looked_until = window.ended;
            let start = window.ended.before(self.length);
            let content = self.spenders.window(start);
            self.series.add(start, &window);
            self.busiest.add(&window, start, content);
        }
    }
}

/// What a log knows of a response. It has no body, so that the error code is unknown.
fn observation(call: &LogCall, status: u16, at: Moment) -> Observation {
    Observation {
        at,
        source: SOURCE,
        route: call.route.id,
        bucket: call.route.bucket,
        entity: call.route.entity,
        status,
        usable: status < 500,
        key: KeyVerdict::Unknown,
        quota_code: None,
        is_rate_limit: status == 429,
        quota: call.quota.as_deref().copied().unwrap_or_else(Quota::default),
        clock_offset_seconds: None,
    }
}
