//! Receiving Clerk's webhooks: is it genuine, and which cached answers does it make stale?
//!
//! Clerk reports changes as webhooks, delivered by Svix: at least once, in any order, repeated for about a day until a
//! 2xx comes back. [`Webhooks`] is the endpoint, to be mounted into any axum router. It checks a delivery, reads what
//! changed as [`Tag`]s, hands them to a sink that you provide ([`Invalidate`]), and answers 200 only when the sink is
//! done. Nothing of the payload is kept.
//!
//! - `signature`: whether Svix signed it. Pure.
//! - `event`: what it says. `tag`: the vocabulary shared with whoever caches answers.
//! - `dedupe`: which messages were already worked off.
//! - `secrets`: the signing secrets, re-read when their files change.
//! - `endpoint`: one request from the first header to the answer.
//! - `stats`: what became of deliveries.
//!
//! This room uses [`secret`](crate::secret) only.

mod dedupe;
#[cfg(feature = "axum")]
mod endpoint;
mod event;
#[cfg(feature = "axum")]
mod secrets;
mod signature;
#[cfg(feature = "axum")]
mod stats;
mod tag;
mod write_tags;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

pub use dedupe::SeenDeliveries;
#[cfg(feature = "axum")]
pub use endpoint::{ANSWER_WITHIN, MAX_BODY_BYTES, Webhooks};
pub use event::{Event, EventKind, MalformedEvent};
#[cfg(feature = "axum")]
pub use secrets::{WebhookConfigError, check_secret};
pub use signature::{BadSecret, InvalidTolerance, SigningSecret, Tolerance, Verified, VerifyError, verify};
#[cfg(feature = "axum")]
pub use stats::{DeliveryOutcome, WebhookStats};
pub use tag::{ParseTagError, Tag, tags_of_route};
pub use write_tags::{tags_named_by, tags_of_write};

use file_fingerprint::ReloadStats;

use crate::secret::SecretSource;

/// Why a sink could not forget. Its text goes to the log, and to the sender only if it is an [`ExplainedError`].
pub type InvalidateError = Box<dyn std::error::Error + Send + Sync>;

/// An [`InvalidateError`] whose text the sender may read: Svix shows it beside the delivery.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ExplainedError(String);

impl ExplainedError {
    /// An error with this text, which holds no secret.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Something that holds answers of the Backend API and can forget them.
///
/// May be called for the same change more than once, concurrently and in any order. The call is cancelled when it takes
/// longer than [`ANSWER_WITHIN`]; Svix then delivers again.
pub trait Invalidate: Send + Sync + 'static {
    /// Forgets every answer that has one of these tags. When it returns, no such answer is served any more, also none
    /// whose fetch from Clerk had begun before.
    ///
    /// # Errors
    ///
    /// If that cannot be promised. Svix then delivers again.
    fn invalidate(&self, tags: &[Tag]) -> impl Future<Output = Result<(), InvalidateError>> + Send;
}

impl<T: Invalidate> Invalidate for Arc<T> {
    fn invalidate(&self, tags: &[Tag]) -> impl Future<Output = Result<(), InvalidateError>> + Send {
        T::invalidate(self, tags)
    }
}

/// The wall clock: gives the time that timestamps of deliveries are compared with.
pub type WallClock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// How to receive the webhooks of one endpoint, which belongs to one Clerk instance.
#[derive(Clone)]
pub struct WebhookOptions {
    /// Where the signing secrets are kept, tried in this order. Two while a secret is being rotated, one otherwise.
    pub secrets: Vec<SecretSource>,
    /// How far a delivery's timestamp may be from our clock.
    pub tolerance: Tolerance,
    /// Our clock.
    pub wall_clock: WallClock,
    /// Where attempts to read the secrets are counted.
    pub reloads: Arc<ReloadStats>,
}

impl WebhookOptions {
    /// These secrets, the usual tolerance, and the system's clock.
    #[must_use]
    pub fn new(secrets: Vec<SecretSource>) -> Self {
        let wall_clock: WallClock = Arc::new(SystemTime::now);
        Self { secrets, tolerance: Tolerance::default(), wall_clock, reloads: Arc::default() }
    }
}

impl fmt::Debug for WebhookOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("secrets", &self.secrets)
            .field("tolerance", &self.tolerance)
            .finish_non_exhaustive()
    }
}
