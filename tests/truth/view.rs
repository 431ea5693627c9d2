//! The truth about one process at one time, beside its own values.

use std::cmp::Reverse;
use std::time::Duration;

use clerk_client::limiter::CountingKind;
use clerk_quota::snapshot::{Basis, BucketSnapshot, InstanceSnapshot};
use clerk_quota::usage_log::LATE_ARRIVAL;
use clerk_quota::{Bucket, Moment};
use clerk_simulator::LimiterKind;

use crate::model::{LIMIT, WINDOW, in_last_window, room};
use crate::tape::{Budget, Sent};
use crate::world::{Case, Headers, Process, Processes, World};

/// A process reads the others' requests once a second, within half a second.
const FLEET_LAG: Duration = Duration::from_millis(1_500);
/// Ends this close together count as one: a window has 512 parts.
const PART: Duration = Duration::from_millis(20);

pub(crate) struct View<'a> {
    pub(crate) world: &'a World,
    pub(crate) case: Case,
    pub(crate) process: &'a Process,
    pub(crate) snapshot: InstanceSnapshot,
    pub(crate) now: Duration,
    /// When it started to count.
    pub(crate) since: Duration,
    /// All sent requests, in order.
    pub(crate) sent: &'a [Sent],
    /// When the limiter counted foreign requests.
    pub(crate) foreign: &'a [Duration],
}

impl<'a> View<'a> {
    pub(crate) fn bucket(&self) -> &BucketSnapshot {
        self.snapshot.bucket(Bucket::Instance).unwrap()
    }

    /// Its requests.
    pub(crate) fn own(&self) -> impl Iterator<Item = &'a Sent> + use<'a> {
        let (sent, number) = (self.sent, self.process.number);
        sent.iter().filter(move |sent| sent.by == number)
    }

    /// The requests against the instance's own limit.
    pub(crate) fn own_instance(&self) -> impl Iterator<Item = &'a Sent> + use<'a> {
        self.own().filter(|sent| sent.budget == Budget::Instance)
    }

    /// The requests of the other processes.
    pub(crate) fn theirs(&self) -> impl Iterator<Item = &'a Sent> + use<'a> {
        let (sent, number) = (self.sent, self.process.number);
        sent.iter().filter(move |sent| sent.by != number && sent.budget == Budget::Instance)
    }

    pub(crate) fn basis(&self) -> Option<Basis> {
        self.bucket().basis
    }

    pub(crate) fn is_by_headers(&self) -> bool {
        self.basis() == Some(Basis::Headers)
    }

    /// Whether the usage cannot be known: no headers, and other clients.
    pub(crate) fn is_use_unknown(&self) -> bool {
        self.case.headers == Headers::None && matches!(self.case.processes, Processes::Part | Processes::Probes)
    }

    /// Whether one process counts all requests of the applications.
    pub(crate) fn is_sole(&self) -> bool {
        self.case.processes == Processes::Sole
    }

    /// Times of allowed requests that a count can include: its own, and those of its fleet.
    pub(crate) fn counted(&self) -> Vec<Duration> {
        let lagging = self.now.saturating_sub(FLEET_LAG);
        let theirs = self.theirs().filter(|sent| self.case.processes == Processes::Fleet && sent.at <= lagging);
        times(self.own_instance().chain(theirs))
    }

    /// What the limiter would allow now without other clients. A sliding counter covers more than one window; that is
    /// known once pacing has recognized it.
    pub(crate) fn room_alone(&self) -> u64 {
        room(self.known_limiter(), &self.counted(), self.now)
    }

    /// The limiter as far as its counting is known: unless a sliding counter was recognized, it counts the last window.
    pub(crate) fn known_limiter(&self) -> LimiterKind {
        match self.case.limiter {
            LimiterKind::SlidingCounter if !self.is_recognised() => LimiterKind::SlidingWindow,
            limiter => limiter,
        }
    }

    /// Whether pacing has recognized a sliding counter.
    pub(crate) fn is_recognised(&self) -> bool {
        self.process.outbound.limits.limiter.stats().counting == CountingKind::SlidingCounter
    }

    /// The lowest remaining quota by the rule: each request uses quota from its start until a window after its end
    /// (two, before a sliding counter), unless Clerk rejected it.
    pub(crate) fn room_by_rule(&self) -> u64 {
        let remembered = if self.is_recognised() { WINDOW * 2 } else { WINDOW };
        let used = |sent: &&Sent, slack: Duration| match (sent.ended, sent.is_refused_to_us()) {
            (None, _) => true,
            (Some(ended), true) => ended + slack > self.now,
            // Without a response it may still have been on its way.
            (Some(ended), false) if sent.head.is_none() => ended + LATE_ARRIVAL + remembered + slack > self.now,
            (Some(ended), false) => ended + remembered + slack > self.now,
        };
        let own = self.own_instance().filter(|sent| used(sent, PART) && !self.is_refunded(sent)).count();
        let is_fleet = self.case.processes == Processes::Fleet;
        let theirs = self.theirs().filter(|sent| is_fleet && used(sent, FLEET_LAG + PART)).count();
        LIMIT.saturating_sub((own + theirs) as u64)
    }

    fn is_refunded(&self, sent: &Sent) -> bool {
        sent.head.is_some_and(|head| head.status == 429)
    }

    /// The responses that stated the remaining quota, by the time when the limiter counted their requests.
    pub(crate) fn statements(&self) -> Vec<&'a Sent> {
        let mut statements: Vec<_> =
            self.own_instance().filter(|sent| sent.head.is_some_and(|head| head.said.is_some())).collect();
        // Of several at the same time, the one that the limiter counted last.
        statements.sort_by_key(|sent| (sent.counted, Reverse(sent.head.and_then(|head| head.said))));
        statements
    }

    /// What the limiter would allow now if other clients had sent nothing since the newest response with a remaining
    /// quota. A request that was overtaken is not known to be counted since.
    pub(crate) fn room_since_headers(&self) -> Option<(Vec<Duration>, u64)> {
        let newest = *self.statements().last()?;
        let then = newest.counted?.0;
        let is_known = |sent: &&Sent| {
            let is_own = sent.by == self.process.number && sent.budget == Budget::Instance;
            // Foreign requests at the same time may have arrived later.
            let before = sent.counted.is_some_and(|(at, _)| at < then || at == then && is_own);
            sent.budget == Budget::Instance && (before || is_own && sent.at > newest.at)
        };
        let mut known = times(self.sent.iter().filter(is_known));
        known.extend(self.foreign.iter().filter(|at| **at < then));
        known.sort_unstable();
        let room = room(self.case.limiter, &known, self.now);
        Some((known, room))
    }

    /// The lowest value by headers: the lowest that Clerk stated in the last window, minus requests sent since without
    /// a statement.
    pub(crate) fn least_by_headers(&self) -> u64 {
        let statements = self.statements();
        let newest = statements.last().and_then(|sent| sent.head).map_or(self.now, |head| head.at);
        let from = newest.saturating_sub(WINDOW * 2 + Duration::from_secs(4));
        let recent = statements.iter().filter(|sent| sent.head.is_some_and(|head| head.at >= from));
        let said = recent.chain(statements.last()).filter_map(|sent| sent.head?.said).min();
        let untold = self.own_instance().filter(|sent| sent.at >= from && sent.head.is_none_or(|it| it.said.is_none()));
        said.unwrap_or_default().saturating_sub(untold.count() as u64)
    }

    /// Highest usage by its own requests, as far as they were counted when one was sent.
    pub(crate) fn own_peak(&self, from: Duration) -> u64 {
        let own = times(self.own_instance());
        let times = own.iter().filter(|at| **at >= from && **at >= self.since + WINDOW + FLEET_LAG);
        times.map(|at| in_last_window(&own[..own.partition_point(|other| other <= at)], *at)).max().unwrap_or_default()
    }

    /// The maximum number of requests of all processes that may be in use at once by the rule, if each takes this long.
    pub(crate) fn most_in_use(&self, from: Duration, took: Duration) -> u64 {
        let mut all: Vec<Duration> =
            self.sent.iter().filter(|sent| sent.budget == Budget::Instance).map(|sent| sent.at).collect();
        all.sort_unstable();
        let within = |at: &Duration| {
            let begin = at.saturating_sub(WINDOW + took + FLEET_LAG);
            all.partition_point(|other| other <= at) - all.partition_point(|other| *other <= begin)
        };
        all.iter().filter(|at| **at >= from).map(within).max().unwrap_or_default() as u64
    }
}

/// When the limiter allowed these.
pub(crate) fn times<'a>(sent: impl Iterator<Item = &'a Sent>) -> Vec<Duration> {
    let mut times: Vec<_> =
        sent.filter(|sent| sent.is_allowed()).filter_map(|sent| sent.counted).map(|(at, _)| at).collect();
    times.sort_unstable();
    times
}

/// A moment as time since the epoch.
pub(crate) fn at(moment: Moment) -> Duration {
    moment.since_epoch()
}
