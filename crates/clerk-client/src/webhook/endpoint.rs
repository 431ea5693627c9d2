//! One delivery, from its first header to the answer.

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

/// Longest time from a request's head to its answer. Svix waits 15 s; the rest is for what lies between us.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Greatest body that is read. Events have a few KiB, with much metadata some dozen.
pub const MAX_BODY_BYTES: usize = 256 * 1024;

/// An endpoint for the webhooks of one Clerk instance. Cheap to clone; clones share everything.
///
/// | answer | when | Svix |
/// |---|---|---|
/// | 200 | worked off, nothing to do, or worked off before | is done |
/// | 400 | headers, time or signature are wrong, or it is no event | delivers again |
/// | 405 | not a POST | |
/// | 408, 413, 415 | the body is slow, bigger than [`MAX_BODY_BYTES`], or has a content encoding | delivers again |
/// | 503 | the sink failed, or was not done within [`ANSWER_WITHIN`] | delivers again |
///
/// It must see the body as it was sent: put no layer in front that decompresses or parses bodies.
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
///         tracing::info!(?tags, "to forget");
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
    /// Whether the last signature that was checked did not fit: only the first of a row is a warning.
    misfits: AtomicBool,
}

/// A delivery that is not taken: how it counts and what the sender is told.
struct DeliveryRejection {
    family: EventKind,
    outcome: DeliveryOutcome,
    text: String,
}

impl DeliveryRejection {
    /// Refused before its type could be read.
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
    /// An endpoint that tells `sink` what to forget. Reads the secrets; blocks for some small files.
    ///
    /// # Errors
    ///
    /// If there is no secret, or one that cannot be read or used.
    pub fn new(options: WebhookOptions, sink: S) -> Result<Self, WebhookConfigError> {
        let WebhookOptions { secrets, tolerance, wall_clock, reloads } = options;
        let counters = WebhookCounters::new(secrets.len());
        let secrets = Secrets::load(secrets, &reloads)?;
        let seen = Mutex::new(SeenDeliveries::new(tolerance));
        let misfits = AtomicBool::new(false);
        Ok(Self { inner: Arc::new(Inner { sink, secrets, tolerance, wall_clock, seen, counters, misfits }) })
    }

    /// The endpoint as a handler of all methods, to be given to [`Router::route`] under the path set up in Clerk.
    pub fn handler<T: Clone + Send + Sync + 'static>(&self) -> MethodRouter<T> {
        let webhooks = self.clone();
        any(move |request: Request<Body>| {
            let webhooks = webhooks.clone();
            async move { webhooks.handle(request).await }
        })
    }

    /// The endpoint as a router with the one route `/`, to be nested.
    pub fn router<T: Clone + Send + Sync + 'static>(&self) -> Router<T> {
        Router::new().route("/", self.handler())
    }

    /// Answers one request. What it does and answers is described at [`Webhooks`].
    pub async fn handle(&self, request: Request<Body>) -> Response<Body> {
        if request.method() != Method::POST {
            let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, "webhooks are delivered by POST".to_owned());
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
        answer(outcome.status(), text)
    }

    /// Reads the secrets again whose files have changed, or could not be used. Each delivery does so, too; to be called now
    /// and then, so that a secret that cannot be used is known before one comes. Blocks for a look at each file.
    pub fn refresh_secrets(&self) {
        self.inner.secrets.current();
    }

    /// What became of deliveries so far.
    #[must_use]
    pub fn stats(&self) -> WebhookStats {
        self.inner.counters.snapshot()
    }
}

impl<S: Invalidate> Inner<S> {
    async fn receive(&self, request: Request<Body>) -> Result<(EventKind, DeliveryOutcome), DeliveryRejection> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        let (head, body) = request.into_parts();
        // Bytes that were encoded on the way are not the bytes that were signed, and decoding them is nobody's wish.
        if head.headers.contains_key(header::CONTENT_ENCODING) {
            return Err(DeliveryRejection::unread(
                DeliveryOutcome::Encoded,
                "send the body without a content encoding",
            ));
        }
        let body = read_body(body, deadline).await?;
        // Each time: a secret that was retired must not fit any more, and a new one must fit at once.
        let secrets = self.secrets.current();
        let verified = verify(&secrets, self.tolerance, &head.headers, &body, (self.wall_clock)());
        self.note_misfit(&verified.map(drop));
        let verified = verified?;
        self.counters.count_secret(verified.matched_secret);

        let event = Event::read(&body).map_err(|error| DeliveryRejection::unread(DeliveryOutcome::Malformed, error))?;
        drop(body);
        let family = event.kind;
        if self.seen.lock().contains(verified.id, Instant::now()) {
            debug!(id = verified.id, "webhook was worked off before");
            return Ok((family, DeliveryOutcome::Duplicate));
        }
        let outcome = if event.tags.is_empty() { DeliveryOutcome::Ignored } else { DeliveryOutcome::Applied };
        if outcome == DeliveryOutcome::Applied {
            self.invalidate(&event, verified.id, deadline).await?;
        }
        debug!(id = verified.id, event_type = %event.event_type, tags = event.tags.len(), "webhook worked off");
        // Two attempts of one message may have been at work at the same time: it counts once.
        let is_new = self.seen.lock().insert(verified.id, Instant::now());
        Ok((family, if is_new { outcome } else { DeliveryOutcome::Duplicate }))
    }

    async fn invalidate(&self, event: &Event, id: &str, deadline: Instant) -> Result<(), DeliveryRejection> {
        let refusal = |outcome, text: String| DeliveryRejection { family: event.kind, outcome, text };
        match timeout_at(deadline, self.sink.invalidate(&event.tags)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                error!(id, event_type = %event.event_type, error = %error, "cached answers could not be invalidated");
                let reason = error.downcast_ref::<ExplainedError>().map(|reason| format!(": {reason}"));
                let text = format!("processing failed{}; please redeliver", reason.unwrap_or_default());
                Err(refusal(DeliveryOutcome::Failed, text))
            }
            Err(_) => {
                error!(id, event_type = %event.event_type, "cached answers were not invalidated in time");
                Err(refusal(DeliveryOutcome::TimedOut, "processing took too long; please redeliver".to_owned()))
            }
        }
    }

    /// Anybody can send signatures that do not fit. One warning tells of a wrong secret; a flood of them tells no more.
    fn note_misfit(&self, verified: &Result<(), VerifyError>) {
        match verified {
            Ok(()) => self.misfits.store(false, Ordering::Relaxed),
            Err(error @ (VerifyError::BadSignature | VerifyError::BadSecret(_))) => {
                if !self.misfits.swap(true, Ordering::Relaxed) {
                    warn!(%error, "webhook refused; further ones are counted and not logged until one is genuine");
                }
            }
            Err(_) => {}
        }
    }
}

async fn read_body(body: Body, deadline: Instant) -> Result<Bytes, DeliveryRejection> {
    let too_large =
        || DeliveryRejection::unread(DeliveryOutcome::TooLarge, format!("bodies may have {MAX_BODY_BYTES} bytes"));
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(too_large());
    }
    match timeout_at(deadline, Limited::new(body, MAX_BODY_BYTES).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(DeliveryRejection::unread(DeliveryOutcome::Incomplete, "the body broke off")),
        Err(_) => Err(DeliveryRejection::unread(DeliveryOutcome::Incomplete, "the body did not come in time")),
    }
}

fn answer(status: StatusCode, mut text: String) -> Response<Body> {
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
