//! Operations that Clerk bills, by caller and by billing month.

use super::InstanceLedger;
use crate::Moment;
use crate::budget::AttemptEnd;
use crate::metered::{MeteredKey, MeteredOperation, MeteredPlan, MonthOfOthers, MonthUsage, may_be_billed};
use crate::spending::Spender;

impl InstanceLedger {
    /// Sets what the instance's plan says about metered operations. Without it, what Clerk published holds.
    ///
    /// With another billing day, the month is counted from `now`.
    pub fn set_metered_plan(&mut self, plan: MeteredPlan, now: Moment) {
        self.metered.set_plan(plan, now);
    }

    /// Begins to count metered operations by billing month, for a program that keeps the counts across restarts.
    ///
    /// `step_seconds` is [`Clock::step_seconds`](crate::clock::Clock::step_seconds). `kept` is what the program kept;
    /// a month that is over counts as nothing, one in the future is ignored. With `is_shared`, the month is shown only
    /// while that of other processes is known ([`InstanceLedger::set_month_of_others`]).
    pub fn count_months(&mut self, now: Moment, step_seconds: f64, kept: Option<MonthUsage>, is_shared: bool) {
        self.metered.count_months(now, millis(step_seconds), kept, is_shared);
    }

    /// Sets how far the wall clock is ahead of the clock of [`Moment`]s: billing months are those of the wall clock.
    pub fn set_clock_step(&mut self, step_seconds: f64) {
        self.metered.set_clock_step(millis(step_seconds));
    }

    /// Takes in what other processes counted in their billing month.
    pub fn set_month_of_others(&mut self, read: MonthOfOthers) {
        self.metered.set_others(read);
    }

    /// Returns what to keep: the month at `now`, without that of other processes. `None` if months are not counted.
    pub fn own_month(&mut self, now: Moment) -> Option<MonthUsage> {
        self.metered.own_month(now)
    }

    /// Returns what the instance's plan says about metered operations.
    #[must_use]
    pub const fn metered_plan(&self) -> &MeteredPlan {
        self.metered.plan()
    }

    pub(super) fn count_metered(
        &mut self,
        spender: Spender,
        at: Moment,
        now: Moment,
        end: AttemptEnd<'_>,
        operations: u64,
    ) {
        let Some(operation) = MeteredOperation::of_route(spender.route).filter(|_| may_be_billed(end)) else { return };
        let key = MeteredKey { operation, caller: spender.caller, source: spender.source };
        self.metered.count(key, at, now, operations);
    }
}

fn millis(seconds: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "a cast of a float saturates")]
    let millis = (seconds * 1000.0).round() as i64;
    millis
}
