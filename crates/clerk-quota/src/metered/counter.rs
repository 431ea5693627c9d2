//! Counts metered operations: since the start of the process, and in the billing month.

use std::time::Duration;

use rustc_hash::FxHashMap;

use super::{BillingMonth, MeteredKey, MeteredOperation, MeteredPlan};
use crate::{CallerId, Moment};

/// Label combinations that are counted separately for an instance.
const MAX_SERIES: usize = 2000;

/// Larger changes of the wall clock are not those of a clock that is kept right.
const CLOCK_STEP_MILLIS: u64 = 1000;

/// How long the counts of other processes are used after they were read: a few missed reads.
const OTHERS_MAX_AGE: Duration = Duration::from_secs(60);

/// The operations of a billing month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MonthUsage {
    /// The month.
    pub month: BillingMonth,
    /// From when they are counted, as wall-clock time since the UNIX epoch: the month's start, or later.
    pub since: Duration,
    /// How many there were at most, by [`MeteredOperation::index`].
    pub operations: [u64; MeteredOperation::ALL.len()],
}

/// What other processes counted in the billing month, in a store that all of them share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MonthOfOthers {
    /// When it was read.
    pub at: Moment,
    /// Their counts.
    pub usage: MonthUsage,
}

/// The metered operations of an instance at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MeteredSnapshot {
    /// Free operations and prices.
    pub plan: MeteredPlan,
    /// Operations since the start of the process, sorted.
    pub operations: Vec<(MeteredKey, u64)>,
    /// Operations of the billing month, of all processes that share it; `None` if they are not kept across restarts,
    /// or if those of other processes are not known.
    pub month: Option<MonthUsage>,
}

/// The counts of an instance.
#[derive(Debug, Clone, Default)]
pub(crate) struct MeteredCounter {
    plan: MeteredPlan,
    counts: FxHashMap<MeteredKey, u64>,
    month: Option<MonthCounter>,
}

#[derive(Debug, Clone)]
struct MonthCounter {
    /// Wall clock minus the clock of [`Moment`]s, in milliseconds.
    step_millis: i64,
    /// Whether the wall clock was set in this month.
    was_stepped: bool,
    own: MonthUsage,
    others: Others,
}

#[derive(Debug, Clone, Copy)]
enum Others {
    /// There are none.
    None,
    /// Their counts, once they were read.
    Shared(Option<MonthOfOthers>),
}

impl MeteredCounter {
    pub(crate) const fn plan(&self) -> &MeteredPlan {
        &self.plan
    }

    /// Sets the plan. With another billing day, the month is counted from now.
    pub(crate) fn set_plan(&mut self, plan: MeteredPlan, now: Moment) {
        let is_same_day = self.plan.billing_day == plan.billing_day;
        self.plan = plan;
        if let Some(month) = self.month.as_mut().filter(|_| !is_same_day) {
            let wall = month.wall(now);
            month.own = MonthUsage::empty(BillingMonth::containing(wall, plan.billing_day), wall);
            month.forget_others();
        }
    }

    /// Begins to count by month. What an earlier process counted is added if it belongs to the current month.
    pub(crate) fn count_months(&mut self, now: Moment, step_millis: i64, kept: Option<MonthUsage>, is_shared: bool) {
        let others = if is_shared { Others::Shared(None) } else { Others::None };
        let wall = wall(now, step_millis);
        let current = BillingMonth::containing(wall, self.plan.billing_day);
        let own = match kept {
            Some(kept) if kept.month == current && kept.since <= wall => kept,
            // The last run ended in an earlier month, and nothing was sent through this program since then.
            Some(kept) if kept.month.end <= current.start => MonthUsage::empty(current, current.start),
            _ => MonthUsage::empty(current, wall),
        };
        self.month = Some(MonthCounter { step_millis, was_stepped: false, own, others });
    }

    pub(crate) fn set_clock_step(&mut self, step_millis: i64) {
        if let Some(month) = &mut self.month {
            month.was_stepped |= step_millis.abs_diff(month.step_millis) >= CLOCK_STEP_MILLIS;
            month.step_millis = step_millis;
        }
    }

    pub(crate) fn set_others(&mut self, read: MonthOfOthers) {
        if let Some(MonthCounter { others: Others::Shared(others), .. }) = &mut self.month {
            *others = Some(read);
        }
    }

    /// Counts operations that ended at `at`.
    pub(crate) fn count(&mut self, key: MeteredKey, at: Moment, now: Moment, operations: u64) {
        let mut key = key;
        if self.counts.len() >= MAX_SERIES && !self.counts.contains_key(&key) {
            key.caller = CallerId::OTHER;
        }
        *self.counts.entry(key).or_default() += operations;
        if let Some(month) = &mut self.month {
            month.roll(now, &self.plan);
            // A report may arrive in the next month.
            if month.own.month.contains(month.wall(at.min(now))) {
                month.own.operations[key.operation.index()] += operations;
            }
        }
    }

    /// Returns what this process and earlier ones with the same state counted in the current month.
    pub(crate) fn own_month(&mut self, now: Moment) -> Option<MonthUsage> {
        let month = self.month.as_mut()?;
        month.roll(now, &self.plan);
        Some(month.own)
    }

    pub(crate) fn snapshot(&mut self, now: Moment) -> MeteredSnapshot {
        let mut operations: Vec<_> = self.counts.iter().map(|(key, count)| (*key, *count)).collect();
        operations.sort_unstable();
        let month = self.own_month(now).and_then(|own| self.month.as_ref()?.with_others(own, now));
        MeteredSnapshot { plan: self.plan, operations, month }
    }
}

impl MonthCounter {
    fn wall(&self, at: Moment) -> Duration {
        wall(at, self.step_millis)
    }

    fn forget_others(&mut self) {
        if let Others::Shared(others) = &mut self.others {
            *others = None;
        }
    }

    /// Starts the month that contains `now`, if it is another one.
    fn roll(&mut self, now: Moment, plan: &MeteredPlan) {
        let wall = self.wall(now);
        if self.own.month.contains(wall) {
            return;
        }
        let month = BillingMonth::containing(wall, plan.billing_day);
        // A clock that was set may show any month: what happened in it before is not known.
        let is_next = self.own.month.end == month.start && !std::mem::take(&mut self.was_stepped);
        let since = if is_next { month.start } else { wall };
        self.own = MonthUsage::empty(month, since);
        self.forget_others();
    }

    /// Adds the counts of other processes, if they are known.
    fn with_others(&self, own: MonthUsage, now: Moment) -> Option<MonthUsage> {
        let others = match self.others {
            Others::None => return Some(own),
            Others::Shared(others) => others.filter(|others| now.since(others.at) <= OTHERS_MAX_AGE)?.usage,
        };
        let is_same = others.month == own.month;
        is_same.then(|| MonthUsage {
            month: own.month,
            since: own.since.min(others.since),
            operations: std::array::from_fn(|index| own.operations[index].saturating_add(others.operations[index])),
        })
    }
}

impl MonthUsage {
    /// A month of which nothing is counted before `since`.
    #[must_use]
    pub const fn empty(month: BillingMonth, since: Duration) -> Self {
        Self { month, since, operations: [0; MeteredOperation::ALL.len()] }
    }
}

/// Returns the wall-clock time of a moment, since the UNIX epoch.
fn wall(at: Moment, step_millis: i64) -> Duration {
    let step = Duration::from_millis(step_millis.unsigned_abs());
    let at = at.since_epoch();
    if step_millis < 0 { at.saturating_sub(step) } else { at.saturating_add(step) }
}
