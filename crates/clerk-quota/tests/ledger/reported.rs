//! Requests that are reported after they ended: late, in any order, and as samples.

use std::time::Duration;

use clerk_quota::snapshot::{Basis, BucketSnapshot};
use clerk_quota::{
    AttemptEnd, Bucket, CallerId, Coverage, InstanceLedger, KeyVerdict, MethodLabel, Moment, Observation, Quota,
    Reported, ReportedEnd, ReportedRequest, RequestStart, Route, Settings, Source, Span, route,
};
use proptest::prelude::*;

use super::{at, begin, plain, settings, throttled, users};

const LATENESS: Duration = Duration::from_secs(15);

/// A ledger of an instance that is known by reports, and has been for a while.
fn reporting(coverage: Coverage) -> InstanceLedger {
    let sources = vec![Source::Probe, Source::Gateway, Source::Telemetry];
    let lateness = Some(LATENESS);
    let mut ledger = InstanceLedger::new(Settings { sources, coverage, lateness, ..settings("test") });
    ledger.count_since(at(0.0).before(Duration::from_secs(60)));
    ledger
}

/// A reported request to this route that took 50 ms.
fn report_of(route: Route, seconds: f64, status: u16) -> ReportedRequest {
    let source = Source::Telemetry;
    let ended = at(seconds).after(Duration::from_millis(50));
    let observed = if status == 429 { throttled(seconds, 5) } else { plain(seconds, status) };
    let observation = Observation {
        at: ended,
        source,
        route: route.id,
        bucket: route.bucket,
        entity: route.entity,
        key: KeyVerdict::Unknown,
        ..observed
    };
    let start = RequestStart { at: at(seconds), source, caller: CallerId(7), route, method: MethodLabel::Get };
    ReportedRequest { start, ended, end: ReportedEnd::Answered(observation), weight: 1.0 }
}

fn report(seconds: f64, status: u16) -> ReportedRequest {
    report_of(users(), seconds, status)
}

fn default_bucket(ledger: &mut InstanceLedger, now: f64) -> BucketSnapshot {
    super::bucket(ledger, now, Bucket::Instance)
}

/// The numbers of closed windows, which must not depend on how requests became known.
fn windows(bucket: &BucketSnapshot) -> (u64, u64, u64, Option<Vec<u64>>) {
    let histogram = bucket.window_usage.as_ref().map(|usage| usage.buckets().map(|(_, count)| count).collect());
    (bucket.windows, bucket.low_windows, bucket.exhausted_windows, histogram)
}

fn requests(ledger: &mut InstanceLedger, now: f64) -> u64 {
    ledger.snapshot(at(now)).spent.iter().map(|(_, requests)| requests).sum()
}

#[test]
fn reported_requests_fill_the_window_in_which_they_started() {
    let mut ledger = reporting(Coverage::Part);
    for request in 0..95 {
        let started = 9.99 - f64::from(request) * 0.1;
        assert!(matches!(ledger.report(at(12.0), &report(started, 200)), Reported::Pending(_)));
    }
    assert_eq!(windows(&default_bucket(&mut ledger, 26.9)).0, 0, "the lateness and the wait for responses");
    let bucket = default_bucket(&mut ledger, 27.1);
    assert_eq!((bucket.windows, bucket.low_windows, bucket.exhausted_windows), (1, 1, 0));
    assert_eq!(bucket.basis, Some(Basis::Telemetry));
    assert_eq!((bucket.remaining, bucket.blocked_until, bucket.to_exhaustion), (None, None, None));
    assert_eq!(bucket.usage_peak, Some(0.95));
    let last = bucket.last_window.unwrap();
    assert_eq!((last.ended, last.usage), (at(10.0), Some(0.95)));
    assert_eq!(ledger.top(at(27.1), Span::Minute).iter().map(|share| share.requests).sum::<u64>(), 95);
}

#[test]
fn a_reported_429_counts_and_holds_nothing() {
    let mut ledger = reporting(Coverage::Part);
    ledger.report(at(2.0), &report(1.0, 429));
    let snapshot = ledger.snapshot(at(40.0));
    let bucket = snapshot.bucket(Bucket::Instance).unwrap();
    assert_eq!(bucket.throttled[Source::Telemetry.index()], 1);
    assert_eq!((bucket.windows, bucket.low_windows, bucket.exhausted_windows), (1, 1, 1));
    assert_eq!((bucket.blocked_until, bucket.remaining), (None, None));
    assert_eq!(ledger.held_until(Bucket::Instance, at(3.0), Duration::from_secs(60)), None);
    assert_eq!((snapshot.up, snapshot.key_valid, snapshot.trouble), (None, None, None));
    assert_eq!(ledger.sampled_by_others_at(Bucket::Instance), None, "probes go on");
    assert_eq!(snapshot.responses.get(&(Source::Telemetry, 429)), Some(&1));
}

#[test]
fn late_reports_count_in_totals_and_make_windows_unknown() {
    let mut ledger = reporting(Coverage::Part);
    for request in 0..99 {
        ledger.report(at(40.0), &report(39.0 - f64::from(request) * 0.01, 200));
    }
    assert_eq!(ledger.report(at(40.0), &report(20.0, 200)), Reported::Late);
    assert_eq!(requests(&mut ledger, 40.0), 1, "a late one is counted at once");
    assert_eq!(ledger.report(at(40.0), &report(42.0, 200)), Reported::Future);
    assert_eq!(default_bucket(&mut ledger, 40.0).usage_peak, None);
    let bucket = default_bucket(&mut ledger, 57.1);
    assert_eq!(windows(&bucket).0, 1);
    assert_eq!((bucket.low_windows, bucket.last_window.unwrap().usage), (0, None), "2 of 101 missed their windows");
    assert_eq!(requests(&mut ledger, 57.1), 101);
    // A minute later windows count again.
    for request in 0..95 {
        ledger.report(at(139.0), &report(138.0 - f64::from(request) * 0.05, 200));
    }
    assert_eq!(default_bucket(&mut ledger, 160.0).low_windows, 1);
}

#[test]
fn sampled_reports_are_weighted_and_say_nothing_of_the_use() {
    let mut ledger = reporting(Coverage::Part);
    for request in 0..30 {
        let sampled = ReportedRequest { weight: 3.5, ..report(1.0 + f64::from(request) * 0.1, 200) };
        ledger.report(at(6.0), &sampled);
    }
    ledger.report(at(6.0), &ReportedRequest { weight: 3.5, ..report(5.0, 429) });
    let bucket = default_bucket(&mut ledger, 30.0);
    assert_eq!(bucket.basis, Some(Basis::Sampled));
    assert_eq!((bucket.exhausted_windows, bucket.low_windows), (1, 1), "a 429 shows that nothing was left");
    assert_eq!(bucket.last_window.unwrap().usage, None);
    assert_eq!(bucket.usage_peak, None);
    assert_eq!(requests(&mut ledger, 30.0), 108, "31 times 3.5");
}

#[test]
fn a_cancelled_report_was_never_there() {
    let mut ledger = reporting(Coverage::Part);
    let Reported::Pending(id) = ledger.report(at(2.0), &report(1.0, 200)) else { panic!("it is in time") };
    assert!(ledger.cancel_report(id));
    assert!(!ledger.cancel_report(id));
    assert_eq!((requests(&mut ledger, 60.0), default_bucket(&mut ledger, 60.0).windows), (0, 0));
    let Reported::Pending(id) = ledger.report(at(62.0), &report(61.0, 200)) else { panic!("it is in time") };
    assert_eq!(requests(&mut ledger, 90.0), 1);
    assert!(!ledger.cancel_report(id), "it is counted");
}

#[test]
fn the_gateway_and_its_numbers_do_not_wait_for_reports() {
    let mut ledger = reporting(Coverage::Sole);
    for request in 0..50 {
        let attempt = begin(&mut ledger, 1.0 + f64::from(request) * 0.1);
        super::answer(&mut ledger, attempt, &plain(1.02 + f64::from(request) * 0.1, 200));
    }
    let bucket = default_bucket(&mut ledger, 8.0);
    assert_eq!((bucket.remaining, bucket.usage_peak), (Some(50), Some(0.5)));
    for request in 0..45 {
        ledger.report(at(9.5), &report(1.05 + f64::from(request) * 0.1, 200));
    }
    let bucket = default_bucket(&mut ledger, 40.0);
    assert_eq!((bucket.windows, bucket.low_windows), (1, 1), "95 of 100, from both");
    assert_eq!(bucket.basis, Some(Basis::Mixed));
}

#[test]
fn without_a_lateness_no_report_is_in_time() {
    let mut ledger = super::ledger();
    assert_eq!(ledger.report(at(2.0), &report(1.0, 200)), Reported::Late);
    assert_eq!((requests(&mut ledger, 60.0), default_bucket(&mut ledger, 60.0).windows), (1, 0));
}

/// `(start in ms, duration in ms, status, delay of the report in ms, of a user)`.
type Call = (u64, u64, u16, u64, bool);

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let status = prop_oneof![20 => Just(200_u16), 1 => Just(429), 1 => Just(404), 1 => Just(500), 1 => Just(0)];
    let duration = prop_oneof![8 => 1_u64..900, 1 => 900_u64..4000];
    let call = (0_u64..60_000, duration, status, 0_u64..10_000, prop::bool::weighted(0.1));
    proptest::collection::vec(call, 1..700)
}

fn moment(millis: u64) -> Moment {
    at(0.0).after(Duration::from_millis(millis))
}

fn call((start, took, status, _, of_user): Call, source: Source) -> ReportedRequest {
    let route = if of_user { route::find("PATCH", b"/v1/users/user_1") } else { users() };
    let quota = if status == 429 { throttled(0.0, 3).quota } else { Quota::default() };
    let ended = moment(start + took);
    let end = if status == 0 {
        ReportedEnd::Unanswered
    } else {
        ReportedEnd::Answered(Observation {
            at: ended,
            source,
            route: route.id,
            bucket: route.bucket,
            entity: route.entity,
            quota,
            ..plain(0.0, status)
        })
    };
    let start = RequestStart { at: moment(start), source, caller: CallerId(7), route, method: MethodLabel::Get };
    ReportedRequest { start, ended, end, weight: 1.0 }
}

/// The times of all calls are different, so that the order of events is certain.
fn distinct(mut calls: Vec<Call>) -> Vec<Call> {
    let mut used = std::collections::BTreeSet::new();
    calls.retain(|(start, took, ..)| used.insert(*start) && used.insert(start + took));
    calls
}

/// The same traffic as the gateway sees it: each event when it happens.
fn seen_by_gateway(calls: &[Call]) -> InstanceLedger {
    let mut ledger = InstanceLedger::new(Settings { coverage: Coverage::Sole, ..settings("test") });
    ledger.count_since(at(0.0).before(Duration::from_secs(60)));
    let mut events: Vec<(u64, usize, bool)> = calls
        .iter()
        .enumerate()
        .flat_map(|(place, (start, took, ..))| [(*start, place, true), (start + took, place, false)])
        .collect();
    events.sort_unstable();
    let mut attempts = std::collections::HashMap::new();
    for (time, place, begins) in events {
        let request = call(calls[place], Source::Gateway);
        if begins {
            attempts.insert(place, ledger.begin(&request.start));
        } else {
            let end = match &request.end {
                ReportedEnd::Answered(observation) => AttemptEnd::Answered(observation),
                ReportedEnd::Unanswered => AttemptEnd::Unanswered,
            };
            ledger.end(attempts.remove(&place).unwrap(), moment(time), end);
        }
    }
    ledger
}

proptest! {
    #[test]
    fn reports_in_any_order_give_the_windows_that_the_gateway_sees(calls in calls().prop_map(distinct)) {
        let mut seen = seen_by_gateway(&calls);
        let mut told = reporting(Coverage::Part);
        let mut arrivals: Vec<(u64, Call)> = calls.iter().map(|it| (it.0 + it.1 + it.3, *it)).collect();
        arrivals.sort_unstable();
        for (arrival, it) in arrivals {
            let reported = told.report(moment(arrival), &call(it, Source::Telemetry));
            prop_assert!(matches!(reported, Reported::Pending(_)), "{reported:?}");
        }
        let (seen_end, told_end) = (seen.snapshot(moment(100_000)), told.snapshot(moment(115_000)));
        for bucket in [Bucket::Instance, Bucket::UserUpdate] {
            let (seen, told) = (seen_end.bucket(bucket).unwrap(), told_end.bucket(bucket).unwrap());
            prop_assert_eq!(windows(seen), windows(told));
            prop_assert_eq!(seen.throttled[Source::Gateway.index()], told.throttled[Source::Telemetry.index()]);
        }
        let spent = |of: &clerk_quota::snapshot::InstanceSnapshot| {
            let mut spent: Vec<_> = of.spent.iter().map(|(key, count)| (key.bucket, key.result, *count)).collect();
            spent.sort_unstable();
            spent
        };
        prop_assert_eq!(spent(&seen_end), spent(&told_end));
        let (seen_windows, told_windows) = (seen.recent_windows(Bucket::Instance), told.recent_windows(Bucket::Instance));
        prop_assert_eq!(seen_windows, told_windows);
    }

    #[test]
    fn every_report_is_counted_whatever_its_delay(calls in calls().prop_map(distinct), factor in 1_u64..9) {
        let mut ledger = reporting(Coverage::Part);
        let mut arrivals: Vec<(u64, Call)> = calls.iter().map(|it| (it.0 + it.1 + it.3 * factor, *it)).collect();
        arrivals.sort_unstable();
        for (arrival, it) in &arrivals {
            ledger.report(moment(*arrival), &call(*it, Source::Telemetry));
        }
        let snapshot = ledger.snapshot(moment(300_000));
        let spent: u64 = snapshot.spent.iter().map(|(_, count)| count).sum();
        prop_assert_eq!(spent, arrivals.len() as u64);
        let answered = calls.iter().filter(|it| it.2 > 0).count() as u64;
        let responses: u64 = snapshot.responses.values().sum();
        prop_assert_eq!(responses, answered);
    }
}
