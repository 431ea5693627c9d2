//! Windows of an instance whose requests are partly known only after they ended.
//!
//! Reports of other programs, such as spans, arrive seconds late and in any order. [`Delayed`] therefore keeps a second
//! ledger of the same instance that runs behind by the lateness: everything that was learned waits until then and is
//! applied in order of time, whatever its source. Its windows are those that a ledger would have had that saw each
//! request when it was sent. The first ledger does not wait, so that remaining quota and blocks stay current.

mod event;
mod merge;
mod timeliness;

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::budget::AttemptEnd;
use super::fleet::FleetUsage;
use super::instance::{Attempt, InstanceLedger, RequestStart};
use super::limits::Bucket;
use super::reported::{ReportId, Reported, ReportedRequest};
use super::settings::Settings;
use super::snapshot::BucketSnapshot;
use super::{Entity, Moment, Route};
use event::{Event, Key, OwnedEnd, Pending};
use timeliness::Timeliness;

/// A report may end this much after its receipt: clocks differ a little.
pub(super) const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);

/// How long events may wait after their lateness, if the numbers are not read.
const RELEASE_INTERVAL: Duration = Duration::from_secs(1);

/// How long reports count as a sample after the last one that stands for several requests.
const SAMPLED_FOR: Duration = Duration::from_secs(60);

/// A ledger that runs behind by the lateness.
#[derive(Debug, Clone)]
pub(super) struct Delayed {
    lateness: Duration,
    ledger: Box<InstanceLedger>,
    pending: Pending,
    in_flight: FxHashMap<u64, Attempt>,
    /// Reported requests that began, until they end.
    reported: FxHashMap<u64, Box<ReportedRequest>>,
    /// The number of the next request.
    next: u64,
    /// Everything before this is applied.
    watermark: Moment,
    timeliness: Timeliness,
    is_unreliable: bool,
    sampled_at: Option<Moment>,
    /// The share of a request that weighted reports have not counted yet.
    fraction: f64,
    /// Users and organizations are known here by hashes that mean nothing outside this process.
    hasher: RandomState,
}

/// A reported request whose lateness is over, with the bucket that counted it.
#[derive(Debug, Clone)]
pub(super) struct Released {
    pub request: Box<ReportedRequest>,
    pub bucket: Bucket,
}

impl Delayed {
    /// Creates a ledger with these settings; `None` without a lateness.
    pub(super) fn new(settings: &Settings) -> Option<Self> {
        Some(Self {
            lateness: settings.lateness?,
            ledger: Box::new(InstanceLedger::new(Settings { lateness: None, ..settings.clone() })),
            pending: Pending::default(),
            in_flight: FxHashMap::default(),
            reported: FxHashMap::default(),
            next: 1,
            watermark: Moment::default(),
            timeliness: Timeliness::default(),
            is_unreliable: false,
            sampled_at: None,
            fraction: 0.0,
            hasher: RandomState::new(),
        })
    }

    /// Applies a new configuration. A changed lateness holds for events that are still to come.
    pub(super) fn reconfigure(&mut self, settings: &Settings) {
        self.lateness = settings.lateness.unwrap_or(self.lateness);
        self.ledger.reconfigure(Settings { lateness: None, ..settings.clone() });
    }

    /// Sets the time from which the reports are complete.
    pub(super) fn count_since(&mut self, since: Moment) {
        self.ledger.count_since(since);
    }

    pub(super) fn set_sliding(&mut self, bucket: Bucket, is_sliding: Option<bool>) {
        self.ledger.set_sliding(bucket, is_sliding);
    }

    /// Takes in that this process sends a request. Returns the number for [`Delayed::end`].
    pub(super) fn begin(&mut self, request: &RequestStart) -> u64 {
        let number = self.number();
        let request = RequestStart { route: self.anonymous(request.route), ..*request };
        self.pending.push((request.at.max(self.watermark), number * 2), Event::Begin(request));
        number
    }

    /// Takes in how a request of this process ended.
    pub(super) fn end(&mut self, number: u64, at: Moment, end: AttemptEnd<'_>) {
        self.pending.push((at.max(self.watermark), number * 2 + 1), Event::End(OwnedEnd::of(end)));
    }

    /// Takes in what all processes of the fleet used.
    pub(super) fn record_fleet(&mut self, bucket: Bucket, at: Moment, usage: &FleetUsage) {
        let number = self.number();
        self.pending.push((at.max(self.watermark), number * 2), Event::Fleet(bucket, usage.clone()));
    }

    /// Takes in a reported request that arrived at `now`.
    pub(super) fn report(&mut self, now: Moment, request: &ReportedRequest) -> Reported {
        self.ledger.start_counting(now);
        let (started, ended) = (request.start.at, request.ended.max(request.start.at));
        let verdict = if ended > now.after(CLOCK_TOLERANCE) {
            Reported::Future
        } else if started < self.watermark {
            Reported::Late
        } else if !self.pending.has_room() {
            Reported::Overflow
        } else {
            Reported::Pending(ReportId { started, ended, number: self.number() })
        };
        let is_timely = matches!(verdict, Reported::Pending(_));
        self.timeliness.record(now, is_timely);
        if !is_timely {
            self.distrust(now);
        }
        if request.weight > 1.0 {
            self.sampled_at = self.sampled_at.max(Some(now));
            self.ledger.count_since(now);
        }
        if let Reported::Pending(id) = verdict {
            let start = RequestStart { route: self.anonymous(request.start.route), ..request.start };
            // The start has it, as a hash of this process.
            let end = request.end.without_entity();
            let request = Box::new(ReportedRequest { start, ended, end, ..*request });
            self.pending.push(id.begin(), Event::ReportedBegin(request));
            self.pending.push(id.end(), Event::ReportedEnd);
        }
        verdict
    }

    /// Withdraws a report. Returns whether it was still pending.
    pub(super) fn cancel(&mut self, id: ReportId) -> bool {
        self.pending.remove(id.begin()) && self.pending.remove(id.end())
    }

    /// Applies everything whose lateness is over, and closes windows. Returns the reports that ended.
    pub(super) fn advance(&mut self, now: Moment) -> Vec<Released> {
        self.ledger.start_counting(now);
        self.distrust(now);
        let watermark = now.before(self.lateness).max(self.watermark);
        self.watermark = watermark;
        let mut released = Vec::new();
        while let Some((key, event)) = self.pending.pop_before(watermark) {
            released.extend(self.apply(key, event));
        }
        self.ledger.advance(watermark);
        released
    }

    fn apply(&mut self, (at, place): Key, event: Event) -> Option<Released> {
        let number = place / 2;
        match event {
            Event::Begin(request) => {
                let attempt = self.ledger.begin(&request);
                self.in_flight.insert(number, attempt);
            }
            Event::End(end) => {
                let attempt = self.in_flight.remove(&number)?;
                self.ledger.end(attempt, at, end.as_attempt_end());
            }
            Event::ReportedBegin(request) => {
                let attempt = self.ledger.begin(&request.start);
                self.in_flight.insert(number, attempt);
                self.reported.insert(number, request);
            }
            Event::ReportedEnd => {
                let (attempt, request) = (self.in_flight.remove(&number)?, self.reported.remove(&number)?);
                let bucket = self.ledger.end(attempt, at, request.end.as_attempt_end());
                return Some(Released { request, bucket });
            }
            Event::Fleet(bucket, usage) => self.ledger.record_fleet(bucket, at, &usage),
        }
        None
    }

    /// Treats the use of current windows as unknown if too many reports miss theirs.
    fn distrust(&mut self, now: Moment) {
        self.is_unreliable = self.timeliness.is_unreliable(now);
        if self.is_unreliable {
            self.ledger.count_since(now);
        }
    }

    /// Returns the whole requests that a report of this weight counts for, and carries the rest over.
    pub(super) fn whole(&mut self, weight: f64) -> u32 {
        let weight = if weight.is_finite() { weight.clamp(1.0, f64::from(u16::MAX)) } else { 1.0 };
        self.fraction += weight;
        let whole = self.fraction.floor();
        self.fraction -= whole;
        #[expect(clippy::cast_possible_truncation, reason = "at most one more than the largest weight")]
        let whole = whole as u32;
        whole
    }

    /// Returns the bucket that counts a request.
    pub(super) fn bucket_of(&self, route: &Route) -> Bucket {
        self.ledger.bucket_of(route)
    }

    /// Returns the ledger that runs behind.
    pub(super) const fn ledger(&self) -> &InstanceLedger {
        &self.ledger
    }

    /// Combines the numbers of a bucket: current ones, and those of windows that run behind.
    pub(super) fn merge(&self, now: Moment, live: Option<BucketSnapshot>, behind: BucketSnapshot) -> BucketSnapshot {
        let is_sampled = self.sampled_at.is_some_and(|at| now.since(at) <= SAMPLED_FOR.saturating_add(self.lateness));
        merge::merge(live, behind, is_sampled, self.is_unreliable)
    }

    /// Returns whether events may have waited for longer than a second after their lateness.
    pub(super) fn is_due(&self, now: Moment) -> bool {
        now >= self.watermark.after(self.lateness).after(RELEASE_INTERVAL)
    }

    /// Returns the time of the ledger that runs behind.
    pub(super) const fn watermark(&self) -> Moment {
        self.watermark
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn anonymous(&self, route: Route) -> Route {
        Route { entity: route.entity.map(|entity| Entity(self.hasher.hash_one(entity.0))), ..route }
    }
}

impl ReportId {
    const fn begin(self) -> Key {
        (self.started, self.number * 2)
    }

    const fn end(self) -> Key {
        (self.ended, self.number * 2 + 1)
    }
}
