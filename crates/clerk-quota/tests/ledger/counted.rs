//! Without quota headers: what is counted, and what may be derived from it.

use std::time::Duration;

use clerk_quota::snapshot::Basis;
use clerk_quota::{AttemptEnd, Coverage, InstanceLedger, Observation, Source};

use crate::{answer, at, begin, counting, covering, exchange, instance, ledger, named, plain, settings, throttled};

/// Requests that only probes sent say nothing about the use.
#[test]
fn probes_alone_give_unknown_use() {
    let mut ledger = counting();
    for probe in 0..60 {
        ledger.record(&plain(f64::from(probe) * 2.0, 200));
        let bucket = instance(&mut ledger, f64::from(probe) * 2.0 + 0.1);
        assert_eq!((bucket.remaining, bucket.usage_peak, bucket.to_exhaustion), (None, None, None));
        assert_eq!((bucket.basis, bucket.limit), (Some(Basis::Probe), Some(100)));
    }
    let bucket = instance(&mut ledger, 140.0);
    assert_eq!((bucket.windows, bucket.low_windows, bucket.exhausted_windows), (12, 0, 0));
    assert_eq!(bucket.window_usage.unwrap().count(), 0);
    assert!(ledger.recent_windows(bucket.bucket).iter().all(|window| window.usage.is_none()));
}

#[test]
fn rejected_probe_exhausts_the_window_and_blocks() {
    let mut ledger = counting();
    ledger.record(&throttled(3.0, 5));
    let blocked = instance(&mut ledger, 4.0);
    assert_eq!((blocked.remaining, blocked.blocked_until, blocked.throttled[0]), (None, Some(at(8.0)), 1));
    let closed = instance(&mut ledger, 13.0);
    assert_eq!((closed.windows, closed.low_windows, closed.exhausted_windows), (1, 1, 1));
    assert_eq!((closed.usage_peak, closed.window_usage.unwrap().count()), (None, 0));
}

/// A request uses quota from its start until a window after its end, whatever the limiter.
#[test]
fn request_uses_quota_until_a_window_after_its_end() {
    let mut ledger = counting();
    let slow = begin(&mut ledger, 1.0);
    assert_eq!(instance(&mut ledger, 1.0).remaining, None, "no response yet");
    exchange(&mut ledger, &plain(2.0, 200));
    assert_eq!(instance(&mut ledger, 2.0).remaining, Some(98));
    answer(&mut ledger, slow, &plain(9.0, 200));
    assert_eq!(instance(&mut ledger, 11.9).remaining, Some(98));
    assert_eq!(instance(&mut ledger, 12.1).remaining, Some(99));
    assert_eq!(instance(&mut ledger, 18.9).remaining, Some(99));
    assert_eq!(instance(&mut ledger, 19.1).remaining, Some(100));
}

/// A request that reached Clerk without a response may have been counted.
#[test]
fn abandoned_requests_use_quota() {
    let mut ledger = counting();
    for request in 0..38 {
        let attempt = begin(&mut ledger, 11.0 + f64::from(request) * 0.01);
        ledger.end(attempt, at(11.8 + f64::from(request) * 0.01), AttemptEnd::Unanswered);
    }
    let bucket = instance(&mut ledger, 12.5);
    assert_eq!((bucket.remaining, bucket.basis), (Some(62), Some(Basis::Gateway)));
    assert!((bucket.usage_peak.unwrap() - 0.38).abs() < 1e-9);
    let closed = instance(&mut ledger, 22.5);
    assert!((closed.window_usage.unwrap().sum() - 0.38).abs() < 1e-9);
}

#[test]
fn unsent_and_rejected_requests_use_no_quota() {
    let mut ledger = counting();
    exchange(&mut ledger, &plain(1.0, 200));
    for _ in 0..20 {
        let attempt = begin(&mut ledger, 2.0);
        ledger.end(attempt, at(2.1), AttemptEnd::NotSent);
    }
    assert_eq!(instance(&mut ledger, 3.0).remaining, Some(99));
    // It is not known whether a request that failed at Clerk's edge was counted.
    exchange(&mut ledger, &plain(3.0, 502));
    assert_eq!(instance(&mut ledger, 3.0).remaining, Some(98));
}

/// Requests that were sent before a start are not known.
#[test]
fn use_is_unknown_for_a_window_after_a_start() {
    let mut ledger = ledger();
    ledger.advance(at(3.0));
    exchange(&mut ledger, &plain(3.0, 200));
    assert_eq!(instance(&mut ledger, 12.9).remaining, None);
    assert_eq!(instance(&mut ledger, 13.1).remaining, Some(100));
    let closed = instance(&mut ledger, 13.1);
    assert_eq!((closed.windows, closed.window_usage.unwrap().count()), (1, 0), "the use of half a window is not known");
}

#[test]
fn restored_requests_use_quota() {
    let mut ledger = ledger();
    ledger.count_since(at(0.0));
    for request in 0..30 {
        let sent = at(5.0 + f64::from(request) * 0.1);
        ledger.restore(clerk_quota::Bucket::Instance, None, sent, sent);
    }
    exchange(&mut ledger, &plain(10.5, 200));
    assert_eq!(instance(&mut ledger, 10.6).remaining, Some(69));
}

/// Requests of the neighbouring window do not make a window low.
#[test]
fn request_belongs_to_the_window_of_its_start() {
    let mut ledger = counting();
    for request in 0..60 {
        exchange(&mut ledger, &plain(9.0 + f64::from(request) * 0.01, 200));
        exchange(&mut ledger, &plain(10.0 + f64::from(request) * 0.01, 200));
    }
    // The remaining quota is 0, though, because a sliding limiter may count both windows.
    assert_eq!(instance(&mut ledger, 10.7).remaining, Some(0));
    let closed = instance(&mut ledger, 30.0);
    assert_eq!((closed.windows, closed.low_windows), (2, 0));
}

/// If the limiter slides, the most in any time of one window length counts.
#[test]
fn sliding_windows_count_across_the_boundary() {
    let mut ledger = counting();
    ledger.set_sliding(clerk_quota::Bucket::Instance, Some(true));
    let mut times: Vec<f64> =
        (0..48).flat_map(|request| [9.0 + f64::from(request) * 0.01, 10.0 + f64::from(request) * 0.01]).collect();
    times.sort_by(f64::total_cmp);
    for seconds in times {
        exchange(&mut ledger, &plain(seconds, 200));
    }
    let closed = instance(&mut ledger, 30.0);
    assert_eq!((closed.windows, closed.low_windows, closed.exhausted_windows), (2, 1, 0));
}

/// A sliding counter weighs a part of the previous window, however old its requests are.
#[test]
fn sliding_counter_weighs_the_previous_window() {
    let mut ledger = counting();
    for request in 0..90 {
        exchange(&mut ledger, &plain(1.0 + f64::from(request) * 0.01, 200));
    }
    exchange(&mut ledger, &plain(13.0, 200));
    assert_eq!(instance(&mut ledger, 13.0).remaining, Some(99), "not known to be a sliding counter");
    ledger.set_sliding(clerk_quota::Bucket::Instance, Some(true));
    assert_eq!(instance(&mut ledger, 13.0).remaining, Some(100 - 1 - 63));
    assert_eq!(instance(&mut ledger, 20.1).remaining, Some(99));
}

/// If other processes may send requests, the count says nothing.
#[test]
fn partial_coverage_gives_unknown_use() {
    let mut ledger = covering(Coverage::Part);
    exchange(&mut ledger, &plain(1.0, 200));
    let bucket = instance(&mut ledger, 1.5);
    assert_eq!((bucket.remaining, bucket.usage_peak, bucket.basis), (None, None, Some(Basis::Probe)));
    let closed = instance(&mut ledger, 13.0);
    assert_eq!((closed.windows, closed.window_usage), (1, None));
}

#[test]
fn basis_names_the_counting_sources() {
    for (sources, expected) in [
        (&[Source::Gateway][..], "gateway"),
        (&[Source::Gateway, Source::Probe], "gateway"),
        (&[Source::Client], "client"),
        (&[Source::Client, Source::Gateway], "mixed"),
        (&[Source::Probe], "probe"),
    ] {
        let mut ledger = counting();
        for source in sources {
            ledger.record(&Observation { source: *source, ..plain(1.0, 200) });
        }
        assert_eq!(instance(&mut ledger, 1.5).basis.map(Basis::as_str), Some(expected));
        ledger.record(&named(2.0, 50, 8));
        assert_eq!(instance(&mut ledger, 2.5).basis.map(Basis::as_str), Some("headers"));
    }
    assert_eq!(instance(&mut counting(), 1.5).basis, Some(Basis::Configured));
}

#[test]
fn counted_use_is_forecast_without_windows() {
    let mut ledger = InstanceLedger::new(settings("test"));
    ledger.count_since(at(0.0).before(Duration::from_secs(60)));
    for request in 0..60 {
        exchange(&mut ledger, &plain(7.0 + f64::from(request) * 0.1, 200));
    }
    // Ten per second, and nothing is released before 17 s: the window of the grid has ended by then.
    let wait = instance(&mut ledger, 13.0).to_exhaustion.map(|wait| wait.as_secs_f64());
    assert!(wait.is_some_and(|wait| (3.5..4.5).contains(&wait)) || wait.is_none(), "{wait:?}");
    for request in 0..30 {
        exchange(&mut ledger, &plain(13.0 + f64::from(request) * 0.05, 200));
    }
    let wait = instance(&mut ledger, 14.5).to_exhaustion.map(|wait| wait.as_secs_f64());
    assert!(wait.is_some_and(|wait| wait < 1.0), "{wait:?}");
}
