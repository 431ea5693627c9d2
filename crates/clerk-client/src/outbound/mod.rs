//! The only path to Clerk's API, so that every response is recorded in the ledger.
//!
//! - [`Outbound::request`] makes one attempt, without waiting for the limit and without retries.
//! - [`Outbound::send`] waits for the limit ([`limiter`]) and retries ([`retry`]). Most applications use this.
//! - [`Outbound::open`] does the same and streams the body.
//! - [`Outbound::forward`] does the same for a client's request.
//!
//! Every attempt records one observation.

mod account;
mod api_request;
mod attempt;
mod attempt_log;
mod error;
mod error_body;
mod execute;
mod forward;
mod instance_limits;
mod media_type;
mod observe;
mod options;
mod replay;
mod request;
mod response;
pub mod retry;
mod retry_budget;
mod write_outcome;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

pub use account::{AttemptGuard, AttemptJournal};
pub use api_request::{ApiRequest, Credentials, ForwardRequest};
pub use attempt_log::{AttemptAnswer, AttemptEntry, AttemptLog, AttemptStart, RequestMembers};
pub(crate) use error::no_response;
pub use error::{Phase, RequestError, SendError};
pub use error_body::{ErrorBody, ErrorItem};
pub use instance_limits::{InstanceLimits, RequestStats};
pub use options::{ExecuteOptions, QueueOptions, RequestOptions};
pub use response::{BufferedResponse, ForwardedResponse, StreamingResponse, UpstreamBody, UpstreamResponse, read_body};
pub use retry_budget::RetryBudget;
pub use write_outcome::WriteOutcome;

use crate::secret::KeySource;
use crate::transport::Transport;
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Handle;

use crate::limiter::{self, DistributedLimiter, Priority};
use attempt::BodyMode;
use request::OutboundRequest;

/// Largest body read into memory, in bytes after decompression.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// A client for one Clerk instance.
///
/// Example against the simulator, without a network:
///
/// ```
/// use std::sync::Arc;
///
/// use clerk_quota::clock::Clock;
/// use clerk_client::outbound::{ApiRequest, Outbound, RequestOptions};
/// use clerk_quota::ledger::Ledger;
/// use clerk_quota::{Coverage, Environment, Settings, Source};
/// use clerk_client::secret::{KeySource, Secret, SecretSource};
/// use clerk_simulator::{HeaderProfile, Options, Simulator};
/// use clerk_client::transport::MemoryTransport;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let ledger = Ledger::new([Settings {
///     name: "default".into(),
///     environment: Environment::Development,
///     api_host: "clerk.test".into(),
///     limit: None, // Use Clerk's documented limit.
///     users_limit: None,
///     low_threshold: 0.1,
///     stale_after: std::time::Duration::from_secs(60),
///     sources: vec![Source::Client],
///     coverage: Coverage::Sole,
///     lateness: None,
/// }]);
/// let simulator = Simulator::new(Options::default().headers(HeaderProfile::XRateLimit));
/// let outbound = Outbound::new(
///     MemoryTransport::new(simulator.router()),
///     "http://clerk.test".to_owned(),
///     Arc::new(KeySource::new(SecretSource::Inline(Secret::new("sk_test_simulated".to_owned())))),
///     ledger.instance("default").ok_or("no such instance")?,
///     Arc::new(Clock::new()),
/// );
/// let request = ApiRequest::get("/v1/users/count", Source::Client);
/// let response = outbound.send(&request, &RequestOptions::default()).await?;
/// assert_eq!((response.status.as_u16(), response.observation.quota.remaining), (200, Some(99)));
/// assert_eq!(outbound.limits.stats().attempts, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Outbound {
    /// The transport that sends requests.
    pub transport: Arc<dyn Transport>,
    /// Scheme, authority and optional path prefix of the Backend API, such as `https://api.clerk.com`;
    /// without `/v1` and without a trailing slash.
    pub base: String,
    /// The instance's key.
    pub key: Arc<KeySource>,
    /// The instance's ledger, which records observations.
    pub ledger: Handle,
    /// The source of time.
    pub clock: Arc<Clock>,
    /// Limiter and retry budget, shared by all requests to the instance. Keep it across configuration reloads.
    pub limits: Arc<InstanceLimits>,
    /// Takes note of every attempt, if set.
    pub log: Option<Arc<dyn AttemptLog>>,
}

impl Outbound {
    /// Creates a client with its own limiter, for the limit configured for the ledger's instance.
    #[must_use]
    pub fn new(
        transport: Arc<dyn Transport>,
        base: String,
        key: Arc<KeySource>,
        ledger: Handle,
        clock: Arc<Clock>,
    ) -> Self {
        let limits = Arc::new(InstanceLimits::new(pace_options(&ledger), Arc::clone(&clock)));
        Self { transport, base, key, ledger, clock, limits, log: None }
    }

    /// Replaces the limiter by one that shares the limit with other processes through `budget`.
    #[must_use]
    pub fn sharing(self, budget: Arc<dyn DistributedLimiter>) -> Self {
        let limits = Arc::new(InstanceLimits::sharing(pace_options(&self.ledger), Arc::clone(&self.clock), budget));
        Self { limits, ..self }
    }

    /// Sends a request once, without waiting for the rate limit, and reads the whole response within `deadline`.
    ///
    /// The ledger and the limiter record the request and its response.
    ///
    /// # Errors
    /// Returns an error if no complete response arrives. A response whose head arrived is recorded anyway.
    pub async fn request(&self, call: &ApiRequest, deadline: Duration) -> Result<BufferedResponse, RequestError> {
        let until = Instant::now() + deadline;
        let mut outbound_request = OutboundRequest::of(call);
        let route = outbound_request.route;
        let permit = self.limits.limiter.pass(self.bucket_of(route), route.entity, Priority::High);
        let response = self.attempt(&mut outbound_request, permit, BodyMode::Whole, until, deadline).await?;
        let response = StreamingResponse::from(*response);
        timeout_at(until, response.collect()).await.map_err(|_| RequestError::Timeout(deadline))?
    }
}

/// Limiter options for the ledger's instance.
fn pace_options(ledger: &Handle) -> limiter::LimiterOptions {
    let ledger = ledger.lock();
    let settings = ledger.settings();
    limiter::LimiterOptions {
        limit: settings.limit,
        environment: settings.environment,
        ..limiter::LimiterOptions::default()
    }
}
