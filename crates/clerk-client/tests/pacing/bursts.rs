//! Bursts with pauses: once the counting kind is known, they leave as fast as it allows.

use std::time::Duration;

use clerk_simulator::{HeaderProfile, LimiterKind};
use clerk_test_support::in_simulated_time;

use crate::table::KINDS;
use crate::world::{Foreign, Scene};

const BURSTS: usize = 24;

/// By then every gateway knows the counting kind.
const KNOWN_AFTER: usize = 16;

#[test]
fn bursts_leave_at_once_when_the_kind_is_known() {
    for limiter in KINDS {
        for headers in [HeaderProfile::None, HeaderProfile::XRateLimit] {
            for gateways in [1, 2] {
                let scene = Scene { limiter, headers, gateways, foreign: Foreign::Nothing };
                in_simulated_time(async {
                    let (lengths, refused, is_known) = scene.burst(BURSTS).await;
                    let context = format!("{scene:?}: {lengths:?}, {refused:?}");
                    assert!(is_known, "{context}");
                    assert!(refused.iter().sum::<usize>() <= 1, "{context}");
                    let (_, later) = lengths.split_at(KNOWN_AFTER);
                    let longest = later.iter().max().unwrap();
                    // A sliding counter returns the rest of a burst only as the previous one ages.
                    let is_counter = limiter == LimiterKind::SlidingCounter;
                    assert!(*longest < Duration::from_secs(if is_counter { 13 } else { 1 }), "{context}");
                    assert_eq!(refused[KNOWN_AFTER..].iter().sum::<usize>(), 0, "{context}");
                });
            }
        }
    }
}
