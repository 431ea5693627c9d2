//! Against a sliding counter, with any clock offset and any reordering by the network.

use proptest::prelude::*;

use super::tests::{WINDOW, answer, at, limiter, throttled};
use super::*;
use clerk_quota::Quota;

/// A server that counts like Cloudflare, in milliseconds.
struct Server {
    limit: u64,
    /// Offset of its clock.
    ahead: i64,
    passed: Vec<u64>,
    refused: usize,
}

impl Server {
    fn passes(&mut self, now: u64) -> bool {
        let window = i64::try_from(WINDOW.as_millis()).unwrap();
        let local = |millis: u64| i64::try_from(millis).unwrap() + self.ahead;
        let grid = |millis: u64| local(millis).div_euclid(window);
        let count = |grid_window: i64| self.passed.iter().filter(|at| grid(**at) == grid_window).count() as f64;
        let weight = 1.0 - local(now).rem_euclid(window) as f64 / window as f64;
        let passes = count(grid(now) - 1) * weight + count(grid(now)) + 1.0 <= self.limit as f64 + 1e-9;
        if passes {
            self.passed.push(now);
        } else {
            self.refused += 1;
        }
        passes
    }
}

/// A request in flight: it reaches the server, and then it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    at: u64,
    is_end: bool,
    sent: u64,
    ends: u64,
    explores: bool,
    passed: bool,
}

/// Sends requests at these times; returns the limiter.
fn play(mut limiter: BucketLimiter, server: &mut Server, asks: &[(u64, u64, f64)]) -> BucketLimiter {
    let mut steps = std::collections::BTreeSet::new();
    let (mut now, mut number) = (0, 0);
    for (gap, duration, place) in asks {
        now += gap;
        while let Some((step, _)) = steps.first().copied().filter(|(step, _): &(Step, u64)| step.at <= now) {
            let (_, id) = steps.pop_first().unwrap();
            if !step.is_end {
                let passed = server.passes(step.at);
                steps.insert((Step { at: step.ends, is_end: true, passed, ..step }, id));
                continue;
            }
            let seen = if step.passed { answer(step.at, 200, Quota::default()) } else { throttled(step.at, Some(1)) };
            limiter.end(Ending::Answered(&seen), (at(step.sent), step.explores), seen.at, 0.5);
        }
        // Several leave at the same time.
        for _ in 0..3 {
            if limiter.admit(at(now), 0, 0.0) == Admission::Now {
                let explores = limiter.begin(at(now), 0.5);
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of the duration")]
                let arrives = now + (*duration as f64 * place) as u64;
                number += 1;
                let ends = now + duration;
                steps.insert((Step { at: arrives, is_end: false, sent: now, ends, explores, passed: false }, number));
            }
        }
    }
    limiter
}

fn asks() -> impl Strategy<Value = Vec<(u64, u64, f64)>> {
    let gap = prop_oneof![8 => 0_u64..120, 1 => 2_000_u64..12_000];
    proptest::collection::vec((gap, 1_u64..900, 0.0..=1.0_f64), 1..400)
}

proptest! {
    #[test]
    fn known_sliding_counter_rejects_nothing(limit in 3_u64..40, ahead in -1_000_i64..=1_000, asks in asks()) {
        let mut server = Server { limit, ahead, passed: Vec::new(), refused: 0 };
        let mut known = limiter(limit);
        known.counting.recognise_counter();
        play(known, &mut server, &asks);
        prop_assert_eq!(server.refused, 0);
    }

    #[test]
    fn a_single_429_identifies_a_sliding_counter(
        limit in 3_u64..40, ahead in -1_000_i64..=1_000, asks in asks(),
    ) {
        let mut server = Server { limit, ahead, passed: Vec::new(), refused: 0 };
        let limiter = play(limiter(limit), &mut server, &asks);
        prop_assert!(server.refused <= 1, "{}", server.refused);
        prop_assert!(limiter.counting().kind != CountingKind::Exact);
    }
}
