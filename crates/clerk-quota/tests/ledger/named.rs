//! With quota headers: what Clerk reports, and what was sent since.

use crate::{answer, begin, counting, exchange, instance, ledger, named, plain};
use clerk_quota::AttemptEnd;
use clerk_quota::snapshot::Basis;

use crate::at;

/// Responses of some routes have no quota headers.
#[test]
fn requests_since_the_report_reduce_remaining() {
    let mut ledger = counting();
    exchange(&mut ledger, &named(1.0, 39, 9));
    for request in 0..38 {
        exchange(&mut ledger, &plain(2.0 + f64::from(request) * 0.1, 200));
    }
    let bucket = instance(&mut ledger, 6.0);
    assert_eq!((bucket.remaining, bucket.basis.unwrap().as_str()), (Some(1), "headers"));
    let closed = instance(&mut ledger, 13.0);
    assert_eq!((closed.windows, closed.low_windows, closed.exhausted_windows), (1, 1, 0));
}

#[test]
fn request_without_headers_reduces_remaining_by_one() {
    let mut ledger = counting();
    exchange(&mut ledger, &named(1.0, 9, 9));
    exchange(&mut ledger, &plain(2.0, 200));
    assert_eq!(instance(&mut ledger, 3.0).remaining, Some(8));
    exchange(&mut ledger, &named(4.0, 7, 6));
    assert_eq!(instance(&mut ledger, 5.0).remaining, Some(7));
}

#[test]
fn in_flight_requests_since_the_report_reduce_remaining() {
    let mut ledger = counting();
    let before: Vec<_> = (0..5).map(|request| begin(&mut ledger, 0.1 * f64::from(request))).collect();
    exchange(&mut ledger, &named(1.0, 90, 9));
    let after: Vec<_> = (0..3).map(|request| begin(&mut ledger, 1.1 + 0.1 * f64::from(request))).collect();
    assert_eq!(instance(&mut ledger, 1.5).remaining, Some(87), "Clerk counted those before it");
    // Their responses arrive out of order and report the same.
    for (attempt, left) in after.into_iter().zip([87, 89, 88]) {
        answer(&mut ledger, attempt, &named(2.0, left, 8));
    }
    assert_eq!(instance(&mut ledger, 2.5).remaining, Some(87));
    for attempt in before {
        ledger.end(attempt, at(3.0), AttemptEnd::NotSent);
    }
    let given_up = begin(&mut ledger, 4.0);
    ledger.end(given_up, at(5.0), AttemptEnd::Unanswered);
    assert_eq!(instance(&mut ledger, 5.5).remaining, Some(86));
}

#[test]
fn unsent_request_does_not_reduce_remaining() {
    let mut ledger = counting();
    exchange(&mut ledger, &named(1.0, 50, 9));
    let attempt = begin(&mut ledger, 2.0);
    assert_eq!(instance(&mut ledger, 2.1).remaining, Some(49));
    ledger.end(attempt, at(2.2), AttemptEnd::NotSent);
    assert_eq!(instance(&mut ledger, 2.3).remaining, Some(50));
}

/// A token bucket is full again soon after each request, which looks like a window of one second.
#[test]
fn token_bucket_at_low_use_has_nominal_windows() {
    let mut ledger = ledger();
    for request in 0..30 {
        exchange(&mut ledger, &named(f64::from(request) * 2.0, 99, 1));
    }
    let closed = instance(&mut ledger, 80.0);
    assert!((6..=7).contains(&closed.windows), "{}", closed.windows);
    assert_eq!(closed.low_windows, 0);
}

/// Clerk's report about an earlier window does not cover what was sent since.
#[test]
fn requests_of_a_later_window_reduce_remaining() {
    let mut ledger = counting();
    exchange(&mut ledger, &named(9.5, 90, 1));
    for request in 0..60 {
        begin(&mut ledger, 11.0 + f64::from(request) * 0.01);
    }
    assert_eq!(instance(&mut ledger, 11.7).remaining, Some(30));
}

/// The server's window starts within one window of the grid and ends in the next.
#[test]
fn response_belongs_to_the_window_that_the_server_names() {
    let mut ledger = counting();
    exchange(&mut ledger, &named(4.0, 99, 10));
    exchange(&mut ledger, &named(10.5, 50, 4));
    assert_eq!(instance(&mut ledger, 10.6).remaining, Some(50));
    let mut ledger = counting();
    exchange(&mut ledger, &plain(4.0, 200));
    exchange(&mut ledger, &plain(10.2, 200));
    exchange(&mut ledger, &named(10.6, 40, 3));
    let bucket = instance(&mut ledger, 10.7);
    assert_eq!((bucket.remaining, bucket.basis.map(Basis::as_str)), (Some(40), Some("headers")));
}

/// A request sent after the one that opens a window belongs to that window.
#[test]
fn request_after_the_one_that_opens_a_window_counts_in_it() {
    let mut ledger = counting();
    exchange(&mut ledger, &named(0.5, 99, 10));
    let first = begin(&mut ledger, 9.5);
    begin(&mut ledger, 9.55);
    answer(&mut ledger, first, &named(9.7, 92, 10));
    assert_eq!(instance(&mut ledger, 9.8).remaining, Some(91));
}

/// A rolling window frees quota meanwhile, so requests sent since the report are not subtracted.
#[test]
fn rolling_window_is_low_by_server_reports_only() {
    let mut ledger = counting();
    for step in 0..10 {
        exchange(&mut ledger, &named(f64::from(step) * 2.0, 50, 8));
    }
    exchange(&mut ledger, &named(20.5, 12, 8));
    for request in 0..12 {
        exchange(&mut ledger, &plain(21.0 + f64::from(request) * 0.5, 200));
    }
    let closed = instance(&mut ledger, 60.0);
    assert_eq!((closed.low_windows, closed.exhausted_windows), (0, 0));
}

/// An estimated window lasts as long as the server reports.
#[test]
fn estimated_window_ends_at_the_server_reset() {
    let mut ledger = counting();
    exchange(&mut ledger, &named(3.0, 99, 10));
    exchange(&mut ledger, &plain(23.6, 200));
    exchange(&mut ledger, &named(26.5, 90, 8));
    exchange(&mut ledger, &plain(33.1, 200));
    exchange(&mut ledger, &named(33.3, 5, 1));
    assert_eq!(instance(&mut ledger, 33.4).remaining, Some(5));
    let closed = instance(&mut ledger, 60.0);
    assert_eq!((closed.windows, closed.low_windows), (2, 1));
}

/// The end of a window is known to a second: requests sent around it do not exhaust it.
#[test]
fn requests_around_the_window_end_do_not_exhaust_it() {
    let mut ledger = counting();
    exchange(&mut ledger, &named(2.0, 50, 8));
    exchange(&mut ledger, &named(9.2, 3, 1));
    for request in 0..4 {
        exchange(&mut ledger, &plain(9.9 + f64::from(request) * 0.01, 200));
    }
    assert_eq!(instance(&mut ledger, 10.0).remaining, Some(0), "the gauge takes the worse case");
    let closed = instance(&mut ledger, 30.0);
    assert_eq!((closed.low_windows, closed.exhausted_windows), (1, 0));
}

/// Resets rounded up to whole seconds differ by more than one between two responses about the same end.
#[test]
fn older_report_that_arrives_later_is_ignored() {
    let mut ledger = counting();
    let (first, second) = (begin(&mut ledger, 1.0), begin(&mut ledger, 1.05));
    answer(&mut ledger, second, &named(1.1, 77, 9));
    answer(&mut ledger, first, &named(1.19, 81, 10));
    assert_eq!(instance(&mut ledger, 1.2).remaining, Some(77));
}

/// The reset may not match an open window; the rejection blocks all the same.
#[test]
fn rejection_blocks_in_any_window() {
    let mut ledger = counting();
    exchange(&mut ledger, &named(4.0, 20, 10));
    let refused = begin(&mut ledger, 4.9);
    exchange(&mut ledger, &named(5.0, 0, 9));
    let quota = clerk_quota::Quota {
        retry_after: Some(std::time::Duration::from_secs(1)),
        reset: Some(std::time::Duration::from_secs(1)),
        ..named(5.0, 0, 1).quota
    };
    answer(&mut ledger, refused, &clerk_quota::Observation { status: 429, quota, ..named(5.0, 0, 1) });
    assert_eq!(instance(&mut ledger, 5.1).blocked_until, Some(at(6.0)));
}
