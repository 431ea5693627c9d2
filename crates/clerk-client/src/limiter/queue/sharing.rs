//! The queue's part in limits that several processes share.

use std::sync::Arc;
use std::time::Duration;

use super::{Grant, INSTANCE, Key, Queue};
use crate::limiter::distributed::{Room, SharedCaller, SharedShares, Sharing, Taken};
use crate::limiter::sender::{Rank, Sender};
use clerk_quota::{CallerId, Moment};

impl Queue {
    /// Returns a granted request to its position, after the distributed limiter rejected it.
    pub(in crate::limiter) fn put_back(&mut self, key: Key, id: u64, sender: Sender, now: Moment) -> Vec<u64> {
        self.bucket_queue(key, now).lanes.insert(id, sender);
        self.busy.insert(key);
        self.waiting += 1;
        let admitted = &mut self.stats.admitted[sender.priority.index()];
        *admitted = admitted.saturating_sub(1);
        self.dispatch(now)
    }

    /// What all processes together may use at this priority. `None` if no limit is known.
    pub(in crate::limiter) fn room(&self, key: Key, rank: Rank) -> Option<Room> {
        self.queues.get(&key)?.limiter.room(self.options.reserve_of(rank))
    }

    /// The shares of callers in a bucket, for a request of this one. `asking`: the request, and how much longer it waits.
    pub(in crate::limiter) fn shared_shares(
        &self,
        key: Key,
        caller: Option<CallerId>,
        (ticket, patience): (u64, Duration),
        now: Moment,
    ) -> Option<SharedShares> {
        let bucket_queue = self.queues.get(&key).filter(|_| key == INSTANCE && !self.shares.is_empty())?;
        let guaranteed_room = bucket_queue.limiter.room(self.options.reserve_of(Rank::Guaranteed))?.requests;
        let view = bucket_queue.shared_view(now);
        let (mut callers, mut own) = (Vec::new(), None);
        for lane in bucket_queue.lanes.callers() {
            if Some(lane.share.caller) == caller {
                own = Some(callers.len());
            } else if lane.guarantee(view) == 0 {
                continue;
            }
            let (guarantee, cap) = (lane.guarantee(view), lane.cap(view));
            callers.push(SharedCaller { name: Arc::clone(&lane.share.name), guarantee, cap });
        }
        Some(SharedShares { callers, own, guaranteed_room, ticket, patience })
    }

    /// Grants what the shares of callers may let leave now. `None` if no caller has one in this bucket.
    pub(in crate::limiter) fn dispatch_shares(&mut self, key: Key, now: Moment) -> Option<Vec<u64>> {
        (key == INSTANCE && !self.shares.is_empty() && !self.busy.is_empty()).then(|| self.dispatch(now))
    }

    /// The name of a caller with a share in this bucket.
    pub(in crate::limiter) fn name_of_share(&self, key: Key, caller: Option<CallerId>) -> Option<Arc<str>> {
        let share = self.shares.iter().filter(|_| key == INSTANCE).find(|share| Some(share.caller) == caller)?;
        Some(Arc::clone(&share.name))
    }

    /// The name of a caller with a guarantee in this bucket.
    pub(in crate::limiter) fn name_of_guarantee(&self, key: Key, caller: Option<CallerId>) -> Option<Arc<str>> {
        let mut shares = self.shares.iter().filter(|share| key == INSTANCE && share.min_share > 0.0);
        shares.find(|share| Some(share.caller) == caller).map(|share| Arc::clone(&share.name))
    }

    /// Applies the state of the distributed log.
    pub(in crate::limiter) fn apply_shared_state(
        &mut self,
        key: Key,
        caller: Option<CallerId>,
        taken: &Taken,
        now: Moment,
    ) {
        self.set_counting(self.counting.with_kind(taken.counting));
        let Some(bucket_queue) = self.queues.get_mut(&key) else { return };
        bucket_queue.limiter.apply_shared_state(taken, now);
        if let Some(lane) = bucket_queue.lanes.lane_mut(caller) {
            let beyond = Some(taken.guarantee_wait).filter(|wait| !wait.is_zero());
            let capped = taken.outcome.as_ref().err().filter(|full| full.is_capped).map(|full| full.wait);
            lane.apply_shared_use(beyond.map(|wait| now.after(wait)), capped.map(|wait| now.after(wait)));
        }
    }

    /// Applies the number of processes from the distributed limiter, `None` if it is unreachable. Returns whether this
    /// process has switched to its local share since the request was granted.
    pub(in crate::limiter) fn set_processes(&mut self, processes: Option<u64>, grant: Grant, now: Moment) -> bool {
        let before = self.sharing;
        self.sharing = Sharing { reachable: processes.is_some(), processes: processes.or(before.processes) };
        match (before.reachable, self.sharing.reachable) {
            (true, false) => {
                let part = self.sharing.part();
                self.queues.values_mut().for_each(|bucket_queue| bucket_queue.limiter.use_local_share(part, now));
                self.local_since = now;
                true
            }
            (false, true) => {
                self.queues.values_mut().for_each(|bucket_queue| bucket_queue.limiter.leave_local_share(now));
                false
            }
            (false, false) => grant.sent < self.local_since,
            (true, true) => false,
        }
    }

    /// How the limits are shared.
    pub(in crate::limiter) const fn sharing(&self) -> Sharing {
        self.sharing
    }

    /// Holds requests of this rank and those after it for `wait` plus jitter, at most twice `wait`: other processes have
    /// used the bucket.
    pub(in crate::limiter) fn wait_for_others(&mut self, key: Key, rank: Rank, wait: Duration, now: Moment) {
        let random = self.rng.f64();
        if let Some(bucket_queue) = self.queues.get_mut(&key) {
            let late = bucket_queue.limiter.jitter(random).min(wait);
            bucket_queue.wait_for_others(rank, now.after(wait + late));
        }
    }
}
