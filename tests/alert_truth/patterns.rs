//! Random traffic in simulated time: the limiter's record, and the scraped values.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clerk_client::outbound::ApiRequest;
use clerk_quota::{Bucket, Source};
use tokio::time::Instant;

use clerk_test_support::World;

/// Length of one pattern: long enough for several episodes.
const LENGTH: Duration = Duration::from_secs(1200);
/// The compared scrape intervals.
pub(crate) const SCRAPES: [u64; 3] = [15, 30, 60];
/// Requests per 10 s: a small limit, so that hundreds of patterns take a minute.
const LIMIT: &str = "instance=20/10s";

/// One traffic pattern, from both sides.
pub(crate) struct Pattern {
    /// Ends of the windows in which less than 10 % was left, by the limiter, in seconds since the epoch.
    pub(crate) low_ends: Vec<f64>,
    /// The scraped values per scrape interval.
    pub(crate) scraped: Vec<Vec<Sample>>,
    /// When it ended.
    pub(crate) end: f64,
}

/// The scraped values of the instance's bucket.
pub(crate) struct Sample {
    pub(crate) at: f64,
    pub(crate) low_windows: u64,
    pub(crate) remaining: Option<u64>,
    pub(crate) limit: u64,
}

/// Plays the pattern of a seed. The seed determines everything in it.
pub(crate) fn play(seed: u64) -> Pattern {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
        let limits = vec![LIMIT.parse().unwrap()];
        let options = clerk_test_support::simulator(seed).limits(limits).kept_windows(usize::MAX);
        let world = World::new(options);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut scrapers: Vec<_> = SCRAPES
            .iter()
            .map(|seconds| {
                let interval = Duration::from_secs(*seconds);
                Scraper { interval, next: Instant::now() + interval.mul_f64(random.f64()), samples: Vec::new() }
            })
            .collect();
        let end = Instant::now() + LENGTH;
        // Each pattern has its own maximum and duration of traffic.
        let (usual, high) = (random.f64() * 1.6, 1.0 + random.f64() * 1.5);
        let (calm, busy) = (20.0 + random.f64() * 300.0, 3.0 + random.f64() * 60.0);
        let peaks = random.u32(..4) > 0;
        while Instant::now() < end {
            for (rate, seconds) in [(usual, calm), (if peaks { high * 2.0 } else { usual }, busy)] {
                let until = (Instant::now() + Duration::from_secs_f64(seconds * (0.5 + random.f64()))).min(end);
                while Instant::now() < until {
                    let pause = -random.f64().max(1e-9).ln() / rate.max(0.05);
                    let next = (Instant::now() + Duration::from_secs_f64(pause)).min(until);
                    sleep_and_scrape(next, &world, &mut scrapers).await;
                    let call = ApiRequest::get("/v1/users/count", Source::Gateway);
                    world.outbound.request(&call, Duration::from_secs(5)).await.unwrap();
                }
            }
        }
        // The last windows close and are scraped.
        sleep_and_scrape(end + Duration::from_secs(150), &world, &mut scrapers).await;
        let truth = world.simulator.truth();
        let low_ends = truth.instances[0].bucket(clerk_simulator::SimulatedBucket::Instance).unwrap().windows.iter();
        let low_ends = low_ends.filter(|window| window.least_remaining * 10 < window.limit);
        Pattern {
            low_ends: low_ends.map(|window| seconds(window.end)).collect(),
            scraped: scrapers.into_iter().map(|scraper| scraper.samples).collect(),
            end: seconds(world.outbound.clock.wall()),
        }
    })
}

struct Scraper {
    interval: Duration,
    next: Instant,
    samples: Vec<Sample>,
}

async fn sleep_and_scrape(until: Instant, world: &World, scrapers: &mut [Scraper]) {
    while let Some(scraper) = scrapers.iter_mut().min_by_key(|scraper| scraper.next).filter(|it| it.next <= until) {
        tokio::time::sleep_until(scraper.next).await;
        scraper.next += scraper.interval;
        let snapshot = world.snapshot();
        let bucket = snapshot.bucket(Bucket::Instance).unwrap();
        scraper.samples.push(Sample {
            at: seconds(world.outbound.clock.wall()),
            low_windows: bucket.low_windows,
            remaining: bucket.remaining,
            limit: bucket.limit.unwrap(),
        });
    }
    tokio::time::sleep_until(until).await;
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}
