//! Reading all users takes hardly longer than it must, and Clerk never says 429: what the bench measures, in small.

#[path = "../benches/export.rs"]
#[expect(dead_code, reason = "the bench's main is not run here")]
mod export;

use std::time::Duration;

use export::{Task, Way, measure};

#[test]
fn a_walk_takes_at_most_a_twentieth_longer_than_it_must_and_never_meets_a_429() {
    for reserve in [0.0, 0.1] {
        for (limit, millis) in [(100, 0), (100, 80), (20, 0), (20, 80)] {
            let task = Task { users: 6_000, page: 10, limit, latency: Duration::from_millis(millis) };
            let measured = measure(Way::Walk { reserve }, task);
            assert_eq!((measured.requests, measured.throttled), (601, 0), "{task:?}");
            assert!(measured.over() < 5.0, "{task:?}, reserve {reserve}: {measured:?}, {:.1} %", measured.over());
        }
    }
}
