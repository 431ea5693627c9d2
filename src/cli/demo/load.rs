//! Load of the demo: applications that come close to their limits.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_body_util::BodyExt;
use tokio::time::Instant;

use super::spans::SpanBuffer;
use clerk_client::transport::{RequestBody, ReqwestTransport, Transport};
use clerk_quota::clock::Clock;

/// An instance of the demo and its application.
pub(super) struct Application {
    pub(super) name: &'static str,
    pub(super) key: &'static str,
    limit: u32,
    /// Share of the limit that the application uses, window after window.
    use_per_window: [f64; 6],
    /// How the exporter sees its requests.
    pub(super) visibility: Visibility,
}

/// How the exporter sees the requests of an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Visibility {
    /// All pass through the gateway.
    Gateway,
    /// Those of the job do not, so that the gateway sees another client.
    PartOfGateway,
    /// None passes through the gateway, and Clerk sends no quota headers: the application's traces show them.
    Traces,
}

/// User agents of the callers: a website, and a job in another language.
const CALLERS: [&str; 2] = ["@clerk/backend@3.1.0", "clerk-backend-api/5.0.0 python"];

/// The keys are valid only for the simulator.
pub(super) const APPLICATIONS: [Application; 3] = [
    Application {
        name: "production",
        key: "sk_live_simulatedProductionInstance",
        limit: 1000,
        use_per_window: [0.45, 0.7, 0.93, 0.97, 0.8, 0.6],
        visibility: Visibility::Gateway,
    },
    Application {
        name: "development",
        key: "sk_test_simulatedDevelopmentInstance",
        limit: 100,
        use_per_window: [0.3, 0.95, 1.2, 0.5, 0.85, 0.2],
        visibility: Visibility::PartOfGateway,
    },
    Application {
        name: "storefront",
        key: "sk_test_simulatedStorefrontInstance",
        limit: 100,
        use_per_window: [0.4, 0.6, 0.93, 0.5, 0.97, 0.7],
        visibility: Visibility::Traces,
    },
];

/// Requests come in the first part of each window, so that the remaining quota stays low for a while.
const BUSY_PART: f64 = 0.6;
const WINDOW: Duration = Duration::from_secs(10);

/// Sends the requests of an application, aligned with the windows of the simulated limiter. Each caller has a base URL.
pub(super) async fn load(
    application: Application,
    bases: [String; 2],
    users: Arc<[String]>,
    upstream: Arc<ReqwestTransport>,
    spans: Option<SpanBuffer>,
) {
    let mut random = fastrand::Rng::with_seed(1);
    tokio::time::sleep(until_next_window(Clock::new().wall())).await;
    let mut window_end = Instant::now();
    for part in application.use_per_window.into_iter().cycle() {
        window_end += WINDOW;
        let count = (f64::from(application.limit) * part).max(1.0);
        let pause = WINDOW.mul_f64(BUSY_PART / count);
        let mut next = Instant::now();
        while next < window_end - WINDOW.mul_f64(1.0 - BUSY_PART) {
            tokio::time::sleep_until(next).await;
            next += pause;
            let user = random.choice(users.iter()).map_or("unknown", String::as_str);
            let (path, caller) = match random.u32(..10) {
                0 => ("/v1/users?limit=20".to_owned(), 0),
                1 => ("/v1/users/count".to_owned(), 1),
                _ => (format!("/v1/users/{user}"), 0),
            };
            let (base, caller) = (&bases[caller], CALLERS[caller]);
            // The key set does not count against the quota.
            let keys = (random.u32(..20) == 0).then(|| "/v1/jwks".to_owned());
            for path in keys.into_iter().chain([path]) {
                let url = format!("{base}{path}");
                let started = spans.as_ref().map(SpanBuffer::now);
                let request = http::Request::get(&url)
                    .header(http::header::AUTHORIZATION, format!("Bearer {}", application.key))
                    .header(http::header::USER_AGENT, caller)
                    .body(RequestBody::empty());
                // The load ignores responses, as an application does that causes 429s.
                let Ok(request) = request else { continue };
                let response = upstream.send(request).await;
                let status = response.as_ref().ok().map(|response| response.status().as_u16());
                if let Ok(response) = response {
                    let _ = response.into_body().collect().await;
                }
                if let Some((spans, started)) = spans.as_ref().zip(started) {
                    spans.record(&http::Method::GET, &url, started, status);
                }
            }
        }
        tokio::time::sleep_until(window_end).await;
    }
}

/// Time until the next whole window since the UNIX epoch.
fn until_next_window(now: SystemTime) -> Duration {
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let window_millis = WINDOW.as_millis();
    let passed = since_epoch.as_millis() % window_millis;
    Duration::from_millis(u64::try_from(window_millis - passed).unwrap_or_default())
}
