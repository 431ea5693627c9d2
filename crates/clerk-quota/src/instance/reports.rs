//! Requests that others report after they ended, and the numbers of a ledger that waits for such reports.

use std::collections::BTreeSet;

use super::{InstanceLedger, RequestStart};
use crate::delayed::{CLOCK_TOLERANCE, Released};
use crate::limits::{Bucket, Scope};
use crate::reported::{ReportId, Reported, ReportedEnd, ReportedRequest};
use crate::snapshot::BucketSnapshot;
use crate::spending::{SpendKey, SpendResult, Spender};
use crate::{Moment, RouteId};

impl InstanceLedger {
    /// Counts a request that another program reports at `now`, after it ended.
    ///
    /// It is counted once [`Settings::lateness`](crate::Settings::lateness) is over, in the order in which requests were sent: reports may arrive
    /// in any order. One that comes too late for its window is counted at once, but in no window. While more than 1 %
    /// of a minute's reports do, the use of windows counts as unknown. Reports say nothing about the remaining quota
    /// now, whether Clerk is up, or the key.
    ///
    /// Without a lateness, each report is too late.
    pub fn report(&mut self, now: Moment, request: &ReportedRequest) -> Reported {
        self.release_if_due(now);
        let Some(delayed) = &mut self.delayed else {
            self.count_report(now, request, self.bucket_of(&request.start.route), 1);
            return Reported::Late;
        };
        let verdict = delayed.report(now, request);
        if !matches!(verdict, Reported::Pending(_)) {
            let (bucket, requests) = (delayed.bucket_of(&request.start.route), delayed.whole(request.weight));
            self.count_report(now, request, bucket, requests);
        }
        verdict
    }

    /// Withdraws a report, if it is still pending: it was about a request that another report describes better.
    pub fn cancel_report(&mut self, id: ReportId) -> bool {
        self.delayed.as_mut().is_some_and(|delayed| delayed.cancel(id))
    }

    /// Counts all reports that wait, for a program that ends: no further ones will be read.
    pub fn release_all(&mut self, now: Moment) {
        let lateness = self.settings.lateness.unwrap_or_default();
        // One that ends in the future is waited for as long.
        self.release(now.after(lateness).after(CLOCK_TOLERANCE));
    }

    /// Counts the reports whose lateness is over.
    pub(super) fn release(&mut self, now: Moment) {
        let Some(delayed) = &mut self.delayed else { return };
        let released = delayed.advance(now);
        for Released { request, bucket } in released {
            let requests = self.delayed.as_mut().map_or(1, |delayed| delayed.whole(request.weight));
            self.count_report(now, &request, bucket, requests);
        }
    }

    /// Does so about once a second, so that reports do not pile up if the numbers are not read.
    fn release_if_due(&mut self, now: Moment) {
        if self.delayed.as_ref().is_some_and(|delayed| delayed.is_due(now)) {
            self.release(now);
        }
    }

    /// Counts a report, which stands for this many requests.
    fn count_report(&mut self, now: Moment, request: &ReportedRequest, bucket: Bucket, requests: u32) {
        let RequestStart { source, caller, route, method, .. } = request.start;
        let result = match request.end {
            ReportedEnd::Unanswered => SpendResult::Unknown,
            ReportedEnd::Answered(observation) if observation.is_throttled() => SpendResult::Refused,
            ReportedEnd::Answered(_) => SpendResult::Served,
        };
        let spender = Spender { caller, source, route: route.id, method };
        if bucket.scope() != Scope::Unlimited {
            self.spending.count_reported(now, SpendKey { bucket, spender, result }, requests);
        }
        self.count_metered(spender, request.ended, now, request.end.as_attempt_end(), u64::from(requests));
        if let Some(observation) = request.end.observation() {
            self.count_response(observation);
            if observation.is_throttled() {
                self.bucket_mut(bucket).count_throttled(source);
            }
        }
    }

    pub(super) fn begin_delayed(&mut self, request: &RequestStart) -> u64 {
        self.release_if_due(request.at);
        self.delayed.as_mut().map_or(0, |delayed| delayed.begin(request))
    }

    /// Returns the numbers of all buckets. Call [`InstanceLedger::advance`] first.
    pub(super) fn bucket_snapshots(&self, now: Moment) -> impl Iterator<Item = BucketSnapshot> + '_ {
        let behind = self.delayed.as_ref().map_or(self, |delayed| delayed.ledger());
        // A route may have shown its own limit to one of them only.
        let routes: BTreeSet<RouteId> = self.route_buckets.keys().chain(behind.route_buckets.keys()).copied().collect();
        let all = Bucket::ALL.into_iter().chain(routes.into_iter().map(Bucket::Route));
        all.filter_map(move |bucket| self.bucket_snapshot(bucket, now))
    }

    fn bucket_snapshot(&self, bucket: Bucket, now: Moment) -> Option<BucketSnapshot> {
        let live = self.bucket_ledger(bucket).map(|ledger| ledger.snapshot(now, &self.context(bucket)));
        let Some(delayed) = &self.delayed else { return live };
        let (ledger, then) = (delayed.ledger(), delayed.watermark());
        let behind = ledger.bucket_ledger(bucket).map(|it| it.snapshot(then, &ledger.context(bucket)));
        behind.map_or_else(|| live.clone(), |behind| Some(delayed.merge(now, live.clone(), behind)))
    }
}
