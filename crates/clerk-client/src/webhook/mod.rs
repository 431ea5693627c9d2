//! Receives Clerk's webhooks: verifies a delivery and invalidates the cached responses that it outdates.
//!
//! Clerk sends webhooks through Svix: at least once, in any order, retried for about a day until it gets a 2xx.
//! [`Webhooks`] is the endpoint, which can be mounted into any axum router. It verifies a delivery, derives the changed
//! [`Tag`]s, passes them to a sink ([`Invalidate`]), and responds with 200 once the sink is done. The payload is not
//! stored.
//!
//! - `signature`: verifies Svix's signature. Pure.
//! - `event`: parses events. `tag`: the tags shared by events and caches.
//! - `dedupe`: messages already processed.
//! - `secrets`: the signing secrets, reloaded when their files change.
//! - `endpoint`: handles requests.
//! - `read_tags`, `write_tags`: what a read shows, and what a write changes.
//! - `stats`: counters.
//!
//! This module uses [`secret`](crate::secret) only.

mod dedupe;
#[cfg(feature = "axum")]
mod endpoint;
mod event;
mod read_tags;
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
pub use read_tags::{ReadTags, tags_of_read};
#[cfg(feature = "axum")]
pub use secrets::{WebhookConfigError, check_secret};
pub use signature::{BadSecret, InvalidTolerance, SigningSecret, Tolerance, Verified, VerifyError, verify};
#[cfg(feature = "axum")]
pub use stats::{DeliveryOutcome, WebhookStats};
pub use tag::{ParseTagError, Tag, tags_of_route};
pub use write_tags::{tags_named_by, tags_of_write};

use file_fingerprint::ReloadStats;

use crate::secret::SecretSource;

/// Why a sink failed. The text is logged, and sent to the sender only if it is an [`ExplainedError`].
pub type InvalidateError = Box<dyn std::error::Error + Send + Sync>;

/// An [`InvalidateError`] that the sender may read: Svix shows it with the delivery.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ExplainedError(String);

impl ExplainedError {
    /// Creates an error with this text, which must not contain secrets.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// A store of Backend API responses that can invalidate them.
///
/// Calls for the same change may be repeated, concurrent and in any order. A call that takes longer than
/// [`ANSWER_WITHIN`] is cancelled; Svix then delivers again.
pub trait Invalidate: Send + Sync + 'static {
    /// Invalidates all responses with one of these tags. After it returns, none of them is served, including those
    /// whose fetch from Clerk began earlier.
    ///
    /// # Errors
    ///
    /// Returns an error if this is not guaranteed. Svix then delivers again.
    fn invalidate(&self, tags: &[Tag]) -> impl Future<Output = Result<(), InvalidateError>> + Send;
}

impl<T: Invalidate> Invalidate for Arc<T> {
    fn invalidate(&self, tags: &[Tag]) -> impl Future<Output = Result<(), InvalidateError>> + Send {
        T::invalidate(self, tags)
    }
}

/// The wall clock that timestamps of deliveries are compared with.
pub type WallClock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Options of a webhook endpoint, which belongs to one Clerk instance.
#[derive(Clone)]
#[non_exhaustive]
pub struct WebhookOptions {
    /// Sources of the signing secrets, tried in this order. Two during a rotation, otherwise one.
    pub secrets: Vec<SecretSource>,
    /// Maximum difference between a delivery's timestamp and the clock.
    pub tolerance: Tolerance,
    /// The clock.
    pub wall_clock: WallClock,
    /// Counts reads of the secrets.
    pub reloads: Arc<ReloadStats>,
}

setters!(WebhookOptions {
    secrets: Vec<SecretSource>,
    tolerance: Tolerance,
    wall_clock: WallClock,
    reloads: Arc<ReloadStats>,
});

impl WebhookOptions {
    /// Creates options with the default tolerance and the system's clock.
    #[must_use]
    pub fn new(secrets: Vec<SecretSource>) -> Self {
        let wall_clock: WallClock = Arc::new(SystemTime::now);
        Self { secrets, tolerance: Tolerance::default(), wall_clock, reloads: Arc::default() }
    }
}

impl fmt::Debug for WebhookOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookOptions")
            .field("secrets", &self.secrets)
            .field("tolerance", &self.tolerance)
            .finish_non_exhaustive()
    }
}
