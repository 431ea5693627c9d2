//! The waiting requests of a caller with a share, and what the caller has used of it. Pure: time is passed in.

use std::collections::VecDeque;
use std::time::Duration;

use super::Priority;
use super::lanes::{LaneId, Waiting};
use super::sender::Rank;
use super::shares::CallerShare;
use super::window_log::WindowLog;
use clerk_quota::Moment;

/// The bucket at one moment, for everything that depends on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct BucketView {
    pub(super) now: Moment,
    /// Requests that may leave per window now; `None` if no limit is known.
    pub(super) limit: Option<u64>,
    pub(super) window: Duration,
}

#[derive(Debug)]
pub(super) struct CallerLane {
    pub(super) id: LaneId,
    pub(super) share: CallerShare,
    /// By priority; ids increase with time.
    pub(super) waiting: [VecDeque<Waiting>; Priority::ALL.len()],
    /// What the caller used of the bucket: each request until one window after its end.
    log: WindowLog,
    /// Until then, all processes together have used the caller's guarantee.
    beyond_until: Moment,
    /// Until then, all processes together have used the caller's cap.
    capped_until: Moment,
}

impl CallerLane {
    pub(super) fn new(id: LaneId, share: CallerShare) -> Self {
        Self {
            id,
            share,
            waiting: Default::default(),
            log: WindowLog::default(),
            beyond_until: Moment::default(),
            capped_until: Moment::default(),
        }
    }

    pub(super) fn begin(&mut self) {
        self.log.begin();
    }

    /// A request ended. `counted_at`: when, if the server may have counted it.
    pub(super) fn end(&mut self, counted_at: Option<Moment>, window: Duration) {
        match counted_at {
            Some(at) => self.log.spend(at, window),
            None => self.log.refund(),
        }
    }

    pub(super) fn settle(&mut self, view: BucketView) {
        self.log.settle(view.now, view.window);
    }

    pub(super) fn used(&self) -> u64 {
        self.log.used()
    }

    /// All processes together have used the guarantee until `beyond` or the cap until `capped`.
    pub(super) fn apply_shared_use(&mut self, beyond: Option<Moment>, capped: Option<Moment>) {
        // Each answer is about now, and so replaces the one before.
        self.beyond_until = beyond.unwrap_or_default();
        self.capped_until = capped.unwrap_or_default();
    }

    pub(super) fn is_paused(&self, now: Moment) -> bool {
        self.share.paused_until.is_some_and(|until| now < until)
    }

    /// Guaranteed requests per window. What a paused caller does not use is lent.
    pub(super) fn guarantee(&self, view: BucketView) -> u64 {
        let limit = view.limit.filter(|_| !self.is_paused(view.now));
        limit.map_or(0, |limit| self.share.guarantee(limit))
    }

    /// Most requests in any period of one window; `None` for all.
    pub(super) fn cap(&self, view: BucketView) -> Option<u64> {
        if self.is_paused(view.now) {
            return Some(0);
        }
        view.limit.and_then(|limit| self.share.cap(limit))
    }

    /// Further requests within the guarantee.
    pub(super) fn within(&self, view: BucketView) -> u64 {
        if view.now < self.beyond_until { 0 } else { self.guarantee(view).saturating_sub(self.used()) }
    }

    /// Further requests below the cap.
    pub(super) fn room(&self, view: BucketView) -> u64 {
        if view.now < self.capped_until {
            return 0;
        }
        self.cap(view).map_or(u64::MAX, |cap| cap.saturating_sub(self.used()))
    }

    /// When a request may leave by the cap that has `place` others of its caller before it; `None` if it may now. The
    /// moment is a lower bound.
    pub(super) fn held_until(&self, place: u64, view: BucketView) -> Option<Moment> {
        if self.is_paused(view.now) {
            return self.share.paused_until;
        }
        let over = place.saturating_add(1).saturating_sub(self.room(view));
        if over == 0 {
            return None;
        }
        let by_log = self.cap(view).and_then(|cap| {
            let over = (self.used() + place + 1).saturating_sub(cap);
            (over > 0).then(|| self.log.returned_at(over, view.now, view.window))
        });
        let shared = Some(self.capped_until).filter(|until| *until > view.now);
        by_log.max(shared)
    }

    /// When a request is within the guarantee that has `place` others of its caller before it; `None` if it is, or the
    /// caller has none. The moment is a lower bound.
    pub(super) fn guaranteed_at(&self, place: u64, view: BucketView) -> Option<Moment> {
        let guarantee = self.guarantee(view);
        if guarantee == 0 || place < self.within(view) {
            return None;
        }
        let over = (self.used() + place + 1).saturating_sub(guarantee);
        let by_log = (over > 0).then(|| self.log.returned_at(over, view.now, view.window));
        by_log.max(Some(self.beyond_until))
    }

    /// The rank of the caller's next request, of this priority; `None` while its cap holds it.
    pub(super) fn rank_of_next(&self, priority: Priority, view: BucketView) -> Option<Rank> {
        if self.held_until(0, view).is_some() {
            return None;
        }
        Some(if self.within(view) > 0 { Rank::Guaranteed } else { priority.into() })
    }

    /// Number of waiting requests.
    pub(super) fn len(&self) -> u64 {
        self.waiting.iter().map(|waiting| waiting.len() as u64).sum()
    }

    /// The next of them, if any.
    pub(super) fn first(&self) -> Option<(Priority, u64)> {
        Priority::ALL.into_iter().find_map(|priority| Some((priority, self.waiting[priority.index()].front()?.id)))
    }
}
