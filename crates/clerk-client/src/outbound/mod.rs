//! The one path to Clerk: whoever asks Clerk something, asks here, so that every answer reaches the ledger.
//!
//! [`Outbound::call`] is one attempt: a request is signed with the instance's key, sent once, and its answer turned into
//! an observation. [`Outbound::send`] is what applications want: it waits until the rate limit has room ([`pace`]), sends
//! again what may be sent again ([`retry`]), and makes of each attempt one observation. [`Outbound::open`] is the same
//! with a body that is read as a stream, and [`Outbound::relay`] the same for requests that are not ours.

mod attempt;
mod error_body;
mod execute;
mod forward;
mod instance_limits;
mod observe;
mod request;
mod response;
pub mod retry;
mod retry_budget;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::time::{Instant, timeout_at};

pub use attempt::UpstreamResponse;
pub use error_body::{ErrorBody, ErrorItem};
pub use execute::{RequestOptions, SendError};
pub use forward::{Credentials, ExecuteOptions, ForwardRequest, ForwardedResponse, QueueOptions};
pub use instance_limits::{InstanceLimits, RequestStats};
pub use response::{BufferedResponse, StreamingResponse, UpstreamBody};
pub use retry_budget::RetryBudget;

use crate::secret::{KeySource, SecretError};
use crate::transport::{ErrorKind, Transport, TransportError};
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Handle;
use clerk_quota::{Route, Source, route};
pub use response::read_body;

use crate::limiter::{self, DistributedLimiter};
use attempt::BodyMode;
use request::OutboundRequest;
use retry::Idempotency;

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
/// use clerk_client::outbound::{Call, Outbound, Policy};
/// use clerk_quota::ledger::Ledger;
/// use clerk_quota::{Environment, Limit, Settings, Source};
/// use clerk_client::secret::{KeySource, Secret, SecretSource};
/// use clerk_simulator::Simulator;
/// use clerk_client::upstream::MemoryUpstream;
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
/// }]);
/// let outbound = Outbound::new(
///     MemoryUpstream::new(Simulator::new(Default::default()).router()),
///     "http://clerk.test".to_owned(),
///     Arc::new(KeySource::new(SecretSource::Inline(Secret::new("sk_test_simulated".to_owned())))),
///     ledger.instance("default").ok_or("no such instance")?,
///     Arc::new(Clock::new()),
/// );
/// let answer = outbound.send(&Call::get("/v1/users/count", Source::Client), &Policy::default()).await?;
/// assert_eq!((answer.status.as_u16(), answer.observation.quota.remaining), (200, Some(99)));
/// assert_eq!(outbound.flow.numbers().attempts, 1);
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

/// A request to the Backend API.
///
/// ```
/// use clerk_client::outbound::Call;
/// use clerk_client::outbound::retry::Repeat;
/// use clerk_quota::Source;
/// use http::Method;
///
/// assert_eq!(Call::get("/v1/users?limit=1", Source::Client).repeat, Repeat::Always);
/// // A write is sent once, unless whoever makes it says that a refused one may be sent again.
/// let write = Call::new(Method::POST, "/v1/invitations", Source::Client);
/// assert_eq!(write.repeat, Repeat::Never);
/// let write = Call { repeat: Repeat::IfRefused, ..write };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiRequest {
    /// The method.
    pub method: Method,
    /// Path and query, beginning with `/v1`.
    pub path: String,
    /// Further headers. `Authorization` and `Host` are ours and are left out; without an `Accept`, JSON is asked for.
    pub headers: HeaderMap,
    /// The body; the same bytes on each attempt.
    pub body: Bytes,
    /// Which failures allow it to be sent again.
    pub idempotency: Idempotency,
    /// Who asks.
    pub source: Source,
}

impl ApiRequest {
    /// A request without a body and without further headers, repeated as its method allows ([`Repeat::of`]).
    #[must_use]
    pub fn new(method: Method, path: impl Into<String>, source: Source) -> Self {
        let idempotency = Idempotency::of(&method);
        Self { method, path: path.into(), headers: HeaderMap::new(), body: Bytes::new(), idempotency, source }
    }

    /// A GET request.
    #[must_use]
    pub fn get(path: impl Into<String>, source: Source) -> Self {
        Self::new(Method::GET, path, source)
    }

    fn route(&self) -> Route {
        route::find(self.method.as_str(), self.path.as_bytes())
    }
}

/// Why there is no complete answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The key cannot be read; nothing was sent.
    #[error("{0}")]
    Key(#[from] SecretError),
    /// The request cannot be formed; nothing was sent.
    #[error("not a valid request: {0}")]
    Request(#[from] http::Error),
    /// No answer, or a broken one.
    #[error("{0}")]
    Upstream(#[from] TransportError),
    /// The deadline passed first.
    #[error("no complete answer within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// The body is larger than [`MAX_BODY_BYTES`].
    #[error("the answer's body is larger than {MAX_BODY_BYTES} bytes")]
    BodyTooLarge {
        /// Status of the answer.
        status: StatusCode,
    },
}

/// How far a request got that has no complete answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It never left: it was not executed.
    Connect,
    /// It left, or may have: nobody knows whether it was executed.
    Sent,
    /// The head of the answer came: it was executed, or refused.
    Answered,
}

impl RequestError {
    /// How far the request got. A broken or late answer counts as [`Phase::Sent`]: its status may be unknown.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        match self {
            Self::Key(_) | Self::Request(_) => Phase::Connect,
            Self::Upstream(error) if is_unsent(error.kind()) => Phase::Connect,
            Self::Upstream(_) | Self::Timeout(_) => Phase::Sent,
            Self::BodyTooLarge { .. } => Phase::Answered,
        }
    }
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
        let flow = Arc::new(InstanceLimits::sharing(pace_options(&self.ledger), Arc::clone(&self.clock), budget));
        Self { limits: flow, ..self }
    }

    /// Sends a request once, without waiting for the rate limit, and reads the whole answer, all within `deadline`. What
    /// it teaches is recorded, and the pacer counts it.
    ///
    /// # Errors
    /// When there is no complete answer. An answer of which only the head came is recorded all the same.
    pub async fn request(&self, call: &ApiRequest, deadline: Duration) -> Result<BufferedResponse, RequestError> {
        let until = Instant::now() + deadline;
        let mut outgoing = OutboundRequest::of(call);
        let permit = self.limits.limiter.pass(outgoing.route.bucket, outgoing.route.entity);
        let opened = self.attempt(&mut outgoing, permit, BodyMode::Whole, until, deadline).await?;
        let reply = StreamingResponse::from(*opened);
        timeout_at(until, reply.collect()).await.map_err(|_| RequestError::Timeout(deadline))?
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

/// Whether a request surely did not leave.
const fn is_unsent(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Dns | ErrorKind::Connect | ErrorKind::Tls)
}

/// Whether a body claims to be JSON: `application/json`, or a type that ends in `+json`, with any parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let (begin, end) = (b"application/", b"+json");
    essence.eq_ignore_ascii_case(b"application/json")
        || (essence.len() >= begin.len() + end.len()
            && essence[..begin.len()].eq_ignore_ascii_case(begin)
            && essence[essence.len() - end.len()..].eq_ignore_ascii_case(end))
}
