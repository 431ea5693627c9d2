//! Time to read all users and the 429s meanwhile: this crate compared with a common loop. Against the simulator in
//! simulated time, so the numbers are the same on every machine.

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clerk_client::clerk::{Clerk, RawUser};
use clerk_client::limiter;
use clerk_client::transport::{MemoryTransport, Transport};
use clerk_quota::{Environment, Limit};
use clerk_simulator::{Fault, HeaderProfile, Simulator};
use clerk_test_support::{KEY, World, in_simulated_time, start};
use http::Request;
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep};

const WINDOW: Duration = Duration::from_secs(10);

/// How users are read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    /// Page after page with a pause in between, retrying after the same pause after any error.
    Loop { pause: Duration },
    /// `Users::list_all`, leaving this share of the limit to others.
    Walk { reserve: f64 },
}

/// The users to read and the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task {
    pub(crate) users: u32,
    pub(crate) page: u16,
    /// The server's limit of requests in 10 s.
    pub(crate) limit: u64,
    /// Latency of each response.
    pub(crate) latency: Duration,
}

/// The result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) requests: u64,
    pub(crate) throttled: u64,
    pub(crate) time: Duration,
    /// The shortest possible time for sequential requests with the usable part of the limit.
    pub(crate) least: Duration,
}

impl Measured {
    /// Time beyond the minimum, in percent of it.
    pub(crate) fn over(&self) -> f64 {
        (self.time.as_secs_f64() / self.least.as_secs_f64() - 1.0) * 100.0
    }
}

pub(crate) fn measure(way: Way, task: Task) -> Measured {
    let measured = Cell::new(None);
    in_simulated_time(async {
        let options = clerk_simulator::Options::default()
            .users(task.users)
            .headers(HeaderProfile::XRateLimit)
            .base(Some(start()))
            .limits(vec![format!("instance={}/10s", task.limit).parse().unwrap()]);
        let faults = Fault::Latency { millis: u64::try_from(task.latency.as_millis()).unwrap() };
        let begin = |simulator: &Simulator| simulator.set_faults(faults.clone().always().into()).unwrap();
        let (simulator, users, time, may) = match way {
            Way::Loop { pause } => {
                let simulator = Simulator::new(options);
                begin(&simulator);
                let from = Instant::now();
                let users = repeat(&simulator, task.page, pause).await;
                (simulator, users, from.elapsed(), task.limit)
            }
            Way::Walk { reserve } => {
                let limit = Some(Limit { requests: task.limit, window: WINDOW });
                let environment = Environment::Development;
                let pace = limiter::LimiterOptions::default().limit(limit).environment(environment).reserve(reserve);
                let world = World::paced(options, pace);
                begin(&world.simulator);
                let from = Instant::now();
                let users = walk(&Clerk::with_transport(Arc::clone(&world.outbound)), task.page).await;
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of the limit")]
                let reserved = (task.limit as f64 * reserve).ceil() as u64;
                (world.simulator, users, from.elapsed(), task.limit - reserved)
            }
        };
        assert_eq!(users, u64::from(task.users), "all users, each once");
        let truth = simulator.truth().requests;
        let throttled = truth.by_status.get(&429).copied().unwrap_or_default();
        // The last page is the empty one.
        let needed = u64::from(task.users).div_ceil(task.page.into()) + 1;
        let least = least(needed, may, task.latency);
        measured.set(Some(Measured { requests: truth.total, throttled, time, least }));
    });
    measured.get().unwrap()
}

async fn walk(clerk: &Clerk, page: u16) -> u64 {
    let mut pages = clerk.users().list_all().page_size(page).raw();
    let mut users = 0;
    while let Some(page) = pages.try_next().await.unwrap() {
        users += page.users.len() as u64;
    }
    users
}

async fn repeat(simulator: &Simulator, page: u16, pause: Duration) -> u64 {
    let upstream = MemoryTransport::new(simulator.router());
    let mut users = 0;
    loop {
        let uri = format!("http://clerk.test/v1/users?limit={page}&offset={users}&order_by=created_at");
        let request = Request::get(uri).header("authorization", format!("Bearer {KEY}")).body(Bytes::new()).unwrap();
        let answer = upstream.send(request.map(Into::into)).await.unwrap();
        if answer.status().is_success() {
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let page: Vec<RawUser> = serde_json::from_slice(&body).unwrap();
            if page.is_empty() {
                return users;
            }
            users += page.len() as u64;
        }
        sleep(pause).await;
    }
}

/// Sequential requests: each after the response to the previous one, and a window after the one `may` before it.
fn least(requests: u64, may: u64, latency: Duration) -> Duration {
    let mut starts: Vec<Duration> = Vec::new();
    for number in 0..usize::try_from(requests).unwrap() {
        let answered = starts.last().map_or(Duration::ZERO, |last| *last + latency);
        let before = number.checked_sub(usize::try_from(may).unwrap());
        starts.push(before.map_or(Duration::ZERO, |before| starts[before] + WINDOW).max(answered));
    }
    starts.last().map_or(Duration::ZERO, |last| *last + latency)
}

#[expect(clippy::print_stdout, reason = "its result")]
fn main() {
    // As in criterion: without `--bench` only check that it runs.
    let users = if std::env::args().any(|argument| argument == "--bench") { 100_000 } else { 5_000 };
    println!("{users} users, in simulated time\n");
    println!("| limit | answers take | way | users a page | requests | 429s | seconds | least | beyond the least |");
    println!("|---|---|---|---|---|---|---|---|---|");
    let pause = Duration::from_millis(200);
    let ways = [
        ("loop, pause of 200 ms, blind retry", Way::Loop { pause }, 100),
        ("loop, pause of 20 ms, blind retry", Way::Loop { pause: pause / 10 }, 100),
        ("`list_all`, reserve 0", Way::Walk { reserve: 0.0 }, 100),
        ("`list_all`, reserve 0.1", Way::Walk { reserve: 0.1 }, 100),
        ("`list_all`, reserve 0", Way::Walk { reserve: 0.0 }, 500),
        ("`list_all`, reserve 0.1 (`users export`)", Way::Walk { reserve: 0.1 }, 500),
    ];
    for (limit, millis) in [(100, 0), (100, 80), (20, 80)] {
        for (name, way, page) in ways {
            let task = Task { users, page, limit, latency: Duration::from_millis(millis) };
            let measured = measure(way, task);
            let Measured { requests, throttled, time, least } = measured;
            println!(
                "| {limit} in 10 s | {millis} ms | {name} | {page} | {requests} | {throttled} | {:.1} | {:.1} | {:.1} % |",
                time.as_secs_f64(),
                least.as_secs_f64(),
                measured.over()
            );
        }
    }
}
