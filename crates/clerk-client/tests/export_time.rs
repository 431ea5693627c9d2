//! Reading all users takes hardly longer than it must, and Clerk never says 429: what the bench measures, in small.

#[path = "../benches/export.rs"]
#[expect(dead_code, reason = "the bench's main is not run here")]
mod export;

use std::time::Duration;

use export::{Task, Way, measure};

#[test]
fn a_walk_takes_hardly_longer_than_it_must_and_meets_no_429() {
    for reserve in [0.0, 0.1] {
        for (limit, millis) in [(100, 0), (100, 80), (20, 0), (20, 80)] {
            let task = Task { users: 6_000, page: 10, limit, latency: Duration::from_millis(millis) };
            let measured = measure(Way::Walk { reserve }, task);
            assert_eq!((measured.requests, measured.throttled), (601, 0), "{task:?}");
            // Work of low priority leaves a reserve and tries nothing out: until it is known how Clerk counts, it is spread
            // evenly, and does without the burst that a full window allows.
            let most = if reserve > 0.0 { 15.0 } else { 5.0 };
            assert!(measured.over() < most, "{task:?}, reserve {reserve}: {measured:?}, {:.1} %", measured.over());
        }
    }
}
