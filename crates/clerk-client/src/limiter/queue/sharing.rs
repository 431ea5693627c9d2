//! The queue's part in limits that several processes share.

use std::sync::Arc;
use std::time::Duration;

use super::{Grant, INSTANCE, Key, Queue};
use crate::limiter::bucket_queue::Asked;
use crate::limiter::distributed::{Room, SharedCaller, SharedShares, Sharing, Taken};
use crate::limiter::sender::{Rank, Sender};
use clerk_quota::{CallerId, Moment};

/// Processes that wait for the same capacity ask for it again at random within this time for each of them, and at most
/// within this part of a window: together about 2000 times a second, however many they are.
const PER_PROCESS: Duration = Duration::from_millis(1);
const LONGEST_SPREAD: u32 = 4;

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

    /// Notes that a granted request has to ask the distributed limiter.
    pub(super) fn begin_asking(&mut self, grant: Grant, rank: Rank) -> Grant {
        if let Some(bucket_queue) = self.queues.get_mut(&grant.key) {
            bucket_queue.begin_asking(rank);
        }
        Grant { asks: Some(rank), ..grant }
    }

    /// Notes that a request has asked and leaves. Returns the ids to wake: others may ask now, or have a share that is free
    /// again.
    pub(in crate::limiter) fn end_asking(&mut self, grant: &mut Grant, asked: Asked, now: Moment) -> Vec<u64> {
        if let Some(rank) = grant.asks.take()
            && let Some(bucket_queue) = self.queues.get_mut(&grant.key)
        {
            bucket_queue.end_asking(rank, asked);
        }
        if self.busy.is_empty() { Vec::new() } else { self.dispatch(now) }
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

    /// Holds requests of this rank and those after it for `wait` plus jitter: other processes have used the bucket.
    ///
    /// The jitter is at most `wait`, or a time that grows with the number of processes: all of them wait for the same
    /// capacity, and would ask for it together. What is guaranteed does not wait longer because of others.
    pub(in crate::limiter) fn wait_for_others(&mut self, key: Key, rank: Rank, wait: Duration, now: Moment) {
        let random = self.rng.f64();
        if let Some(bucket_queue) = self.queues.get_mut(&key) {
            let jitter = bucket_queue.limiter.jitter(random).min(wait);
            let processes = u32::try_from(self.sharing.processes.unwrap_or(1)).unwrap_or(u32::MAX);
            let longest = bucket_queue.limiter.window() / LONGEST_SPREAD;
            let spread = PER_PROCESS.saturating_mul(processes).min(longest).mul_f64(random);
            let late = if rank == Rank::Guaranteed { jitter } else { jitter.max(spread) };
            bucket_queue.wait_for_others(rank, now.after(wait + late));
        }
    }
}
