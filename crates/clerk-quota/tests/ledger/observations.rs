//! Single observations in sequence.

use std::time::Duration;

use clerk_quota::ledger::Ledger;
use clerk_quota::snapshot::Basis;
use clerk_quota::{Bucket, Entity, HeaderDialect, HeaderError, InstanceLedger, KeyVerdict, Observation, Quota, Source};

use crate::{answer, at, begin, bucket, counting, instance, ledger, named, plain, settings, throttled};

#[test]
fn new_ledger_only_knows_the_configured_limit() {
    let mut ledger = ledger();
    let snapshot = ledger.snapshot(at(0.0));
    assert_eq!((snapshot.up, snapshot.key_valid), (None, None));
    for bucket in Bucket::LIMITED {
        let bucket = snapshot.bucket(bucket).unwrap();
        assert_eq!((bucket.remaining, bucket.reset_at, bucket.usage_peak), (None, None, None));
        assert_eq!(bucket.basis, Some(Basis::Configured));
    }
    assert_eq!(instance(&mut ledger, 0.0).limit, Some(100));
}

#[test]
fn window_is_counted_once_with_its_highest_use() {
    let mut ledger = ledger();
    for observation in [named(1.0, 80, 9), named(5.0, 9, 5), named(6.0, 12, 4)] {
        ledger.record(&observation);
    }
    assert_eq!(instance(&mut ledger, 11.9).windows, 0, "late responses may still arrive");
    for seconds in [12.1, 13.0, 500.0] {
        let bucket = instance(&mut ledger, seconds);
        assert_eq!((bucket.windows, bucket.low_windows, bucket.exhausted_windows), (1, 1, 0));
        let usage = bucket.window_usage.unwrap();
        assert_eq!(usage.count(), 1);
        assert!((usage.sum() - 0.91).abs() < 1e-9);
    }
}

#[test]
fn remaining_at_the_threshold_is_not_low() {
    let mut ledger = ledger();
    ledger.record(&named(1.0, 10, 9));
    ledger.record(&named(11.0, 9, 9));
    assert_eq!(instance(&mut ledger, 60.0).low_windows, 1);
}

#[test]
fn rejection_blocks_its_bucket_until_retry_after_ends() {
    let mut ledger = ledger();
    ledger.record(&named(1.0, 50, 9));
    ledger.record(&throttled(2.0, 5));
    let blocked = instance(&mut ledger, 6.9);
    assert_eq!((blocked.remaining, blocked.blocked_until), (Some(0), Some(at(7.0))));
    assert_eq!(blocked.throttled[Source::Probe.index()], 1);
    assert_eq!(bucket(&mut ledger, 6.9, Bucket::Invitations).remaining, None);
    // A success that overtook the 429 does not end the block.
    ledger.record(&named(3.0, 49, 7));
    assert_eq!(instance(&mut ledger, 3.1).remaining, Some(0));
    let after = instance(&mut ledger, 7.1);
    assert_eq!((after.remaining, after.blocked_until), (Some(49), None));
    let closed = instance(&mut ledger, 13.0);
    assert_eq!((closed.windows, closed.low_windows, closed.exhausted_windows), (1, 1, 1));
}

#[test]
fn values_are_unknown_between_block_and_next_response() {
    let mut ledger = ledger();
    ledger.record(&throttled(2.0, 5));
    let after = instance(&mut ledger, 7.1);
    assert_eq!((after.remaining, after.basis), (None, Some(Basis::Probe)));
}

#[test]
fn rejection_without_retry_after_blocks_until_window_end() {
    let mut ledger = ledger();
    ledger.record(&plain(3.0, 429));
    assert_eq!(instance(&mut ledger, 9.9).blocked_until, Some(at(10.0)));
    assert_eq!(instance(&mut ledger, 10.1).blocked_until, None);
}

#[test]
fn stale_values_expire() {
    let mut ledger = ledger();
    ledger.record(&named(1.0, 42, 9));
    assert_eq!(instance(&mut ledger, 46.0).remaining, Some(42));
    let dead = instance(&mut ledger, 46.1);
    assert_eq!((dead.remaining, dead.reset_at, dead.basis), (None, None, Some(Basis::Configured)));
    assert_eq!(dead.sampled_at, Some(at(1.0)), "the time of the last sample stays");
}

#[test]
fn older_response_does_not_replace_a_newer_one() {
    let mut ledger = ledger();
    ledger.record(&named(5.0, 40, 5));
    ledger.record(&named(4.0, 60, 6));
    assert_eq!(instance(&mut ledger, 5.1).remaining, Some(40));
    // The response of the old window arrives after the first of the new one.
    let old = begin(&mut ledger, 9.9);
    ledger.record(&named(10.2, 99, 10));
    answer(&mut ledger, old, &named(10.3, 5, 0));
    assert_eq!(instance(&mut ledger, 10.4).remaining, Some(99));
    let closed = instance(&mut ledger, 12.5);
    assert_eq!((closed.windows, closed.low_windows), (1, 1));
}

#[test]
fn latest_sent_request_decides_remaining() {
    // Its reset looks like that of the previous window, as limiters without windows report it.
    let mut ledger = ledger();
    ledger.record(&named(9.0, 80, 1));
    ledger.record(&named(10.2, 76, 10));
    let last = begin(&mut ledger, 10.5);
    answer(&mut ledger, last, &named(10.8, 27, 0));
    assert_eq!(instance(&mut ledger, 10.9).remaining, Some(27));
    let _unanswered = begin(&mut ledger, 11.0);
    assert_eq!(instance(&mut ledger, 11.1).remaining, Some(26));
}

#[test]
fn failures_and_cached_responses_change_no_quota() {
    let mut ledger = ledger();
    ledger.record(&named(1.0, 42, 9));
    ledger.record(&plain(2.0, 500));
    ledger.record(&Observation { usable: false, ..named(3.0, 0, 7) });
    let stale = Quota {
        dialect: Some(HeaderDialect::XRateLimit),
        errors: [HeaderError::Stale].into_iter().collect(),
        ..Quota::default()
    };
    ledger.record(&Observation { quota: stale, ..plain(4.0, 200) });
    let bucket = instance(&mut ledger, 4.1);
    // The first and the second may have been counted. The third did not reach Clerk.
    assert_eq!((bucket.remaining, bucket.sampled_at), (Some(40), Some(at(1.0))));
}

#[test]
fn unlimited_response_opens_no_window() {
    let mut ledger = ledger();
    let unlimited = Quota { dialect: Some(HeaderDialect::XRateLimit), ..Quota::default() };
    ledger.record(&Observation { quota: unlimited, ..plain(1.0, 200) });
    let bucket = instance(&mut ledger, 60.0);
    assert_eq!((bucket.windows, bucket.remaining), (0, None));
}

#[test]
fn limit_of_zero_on_a_429_is_a_ban() {
    let mut ledger = ledger();
    let quota = Quota { limit: Some(0), remaining: Some(0), ..named(1.0, 0, 60).quota };
    ledger.record(&Observation { quota, ..plain(1.0, 429) });
    let bucket = instance(&mut ledger, 2.0);
    assert_eq!((bucket.limit, bucket.remaining, bucket.usage_peak), (Some(0), Some(0), Some(1.0)));
    assert_eq!(bucket.remaining_ratio(), Some(0.0));
    assert_eq!(bucket.to_exhaustion, None);
}

#[test]
fn remaining_above_the_limit_is_zero_use() {
    let mut ledger = ledger();
    ledger.record(&named(1.0, 200, 9));
    let bucket = instance(&mut ledger, 15.0);
    assert_eq!((bucket.usage_peak, bucket.low_windows), (Some(0.0), 0));
    assert!(bucket.window_usage.unwrap().sum().abs() < f64::EPSILON);
}

#[test]
fn bucket_shows_the_user_closest_to_its_limit() {
    let mut ledger = counting();
    for step in 0..9_u32 {
        for (user, calls) in [(1, 9), (2, 3)] {
            if step < calls {
                let entity = Some(Entity(user));
                let observation = Observation { source: Source::Gateway, ..plain(1.0 + f64::from(step) * 0.1, 200) };
                ledger.record(&Observation { bucket: Bucket::UserUpdate, entity, ..observation });
            }
        }
    }
    let open = bucket(&mut ledger, 3.0, Bucket::UserUpdate);
    assert_eq!((open.limit, open.remaining), (Some(10), Some(1)));
    let closed = bucket(&mut ledger, 20.0, Bucket::UserUpdate);
    assert_eq!((closed.windows, closed.low_windows, closed.exhausted_windows), (2, 0, 0));
    assert_eq!(instance(&mut ledger, 20.0).windows, 0);
}

#[test]
fn entity_budgets_are_bounded_and_all_are_counted() {
    let mut ledger = ledger();
    for user in 0..20_000 {
        let observation = Observation { entity: Some(Entity(user)), ..plain(1.0, 200) };
        ledger.record(&Observation { bucket: Bucket::OrganizationUpdate, ..observation });
    }
    assert_eq!(bucket(&mut ledger, 60.0, Bucket::OrganizationUpdate).windows, 20_000);
}

#[test]
fn forecast_needs_enough_elapsed_time() {
    let mut ledger = ledger();
    ledger.record(&named(1.0, 20, 9));
    assert_eq!(instance(&mut ledger, 1.0).to_exhaustion, None, "a tenth of the window has passed");
    ledger.record(&named(4.0, 19, 6));
    // 81 used in 4 s: 19 last 0.94 s.
    let wait = instance(&mut ledger, 4.0).to_exhaustion.unwrap();
    assert!((0.9..1.0).contains(&wait.as_secs_f64()), "{wait:?}");
    assert_eq!(instance(&mut ledger, 10.5).to_exhaustion, None, "the window is over");
}

#[test]
fn server_limit_and_window_override_configuration() {
    let mut ledger = ledger();
    let quota = Quota { limit: Some(5000), window: Some(Duration::from_secs(3600)), ..named(1.0, 4000, 1800).quota };
    ledger.record(&Observation { quota, ..plain(1.0, 200) });
    let bucket = instance(&mut ledger, 2.0);
    assert_eq!((bucket.limit, bucket.window), (Some(5000), Duration::from_secs(3600)));
    assert_eq!(instance(&mut ledger, 1700.0).remaining, Some(4000), "an hour's window is not stale after 45 s");
}

#[test]
fn unlimited_route_counts_only_429s() {
    let mut ledger = ledger();
    ledger.record(&Observation { bucket: Bucket::Unlimited, ..plain(1.0, 200) });
    ledger.record(&Observation { bucket: Bucket::Unlimited, ..throttled(2.0, 5) });
    let bucket = bucket(&mut ledger, 60.0, Bucket::Unlimited);
    assert_eq!((bucket.throttled[0], bucket.windows, bucket.blocked_until), (1, 0, None));
    assert_eq!(instance(&mut ledger, 60.0).windows, 0);
}

#[test]
fn response_updates_the_instance_state() {
    let mut ledger = ledger();
    ledger.record(&Observation { key: KeyVerdict::Valid, clock_offset_seconds: Some(2.5), ..plain(1.0, 200) });
    ledger.record(&throttled(2.0, 5));
    let snapshot = ledger.snapshot(at(3.0));
    assert_eq!((snapshot.up, snapshot.key_valid, snapshot.clock_offset_seconds), (Some(true), Some(true), Some(2.5)));
    assert_eq!(snapshot.throttled_at, Some(at(2.0)));
    assert_eq!(snapshot.responses[&(Source::Probe, 429)], 1);
    ledger.record(&Observation { usable: false, key: KeyVerdict::Invalid, ..plain(9.0, 401) });
    let snapshot = ledger.snapshot(at(9.0));
    assert_eq!((snapshot.up, snapshot.key_valid), (Some(false), Some(false)));
}

#[test]
fn reconfiguration_keeps_remaining_instances() {
    let ledger = Ledger::new([settings("a"), settings("b")]);
    ledger.instance("a").unwrap().lock().record(&throttled(1.0, 5));
    ledger.configure([settings("a"), settings("c")]);
    let names: Vec<_> = ledger.snapshot(at(60.0)).iter().map(|it| it.name.to_string()).collect();
    assert_eq!(names, ["a", "c"]);
    assert!(ledger.instance("b").is_none());
    let kept = ledger.snapshot(at(60.0))[0].bucket(Bucket::Instance).unwrap().exhausted_windows;
    assert_eq!(kept, 1);
}

#[test]
fn block_ends_when_requests_are_served_again() {
    let mut ledger = ledger();
    ledger.record(&throttled(1.0, 86_400));
    let blocked = instance(&mut ledger, 2.0);
    assert_eq!((blocked.remaining, blocked.blocked_until), (None, Some(at(86_401.0))));
    // It was in flight.
    ledger.record(&named(2.0, 40, 8));
    assert_eq!(instance(&mut ledger, 2.5).remaining, Some(0));
    // Neither of these was served.
    ledger.record(&plain(4.0, 503));
    ledger.record(&plain(4.5, 401));
    assert!(instance(&mut ledger, 5.0).blocked_until.is_some());
    ledger.record(&named(5.0, 39, 5));
    let served = instance(&mut ledger, 5.5);
    assert_eq!((served.remaining, served.blocked_until), (Some(39), None));
}

#[test]
fn forecast_recedes_without_further_requests() {
    let mut ledger = ledger();
    for request in 1..=8 {
        ledger.record(&named(
            f64::from(request) * 0.5,
            100 - 10 * u64::try_from(request).unwrap(),
            10 - u64::try_from(request).unwrap() / 2,
        ));
    }
    // 80 of 100 in about four seconds: the remaining 20 last about one second, but are not used.
    let wait =
        |ledger: &mut InstanceLedger, seconds| instance(ledger, seconds).to_exhaustion.map(|wait| wait.as_secs_f64());
    let soon = wait(&mut ledger, 4.0).unwrap();
    assert!((0.8..=1.0).contains(&soon), "{soon}");
    assert_eq!(wait(&mut ledger, 4.5), Some(soon - 0.5));
    let later = wait(&mut ledger, 6.0).unwrap();
    assert!(later > soon, "{later}");
    assert_eq!(wait(&mut ledger, 9.0), None, "at this pace, not before the window ends");
}
