//! The pacer against the simulator's limiter, which keeps its own record and shares no code with it. Minutes of simulated
//! time, real HTTP over in-memory pipes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use clerk_exporter::outbound::pace::{self, Pacer, Priority, ShedReason};
use clerk_exporter::outbound::{Call, Policy, SendError};
use clerk_exporter::quota::{Bucket, Environment, Limit, Source};
use clerk_exporter::simulator::{self, BucketTruth, Fault, HeaderProfile, LimiterKind, Plan};
use common::{World, in_simulated_time};
use http::Method;
use tokio::task::JoinSet;
use tokio::time::{Instant, advance, sleep};

const PROFILES: [HeaderProfile; 4] =
    [HeaderProfile::None, HeaderProfile::XRateLimit, HeaderProfile::XRateLimitEpoch, HeaderProfile::Ietf];
const LIMITERS: [LimiterKind; 3] =
    [LimiterKind::FixedWindow, LimiterKind::SlidingWindow, LimiterKind::TokenBucket { burst: None }];
const TEN: Duration = Duration::from_secs(10);

fn options(limiter: LimiterKind, headers: HeaderProfile, seed: u64) -> simulator::Options {
    let kept = usize::MAX;
    simulator::Options { limiter, headers, kept_windows: kept, kept_events: kept, ..common::simulator(seed) }
}

fn count() -> Call {
    Call::get("/v1/users/count", Source::Client)
}

/// Interactive requests that wait as long as it takes.
fn patient() -> Policy {
    Policy { priority: Priority::Interactive, ..Policy::bulk() }
}

/// `workers` ask without a pause until the time is over. Gives the number of successes.
async fn saturate(world: &World, workers: usize, length: Duration, policy: Policy) -> u64 {
    let end = Instant::now() + length;
    let mut tasks = JoinSet::new();
    for _ in 0..workers {
        let outbound = Arc::clone(&world.outbound);
        tasks.spawn(async move {
            let mut successes = 0;
            while Instant::now() < end {
                let answer = tokio::time::timeout_at(end, outbound.send(&count(), &policy)).await;
                successes += u64::from(answer.is_ok_and(|answer| answer.unwrap().status.is_success()));
            }
            successes
        });
    }
    tasks.join_all().await.into_iter().sum()
}

fn instance_bucket(world: &World) -> BucketTruth {
    world.simulator.truth().instances[0].bucket(simulator::Bucket::Instance).unwrap().clone()
}

fn refused(truth: &BucketTruth) -> usize {
    truth.events.iter().filter(|event| event.refused).count()
}

/// Requests that the limiter let pass from `skip` after the start of the test on, in a second.
fn rate_after(world: &World, skip: Duration) -> f64 {
    let (from, now) = (common::start() + skip, world.simulator.now());
    let truth = instance_bucket(world);
    let passed = truth.events_between(from, now).iter().filter(|event| !event.refused).count();
    passed as f64 / now.duration_since(from).unwrap().as_secs_f64()
}

/// Delays answers by up to so many milliseconds, each by its own.
fn latency(world: &World, millis: u64) {
    let rules = [4, 2, 1].map(|part| {
        let mut rule = Fault::Latency { millis: millis * part / 7 }.always();
        rule.probability = 0.5;
        rule
    });
    world.simulator.set_faults(simulator::Faults { rules: rules.to_vec(), ..simulator::Faults::default() }).unwrap();
}

#[test]
fn saturated_it_never_meets_a_429_and_wastes_less_than_a_twentieth() {
    let mut report = String::new();
    let mut worst = f64::MAX;
    for limiter in LIMITERS {
        for headers in PROFILES {
            for millis in [0, 150] {
                in_simulated_time(async {
                    let world = World::new(options(limiter, headers, 3));
                    latency(&world, millis);
                    // Not at the border of a window.
                    sleep(Duration::from_millis(3_700)).await;
                    saturate(&world, 20, Duration::from_secs(660), patient()).await;
                    assert_eq!(refused(&instance_bucket(&world)), 0, "{limiter}, {headers}, {millis} ms");
                    // The first windows profit from a budget that nobody used before.
                    let share = rate_after(&world, Duration::from_secs(60)) / 10.0;
                    report.push_str(&format!("{limiter:<14} {headers:<18} {millis:>4} ms   {:>6.1} %\n", share * 100.0));
                    worst = worst.min(share);
                });
            }
        }
    }
    println!("{report}");
    assert!(worst >= 0.95, "{report}");
}

#[test]
fn bursts_beyond_the_limit_and_other_limits_than_the_documented_one_are_learnt_from_headers() {
    for headers in [HeaderProfile::XRateLimit, HeaderProfile::XRateLimitEpoch, HeaderProfile::Ietf] {
        for (limiter, limits, plan, per_second) in [
            (LimiterKind::TokenBucket { burst: None }, vec![], Some(Plan::Pro), 10.0),
            (LimiterKind::TokenBucket { burst: None }, vec![], Some(Plan::Free), 2.0),
            (LimiterKind::FixedWindow, vec!["instance=400/10s".parse().unwrap()], None, 40.0),
            (LimiterKind::SlidingWindow, vec!["instance=400/10s".parse().unwrap()], None, 40.0),
            (LimiterKind::FixedWindow, vec!["instance=30/10s".parse().unwrap()], None, 3.0),
        ] {
            in_simulated_time(async {
                let context = format!("{limiter}, {headers}, {per_second} per second");
                let world = World::new(simulator::Options { limits, plan, ..options(limiter, headers, 5) });
                latency(&world, 150);
                saturate(&world, 24, Duration::from_secs(660), patient()).await;
                assert_eq!(refused(&instance_bucket(&world)), 0, "{context}");
                let share = rate_after(&world, Duration::from_secs(60)) / per_second;
                println!("{context}: {:.1} %", share * 100.0);
                assert!(share >= 0.95, "{context}: {share}");
            });
        }
    }
}

#[test]
fn two_who_share_an_instance_meet_few_429s_and_both_get_on() {
    let mut report = String::new();
    for limiter in LIMITERS {
        for headers in PROFILES {
            in_simulated_time(async {
                let world = World::new(options(limiter, headers, 7));
                let other = world.beside();
                latency(&world, 150);
                let length = Duration::from_secs(600);
                let (ours, theirs) =
                    tokio::join!(saturate(&world, 8, length, patient()), saturate(&other, 8, length, patient()));
                let (all, refused) = (ours + theirs, refused(&instance_bucket(&world)));
                let share = all as f64 / (length.as_secs_f64() * 10.0);
                report.push_str(&format!(
                    "{limiter:<14} {headers:<18} {:>6.1} % of the limit, {refused:>4} of {all} refused, {ours} : {theirs}\n",
                    share * 100.0
                ));
            });
        }
    }
    println!("{report}");
}
