//! Use by other clients, which this process cannot see directly.

use std::time::Duration;

use clerk_quota::fleet::{FleetUsage, StartSlot};
use clerk_quota::{Bucket, Coverage, InstanceLedger, Limit, Observation, Quota, Settings};

use crate::{answer, at, begin, counting, covering, exchange, instance, ledger, named, plain, settings, throttled};

fn by_others(ledger: &mut InstanceLedger, seconds: f64) -> Option<u64> {
    instance(ledger, seconds).unseen
}

#[test]
fn unseen_is_reported_use_beyond_own_requests() {
    for others in [0, 30] {
        let mut ledger = ledger();
        // Three windows with ten own requests each, and all of the others' at the beginning.
        for window in 0..3 {
            for request in 0..10 {
                let seconds = f64::from(window * 10 + request) + 0.5;
                let used = others + u64::try_from(request).unwrap() + 1;
                ledger.record(&named(seconds, 100 - used, u64::try_from(10 - request).unwrap()));
            }
        }
        let found = by_others(&mut ledger, 33.0).unwrap();
        // Slightly too low, because windows cannot be told from sliding ones here.
        assert!((others.saturating_sub(3)..=others).contains(&found), "{found} of {others}");
    }
}

/// The limiter frees what is a window old; its reset tells when the next request is freed.
#[test]
fn own_bursts_at_a_sliding_limiter_are_not_unseen() {
    const WINDOW: f64 = 10.0;
    for (others, spacing, pause) in [0_usize, 10].into_iter().flat_map(|others| {
        [0.002, 0.02, 0.05, 0.1].into_iter().flat_map(move |spacing| [0.0, 3.0].map(|pause| (others, spacing, pause)))
    }) {
        let mut ledger = ledger();
        let (mut log, mut now, mut most) = (Vec::<f64>::new(), 0.0, 0);
        for burst in 0..8 {
            for request in 0..100 - others {
                // As soon as there is capacity, one after the other.
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

/// Clerk reports no quota and rejects after ten own requests: at least 90 of 100 are others'.
#[test]
fn rejection_shows_unseen_use_of_a_documented_limit() {
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
fn rejection_after_own_use_of_two_windows_shows_nothing() {
    let mut ledger = InstanceLedger::new(Settings { limit: None, coverage: Coverage::Sole, ..settings("test") });
    for request in 0..100 {
        exchange(&mut ledger, &plain(1.0 + f64::from(request) * 0.01, 200));
    }
    exchange(&mut ledger, &throttled(15.0, 5));
    assert_eq!(by_others(&mut ledger, 23.0), None);
}

/// Clerk may have counted requests in flight.
#[test]
fn in_flight_requests_are_not_unseen() {
    let mut ledger = InstanceLedger::new(Settings { limit: None, coverage: Coverage::Sole, ..settings("test") });
    let slow: Vec<_> = (0..95).map(|request| begin(&mut ledger, 1.0 + f64::from(request) * 0.01)).collect();
    exchange(&mut ledger, &throttled(3.0, 5));
    assert_eq!(by_others(&mut ledger, 13.0), Some(5));
    for attempt in slow {
        answer(&mut ledger, attempt, &plain(14.0, 200));
    }
}

/// A code that names another limit than Clerk's rate limiter says nothing about requests.
#[test]
fn rejection_of_another_limit_shows_nothing() {
    let mut ledger = InstanceLedger::new(Settings { limit: None, coverage: Coverage::Sole, ..settings("test") });
    exchange(&mut ledger, &Observation { is_rate_limit: false, ..throttled(3.0, 5) });
    assert_eq!(by_others(&mut ledger, 13.0), None);
}

/// If headers report the remaining quota, a window with a rejection also shows how much others used.
#[test]
fn rejection_with_headers_shows_unseen_use() {
    let mut ledger = counting();
    exchange(&mut ledger, &named(1.0, 59, 9));
    let refused = Quota { retry_after: Some(Duration::from_secs(7)), ..named(3.0, 0, 7).quota };
    exchange(&mut ledger, &Observation { quota: refused, ..plain(3.0, 429) });
    assert_eq!(by_others(&mut ledger, 12.5), Some(99));
}

/// What the shared log reports as used, five seconds ago.
fn fleet(requests: u64) -> FleetUsage {
    let slot = StartSlot { began_ago: Duration::from_secs(8), length: Duration::from_millis(625), requests };
    FleetUsage { used: requests, starts: vec![slot] }
}

/// Twenty own requests and twenty of another gateway: no other client, and 60 left.
#[test]
fn fleet_requests_are_not_unseen() {
    let mut ledger = covering(Coverage::Fleet);
    for request in 0..20_u32 {
        exchange(&mut ledger, &named(1.0 + f64::from(request) * 0.1, 100 - 2 * u64::from(request + 1), 9));
    }
    assert_eq!(by_others(&mut ledger, 10.5), None);
    ledger.record_fleet(Bucket::Instance, at(10.0), &fleet(40));
    assert_eq!(by_others(&mut ledger, 12.5), Some(0));
}

/// Headers show all other use. A rejection shows nothing if it may count other gateways' requests.
#[test]
fn partial_coverage_shows_unseen_use_by_headers_only() {
    let settings = Settings { limit: None, coverage: Coverage::Part, ..settings("test") };
    let mut ledger = InstanceLedger::new(settings.clone());
    exchange(&mut ledger, &throttled(3.0, 5));
    assert_eq!(by_others(&mut ledger, 13.0), None);
    let mut ledger = InstanceLedger::new(settings);
    exchange(&mut ledger, &named(3.0, 70, 7));
    assert_eq!(by_others(&mut ledger, 13.0), Some(29));
}

#[test]
fn remaining_subtracts_fleet_use() {
    let mut ledger = covering(Coverage::Fleet);
    for request in 0..20_u32 {
        exchange(&mut ledger, &plain(1.0 + f64::from(request) * 0.1, 200));
    }
    assert_eq!(instance(&mut ledger, 3.5).remaining, None, "the shared log was not read yet");
    ledger.record_fleet(Bucket::Instance, at(4.0), &fleet(55));
    let told = instance(&mut ledger, 4.5);
    assert_eq!((told.remaining, told.basis.unwrap().as_str()), (Some(45), "gateway"));
    assert_eq!(instance(&mut ledger, 9.5).remaining, None, "it was read too long ago");
}

/// A sliding counter weighs own requests of the previous window, which are not other clients' use.
#[test]
fn sliding_counter_carry_over_is_not_unseen() {
    let mut ledger = ledger();
    for request in 0..90 {
        exchange(&mut ledger, &named(1.0 + f64::from(request) * 0.01, 99 - u64::try_from(request).unwrap(), 9));
    }
    // 70 % of 90, and this one.
    exchange(&mut ledger, &named(13.0, 100 - 64, 7));
    assert!(by_others(&mut ledger, 23.0).is_none_or(|others| others == 0));
}
