//! The one path to Clerk: whoever asks Clerk something, asks here, so that every answer reaches the ledger.
//!
//! A request is signed with the instance's key, sent once, and its answer turned into an observation.

mod error_body;
mod observe;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

pub use error_body::{ClerkError, ErrorBody};

use crate::clock::Clock;
use crate::quota::ledger::Handle;
use crate::quota::{Observation, Source, route};
use crate::secret::{KeySource, SecretError};
use crate::upstream::{Body, Upstream, UpstreamError};

/// Largest body that is read into memory, after decompression.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// The way to one Clerk instance.
#[derive(Debug)]
pub struct Outbound {
    /// What carries requests.
    pub upstream: Arc<dyn Upstream>,
    /// Scheme and authority of the Backend API, such as `https://api.clerk.com`, and a path prefix if there is one;
    /// without `/v1` and without a slash at its end.
    pub base: String,
    /// The instance's key.
    pub key: Arc<KeySource>,
    /// Where observations go.
    pub ledger: Handle,
    /// The time.
    pub clock: Arc<Clock>,
}

/// A request to the Backend API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// Path and query, beginning with `/v1`.
    pub path: String,
    /// Who asks.
    pub source: Source,
}

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// The body, decompressed.
    pub body: Bytes,
    /// What the ledger was told.
    pub observation: Observation,
    /// Clerk's errors, where the body holds any.
    pub errors: ErrorBody,
}

/// Why there is no complete answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The key cannot be read; nothing was sent.
    #[error("{0}")]
    Key(#[from] SecretError),
    /// The request cannot be formed; nothing was sent.
    #[error("not a valid request: {0}")]
    Request(#[from] http::Error),
    /// No answer, or a broken one.
    #[error("{0}")]
    Upstream(#[from] UpstreamError),
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

impl Outbound {
    /// Sends a request and reads the whole answer, all within `deadline`. What it teaches is recorded.
    ///
    /// # Errors
    /// When there is no complete answer. An answer of which only the head came is recorded all the same.
    pub async fn call(&self, call: &Call, deadline: Duration) -> Result<Answer, CallError> {
        let until = Instant::now() + deadline;
        let request = self.request(call)?;
        let expired = |_| CallError::Timeout(deadline);
        let response = timeout_at(until, self.upstream.send(request)).await.map_err(expired)??;
        let (at, wall) = (self.clock.now(), self.clock.wall());
        let (head, body) = response.into_parts();
        let read = timeout_at(until, read_body(body)).await.map_err(expired).and_then(|read| match read {
            Ok(Some(body)) => Ok(body),
            Ok(None) => Err(CallError::BodyTooLarge { status: head.status }),
            Err(error) => Err(error.into()),
        });
        let errors = ErrorBody::parse(head.status, read.as_deref().unwrap_or_default());
        let route = route::find(call.method.as_str(), call.path.as_bytes());
        let observation = observe::observe(&head, read.as_deref().ok(), &errors, call.source, route, at, wall);
        self.ledger.lock().record(&observation);
        let body = read?;
        Ok(Answer { status: head.status, headers: head.headers, body, observation, errors })
    }

    fn request(&self, call: &Call) -> Result<http::Request<Bytes>, CallError> {
        let key = self.key.current()?;
        let uri = format!("{}{}", self.base, call.path);
        let mut request = http::Request::builder().method(call.method.clone()).uri(uri).body(Bytes::new())?;
        request.headers_mut().insert(AUTHORIZATION, key.authorization_header());
        request.headers_mut().insert(http::header::ACCEPT, http::HeaderValue::from_static("application/json"));
        Ok(request)
    }
}

impl Answer {
    /// Whether the body claims to be JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        is_json(&self.headers)
    }
}

/// Whether a body claims to be JSON: `application/json`, or a type that ends in `+json`, with any parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// The whole body; `None` if it is too large. Reads no further than the cap.
async fn read_body(mut body: Body) -> Result<Option<Bytes>, UpstreamError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if whole.len() + data.len() > MAX_BODY_BYTES {
                return Ok(None);
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(Some(whole.freeze()))
}
