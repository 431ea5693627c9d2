//! The limiter against the simulator's, which keeps its own record and shares no code with it. Minutes of simulated
//! time, real HTTP over in-memory pipes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use clerk_client::limiter::{self, Limiter, Priority, ShedReason};
use clerk_client::outbound::{ApiRequest, RequestOptions, SendError};
use clerk_quota::{Bucket, Environment, Limit, Source};
use clerk_simulator::{BucketTruth, Fault, HeaderProfile, LimiterKind, Plan};
use clerk_test_support::{World, in_simulated_time};
use http::Method;
use http_body_util::BodyExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, advance, sleep};

const PROFILES: [HeaderProfile; 4] =
    [HeaderProfile::None, HeaderProfile::XRateLimit, HeaderProfile::XRateLimitEpoch, HeaderProfile::Ietf];
const LIMITERS: [LimiterKind; 3] =
    [LimiterKind::FixedWindow, LimiterKind::SlidingWindow, LimiterKind::TokenBucket { burst: None }];
const TEN: Duration = Duration::from_secs(10);

fn options(limiter: LimiterKind, headers: HeaderProfile, seed: u64) -> clerk_simulator::Options {
    let kept = usize::MAX;
    clerk_test_support::simulator(seed).limiter(limiter).headers(headers).kept_windows(kept).kept_events(kept)
}

fn count() -> ApiRequest {
    ApiRequest::get("/v1/users/count", Source::Client)
}

/// High priority, without a limit on the wait.
fn patient() -> RequestOptions {
    RequestOptions::low_priority().priority(Priority::High)
}

/// `workers` send requests without a pause until the time is over. Returns the number of successes.
async fn saturate(world: &World, workers: usize, length: Duration, policy: RequestOptions) -> u64 {
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
    world.simulator.truth().instances[0].bucket(clerk_simulator::SimulatedBucket::Instance).unwrap().clone()
}

fn refused(truth: &BucketTruth) -> usize {
    truth.events.iter().filter(|event| event.refused).count()
}

/// Accepted requests per second, from `skip` after the start of the test.
fn rate_after(world: &World, skip: Duration) -> f64 {
    let (from, now) = (clerk_test_support::start() + skip, world.simulator.now());
    let truth = instance_bucket(world);
    let passed = truth.events_between(from, now).iter().filter(|event| !event.refused).count();
    passed as f64 / now.duration_since(from).unwrap().as_secs_f64()
}

/// Delays responses randomly by up to this many milliseconds.
fn latency(world: &World, millis: u64) {
    let rules = [4, 2, 1].map(|part| {
        let mut rule = Fault::Latency { millis: millis * part / 7 }.always();
        rule.probability = 0.5;
        rule
    });
    world
        .simulator
        .set_faults(clerk_simulator::Faults { rules: rules.to_vec(), ..clerk_simulator::Faults::default() })
        .unwrap();
}

#[test]
fn saturated_limiter_gets_no_429_and_uses_95_percent() {
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
                    saturate(&world, 20, Duration::from_secs(360), patient()).await;
                    assert_eq!(refused(&instance_bucket(&world)), 0, "{limiter}, {headers}, {millis} ms");
                    // The first windows profit from an unused bucket.
                    let share = rate_after(&world, Duration::from_secs(60)) / 10.0;
                    report
                        .push_str(&format!("{limiter:<14} {headers:<18} {millis:>4} ms   {:>6.1} %\n", share * 100.0));
                    worst = worst.min(share);
                });
            }
        }
    }
    println!("{report}");
    assert!(worst >= 0.95, "{report}");
}

#[test]
fn limits_and_token_bursts_are_learnt_from_headers() {
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
                let world = World::new(options(limiter, headers, 5).limits(limits).plan(plan));
                latency(&world, 150);
                saturate(&world, 24, Duration::from_secs(360), patient()).await;
                assert_eq!(refused(&instance_bucket(&world)), 0, "{context}");
                let share = rate_after(&world, Duration::from_secs(60)) / per_second;
                println!("{context}: {:.1} %", share * 100.0);
                // Token buckets larger than their limit take 20 s to fill. If the reset is in whole seconds of the
                // epoch, rounding costs up to a twentieth more.
                let rounded = plan.is_some() && headers == HeaderProfile::XRateLimitEpoch;
                assert!(share >= if rounded { 0.92 } else { 0.95 }, "{context}: {share}");
            });
        }
    }
}

#[test]
fn two_clients_of_an_instance_get_few_429s_and_fair_shares() {
    let mut report = String::new();
    for limiter in LIMITERS {
        for headers in PROFILES {
            in_simulated_time(async {
                let world = World::new(options(limiter, headers, 7));
                let other = world.beside();
                latency(&world, 150);
                let length = Duration::from_secs(400);
                let (ours, theirs) =
                    tokio::join!(saturate(&world, 8, length, patient()), saturate(&other, 8, length, patient()));
                let (all, refused) = (ours + theirs, refused(&instance_bucket(&world)) as u64);
                let share = all as f64 / (length.as_secs_f64() * 10.0);
                let context = format!("{limiter}, {headers}: {ours} + {theirs}, {refused} refused");
                assert!(refused * 25 < all, "{context}");
                assert!(share > 0.9, "{context}");
                assert!(ours.min(theirs) * 4 > all, "{context}");
                report.push_str(&format!(
                    "{limiter:<14} {headers:<18} {:>6.1} % of the limit, {refused:>4} of {all} refused, {ours} : {theirs}\n",
                    share * 100.0
                ));
            });
        }
    }
    println!("{report}");
}

#[test]
fn burst_of_another_client_causes_few_429s() {
    for headers in PROFILES {
        in_simulated_time(async {
            let world = World::new(options(LimiterKind::FixedWindow, headers, 11));
            let other = world.beside();
            latency(&world, 150);
            let burst = async {
                sleep(Duration::from_secs(62)).await;
                for _ in 0..90 {
                    other.outbound.request(&count(), TEN).await.unwrap();
                }
            };
            let ours = saturate(&world, 20, Duration::from_secs(400), patient());
            tokio::join!(ours, burst);
            let refused = world.snapshot().responses.get(&(Source::Client, 429)).copied().unwrap_or_default();
            assert!(refused <= 20, "{headers}: {refused}");
            let recovered = rate_after(&world, Duration::from_secs(250)) / 10.0;
            assert!(recovered > 0.95, "{headers}: {recovered}");
        });
    }
}

#[test]
fn low_priority_keeps_the_reserve() {
    for limiter in LIMITERS {
        for headers in PROFILES {
            in_simulated_time(async {
                let world = World::new(options(limiter, headers, 13));
                latency(&world, 150);
                saturate(&world, 20, Duration::from_secs(330), RequestOptions::low_priority()).await;
                let truth = instance_bucket(&world);
                let least = truth.events.iter().map(|event| event.remaining_after).min().unwrap();
                assert!(least >= 10, "{limiter}, {headers}: {least}");
                let rate = rate_after(&world, Duration::from_secs(30));
                assert!(rate > 9.0 * 0.95, "{limiter}, {headers}: {rate}");
            });
        }
    }
}

#[test]
fn high_priority_overtakes_low_and_uses_the_reserve() {
    in_simulated_time(async {
        let world = World::new(options(LimiterKind::FixedWindow, HeaderProfile::None, 17));
        let bulk = saturate(&world, 20, Duration::from_secs(60), RequestOptions::low_priority());
        let interactive = async {
            let mut longest = Duration::ZERO;
            for _ in 0..40 {
                sleep(Duration::from_secs(1)).await;
                let asked = Instant::now();
                world.outbound.send(&count(), &patient()).await.unwrap();
                longest = longest.max(asked.elapsed());
            }
            longest
        };
        let (_, longest) = tokio::join!(bulk, interactive);
        assert!(longest < Duration::from_millis(200), "{longest:?}");
        assert_eq!(refused(&instance_bucket(&world)), 0);
    });
}

/// A limiter for 100 requests per 10 s, used up.
async fn used_up(options: limiter::LimiterOptions) -> Arc<Limiter> {
    let limit = Some(Limit { requests: 100, window: TEN });
    let clock = Arc::new(clerk_quota::clock::Clock::simulated(clerk_test_support::start()));
    let limiter = Limiter::new(options.limit(limit).environment(Environment::Development), clock);
    for _ in 0..100 {
        drop(limiter.acquire(Bucket::Instance, None, Priority::High, TEN).await.unwrap());
    }
    limiter
}

#[tokio::test(start_paused = true)]
async fn too_long_wait_is_shed_at_once() {
    let limiter = used_up(limiter::LimiterOptions::default()).await;
    advance(Duration::from_secs(3)).await;
    let asked = Instant::now();
    let shed = limiter.acquire(Bucket::Instance, None, Priority::High, Duration::from_secs(5)).await.unwrap_err();
    assert_eq!((shed.reason, asked.elapsed()), (ShedReason::WaitTooLong, Duration::ZERO));
    assert!((7.0..=7.3).contains(&shed.retry_after.as_secs_f64()), "{shed:?}");
    assert!(shed.to_string().contains("try again in 8s"), "{shed}");
    assert_eq!(limiter.stats().waiting, 0);
    // Other buckets are not affected.
    drop(limiter.acquire(Bucket::Invitations, None, Priority::Low, Duration::ZERO).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn requests_before_a_restart_are_counted() {
    let limit = Some(Limit { requests: 100, window: TEN });
    let clock = Arc::new(clerk_quota::clock::Clock::simulated(clerk_test_support::start()));
    let now = clock.now();
    let limiter = Limiter::new(limiter::LimiterOptions::default().limit(limit), clock);
    let ago = |seconds| now.before(Duration::from_secs(seconds));
    for request in 0..100 {
        // Sixty ended 4 s ago, ten have no end, and the others are too old or in the future.
        let (started, ended) = match request {
            0..60 => (ago(5), Some(ago(4))),
            60..70 => (ago(3), None),
            70..90 => (ago(12), Some(ago(11))),
            _ => (now.after(TEN), None),
        };
        limiter.restore(Bucket::Instance, None, started, ended);
    }
    assert_eq!(limiter.stats().in_flight, 0);
    for _ in 0..30 {
        drop(limiter.acquire(Bucket::Instance, None, Priority::High, Duration::ZERO).await.unwrap());
    }
    let shed = limiter.acquire(Bucket::Instance, None, Priority::High, Duration::ZERO).await.unwrap_err();
    assert!((6.0..=6.3).contains(&shed.retry_after.as_secs_f64()), "{shed:?}");
    assert!(limiter.fleet_usage(Bucket::Instance, None).is_none());
}

#[tokio::test(start_paused = true)]
async fn retry_after_includes_the_queue_ahead() {
    let limiter = used_up(limiter::LimiterOptions::default()).await;
    let mut tasks = JoinSet::new();
    for _ in 0..100 {
        let limiter = Arc::clone(&limiter);
        tasks.spawn(async move {
            drop(limiter.acquire(Bucket::Instance, None, Priority::High, TEN * 2).await.unwrap());
        });
    }
    sleep(Duration::from_millis(1)).await;
    assert_eq!(limiter.stats().waiting, 100);
    // Those take the next window; this request waits for the one after it.
    let shed = limiter.acquire(Bucket::Instance, None, Priority::High, TEN + TEN / 2).await.unwrap_err();
    assert!((19.9..=20.3).contains(&shed.retry_after.as_secs_f64()), "{shed:?}");
    tasks.join_all().await;
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded() {
    let limiter = used_up(limiter::LimiterOptions::default().max_queue(3)).await;
    let mut tasks = JoinSet::new();
    for _ in 0..5 {
        let limiter = Arc::clone(&limiter);
        tasks.spawn(async move {
            limiter.acquire(Bucket::Instance, None, Priority::High, TEN * 2).await.map(drop).map_err(|shed| shed.reason)
        });
    }
    let results = tasks.join_all().await;
    assert_eq!(results.iter().filter(|result| **result == Err(ShedReason::QueueFull)).count(), 2);
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3);
    assert_eq!(limiter.stats().shed, [2, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn queue_is_first_in_first_out_and_spread() {
    let limiter = used_up(limiter::LimiterOptions::default()).await;
    let from = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..60 {
        let limiter = Arc::clone(&limiter);
        tasks.spawn(async move {
            sleep(Duration::from_millis(number)).await;
            let permit = limiter.acquire(Bucket::Instance, None, Priority::High, TEN * 2).await.unwrap();
            drop(permit);
            (from.elapsed(), number)
        });
    }
    let mut went = tasks.join_all().await;
    went.sort_unstable();
    let numbers: Vec<_> = went.iter().map(|(_, number)| *number).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    let mut moments: Vec<_> = went.iter().map(|(at, _)| at.as_millis()).collect();
    moments.dedup();
    assert!(moments.len() > 20, "released in step: {moments:?}");
    assert!(went.iter().all(|(at, _)| *at >= TEN && *at <= TEN + Duration::from_millis(300)), "{went:?}");
}

#[tokio::test(start_paused = true)]
async fn cancelled_waiters_leave_no_trace() {
    let limiter = used_up(limiter::LimiterOptions::default()).await;
    let mut rng = fastrand::Rng::with_seed(1);
    let mut tasks = JoinSet::new();
    for _ in 0..300 {
        let (limiter, patience) = (Arc::clone(&limiter), Duration::from_millis(rng.u64(0..15_000)));
        tasks.spawn(async move {
            let place = limiter.acquire(Bucket::Instance, None, Priority::High, TEN * 6);
            tokio::time::timeout(patience, place).await.is_ok()
        });
    }
    let got = tasks.join_all().await.into_iter().filter(|got| *got).count();
    assert!((60..=100).contains(&got), "cancelled waiters take no grant: {got}");
    let numbers = limiter.stats();
    assert_eq!((numbers.waiting, numbers.in_flight), (0, 0));
    sleep(TEN * 2).await;
    // The whole limit is available again.
    for _ in 0..100 {
        drop(limiter.acquire(Bucket::Instance, None, Priority::High, Duration::ZERO).await.unwrap());
    }
    assert!(limiter.acquire(Bucket::Instance, None, Priority::High, Duration::ZERO).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn max_in_flight_is_enforced() {
    let options = limiter::LimiterOptions::default().max_in_flight(2);
    let limiter = Limiter::new(options, Arc::new(clerk_quota::clock::Clock::simulated(clerk_test_support::start())));
    let acquire = || limiter.acquire(Bucket::Instance, None, Priority::High, Duration::from_secs(1));
    let (first, second) = (acquire().await.unwrap(), acquire().await.unwrap());
    let shed = acquire().await.unwrap_err();
    assert_eq!(shed.reason, ShedReason::WaitTooLong);
    drop(first);
    let third = acquire().await.unwrap();
    assert_eq!(limiter.stats().in_flight, 2);
    drop((second, third));
    assert_eq!(limiter.stats().in_flight, 0);
}

/// A Clerk that allows far more than is sent.
fn roomy(max_in_flight: usize, fault: Fault) -> World {
    let limit = Limit { requests: 100_000, window: TEN };
    let quota = clerk_simulator::Quota::new(100_000, TEN);
    let limits = vec![clerk_simulator::LimitOverride { bucket: clerk_simulator::SimulatedBucket::Instance, quota }];
    let world = World::new(clerk_test_support::simulator(1).limits(limits));
    world.simulator.set_faults(fault.always().into()).unwrap();
    let options = limiter::LimiterOptions::default().limit(Some(limit)).max_in_flight(max_in_flight);
    world.outbound.limits.limiter.reconfigure(options);
    world
}

fn at_once() -> RequestOptions {
    RequestOptions::default().max_queue_wait(Duration::ZERO)
}

#[tokio::test(start_paused = true)]
async fn slow_clerk_does_not_cause_shedding() {
    let world = roomy(limiter::MAX_IN_FLIGHT, Fault::Latency { millis: 3000 });
    let mut tasks = JoinSet::new();
    for _ in 0..500 {
        let outbound = Arc::clone(&world.outbound);
        tasks.spawn(async move { outbound.send(&count(), &at_once()).await.unwrap().status });
    }
    assert!(tasks.join_all().await.iter().all(|status| *status == 200));
    // With few slots, requests wait for one.
    let world = roomy(4, Fault::Latency { millis: 3000 });
    let mut tasks = JoinSet::new();
    for _ in 0..16 {
        let outbound = Arc::clone(&world.outbound);
        tasks.spawn(async move { outbound.send(&count(), &RequestOptions::default()).await.unwrap().status });
    }
    assert!(tasks.join_all().await.iter().all(|status| *status == 200));
}

#[tokio::test(start_paused = true)]
async fn unread_responses_free_their_slots() {
    let world = roomy(3, Fault::HugeBody { bytes: 3_000_000 });
    let mut stalled = Vec::new();
    // Three held responses, then three that take the slots.
    for _ in 0..6 {
        stalled.push(world.outbound.open(&count(), &at_once()).await.unwrap());
    }
    assert_eq!(world.outbound.limits.stats().pace.in_flight, 6);
    assert!(
        matches!(world.outbound.open(&count(), &at_once()).await, Err(SendError::Shed(_))),
        "the number of held responses is bounded"
    );
    drop(stalled.pop());
    let read = world.outbound.open(&count(), &at_once()).await.unwrap();
    assert_eq!(read.body.collect().await.unwrap().to_bytes().len(), 3_000_000);
    drop(stalled);
    assert_eq!(world.outbound.limits.stats().pace.in_flight, 0);
}

#[test]
fn a_429_blocks_only_its_bucket_and_entity() {
    in_simulated_time(async {
        let world = World::new(options(LimiterKind::FixedWindow, HeaderProfile::None, 19));
        let rule = Fault::Throttled { retry_after: Some("7".to_owned()), body: clerk_simulator::FaultBody::Html };
        let mut rule = rule.times(1);
        rule.path_prefix = Some("/v1/users/user_a".to_owned());
        world.simulator.set_faults(rule.into()).unwrap();
        let change = |user: &str| ApiRequest::new(Method::PATCH, format!("/v1/users/{user}/metadata"), Source::Client);
        let hurried = RequestOptions::default().max_queue_wait(Duration::from_secs(1));
        assert_eq!(world.outbound.send(&change("user_a"), &hurried).await.unwrap().status, 429);
        let Err(SendError::Shed(shed)) = world.outbound.send(&change("user_a"), &hurried).await else { panic!() };
        assert_eq!(shed.bucket, Bucket::UserUpdate);
        assert!((7.0..=7.3).contains(&shed.retry_after.as_secs_f64()), "{shed:?}");
        assert_ne!(world.outbound.send(&change("user_b"), &hurried).await.unwrap().status, 429);
        assert_eq!(world.outbound.send(&count(), &hurried).await.unwrap().status, 200);
        world.simulator.set_faults(Fault::Latency { millis: 700 }.always().into()).unwrap();
        let mut tasks = JoinSet::new();
        for _ in 0..5 {
            let (outbound, call) = (Arc::clone(&world.outbound), change("user_a"));
            tasks.spawn(async move { outbound.send(&call, &patient()).await.unwrap().status });
        }
        sleep(Duration::from_millis(7_250)).await;
        assert_eq!(world.outbound.limits.stats().pace.in_flight, 1, "one goes ahead");
        tasks.join_all().await;
    });
}

#[test]
fn probes_bypass_the_limiter_but_count() {
    in_simulated_time(async {
        let world = World::new(options(LimiterKind::SlidingWindow, HeaderProfile::None, 23));
        let probes = async {
            for _ in 0..60 {
                sleep(Duration::from_secs(1)).await;
                assert_eq!(world.outbound.request(&count(), TEN).await.unwrap().status, 200);
            }
        };
        let policy = RequestOptions::low_priority();
        tokio::join!(saturate(&world, 20, Duration::from_secs(60), policy), probes);
        assert_eq!(refused(&instance_bucket(&world)), 0);
    });
}

/// In real time, where even reading the clock takes a moment.
#[tokio::test]
async fn immediate_permit_reports_no_wait() {
    let limiter = Limiter::new(limiter::LimiterOptions::default(), Arc::new(clerk_quota::clock::Clock::new()));
    for _ in 0..10 {
        let permit = limiter.acquire(Bucket::Instance, None, Priority::High, TEN).await.unwrap();
        assert_eq!(permit.waited(), Duration::ZERO);
    }
    assert_eq!(limiter.stats().waited_seconds.sum(), 0.0);
}
