//! One bucket: when its next request may leave, and which one that is. Pure: time and randomness are passed in.

use std::time::Duration;

use super::bucket_limiter::{Admission, BucketLimiter, Ending};
use super::caller_lane::BucketView;
use super::lanes::{Head, LaneId, Lanes, Standing};
use super::queue::Look;
use super::sender::{Rank, Sender};
use super::shares::CallerShare;
use super::{LimiterOptions, ShedReason};
use clerk_quota::{CallerId, Limit, Moment};

#[derive(Debug)]
pub(super) struct BucketQueue {
    pub(super) limiter: BucketLimiter,
    pub(super) lanes: Lanes,
    /// By rank: until then, other processes have used the bucket.
    others_until: [Moment; Rank::COUNT],
    /// By rank: requests that ask the distributed limiter.
    asking: [AskLimit; Rank::COUNT],
}

/// Requests that ask the distributed limiter at the same time.
#[derive(Debug, Clone, Copy, Default)]
struct AskLimit {
    now: u64,
    /// `None` for any number. After a refusal only one, or all that wait would ask in vain for the same capacity. Each
    /// admission lets one more ask, so that they double with each round trip.
    most: Option<u64>,
}

/// What became of a request that asked the distributed limiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Admitted,
    /// Refused, or not asked in the end.
    InVain,
    Unreachable,
}

/// Whether a waiting request may leave.
#[derive(Debug, Clone, Copy)]
pub(super) enum Turn {
    Now,
    At(Look),
}

/// The earliest moment at which a request may leave, as far as known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Earliest {
    pub(super) at: Option<Moment>,
    /// Why not earlier, if not because of the limit.
    pub(super) reason: ShedReason,
}

impl BucketQueue {
    pub(super) fn new(limiter: BucketLimiter, shares: &[CallerShare]) -> Self {
        let mut lanes = Lanes::default();
        lanes.set_shares(shares);
        Self { limiter, lanes, others_until: Default::default(), asking: Default::default() }
    }

    pub(super) fn view(&mut self, now: Moment) -> BucketView {
        let view = BucketView { now, limit: self.limiter.limit_at(now), window: self.limiter.window() };
        self.lanes.settle(view);
        view
    }

    /// The view of all processes together: the limit, whatever this process leaves to clients that do not share it.
    pub(super) fn shared_view(&self, now: Moment) -> BucketView {
        BucketView { now, limit: self.limiter.known_limit(), window: self.limiter.window() }
    }

    /// The cap of a caller, if it has one.
    pub(super) fn cap_of(&mut self, caller: Option<CallerId>, now: Moment) -> Option<Limit> {
        let view = self.view(now);
        let requests = self.lanes.lane(caller)?.cap(view)?;
        Some(Limit { requests, window: view.window })
    }

    /// The next request whose caller is below its cap.
    pub(super) fn head(&mut self, now: Moment) -> Option<Head> {
        if self.lanes.is_empty() {
            return None;
        }
        let view = self.view(now);
        self.lanes.head(view)
    }

    /// Whether a request of this rank may leave at `now` after `ahead` others.
    pub(super) fn admit(&mut self, now: Moment, ahead: u64, rank: Rank, options: &LimiterOptions) -> Admission {
        let until = self.others_until[rank.index()];
        if now < until {
            return Admission::At(until);
        }
        let AskLimit { now: asking, most } = self.asking[rank.index()];
        match self.limiter.admit(now, ahead, options.reserve_of(rank)) {
            Admission::Now if most.is_some_and(|most| asking >= most) => Admission::OnAnswer,
            admission => admission,
        }
    }

    /// The rank of a request that comes now, if it may leave when none waits.
    pub(super) fn admits_first(&mut self, sender: Sender, now: Moment, options: &LimiterOptions) -> Option<Rank> {
        let rank = if self.lanes.has_shares() {
            let view = self.view(now);
            self.lanes.rank_if_first(sender, view)
        } else {
            Some(sender.priority.into())
        };
        rank.filter(|rank| self.admit(now, 0, *rank, options) == Admission::Now)
    }

    pub(super) fn standing(&mut self, sender: Sender, now: Moment) -> Standing {
        let view = self.view(now);
        self.lanes.standing(sender, view)
    }

    /// When the last waiting request of a sender may leave.
    pub(super) fn earliest(&mut self, sender: Sender, now: Moment, options: &LimiterOptions) -> Earliest {
        let Standing { rank, ahead, held, guaranteed } = self.standing(sender, now);
        let mut moment = |ahead, rank| match self.admit(now, ahead, rank, options) {
            Admission::At(at) => Some(at),
            Admission::Now | Admission::OnAnswer => None,
        };
        let in_order = moment(ahead, rank);
        let by_limit = match (in_order, guaranteed) {
            // Once it is guaranteed, it leaves before those that are ahead now.
            (Some(in_order), Some((at, ahead))) => {
                Some(in_order.min(moment(ahead, Rank::Guaranteed).map_or(at, |by_limit| by_limit.max(at))))
            }
            (in_order, _) => in_order,
        };
        match held {
            Some((at, reason)) if by_limit.is_none_or(|limit| limit < at) => Earliest { at: Some(at), reason },
            _ => Earliest { at: by_limit, reason: ShedReason::WaitTooLong },
        }
    }

    /// Whether the last waiting request of a sender is within the guarantee of its caller, or is by then.
    pub(super) fn is_guaranteed_by(&mut self, sender: Sender, now: Moment, then: Moment) -> bool {
        let standing = self.standing(sender, now);
        standing.rank == Rank::Guaranteed || standing.guaranteed.is_some_and(|(at, _)| at <= then)
    }

    /// The requests to wake: the next one, and those whose place changes when their time comes.
    pub(super) fn firsts(&mut self, now: Moment) -> impl Iterator<Item = u64> {
        let view = self.view(now);
        let head = self.lanes.head(view).map(|head| head.id);
        let changing = self.lanes.changes(view).map(|(id, _)| id).filter(move |id| Some(*id) != head);
        head.into_iter().chain(changing)
    }

    /// When a waiting request may leave, or has to poll again; `None` if others leave before it, or a response decides.
    pub(super) fn look(&mut self, id: u64, now: Moment, options: &LimiterOptions) -> Option<Turn> {
        let view = self.view(now);
        let change = self.lanes.changes(view).find_map(|(other, look)| (other == id).then_some(look));
        let Some(head) = self.lanes.head(view).filter(|head| head.id == id) else { return change.map(Turn::At) };
        match self.admit(now, 0, head.rank, options) {
            Admission::Now => Some(Turn::Now),
            Admission::OnAnswer => change.map(Turn::At),
            // Within its guarantee, it may leave earlier.
            Admission::At(at) => {
                let at = change.map_or(at, |change| change.at.min(at));
                Some(Turn::At(Look { at, is_bound: true }))
            }
        }
    }

    /// Holds requests of this rank and those after it until a moment: other processes have used the bucket.
    pub(super) fn wait_for_others(&mut self, rank: Rank, until: Moment) {
        for others in &mut self.others_until[rank.index()..] {
            *others = until.max(*others);
        }
        for asking in &mut self.asking[rank.index()..] {
            asking.most = Some(1);
        }
    }

    /// A request of this rank is going to ask the distributed limiter.
    pub(super) const fn begin_asking(&mut self, rank: Rank) {
        self.asking[rank.index()].now += 1;
    }

    pub(super) fn end_asking(&mut self, rank: Rank, asked: Asked) {
        let asking = &mut self.asking[rank.index()];
        asking.now = asking.now.saturating_sub(1);
        asking.most = match asked {
            Asked::Admitted => asking.most.map(|most| most.saturating_add(1)),
            Asked::InVain => asking.most,
            Asked::Unreachable => None,
        };
    }

    /// A request leaves. Returns the lane that counts it, and whether its response reveals how the server counts.
    pub(super) fn begin(&mut self, sender: Sender, now: Moment, random: f64) -> (Option<LaneId>, bool) {
        (self.lanes.begin(sender.caller), self.limiter.begin(now, random))
    }

    /// A request ended that was counted in a lane.
    pub(super) fn end_in_lane(&mut self, lane: LaneId, ending: &Ending<'_>, now: Moment) {
        let is_counted = match ending {
            Ending::Answered(observation) => !observation.is_throttled(),
            Ending::Unsent => false,
            Ending::Lost => true,
        };
        let window: Duration = self.limiter.window();
        self.lanes.end(lane, is_counted.then_some(now), window);
    }
}
