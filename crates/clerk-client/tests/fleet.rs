//! A small run of the fleet bench: many gateways share a limit, use it, never exceed it, and do not ask in vain all the time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../benches/fleet/simulated.rs"]
#[expect(dead_code, reason = "the bench prints more than is checked here")]
mod simulated;

use std::time::Duration;

use clerk_simulator::LimiterKind;

use simulated::{Fleet, measure};

const FLEET: Fleet = Fleet {
    gateways: 50,
    limit: 100,
    demand: 2.0,
    limiter: LimiterKind::SlidingWindow,
    warm_up: Duration::from_secs(40),
    length: Duration::from_secs(30),
    is_log_lost: false,
};

#[test]
fn fleet_uses_the_limit_and_never_exceeds_it() {
    for limiter in [LimiterKind::FixedWindow, LimiterKind::SlidingWindow, LimiterKind::SlidingCounter] {
        let measured = measure(Fleet { limiter, ..FLEET });
        // One request of the fleet finds out that the server is a sliding counter, and those in flight with it.
        let most = if limiter == LimiterKind::SlidingCounter { 5 } else { 0 };
        assert!(measured.throttled <= most, "{limiter}: {}", measured.throttled);
        // Such a server itself accepts more in some windows, because it estimates.
        let most = if limiter == LimiterKind::SlidingCounter { 110 } else { 100 };
        assert!(measured.most_in_window <= most, "{limiter}: {}", measured.most_in_window);
        assert!(measured.used > 0.9, "{limiter}: {}", measured.used);
        assert!(measured.largest_log <= 210, "two windows and what is in flight: {}", measured.largest_log);
        assert!(measured.by_gateway[0] > 0, "{limiter}: each gets a part: {:?}", measured.by_gateway);
    }
}

/// Each waiting request would otherwise ask for every place that becomes free.
#[test]
fn waiting_requests_do_not_ask_in_vain_together() {
    let length = Duration::from_secs(20);
    let fleet = Fleet { gateways: 5, demand: 3.0, length, ..FLEET };
    let measured = measure(fleet);
    assert!(measured.used > 0.9 && measured.throttled == 0, "{} {}", measured.used, measured.throttled);
    let calls = measured.calls_per_request();
    assert!(calls < 15.0, "{calls} calls for each request");
}

#[test]
fn many_processes_ask_at_a_bounded_rate() {
    let length = Duration::from_secs(10);
    let fleet = Fleet { gateways: 300, limit: 1000, demand: 1.5, warm_up: length, length, ..FLEET };
    let measured = measure(fleet);
    assert!(measured.used > 0.9 && measured.throttled == 0, "{} {}", measured.used, measured.throttled);
    let calls = measured.calls_per_second(length);
    assert!(calls < 2_500.0, "{calls} calls a second");
}
