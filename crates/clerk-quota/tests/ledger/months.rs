//! Billing months: their bounds, and what counts in them.

use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveDate, Timelike};
use clerk_quota::metered::{BillingDay, BillingMonth, MeteredOperation, MeteredPlan, MonthOfOthers, MonthUsage};
use clerk_quota::{CallerId, InstanceLedger, Moment, Source};
use proptest::prelude::*;

use crate::metered::{End, LATENESS, report, reporting, route_of, send};
use crate::{at, ledger};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn day(day: u8) -> BillingDay {
    BillingDay::new(day).unwrap()
}

fn date(year: i32, month: u32, day: u32) -> Duration {
    let midnight = NaiveDate::from_ymd_opt(year, month, day).unwrap().and_hms_opt(0, 0, 0).unwrap();
    Duration::from_secs(u64::try_from(midnight.and_utc().timestamp()).unwrap())
}

/// Seconds after the time of [`at`] at which this moment of the wall clock is.
fn seconds_until(wall: Duration) -> f64 {
    (wall - at(0.0).since_epoch()).as_secs_f64()
}

#[test]
fn billing_day_is_clamped_to_the_length_of_the_month() {
    let cases = [
        (1, date(2026, 11, 30), date(2026, 11, 1), date(2026, 12, 1)),
        (31, date(2026, 11, 29), date(2026, 10, 31), date(2026, 11, 30)),
        (31, date(2026, 11, 30), date(2026, 11, 30), date(2026, 12, 31)),
        (30, date(2027, 2, 27), date(2027, 1, 30), date(2027, 2, 28)),
        (30, date(2027, 2, 28), date(2027, 2, 28), date(2027, 3, 30)),
        (30, date(2028, 2, 28), date(2028, 1, 30), date(2028, 2, 29)),
        (29, date(2028, 2, 29), date(2028, 2, 29), date(2028, 3, 29)),
        (15, date(2026, 1, 3), date(2025, 12, 15), date(2026, 1, 15)),
        (15, date(2026, 12, 15), date(2026, 12, 15), date(2027, 1, 15)),
    ];
    for (billing_day, wall, start, end) in cases {
        let month = BillingMonth::containing(wall, day(billing_day));
        assert_eq!((month.start, month.end), (start, end), "{billing_day}, {wall:?}");
    }
    assert_eq!([BillingDay::new(0), BillingDay::new(32)], [None; 2]);
}

proptest! {
    /// Months follow each other without gaps, start at midnight of the billing day or of the month's last one, and are
    /// as long as months are.
    #[test]
    fn months_tile_the_time(seconds in 0..16_725_225_600_u64, billing_day in 1..=31_u8) {
        let wall = Duration::from_secs(seconds + 40 * 24 * 3600);
        let month = BillingMonth::containing(wall, day(billing_day));
        prop_assert!(month.contains(wall));
        let length = (month.end - month.start).as_secs() / DAY.as_secs();
        prop_assert!((28..=31).contains(&length), "{length} days");
        let next = BillingMonth::containing(month.end, day(billing_day));
        let last = BillingMonth::containing(month.end - Duration::from_nanos(1), day(billing_day));
        prop_assert_eq!((next.start, last), (month.end, month));
        let start = DateTime::from_timestamp(i64::try_from(month.start.as_secs()).unwrap(), 0).unwrap();
        prop_assert_eq!(start.num_seconds_from_midnight(), 0);
        let expected = u32::from(billing_day).min(u32::from(start.num_days_in_month()));
        prop_assert_eq!(start.day(), expected);
    }
}

/// A ledger that counts months since [`at`] 0, which is 2026-11-25 12:00 UTC.
fn counting(kept: Option<MonthUsage>) -> InstanceLedger {
    let mut ledger = ledger();
    ledger.count_months(at(0.0), 0.0, kept, false);
    ledger
}

fn verify(ledger: &mut InstanceLedger, seconds: f64) {
    let route = route_of(MeteredOperation::ApiKeyVerify);
    send(ledger, seconds, Source::Gateway, CallerId(5), route, End::Status(200));
}

fn month(ledger: &mut InstanceLedger, seconds: f64) -> Option<MonthUsage> {
    ledger.snapshot(at(seconds)).metered.month
}

fn november() -> BillingMonth {
    BillingMonth { start: date(2026, 11, 1), end: date(2026, 12, 1) }
}

fn kept(month: BillingMonth, operations: u64) -> MonthUsage {
    MonthUsage { operations: [operations, 0, 0, 0], ..MonthUsage::empty(month, month.start) }
}

#[test]
fn month_is_absent_unless_it_is_kept() {
    let mut ledger = ledger();
    verify(&mut ledger, 1.0);
    assert_eq!((month(&mut ledger, 2.0), ledger.own_month(at(2.0))), (None, None));
}

#[test]
fn first_month_counts_from_the_start_of_the_storage() {
    let mut ledger = counting(None);
    verify(&mut ledger, 1.0);
    let expected = MonthUsage { since: at(0.0).since_epoch(), ..kept(november(), 1) };
    assert_eq!(month(&mut ledger, 2.0), Some(expected));
}

#[test]
fn kept_month_goes_on_and_an_earlier_one_ends() {
    let mut ledger = counting(Some(kept(november(), 40)));
    verify(&mut ledger, 1.0);
    assert_eq!(month(&mut ledger, 2.0), Some(kept(november(), 41)));
    let october = BillingMonth { start: date(2026, 10, 1), end: date(2026, 11, 1) };
    let mut ledger = counting(Some(kept(october, 40)));
    assert_eq!(month(&mut ledger, 2.0), Some(kept(november(), 0)));
}

#[test]
fn kept_month_in_the_future_is_ignored() {
    let december = BillingMonth { start: date(2026, 12, 1), end: date(2027, 1, 1) };
    let other_day = BillingMonth { start: date(2026, 11, 2), end: date(2026, 12, 2) };
    let later = MonthUsage { since: at(3600.0).since_epoch(), ..kept(november(), 40) };
    for kept in [kept(december, 40), kept(other_day, 40), later] {
        let mut ledger = counting(Some(kept));
        let expected = MonthUsage::empty(november(), at(0.0).since_epoch());
        assert_eq!(month(&mut ledger, 2.0), Some(expected), "{kept:?}");
    }
}

#[test]
fn count_starts_anew_with_the_next_month() {
    let mut ledger = counting(None);
    let end = seconds_until(date(2026, 12, 1));
    verify(&mut ledger, end - 1.0);
    assert_eq!(month(&mut ledger, end - 0.5).unwrap().operations[0], 1);
    verify(&mut ledger, end);
    verify(&mut ledger, end + 1.0);
    let december = BillingMonth { start: date(2026, 12, 1), end: date(2027, 1, 1) };
    assert_eq!(month(&mut ledger, end + 2.0), Some(kept(december, 2)));
    let total: u64 = ledger.snapshot(at(end)).metered.operations.iter().map(|(_, operations)| operations).sum();
    assert_eq!(total, 3, "the counter goes on");
}

#[test]
fn report_counts_in_the_month_in_which_it_ended() {
    let mut ledger = reporting();
    ledger.count_months(at(0.0), 0.0, None, false);
    let (end, route) = (seconds_until(date(2026, 12, 1)), route_of(MeteredOperation::M2mCreate));
    report(&mut ledger, end - 2.0, route, 200, 3.0);
    report(&mut ledger, end + 0.5, route, 200, 2.0);
    let after = month(&mut ledger, end + LATENESS.as_secs_f64() + 2.0).unwrap();
    assert_eq!((after.month.start, after.operations), (date(2026, 12, 1), [0, 0, 0, 2]));
}

#[test]
fn waiting_reports_are_kept_at_the_end_of_the_program() {
    let mut ledger = reporting();
    ledger.count_months(at(0.0), 0.0, None, false);
    report(&mut ledger, 1.0, route_of(MeteredOperation::M2mCreate), 200, 3.0);
    assert_eq!(ledger.own_month(at(2.0)).unwrap().operations, [0; 4]);
    ledger.release_all(at(2.0));
    assert_eq!(ledger.own_month(at(2.0)).unwrap().operations, [0, 0, 0, 3]);
}

#[test]
fn months_follow_a_wall_clock_that_was_set() {
    let mut ledger = counting(None);
    verify(&mut ledger, 1.0);
    // The wall clock was set to a week later, which is in December.
    ledger.set_clock_step(7.0 * DAY.as_secs_f64());
    verify(&mut ledger, 2.0);
    let usage = month(&mut ledger, 3.0).unwrap();
    assert_eq!((usage.month.start, usage.operations[0]), (date(2026, 12, 1), 1));
    assert_eq!(usage.since, at(2.0).since_epoch() + 7 * DAY, "what happened before in December is not known");
    // Set back: what was counted in November is not known any more.
    ledger.set_clock_step(0.0);
    let usage = month(&mut ledger, 4.0).unwrap();
    assert_eq!((usage.month.start, usage.since, usage.operations[0]), (date(2026, 11, 1), at(4.0).since_epoch(), 0));
}

#[test]
fn another_billing_day_counts_from_the_change() {
    let mut ledger = counting(Some(kept(november(), 40)));
    let plan = MeteredPlan { billing_day: day(20), ..MeteredPlan::PUBLISHED };
    ledger.set_metered_plan(MeteredPlan { free: [1; 4], ..MeteredPlan::PUBLISHED }, at(1.0));
    assert_eq!(month(&mut ledger, 1.5), Some(kept(november(), 40)), "the same day");
    ledger.set_metered_plan(plan, at(2.0));
    let expected = BillingMonth { start: date(2026, 11, 20), end: date(2026, 12, 20) };
    assert_eq!(month(&mut ledger, 3.0), Some(MonthUsage::empty(expected, at(2.0).since_epoch())));
}

#[test]
fn shared_month_adds_up_and_is_absent_while_others_are_unknown() {
    let mut ledger = ledger();
    ledger.count_months(at(0.0), 0.0, None, true);
    verify(&mut ledger, 1.0);
    assert_eq!(month(&mut ledger, 2.0), None);
    assert_eq!(ledger.own_month(at(2.0)).unwrap().operations[0], 1, "what is kept is its own");
    let others = |seconds, usage| MonthOfOthers { at: at(seconds), usage };
    ledger.set_month_of_others(others(2.0, kept(november(), 100)));
    assert_eq!(month(&mut ledger, 3.0), Some(kept(november(), 101)), "from the earliest start");
    assert_eq!(month(&mut ledger, 62.5), None, "read too long ago");
    let end = seconds_until(date(2026, 12, 1));
    ledger.set_month_of_others(others(end - 1.0, kept(november(), 100)));
    assert_eq!(month(&mut ledger, end + 1.0), None, "those of an earlier month");
}

#[test]
fn calendar_holds_for_any_clock() {
    for wall in [Duration::ZERO, Duration::MAX, Moment::from_unix(Duration::MAX).since_epoch()] {
        for billing_day in [1, 31] {
            let month = BillingMonth::containing(wall, day(billing_day));
            assert!(month.start <= month.end, "{wall:?}");
        }
    }
}
