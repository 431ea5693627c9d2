//! What is told of requests that none of ours can be.

use std::time::Duration;

use clerk_quota::fleet::{FleetUsage, StartSlot};
use clerk_quota::{Bucket, Coverage, InstanceLedger, Limit, Observation, Quota, Settings};

use crate::{answer, at, begin, counting, covering, exchange, instance, ledger, named, plain, settings, throttled};

fn by_others(ledger: &mut InstanceLedger, seconds: f64) -> Option<u64> {
    instance(ledger, seconds).unseen
}

#[test]
fn what_others_used_is_what_headers_tell_of_beyond_our_own_requests() {
    for others in [0, 30] {
        let mut ledger = ledger();
        // Three windows, ten requests of ours in each, and all of the others' at its beginning.
        for window in 0..3 {
            for request in 0..10 {
                let seconds = f64::from(window * 10 + request) + 0.5;
                let used = others + u64::try_from(request).unwrap() + 1;
                ledger.record(&named(seconds, 100 - used, u64::try_from(10 - request).unwrap()));
            }
        }
        let found = by_others(&mut ledger, 33.0).unwrap();
        // Where windows cannot be told from sliding ones, a little too low.
        assert!((others.saturating_sub(3)..=others).contains(&found), "{found} of {others}");
    }
}

/// The limiter gives back what is a window old; its resets tell when the next request comes back.
#[test]
fn bursts_before_a_sliding_limiter_are_ours_and_not_others() {
    const WINDOW: f64 = 10.0;
    for (others, spacing, pause) in [0_usize, 10].into_iter().flat_map(|others| {
        [0.002, 0.02, 0.05, 0.1].into_iter().flat_map(move |spacing| [0.0, 3.0].map(|pause| (others, spacing, pause)))
    }) {
        let mut ledger = ledger();
        let (mut log, mut now, mut most) = (Vec::<f64>::new(), 0.0, 0);
        for burst in 0..8 {
            for request in 0..100 - others {
                // As soon as there is room, and one after the other.
                log.retain(|then| *then + WINDOW > now);
                while log.len() >= 100 {
                    now = log[0] + WINDOW + 0.001;
                    log.retain(|then| *then + WINDOW > now);
                }
                if request == 0 {
                    log.extend(std::iter::repeat_n(now, others.min(100 - log.len() - 1)));
                }
                log.push(now);
                let reset = Duration::from_secs_f64((log[0] + WINDOW - now).max(0.0).ceil()).as_secs();
                ledger.record(&named(now, 100 - log.len() as u64, reset));
                most = most.max(by_others(&mut ledger, now).unwrap_or(0));
                now += spacing;
            }
            now += pause;
            let _ = burst;
        }
        assert!(most <= others as u64, "{most} of {others}, spacing {spacing}, pause {pause}");
    }
}

/// Clerk names no quota, and refuses while ten of ours are in its books: at least 90 of 100 are others'.
#[test]
fn a_refusal_tells_of_others_where_the_limit_is_documented() {
    let documented = settings("test").limit;
    let guessed = documented.map(|limit| Limit { requests: 200, ..limit });
    for (limit, expected) in [(None, Some(90)), (documented, Some(90)), (guessed, None)] {
        let mut ledger = InstanceLedger::new(Settings { limit, coverage: Coverage::Sole, ..settings("test") });
        for request in 0..10 {
            exchange(&mut ledger, &plain(1.0 + f64::from(request) * 0.1, 200));
        }
        exchange(&mut ledger, &throttled(3.0, 5));
        assert_eq!(by_others(&mut ledger, 13.0), expected, "{limit:?}");
    }
}

/// A sliding counter remembers two windows.
#[test]
fn a_refusal_tells_nothing_where_the_last_two_windows_were_used_up_by_ours() {
    let mut ledger = InstanceLedger::new(Settings { limit: None, coverage: Coverage::Sole, ..settings("test") });
    for request in 0..100 {
        exchange(&mut ledger, &plain(1.0 + f64::from(request) * 0.01, 200));
    }
    exchange(&mut ledger, &throttled(15.0, 5));
    assert_eq!(by_others(&mut ledger, 23.0), None);
}

/// Requests in flight may be what Clerk counted.
#[test]
fn requests_in_flight_are_not_taken_for_strangers() {
    let mut ledger = InstanceLedger::new(Settings { limit: None, coverage: Coverage::Sole, ..settings("test") });
    let slow: Vec<_> = (0..95).map(|request| begin(&mut ledger, 1.0 + f64::from(request) * 0.01)).collect();
    exchange(&mut ledger, &throttled(3.0, 5));
    assert_eq!(by_others(&mut ledger, 13.0), Some(5));
    for attempt in slow {
        answer(&mut ledger, attempt, &plain(14.0, 200));
    }
}

/// A code that names another limit than Clerk's own says nothing of requests.
#[test]
fn a_refusal_of_another_kind_tells_nothing_of_requests() {
    let mut ledger = InstanceLedger::new(Settings { limit: None, coverage: Coverage::Sole, ..settings("test") });
    exchange(&mut ledger, &Observation { is_rate_limit: false, ..throttled(3.0, 5) });
    assert_eq!(by_others(&mut ledger, 13.0), None);
}

/// Where headers name the rest, a window with a refusal says how much others used, too.
#[test]
fn with_headers_every_closed_window_tells() {
    let mut ledger = counting();
    exchange(&mut ledger, &named(1.0, 59, 9));
    let refused = Quota { retry_after: Some(Duration::from_secs(7)), ..named(3.0, 0, 7).quota };
    exchange(&mut ledger, &Observation { quota: refused, ..plain(3.0, 429) });
    assert_eq!(by_others(&mut ledger, 12.5), Some(99));
}

/// What a common log says was used, five seconds ago.
fn fleet(requests: u64) -> FleetUsage {
    let slot = StartSlot { began_ago: Duration::from_secs(8), length: Duration::from_millis(625), requests };
    FleetUsage { used: requests, starts: vec![slot] }
}

/// Twenty of ours and twenty of another gateway's: no other client, and 60 left.
#[test]
fn the_fleet_is_no_stranger() {
    let mut ledger = covering(Coverage::Fleet);
    for request in 0..20_u32 {
        exchange(&mut ledger, &named(1.0 + f64::from(request) * 0.1, 100 - 2 * u64::from(request + 1), 9));
    }
    assert_eq!(by_others(&mut ledger, 10.5), None);
    ledger.record_fleet(Bucket::Instance, at(10.0), &fleet(40));
    assert_eq!(by_others(&mut ledger, 12.5), Some(0));
}

/// Headers tell of everybody else; a refusal tells nothing where other gateways may be what was counted.
#[test]
fn without_a_common_log_only_headers_tell_of_others() {
    let settings = Settings { limit: None, coverage: Coverage::Part, ..settings("test") };
    let mut ledger = InstanceLedger::new(settings.clone());
    exchange(&mut ledger, &throttled(3.0, 5));
    assert_eq!(by_others(&mut ledger, 13.0), None);
    let mut ledger = InstanceLedger::new(settings);
    exchange(&mut ledger, &named(3.0, 70, 7));
    assert_eq!(by_others(&mut ledger, 13.0), Some(29));
}

#[test]
fn what_is_left_is_what_the_fleet_leaves() {
    let mut ledger = covering(Coverage::Fleet);
    for request in 0..20_u32 {
        exchange(&mut ledger, &plain(1.0 + f64::from(request) * 0.1, 200));
    }
    assert_eq!(instance(&mut ledger, 3.5).remaining, None, "the common log was not read yet");
    ledger.record_fleet(Bucket::Instance, at(4.0), &fleet(55));
    let told = instance(&mut ledger, 4.5);
    assert_eq!((told.remaining, told.basis.unwrap().as_str()), (Some(45), "gateway"));
    assert_eq!(instance(&mut ledger, 9.5).remaining, None, "it was read too long ago");
}

/// A sliding counter weighs what we sent in the window before, which is not other clients' use.
#[test]
fn what_a_sliding_counter_remembers_is_ours() {
    let mut ledger = ledger();
    for request in 0..90 {
        exchange(&mut ledger, &named(1.0 + f64::from(request) * 0.01, 99 - u64::try_from(request).unwrap(), 9));
    }
    // 70 % of 90, and this one.
    exchange(&mut ledger, &named(13.0, 100 - 64, 7));
    assert!(by_others(&mut ledger, 23.0).is_none_or(|others| others == 0));
}
