//! Compares every displayed number with the truth: it must be right, within a stated bound, or absent. Simulated
//! traffic through whole gateways, in simulated time, in a minimal set of worlds that covers each pair of
//! circumstances. The simulator's limiter and transport record the truth, and share no code with the ledger.
//! `docs/truth.md` states the bounds.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clients;
mod model;
mod pairs;
mod spending;
mod table;
mod tape;
mod truth;
mod view;
mod windows;
mod world;

use clerk_test_support::in_simulated_time;

use truth::Watch;
use world::{Case, World};

/// The selection of worlds and their traffic.
const SEED: u64 = 1;

/// The table in the document is between these markers.
const BEGIN: &str = "<!-- truth: begin -->\n";
const END: &str = "<!-- truth: end -->";

fn play(seeds: impl Iterator<Item = u64>) -> Watch {
    let mut watch = Watch::default();
    let mut number = 0;
    for seed in seeds {
        for (place, row) in pairs::all_pairs(&Case::SIZES, seed).into_iter().enumerate() {
            let case = Case::of(&row, seed * 100 + place as u64);
            watch.begin(number);
            number += 1;
            in_simulated_time(async {
                World::new(case).play(&mut watch).await;
            });
        }
    }
    watch
}

#[test]
fn every_number_is_right_or_bounded_or_absent() {
    let watch = play([SEED].into_iter());
    let table = watch.table.markdown();
    println!("{table}");
    let violations = watch.table.violations();
    assert!(violations.is_empty(), "{violations}");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/truth.md");
    let document = std::fs::read_to_string(path).unwrap();
    let (_, shown) = document.split_once(BEGIN).expect("the table's begin in docs/truth.md");
    let (shown, _) = shown.split_once(END).expect("the table's end in docs/truth.md");
    assert_eq!(shown, table, "docs/truth.md shows another table; paste this one:\n{table}");
}

/// `TRUTH_SEEDS` selections of worlds, each with other traffic: `scripts/prove-truth`.
#[test]
#[ignore = "takes TRUTH_SEEDS times as long"]
fn every_number_is_right_with_random_seeds() {
    let seeds = std::env::var("TRUTH_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(10);
    let first = std::env::var("TRUTH_FIRST_SEED").ok().and_then(|seed| seed.parse().ok());
    let first: u64 = first.unwrap_or_else(|| u64::from(fastrand::Rng::new().u32(1_000..1_000_000)));
    println!("seeds from {first} on");
    let watch = play(first..first + seeds);
    println!("{}", watch.table.markdown());
    let violations = watch.table.violations();
    assert!(violations.is_empty(), "TRUTH_FIRST_SEED={first} plays them again\n{violations}");
}
