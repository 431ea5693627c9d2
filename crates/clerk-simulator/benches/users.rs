//! Requests to a simulator with 500 and with 50 000 users, and how much longer the larger one takes. What needs no scan
//! takes the same time.

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![expect(clippy::print_stdout, reason = "the ratios are its result")]

use std::hint::black_box;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use clerk_simulator::{Options, SimulatedBucket, Simulator};
use criterion::{BenchmarkId, Criterion};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tower::ServiceExt as _;

const SIZES: [u32; 2] = [500, 50_000];
/// Rounds of which the fastest counts, and requests in each.
const ROUNDS: usize = 20;
const REQUESTS: u32 = 100;

/// A simulator, and the requests that are measured.
struct World {
    router: Router,
    ids: Vec<String>,
    email: String,
}

impl World {
    fn new(runtime: &Runtime, users: u32) -> Self {
        let limits = SimulatedBucket::ALL.map(|bucket| format!("{bucket}=4000000000/1h").parse().unwrap());
        let options = Options::default().users(users).limits(limits.to_vec()).kept_events(0).kept_windows(0);
        let (simulator, router) = runtime.block_on(async {
            let simulator = Simulator::new(options);
            let router = simulator.router();
            (simulator, router)
        });
        let ids = (0..100).map(|number| simulator.user_id(number * (users / 100)).unwrap()).collect();
        let mut world = Self { router, ids, email: String::new() };
        // Some deleted and created users, as in a suite that has run for a while.
        for number in 0..100 {
            let id = simulator.user_id(number * (users / 100) + 1).unwrap();
            runtime.block_on(world.send(Method::DELETE, &format!("/v1/users/{id}"), None));
        }
        let user = runtime.block_on(world.send(Method::GET, &format!("/v1/users/{}", world.ids[7]), None));
        user["email_addresses"][0]["email_address"].as_str().unwrap().clone_into(&mut world.email);
        world
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let request = Request::builder().method(method).uri(path).header("authorization", "Bearer sk_test_bench");
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let response = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        serde_json::from_slice(&to_bytes(response.into_body(), 64 << 20).await.unwrap()).unwrap()
    }

    async fn run(&self, operation: &str) {
        let get = async |path: &str| drop(black_box(self.send(Method::GET, path, None).await));
        match operation {
            "get" => get(&format!("/v1/users/{}", self.ids[50])).await,
            "count" => get("/v1/users/count").await,
            "page of 10" => get("/v1/users?limit=10&offset=200").await,
            "100 ids" => get(&format!("/v1/users?limit=100&user_id={}", self.ids.join(","))).await,
            "e-mail address" => get(&format!("/v1/users?email_address={}", self.email)).await,
            "create and delete" => {
                let body = json!({"email_address": ["bench@example.org"], "username": "bench"});
                let user = self.send(Method::POST, "/v1/users", Some(body)).await;
                self.send(Method::DELETE, &format!("/v1/users/{}", user["id"].as_str().unwrap()), None).await;
            }
            _ => panic!("{operation}"),
        }
    }

    /// The time of one operation in the fastest round.
    async fn fastest(&self, operation: &str) -> Duration {
        let mut fastest = Duration::MAX;
        for _ in 0..ROUNDS {
            let started = Instant::now();
            for _ in 0..REQUESTS {
                self.run(operation).await;
            }
            fastest = fastest.min(started.elapsed() / REQUESTS);
        }
        fastest
    }
}

const OPERATIONS: [&str; 6] = ["get", "count", "page of 10", "100 ids", "e-mail address", "create and delete"];

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let worlds = SIZES.map(|users| World::new(&runtime, users));
    println!("{:20} {:>12} {:>12} {:>6}", "operation", SIZES[0], SIZES[1], "ratio");
    for operation in OPERATIONS {
        let [small, large] = worlds.each_ref().map(|world| runtime.block_on(world.fastest(operation)));
        let ratio = large.as_secs_f64() / small.as_secs_f64();
        println!("{operation:20} {small:>12.1?} {large:>12.1?} {ratio:>6.2}");
    }
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("simulator");
    for (users, world) in SIZES.iter().zip(&worlds) {
        for operation in OPERATIONS {
            group.bench_function(BenchmarkId::new(operation, users), |bencher| {
                bencher.iter(|| runtime.block_on(world.run(operation)));
            });
        }
    }
    group.finish();
    criterion.final_summary();
}
