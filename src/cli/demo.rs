//! The demo: a simulated Clerk, an application that uses it too much, and the exporter that watches.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use http_body_util::BodyExt;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::args::DemoArgs;
use crate::config::Config;
use clerk_client::transport::{self, RequestBody, ReqwestTransport, Transport};
use clerk_quota::clock::Clock;
use clerk_simulator::Simulator;
use prometheus_web::{ListenAddress, Listener, WebConfigSource};

/// One instance of the demo, and the part of its limit that its application uses in each window in turn.
struct Application {
    name: &'static str,
    key: &'static str,
    limit: u32,
    use_per_window: [f64; 6],
    /// Whether all of it talks to the gateway. If not, its job does not: requests of others, as the gateway sees it.
    is_all_behind_gateway: bool,
}

/// As who the application calls: a website, and a job of another language.
const CALLERS: [&str; 2] = ["@clerk/backend@3.1.0", "clerk-backend-api/5.0.0 python"];

/// The keys open nothing: they are the simulator's.
const APPLICATIONS: [Application; 2] = [
    Application {
        name: "production",
        key: "sk_live_simulatedProductionInstance",
        limit: 1000,
        use_per_window: [0.45, 0.7, 0.93, 0.97, 0.8, 0.6],
        is_all_behind_gateway: true,
    },
    Application {
        name: "development",
        key: "sk_test_simulatedDevelopmentInstance",
        limit: 100,
        use_per_window: [0.3, 0.95, 1.2, 0.5, 0.85, 0.2],
        is_all_behind_gateway: false,
    },
];

/// The application's requests come in the first part of each window, so that what is left stays low for a while.
const BUSY_PART: f64 = 0.6;
const WINDOW: Duration = Duration::from_secs(10);

/// The simulated Clerk, listening, and its load.
pub(super) struct Demo {
    listener: Listener,
    simulator: Simulator,
}

impl Demo {
    /// Binds the simulator's address.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub(super) async fn bind(args: &DemoArgs) -> anyhow::Result<Self> {
        let keys = APPLICATIONS
            .iter()
            .map(|application| format!("{}={}", application.name, application.key).parse())
            .collect::<Result<_, _>>()
            .context("the demo's own keys")?;
        let simulator = Simulator::new(clerk_simulator::Options::default().keys(keys));
        let listeners = prometheus_web::bind(&[ListenAddress::Socket(args.simulator_address)])
            .await
            .context("cannot start the simulated Clerk; choose another address with --simulator.listen-address")?;
        let listener = listeners.into_iter().next().context("no socket for the simulated Clerk")?;
        Ok(Self { listener, simulator })
    }

    /// Where the simulated Clerk is.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr())
    }

    /// The exporter's configuration.
    ///
    /// # Errors
    /// Never, unless the demo itself is broken.
    pub(super) fn config(&self, args: &DemoArgs) -> anyhow::Result<Config> {
        let interval = args.probe_interval.as_secs();
        let mut text = format!("probe: {{ interval: {interval}s }}\nusers: {{ interval: 1m }}\ninstances:\n");
        for Application { name, key, .. } in APPLICATIONS {
            let url = self.url();
            text.push_str(&format!(
                "  - {{ name: {name}, secret_key: {key}, api_url: \"{url}\", users_limit: 60000 }}\n"
            ));
        }
        text.push_str(&format!("gateway:\n  sole: true\n  listen_address: \"{}\"\n", args.gateway_address));
        // Most of what changes what an application sees is only counted, so that the load runs into its limit. Lists wait
        // for it, and keys are kept.
        text.push_str(
            "  allow_clear_text: true\n  policies:\n    retry: shadow\n    coalesce: shadow\n    batch: shadow\n    \
             cache: { mode: shadow, ttl: 10s }\n    \
             routes: { GET /v1/users: { pace: on }, GET /v1/jwks: { cache: { mode: on, ttl: 30s } } }\n",
        );
        Ok(Config::parse(&text, Path::new("demo.yml"), &|_| None)?)
    }

    /// Serves and loads the simulated Clerk until `stop`. `gateway` is where the gateway listens.
    pub(super) async fn run(self, gateway: String, stop: CancellationToken) -> anyhow::Result<()> {
        let clerk = self.url();
        let users: Arc<[String]> = (0..100).filter_map(|number| self.simulator.user_id(number)).collect();
        let upstream = ReqwestTransport::new(transport::ReqwestOptions::default())?;
        let mut tasks = JoinSet::new();
        for application in APPLICATIONS {
            let job = if application.is_all_behind_gateway { gateway.clone() } else { clerk.clone() };
            let (users, upstream) = (Arc::clone(&users), Arc::clone(&upstream));
            tasks.spawn(load(application, [gateway.clone(), job], users, upstream));
        }
        let options = prometheus_web::Options::default().name(super::SIMULATOR);
        let web_config = WebConfigSource::none();
        prometheus_web::serve(vec![self.listener], self.simulator.router(), options, web_config, stop).await;
        tasks.shutdown().await;
        Ok(())
    }
}

/// Calls Clerk as an application does, window after window, in step with the simulated limiter's windows.
/// Its callers have a base address each.
async fn load(application: Application, bases: [String; 2], users: Arc<[String]>, upstream: Arc<ReqwestTransport>) {
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
            // The key set costs no quota.
            let keys = (random.u32(..20) == 0).then(|| "/v1/jwks".to_owned());
            for path in keys.into_iter().chain([path]) {
                let request = http::Request::get(format!("{base}{path}"))
                    .header(http::header::AUTHORIZATION, format!("Bearer {}", application.key))
                    .header(http::header::USER_AGENT, caller)
                    .body(RequestBody::empty());
                // The load does not care for answers: it is the kind of application that gets into trouble.
                if let Ok(request) = request
                    && let Ok(response) = upstream.send(request).await
                {
                    let _ = response.into_body().collect().await;
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
