//! The one path to Clerk: whoever asks Clerk something, asks here, so that every answer reaches the ledger.
//!
//! [`Outbound::request`] is one attempt: a request is signed with the instance's key, sent once, and its answer turned into
//! an observation. [`Outbound::send`] is what applications want: it waits until the rate limit has room ([`limiter`]), sends
//! again what may be sent again ([`retry`]), and makes of each attempt one observation. [`Outbound::open`] is the same
//! with a body that is read as a stream, and [`Outbound::forward`] the same for requests that are not ours.

mod account;
mod api_request;
mod attempt;
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

use crate::limiter::{self, DistributedLimiter};
use attempt::BodyMode;
use request::OutboundRequest;

/// Largest body that is read into memory, after decompression.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// The way to one Clerk instance.
///
/// Over the simulator, without a network:
///
/// ```
/// use std::sync::Arc;
///
/// use clerk_quota::clock::Clock;
/// use clerk_client::outbound::{ApiRequest, Outbound, RequestOptions};
/// use clerk_quota::ledger::Ledger;
/// use clerk_quota::{Coverage, Environment, Settings, Source};
/// use clerk_client::secret::{KeySource, Secret, SecretSource};
/// use clerk_simulator::Simulator;
/// use clerk_client::transport::MemoryTransport;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let ledger = Ledger::new([Settings {
///     name: "default".into(),
///     environment: Environment::Development,
///     api_host: "clerk.test".into(),
///     limit: None, // Clerk's documented one.
///     users_limit: None,
///     low_threshold: 0.1,
///     stale_after: std::time::Duration::from_secs(60),
///     sources: vec![Source::Client],
///     coverage: Coverage::Sole,
/// }]);
/// let outbound = Outbound::new(
///     MemoryTransport::new(Simulator::new(Default::default()).router()),
///     "http://clerk.test".to_owned(),
///     Arc::new(KeySource::new(SecretSource::Inline(Secret::new("sk_test_simulated".to_owned())))),
///     ledger.instance("default").ok_or("no such instance")?,
///     Arc::new(Clock::new()),
/// );
/// let answer = outbound.send(&ApiRequest::get("/v1/users/count", Source::Client), &RequestOptions::default()).await?;
/// assert_eq!((answer.status.as_u16(), answer.observation.quota.remaining), (200, Some(99)));
/// assert_eq!(outbound.limits.stats().attempts, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Outbound {
    /// What carries requests.
    pub transport: Arc<dyn Transport>,
    /// Scheme and authority of the Backend API, such as `https://api.clerk.com`, and a path prefix if there is one;
    /// without `/v1` and without a slash at its end.
    pub base: String,
    /// The instance's key.
    pub key: Arc<KeySource>,
    /// Where observations go.
    pub ledger: Handle,
    /// The time.
    pub clock: Arc<Clock>,
    /// What all requests to the instance share: pacer and retry budget. Keep it when the configuration is reloaded.
    pub limits: Arc<InstanceLimits>,
}

impl Outbound {
    /// A way with a pacer of its own, for the limit that the ledger's instance is configured with.
    #[must_use]
    pub fn new(
        transport: Arc<dyn Transport>,
        base: String,
        key: Arc<KeySource>,
        ledger: Handle,
        clock: Arc<Clock>,
    ) -> Self {
        let limits = Arc::new(InstanceLimits::new(pace_options(&ledger), Arc::clone(&clock)));
        Self { transport, base, key, ledger, clock, limits }
    }

    /// The same way with a pacer of its own that spends the limit together with other processes.
    #[must_use]
    pub fn sharing(self, budget: Arc<dyn DistributedLimiter>) -> Self {
        let limits = Arc::new(InstanceLimits::sharing(pace_options(&self.ledger), Arc::clone(&self.clock), budget));
        Self { limits, ..self }
    }

    /// Sends a request once, without waiting for the rate limit, and reads the whole answer, all within `deadline`. What
    /// it teaches is recorded, and the pacer counts it.
    ///
    /// # Errors
    /// When there is no complete answer. An answer of which only the head came is recorded all the same.
    pub async fn request(&self, call: &ApiRequest, deadline: Duration) -> Result<BufferedResponse, RequestError> {
        let until = Instant::now() + deadline;
        let mut outbound_request = OutboundRequest::of(call);
        let route = outbound_request.route;
        let permit = self.limits.limiter.pass(self.bucket_of(route), route.entity);
        let response = self.attempt(&mut outbound_request, permit, BodyMode::Whole, until, deadline).await?;
        let response = StreamingResponse::from(*response);
        timeout_at(until, response.collect()).await.map_err(|_| RequestError::Timeout(deadline))?
    }
}

/// How an instance of the ledger is paced.
fn pace_options(ledger: &Handle) -> limiter::LimiterOptions {
    let ledger = ledger.lock();
    let settings = ledger.settings();
    limiter::LimiterOptions {
        limit: settings.limit,
        environment: settings.environment,
        ..limiter::LimiterOptions::default()
    }
}
