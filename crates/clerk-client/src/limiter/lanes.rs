//! The requests that wait for one bucket, and which of them is next. Pure: time is passed in.
//!
//! Requests within the guarantee of their caller leave first, then by priority, then in order of arrival. A caller at its
//! cap holds up no other.

use std::collections::VecDeque;
use std::time::Duration;

use super::caller_lane::{BucketView, CallerLane};
use super::queue::Look;
use super::sender::{Rank, Sender};
use super::shares::{CallerShare, CallerUsage};
use super::{Priority, ShedReason};
use clerk_quota::{CallerId, Moment};

/// A lane, as long as its caller has a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LaneId(u64);

/// A waiting request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub(super) id: u64,
    caller: Option<CallerId>,
}

/// The next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) id: u64,
    pub(super) sender: Sender,
    pub(super) rank: Rank,
}

/// What is ahead of the last request of a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) rank: Rank,
    /// Requests that leave before it, at least.
    pub(super) ahead: u64,
    /// When it may leave by the cap of its caller, and why it waits until then; `None` if it may now.
    pub(super) held: Option<(Moment, ShedReason)>,
    /// If it is beyond the guarantee of its caller: when it is within it, and how many of its caller leave before it.
    pub(super) guaranteed: Option<(Moment, u64)>,
}

/// Waiting requests, by sender.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// Of callers without a share, by priority; ids increase with time.
    plain: [VecDeque<Waiting>; Priority::ALL.len()],
    callers: Vec<CallerLane>,
    next_lane: u64,
}

impl Lanes {
    pub(super) fn is_empty(&self) -> bool {
        let mut all = self.plain.iter().chain(self.callers.iter().flat_map(|lane| &lane.waiting));
        all.all(VecDeque::is_empty)
    }

    /// Whether any caller has a share.
    pub(super) fn has_shares(&self) -> bool {
        !self.callers.is_empty()
    }

    /// Replaces the shares. Requests keep their order, and callers what they have used.
    pub(super) fn set_shares(&mut self, shares: &[CallerShare]) {
        let all = self.plain.iter_mut().chain(self.callers.iter_mut().flat_map(|lane| &mut lane.waiting));
        let mut waiting: [Vec<Waiting>; Priority::ALL.len()] = Default::default();
        for (place, queue) in all.enumerate() {
            // Both parts hold one queue for each priority, in order.
            waiting[place % Priority::ALL.len()].extend(queue.drain(..));
        }
        self.callers.retain(|lane| shares.iter().any(|share| share.caller == lane.share.caller));
        for share in shares {
            match self.lane_mut(Some(share.caller)) {
                Some(lane) => lane.share = share.clone(),
                None => {
                    self.callers.push(CallerLane::new(LaneId(self.next_lane), share.clone()));
                    self.next_lane += 1;
                }
            }
        }
        for (priority, mut waiting) in Priority::ALL.into_iter().zip(waiting) {
            waiting.sort_unstable_by_key(|request| request.id);
            for Waiting { id, caller } in waiting {
                self.insert(id, Sender { priority, caller });
            }
        }
    }

    /// Adds a request to its place in the order of ids.
    pub(super) fn insert(&mut self, id: u64, Sender { priority, caller }: Sender) {
        let queues = match self.callers.iter_mut().find(|lane| Some(lane.share.caller) == caller) {
            Some(lane) => &mut lane.waiting,
            None => &mut self.plain,
        };
        let queue = &mut queues[priority.index()];
        let place = match queue.back() {
            Some(newest) if newest.id > id => queue.partition_point(|other| other.id < id),
            _ => queue.len(),
        };
        queue.insert(place, Waiting { id, caller });
    }

    /// Removes a request. Returns whether it waited.
    pub(super) fn remove(&mut self, id: u64) -> bool {
        let all = self.plain.iter_mut().chain(self.callers.iter_mut().flat_map(|lane| &mut lane.waiting));
        for queue in all {
            // Ids increase along the queue.
            if let Ok(place) = queue.binary_search_by_key(&id, |request| request.id) {
                queue.remove(place);
                return true;
            }
        }
        false
    }

    /// Makes callers' use current.
    pub(super) fn settle(&mut self, view: BucketView) {
        self.callers.iter_mut().for_each(|lane| lane.settle(view));
    }

    /// The next request whose caller is below its cap.
    pub(super) fn head(&self, view: BucketView) -> Option<Head> {
        let of_callers = self.callers.iter().filter_map(|lane| {
            let (priority, id) = lane.first()?;
            let rank = lane.rank_of_next(priority, view)?;
            Some(Head { id, sender: Sender { priority, caller: Some(lane.share.caller) }, rank })
        });
        let plain = Priority::ALL.into_iter().find_map(|priority| {
            let Waiting { id, caller } = *self.plain[priority.index()].front()?;
            Some(Head { id, sender: Sender { priority, caller }, rank: priority.into() })
        });
        of_callers.chain(plain).min_by_key(|head| (head.rank, head.id))
    }

    /// The first requests of callers, and when their cap lets them leave, or their guarantee before others.
    pub(super) fn changes(&self, view: BucketView) -> impl Iterator<Item = (u64, Look)> {
        self.callers.iter().filter_map(move |lane| {
            let held = lane.held_until(0, view);
            let at = held.or_else(|| lane.guaranteed_at(0, view))?;
            Some((lane.first()?.1, Look { at, is_bound: held.is_some() }))
        })
    }

    /// Whether a request that comes now would be the next, if none waited. Returns its rank.
    pub(super) fn rank_if_first(&self, sender: Sender, view: BucketView) -> Option<Rank> {
        match self.lane(sender.caller) {
            Some(lane) => lane.rank_of_next(sender.priority, view),
            None => Some(sender.priority.into()),
        }
    }

    /// What is ahead of the last waiting request of a sender.
    pub(super) fn standing(&self, sender: Sender, view: BucketView) -> Standing {
        let own = self.lane(sender.caller);
        let up_to = |queues: &[VecDeque<Waiting>]| {
            queues[..=sender.priority.index()].iter().map(|queue| queue.len() as u64).sum::<u64>()
        };
        // Of a caller with a share, those of low priority follow all others of it.
        let place = own.map_or(0, |lane| up_to(&lane.waiting).saturating_sub(1));
        let is_guaranteed = own.is_some_and(|lane| place < lane.within(view));
        let rank = if is_guaranteed { Rank::Guaranteed } else { sender.priority.into() };
        let others = self.callers.iter().filter(|lane| Some(lane.share.caller) != sender.caller).map(|lane| {
            let guaranteed = lane.len().min(lane.within(view));
            let before = if is_guaranteed { 0 } else { up_to(&lane.waiting) };
            guaranteed.max(before).min(lane.room(view))
        });
        let plain = match (is_guaranteed, own.is_some()) {
            (true, _) => 0,
            (false, true) => up_to(&self.plain),
            (false, false) => up_to(&self.plain).saturating_sub(1),
        };
        let reason = |lane: &CallerLane| {
            if lane.is_paused(view.now) { ShedReason::CallerPaused } else { ShedReason::CallerCap }
        };
        let held = own.and_then(|lane| Some((lane.held_until(place, view)?, reason(lane))));
        let guaranteed =
            own.filter(|_| !is_guaranteed).and_then(|lane| Some((lane.guaranteed_at(place, view)?, place)));
        Standing { rank, ahead: place + plain + others.sum::<u64>(), held, guaranteed }
    }

    /// A request of this caller leaves.
    pub(super) fn begin(&mut self, caller: Option<CallerId>) -> Option<LaneId> {
        let lane = self.lane_mut(caller)?;
        lane.begin();
        Some(lane.id)
    }

    /// A request ended. `counted_at`: when, if the server may have counted it.
    pub(super) fn end(&mut self, lane: LaneId, counted_at: Option<Moment>, window: Duration) {
        // Without the lane, the caller has no share any more.
        if let Some(lane) = self.callers.iter_mut().find(|other| other.id == lane) {
            lane.end(counted_at, window);
        }
    }

    pub(super) fn lane(&self, caller: Option<CallerId>) -> Option<&CallerLane> {
        self.callers.iter().find(|lane| Some(lane.share.caller) == caller)
    }

    pub(super) fn lane_mut(&mut self, caller: Option<CallerId>) -> Option<&mut CallerLane> {
        self.callers.iter_mut().find(|lane| Some(lane.share.caller) == caller)
    }

    /// Number of waiting requests of callers with a share.
    pub(super) fn len_of_callers(&self) -> usize {
        self.callers.iter().flat_map(|lane| &lane.waiting).map(VecDeque::len).sum()
    }

    pub(super) fn callers(&self) -> &[CallerLane] {
        &self.callers
    }

    pub(super) fn usage(&self, view: BucketView) -> Vec<CallerUsage> {
        let usage = |lane: &CallerLane| CallerUsage {
            caller: lane.share.caller,
            guarantee: view.limit.filter(|_| lane.share.min_share > 0.0).map(|_| lane.guarantee(view)),
            cap: lane.cap(view),
            used: lane.used(),
        };
        self.callers.iter().map(usage).collect()
    }
}
