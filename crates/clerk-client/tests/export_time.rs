//! A small run of the export bench: reading all users takes little more than the minimum time, without a 429.

#[path = "../benches/export.rs"]
#[expect(dead_code, reason = "the bench's main is not run here")]
mod export;

use std::time::Duration;

use export::{Task, Way, measure};

#[test]
fn walk_takes_little_more_than_the_minimum_without_429() {
    for reserve in [0.0, 0.1] {
        for (limit, millis) in [(100, 0), (100, 80), (20, 0), (20, 80)] {
            let task = Task { users: 6_000, page: 10, limit, latency: Duration::from_millis(millis) };
            let measured = measure(Way::Walk { reserve }, task);
            assert_eq!((measured.requests, measured.throttled), (601, 0), "{task:?}");
            // Low-priority work leaves a reserve and does not probe: until it is known how Clerk counts, requests are
            // spread evenly, without the burst that a full window allows.
            let most = if reserve > 0.0 { 15.0 } else { 5.0 };
            assert!(measured.over() < most, "{task:?}, reserve {reserve}: {measured:?}, {:.1} %", measured.over());
        }
    }
}
