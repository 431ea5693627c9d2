//! The ledger against the simulator, which records what its limiter did and shares no code with the ledger. Hours of
//! simulated time, real HTTP over in-memory pipes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use clerk_client::outbound::ApiRequest;
use clerk_exporter::probe::probe_once;
use clerk_quota::{Bucket, Source};
use clerk_simulator::{BucketTruth, HeaderProfile, LimiterKind, Plan};
use clerk_test_support::{World, in_simulated_time};
use http::Method;

const PROFILES: [HeaderProfile; 4] =
    [HeaderProfile::None, HeaderProfile::XRateLimit, HeaderProfile::XRateLimitEpoch, HeaderProfile::Ietf];
const LIMITERS: [LimiterKind; 2] = [LimiterKind::SlidingWindow, LimiterKind::TokenBucket { burst: None }];
const DEADLINE: Duration = Duration::from_secs(5);

/// Random traffic of an application: the rate changes every few seconds, from none to 1.5 times the limit of 10 a
/// second. `each` is called about every second.
async fn traffic(world: &World, random: &mut fastrand::Rng, length: Duration, mut each: impl FnMut(&World)) {
    let end = tokio::time::Instant::now() + length;
    while tokio::time::Instant::now() < end {
        let rate = [0.0, 2.0, 6.0, 9.0, 9.6, 10.0, 12.0, 15.0][random.usize(..8)] * (0.9 + random.f64() * 0.2);
        let mut left = random.f64() * 25.0;
        while left > 0.0 {
            let pause = if rate < 0.1 { left.min(1.0) } else { -random.f64().max(1e-9).ln() / rate };
            tokio::time::sleep(Duration::from_secs_f64(pause)).await;
            left -= pause;
            if rate >= 0.1 {
                let call = call(random);
                world.outbound.request(&call, DEADLINE).await.unwrap();
            }
            each(world);
        }
    }
}

/// Mostly reads, sometimes a request of another bucket.
fn call(random: &mut fastrand::Rng) -> ApiRequest {
    let user = random.u32(..3);
    let (method, path) = match random.u32(..40) {
        0 => (Method::POST, "/v1/invitations".to_owned()),
        1 => (Method::GET, "/v1/jwks".to_owned()),
        2..6 => (Method::PATCH, format!("/v1/users/user_unknown{user}/metadata")),
        _ => (Method::GET, "/v1/users/count".to_owned()),
    };
    ApiRequest::new(method, path, Source::Client)
}

/// `(windows, low, exhausted)` by the limiter's record.
fn counts<'a>(truths: impl Iterator<Item = &'a BucketTruth>) -> (u64, u64, u64) {
    let mut counts = (0, 0, 0);
    for window in truths.flat_map(|truth| &truth.windows) {
        let exhausted = window.refused > 0 || window.least_remaining == 0;
        counts.0 += 1;
        counts.1 += u64::from(exhausted || u64::from(window.least_remaining) * 10 < u64::from(window.limit));
        counts.2 += u64::from(exhausted);
    }
    counts
}

#[test]
fn ledger_counts_limiter_windows_if_all_responses_are_seen() {
    for seed in 0..4 {
        for headers in PROFILES {
            in_simulated_time(async {
                let options = clerk_test_support::simulator(seed).headers(headers).kept_windows(usize::MAX);
                let world = World::new(options);
                // Nothing was sent before: the count is complete from the first window on.
                let begun = world.outbound.clock.now().before(Duration::from_secs(7200));
                world.outbound.ledger.lock().count_since(begun);
                let mut random = fastrand::Rng::with_seed(seed);
                // The result must not depend on scrapes.
                let mut scraper = random.fork();
                let often = scraper.u32(1..500);
                traffic(&world, &mut random, Duration::from_secs(450), |world| {
                    if scraper.u32(..often) == 0 {
                        world.snapshot();
                    }
                })
                .await;
                tokio::time::advance(Duration::from_secs(7300)).await;
                let (snapshot, truth) = (world.snapshot(), world.simulator.truth());
                let truth = &truth.instances[0];
                let mut seen = 0;
                for bucket in Bucket::LIMITED {
                    let ours = snapshot.bucket(bucket).unwrap();
                    let theirs = counts(truth.buckets.iter().filter(|truth| truth.bucket.as_str() == bucket.as_str()));
                    let counted = (ours.windows, ours.low_windows, ours.exhausted_windows);
                    assert_eq!(counted, theirs, "bucket {bucket}, headers {headers}, seed {seed}");
                    seen += u64::from(theirs.1 > 0);
                }
                assert!(seen > 0, "the traffic reached the limit");
            });
        }
    }
}

#[test]
fn sliding_windows_match_the_limiter_record() {
    for seed in 0..4 {
        for limiter in LIMITERS {
            for headers in [HeaderProfile::XRateLimit, HeaderProfile::XRateLimitEpoch, HeaderProfile::Ietf] {
                in_simulated_time(async {
                    let plan = (limiter != LimiterKind::SlidingWindow && seed % 2 == 0).then_some(Plan::Pro);
                    let options = clerk_test_support::simulator(seed)
                        .headers(headers)
                        .limiter(limiter)
                        .plan(plan)
                        .kept_windows(usize::MAX)
                        .kept_events(usize::MAX);
                    let world = World::new(options);
                    let mut random = fastrand::Rng::with_seed(seed);
                    let mut closed = Vec::new();
                    traffic(&world, &mut random, Duration::from_secs(300), |world| {
                        world.snapshot();
                        for window in world.outbound.ledger.lock().recent_windows(Bucket::Instance) {
                            if !closed.contains(&window) {
                                closed.push(window);
                            }
                        }
                    })
                    .await;
                    let truth = world.simulator.truth();
                    let truth = truth.instances[0].bucket(clerk_simulator::SimulatedBucket::Instance).unwrap();
                    let mut covered = 0;
                    for window in &closed {
                        let (from, to) = (window.seen.0.to_system_time(), window.seen.1.to_system_time());
                        let events = truth.events_between(from, to + Duration::from_nanos(1));
                        let refused = events.iter().any(|event| event.refused);
                        let least = events.iter().map(|event| event.remaining_after).min().unwrap();
                        let limit = f64::from(truth.windows[0].limit.min(100));
                        let context = format!("{limiter}, {headers}, seed {seed}, {window:?}, least {least}");
                        assert_eq!(window.exhausted, refused || least == 0, "{context}");
                        assert_eq!(window.low, window.exhausted || f64::from(least) / limit < 0.1, "{context}");
                        let length = to.duration_since(from).unwrap();
                        assert!(length < Duration::from_secs(21), "{context}");
                        covered += events.len();
                    }
                    // The last windows are still open.
                    assert!(covered as f64 > truth.events.len() as f64 * 0.9, "{covered} of {}", truth.events.len());
                    // The window borders are unknown, but the numbers of bad windows match.
                    let (_, low, exhausted) = counts([truth].into_iter());
                    let ours = closed.iter().filter(|window| window.low).count() as u64;
                    assert!(ours <= low * 2 && ours * 3 >= low, "{limiter}, {headers}, seed {seed}: {ours} for {low}");
                    let ours = closed.iter().filter(|window| window.exhausted).count() as u64;
                    assert!(ours <= exhausted * 2 && ours * 3 >= exhausted, "{limiter}, {headers}, seed {seed}");
                });
            }
        }
    }
}

/// A measurement, not an invariant: how many of the low windows probes alone find.
#[test]
fn probes_alone_find_a_share_of_the_low_windows() {
    let mut report = String::from("probe interval   low windows   found by probes\n");
    let mut shares = Vec::new();
    for interval in [1, 2, 5, 10, 15] {
        let (mut low, mut found) = (0, 0);
        for seed in 0..12 {
            in_simulated_time(async {
                let world = World::new(clerk_test_support::simulator(seed));
                let mut random = fastrand::Rng::with_seed(seed);
                // The application's traffic does not pass through the exporter: it has a separate ledger.
                let application = world.beside();
                // Like the exporter's probes: a random phase, and ticks up to 10 % of the interval early or late.
                let mut dice = random.fork();
                let interval = Duration::from_secs(interval);
                let mut tick = tokio::time::Instant::now() + interval.mul_f64(1.0 + dice.f64());
                let probes = async {
                    loop {
                        tokio::time::sleep_until(tick - interval.mul_f64(dice.f64() * 0.2)).await;
                        probe_once(&world.outbound, "/v1/users/count", DEADLINE).await;
                        tick += interval;
                    }
                };
                let load = traffic(&application, &mut random, Duration::from_secs(900), |_| {});
                tokio::select! { () = load => {}, () = probes => {} }
                tokio::time::advance(Duration::from_secs(30)).await;
                let truth = world.simulator.truth();
                low += counts(truth.instances[0].bucket(clerk_simulator::SimulatedBucket::Instance).into_iter()).1;
                found += world.snapshot().bucket(Bucket::Instance).unwrap().low_windows;
            });
        }
        assert!(found <= low, "every low window is low by the limiter's record");
        let share = found as f64 / low as f64;
        report.push_str(&format!("{interval:>11} s   {low:>11}   {:>14.0} %\n", share * 100.0));
        shares.push(share);
    }
    println!("{report}");
    // Rare probes find windows by luck of their phase; frequent ones find most.
    assert!(shares[0] > 0.7 && shares[0] > shares[2] && shares[1] > shares[3], "{report}");
}

/// Responses out of order or late do not change the counts.
#[test]
fn late_responses_are_counted_once() {
    in_simulated_time(async {
        let world = Arc::new(World::new(clerk_test_support::simulator(7)));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..3000_u64 {
            let world = Arc::clone(&world);
            tasks.spawn(async move {
                tokio::time::sleep(Duration::from_millis(number * 97)).await;
                let call = ApiRequest::get("/v1/users/count", Source::Gateway);
                let answer = world.outbound.request(&call, DEADLINE).await.unwrap();
                // The same observation up to four seconds late: a slow path from the response to the ledger.
                tokio::time::sleep(Duration::from_millis(number % 41 * 100)).await;
                world.late.lock().record(&answer.observation);
            });
        }
        while tasks.join_next().await.is_some() {}
        tokio::time::advance(Duration::from_secs(30)).await;
        let now = world.outbound.clock.now();
        let (prompt, late) = (world.snapshot(), world.late.lock().snapshot(now));
        let (prompt, late) = (prompt.bucket(Bucket::Instance).unwrap(), late.bucket(Bucket::Instance).unwrap());
        assert_eq!(prompt.windows, late.windows);
        assert_eq!(prompt.low_windows, late.low_windows);
        assert_eq!(prompt.exhausted_windows, late.exhausted_windows);
        assert!(prompt.exhausted_windows > 5);
    });
}
