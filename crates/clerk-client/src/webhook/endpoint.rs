//! The webhook endpoint.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{MethodRouter, any};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, error, warn};

use super::dedupe::SeenDeliveries;
use super::event::{Event, EventKind};
use super::secrets::{Secrets, WebhookConfigError};
use super::signature::{Tolerance, VerifyError, verify};
use super::stats::{DeliveryOutcome, WebhookCounters, WebhookStats};
use super::{ExplainedError, Invalidate, WallClock, WebhookOptions};

/// Maximum time from a request's head to the response. Svix waits 15 s; the rest is for the network and proxies.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Maximum size of a body. Events have a few KiB, or some dozen KiB with much metadata.
pub const MAX_BODY_BYTES: usize = 256 * 1024;

/// The webhook endpoint of one Clerk instance. Clones share everything.
///
/// | response | when | Svix |
/// |---|---|---|
/// | 200 | processed, nothing to do, or processed before | is done |
/// | 400 | invalid headers, time or signature, or not an event | delivers again |
/// | 405 | not a POST | |
/// | 408, 413, 415 | the body is slow, larger than [`MAX_BODY_BYTES`], or has a content encoding | delivers again |
/// | 503 | the sink failed or took longer than [`ANSWER_WITHIN`] | delivers again |
///
/// The endpoint must see the body as sent: no middleware in front may decompress or parse bodies.
///
/// ```no_run
/// use axum::Router;
/// use clerk_client::secret::SecretSource;
/// use clerk_client::webhook::{Invalidate, InvalidateError, WebhookOptions, Tag, Webhooks};
///
/// struct Print;
///
/// impl Invalidate for Print {
///     async fn invalidate(&self, tags: &[Tag]) -> Result<(), InvalidateError> {
///         tracing::info!(?tags, "to invalidate");
///         Ok(())
///     }
/// }
///
/// let secret = SecretSource::Env("CLERK_WEBHOOK_SIGNING_SECRET".to_owned());
/// let webhooks = Webhooks::new(WebhookOptions::new(vec![secret]), Print)?;
/// let app: Router = Router::new().route("/webhooks/clerk", webhooks.handler());
/// # Ok::<(), clerk_client::webhook::WebhookConfigError>(())
/// ```
pub struct Webhooks<S> {
    inner: Arc<Inner<S>>,
}

struct Inner<S> {
    sink: S,
    secrets: Secrets,
    tolerance: Tolerance,
    wall_clock: WallClock,
    seen: Mutex<SeenDeliveries>,
    counters: WebhookCounters,
    /// Whether the last signature did not match: only the first mismatch in a row is logged.
    mismatch: AtomicBool,
}

/// A rejected delivery: how it is counted and the text for the sender.
struct DeliveryRejection {
    family: EventKind,
    outcome: DeliveryOutcome,
    text: String,
}

impl DeliveryRejection {
    /// Rejected before its type was read.
    fn unread(outcome: DeliveryOutcome, text: impl ToString) -> Self {
        Self { family: EventKind::Unread, outcome, text: text.to_string() }
    }
}

impl From<VerifyError> for DeliveryRejection {
    fn from(error: VerifyError) -> Self {
        Self::unread(error.into(), error)
    }
}

impl<S: Invalidate> Webhooks<S> {
    /// Creates an endpoint that passes tags to `sink`. Blocks on reading the secrets, which are small files.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no secret, or one is unreadable or unusable.
    pub fn new(options: WebhookOptions, sink: S) -> Result<Self, WebhookConfigError> {
        let WebhookOptions { secrets, tolerance, wall_clock, reloads } = options;
        let counters = WebhookCounters::new(secrets.len());
        let secrets = Secrets::load(secrets, &reloads)?;
        let seen = Mutex::new(SeenDeliveries::new(tolerance));
        let mismatch = AtomicBool::new(false);
        Ok(Self { inner: Arc::new(Inner { sink, secrets, tolerance, wall_clock, seen, counters, mismatch }) })
    }

    /// Returns the endpoint as a handler for all methods, for [`Router::route`] with the path configured in Clerk.
    pub fn handler<T: Clone + Send + Sync + 'static>(&self) -> MethodRouter<T> {
        let webhooks = self.clone();
        any(move |request: Request<Body>| {
            let webhooks = webhooks.clone();
            async move { webhooks.handle(request).await }
        })
    }

    /// Returns the endpoint as a router with the single route `/`, for nesting.
    pub fn router<T: Clone + Send + Sync + 'static>(&self) -> Router<T> {
        Router::new().route("/", self.handler())
    }

    /// Handles a request, see [`Webhooks`].
    pub async fn handle(&self, request: Request<Body>) -> Response<Body> {
        if request.method() != Method::POST {
            let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, "webhooks are delivered with POST".to_owned());
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        let (family, outcome, text) = match self.inner.receive(request).await {
            Ok((family, outcome)) => (family, outcome, outcome.as_str().to_owned()),
            Err(DeliveryRejection { family, outcome, text }) => {
                debug!(outcome = outcome.as_str(), reason = %text, "webhook refused");
                (family, outcome, text)
            }
        };
        self.inner.counters.count(family, outcome);
        respond(outcome.status(), text)
    }

    /// Reloads secrets whose files have changed or were unusable.
    ///
    /// Each delivery does so, too. Call it periodically to find an unusable secret before the next delivery. Blocks on
    /// checking each file.
    pub fn refresh_secrets(&self) {
        self.inner.secrets.current();
    }

    /// Returns the counters.
    #[must_use]
    pub fn stats(&self) -> WebhookStats {
        self.inner.counters.snapshot()
    }
}

impl<S: Invalidate> Inner<S> {
    async fn receive(&self, request: Request<Body>) -> Result<(EventKind, DeliveryOutcome), DeliveryRejection> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        let (head, body) = request.into_parts();
        // Svix signs the unencoded bytes and sends no encoded ones.
        if head.headers.contains_key(header::CONTENT_ENCODING) {
            return Err(DeliveryRejection::unread(
                DeliveryOutcome::Encoded,
                "content encodings are not supported; send the body unencoded",
            ));
        }
        let body = read_body(body, deadline).await?;
        // Read for each delivery: a removed secret must be rejected, and a new one accepted, at once.
        let secrets = self.secrets.current();
        let verified = verify(&secrets, self.tolerance, &head.headers, &body, (self.wall_clock)());
        self.note_mismatch(&verified.map(drop));
        let verified = verified?;
        self.counters.count_secret(verified.matched_secret);

        let event = Event::read(&body).map_err(|error| DeliveryRejection::unread(DeliveryOutcome::Malformed, error))?;
        drop(body);
        let family = event.kind;
        if self.seen.lock().contains(verified.id, Instant::now()) {
            debug!(id = verified.id, "duplicate webhook");
            return Ok((family, DeliveryOutcome::Duplicate));
        }
        let outcome = if event.tags.is_empty() { DeliveryOutcome::Ignored } else { DeliveryOutcome::Applied };
        if outcome == DeliveryOutcome::Applied {
            self.invalidate(&event, verified.id, deadline).await?;
        }
        debug!(id = verified.id, event_type = %event.event_type, tags = event.tags.len(), "webhook processed");
        // Two attempts for one message may have run concurrently; it counts once.
        let is_new = self.seen.lock().insert(verified.id, Instant::now());
        Ok((family, if is_new { outcome } else { DeliveryOutcome::Duplicate }))
    }

    async fn invalidate(&self, event: &Event, id: &str, deadline: Instant) -> Result<(), DeliveryRejection> {
        let refusal = |outcome, text: String| DeliveryRejection { family: event.kind, outcome, text };
        match timeout_at(deadline, self.sink.invalidate(&event.tags)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                error!(id, event_type = %event.event_type, error = %error, "failed to invalidate cached responses");
                let reason = error.downcast_ref::<ExplainedError>().map(|reason| format!(": {reason}"));
                let text = format!("processing failed{}; please redeliver", reason.unwrap_or_default());
                Err(refusal(DeliveryOutcome::Failed, text))
            }
            Err(_) => {
                error!(id, event_type = %event.event_type, "invalidating cached responses timed out");
                Err(refusal(DeliveryOutcome::TimedOut, "processing took too long; please redeliver".to_owned()))
            }
        }
    }

    /// Anyone can send invalid signatures. One warning reveals a wrong secret; more add nothing.
    fn note_mismatch(&self, verified: &Result<(), VerifyError>) {
        match verified {
            Ok(()) => self.mismatch.store(false, Ordering::Relaxed),
            Err(error @ (VerifyError::BadSignature | VerifyError::BadSecret(_))) => {
                if !self.mismatch.swap(true, Ordering::Relaxed) {
                    warn!(%error, "webhook refused; further ones are only counted until one is genuine");
                }
            }
            Err(_) => {}
        }
    }
}

async fn read_body(body: Body, deadline: Instant) -> Result<Bytes, DeliveryRejection> {
    let too_large = || {
        DeliveryRejection::unread(DeliveryOutcome::TooLarge, format!("body too large; at most {MAX_BODY_BYTES} bytes"))
    };
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(too_large());
    }
    match timeout_at(deadline, Limited::new(body, MAX_BODY_BYTES).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(DeliveryRejection::unread(DeliveryOutcome::Incomplete, "incomplete body")),
        Err(_) => Err(DeliveryRejection::unread(DeliveryOutcome::Incomplete, "body not received in time")),
    }
}

fn respond(status: StatusCode, mut text: String) -> Response<Body> {
    text.push('\n');
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

impl<S> Clone for Webhooks<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<S> fmt::Debug for Webhooks<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhooks")
            .field("secrets", &self.inner.secrets)
            .field("tolerance", &self.inner.tolerance)
            .finish_non_exhaustive()
    }
}
