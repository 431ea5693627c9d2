//! All scenes, and the table in the documentation.

use std::path::Path;
use std::time::Duration;

use clerk_simulator::{HeaderProfile, LimiterKind};
use clerk_test_support::in_simulated_time;

use crate::world::{Foreign, Outcome, Scene};

pub(crate) const KINDS: [LimiterKind; 5] = [
    LimiterKind::FixedWindow,
    LimiterKind::FixedFromFirst,
    LimiterKind::SlidingWindow,
    LimiterKind::SlidingCounter,
    LimiterKind::TokenBucket { burst: None },
];

const BEGIN: &str = "<!-- pacing: begin, written by the test `pacing` of clerk-client -->\n";
const END: &str = "<!-- pacing: end -->\n";

/// By then, the initial burst of an unused bucket is over.
const SETTLED: Duration = Duration::from_secs(60);

/// Length of a scene, with other clients and alone; alone, the borders of the last window matter less.
const LENGTH: Duration = Duration::from_secs(300);
const LENGTH_ALONE: Duration = Duration::from_secs(560);

fn play(scene: Scene) -> Outcome {
    let length = if scene.foreign == Foreign::Nothing { LENGTH_ALONE } else { LENGTH };
    let mut outcome = None;
    in_simulated_time(async { outcome = Some(scene.play(length).await) });
    outcome.unwrap()
}

#[test]
fn limiter_stays_within_bounds_for_every_counting_kind() {
    let mut table = String::from(
        "| server's counting | quota headers | gateways | 429s until detected | 429s after | limit used | \
         429s with others at 30 % | sent before `Retry-After` ended |\n|---|---|---|---|---|---|---|---|\n",
    );
    let mut wrong = Vec::new();
    for limiter in KINDS {
        for headers in [HeaderProfile::None, HeaderProfile::XRateLimit] {
            for gateways in [1, 2] {
                let scene = |foreign| Scene { limiter, headers, gateways, foreign };
                let (alone, poisson, bursts) =
                    (play(scene(Foreign::Nothing)), play(scene(Foreign::Poisson)), play(scene(Foreign::Bursts)));
                let recognised = alone.recognised.unwrap_or(LENGTH_ALONE);
                let first = alone.refused_between(Duration::ZERO, recognised);
                let later = alone.refused_between(recognised, LENGTH_ALONE);
                let used = alone.used(SETTLED, LENGTH_ALONE) * 100.0;
                let refused =
                    poisson.refused_between(Duration::ZERO, LENGTH) as f64 * 100.0 / poisson.attempts() as f64;
                let early = bursts.sent_against();
                let row = format!(
                    "| {limiter} | {headers} | {gateways} | {first} | {later} | {used:.0} % | {refused:.1} % | {early} |\n"
                );
                if first > 3 || later > 0 || used < 90.0 || refused > 3.0 || early > 0 {
                    wrong.push(row.clone());
                }
                table.push_str(&row);
            }
        }
    }
    assert!(wrong.is_empty(), "out of bounds:\n{}", wrong.concat());
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/gateway.md");
    let page = std::fs::read_to_string(page).unwrap();
    let printed = page.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END)).map(|(table, _)| table);
    assert_eq!(printed, Some(&*table), "docs/gateway.md differs; the text is now:\n{BEGIN}{table}{END}");
}
