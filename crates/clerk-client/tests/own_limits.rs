//! A route with its own tighter limit, sent in the instance limit's headers, throttles only itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use clerk_client::limiter::Priority;
use clerk_client::outbound::retry::RetryPolicy;
use clerk_client::outbound::{ApiRequest, Outbound, RequestOptions, SendError};
use clerk_client::secret::{KeySource, Secret, SecretSource};
use clerk_client::transport::{RequestBody, ResponseFuture, Transport};
use clerk_quota::ledger::Ledger;
use clerk_quota::{Bucket, Source};
use clerk_test_support::{KEY, settings};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use tokio::time::Instant;

const WINDOW: u64 = 10;

/// A server that allows 100 requests in 10 s, and 5 for organizations.
#[derive(Debug)]
struct Server {
    began: Instant,
    /// Number of the current window, all its requests, and those for organizations.
    used: Mutex<(u64, u64, u64)>,
    rejected: Mutex<u64>,
}

impl Transport for Server {
    fn send(&self, request: http::Request<RequestBody>) -> ResponseFuture {
        let is_own = request.uri().path() == "/v1/organizations";
        let elapsed = self.began.elapsed();
        let window = elapsed.as_secs() / WINDOW;
        let mut used = self.used.lock();
        if used.0 != window {
            *used = (window, 0, 0);
        }
        let (limit, count) = if is_own { (5, &mut used.2) } else { (100, &mut used.1) };
        *count += 1;
        let (remaining, is_rejected) = (u64::saturating_sub(limit, *count), *count > limit);
        *self.rejected.lock() += u64::from(is_rejected);
        let reset = (window + 1) * WINDOW - elapsed.as_secs();
        let body = Full::from("[]").map_err(|never| match never {}).boxed_unsync();
        let response = http::Response::builder()
            .status(if is_rejected { 429 } else { 200 })
            .header("content-type", "application/json")
            .header("x-ratelimit-limit", limit)
            .header("x-ratelimit-remaining", remaining)
            .header("x-ratelimit-reset", reset);
        let response = if is_rejected { response.header("retry-after", reset) } else { response };
        Box::pin(std::future::ready(Ok(response.body(body).unwrap())))
    }
}

fn outbound(server: &Arc<Server>) -> Outbound {
    let ledger = Ledger::new([settings("test")]);
    let key = Arc::new(KeySource::new(SecretSource::Inline(Secret::new(KEY.to_owned()))));
    let clock = Arc::new(clerk_quota::clock::Clock::simulated(clerk_test_support::start()));
    let transport: Arc<dyn Transport> = Arc::<Server>::clone(server);
    Outbound::new(transport, "http://clerk.test".to_owned(), key, ledger.instance("test").unwrap(), clock)
}

async fn get(outbound: &Outbound, path: &str) -> Result<u16, SendError> {
    let options = RequestOptions::default()
        .priority(Priority::High)
        .retry(RetryPolicy::default().max_retries(0))
        .max_queue_wait(Duration::from_millis(100));
    let response = outbound.send(&ApiRequest::get(path, Source::Client), &options).await?;
    Ok(response.status.as_u16())
}

#[tokio::test(start_paused = true)]
async fn exhausted_route_does_not_throttle_other_routes() {
    let server = Arc::new(Server { began: Instant::now(), used: Mutex::default(), rejected: Mutex::default() });
    let outbound = outbound(&server);
    assert_eq!(get(&outbound, "/v1/users").await.unwrap(), 200);
    for _ in 0..5 {
        assert_eq!(get(&outbound, "/v1/organizations").await.unwrap(), 200);
    }
    for _ in 0..30 {
        assert_eq!(get(&outbound, "/v1/users").await.unwrap(), 200);
    }
    // The route waits for its own window, without sending a request.
    assert!(matches!(get(&outbound, "/v1/organizations").await, Err(SendError::Shed(_))));
    assert_eq!(*server.rejected.lock(), 0);
    let now = outbound.clock.now();
    let snapshot = outbound.ledger.lock().snapshot(now);
    let instance = snapshot.bucket(Bucket::Instance).unwrap();
    assert_eq!((instance.limit, instance.remaining), (Some(100), Some(69)));
    let own = snapshot.buckets.iter().find(|bucket| bucket.bucket.as_str() == "route:GET /v1/organizations").unwrap();
    assert_eq!((own.limit, own.remaining), (Some(5), Some(0)));
    // The next window allows it again.
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(get(&outbound, "/v1/organizations").await.unwrap(), 200);
}
