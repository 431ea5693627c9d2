//! Counters of deliveries.

use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;

use super::event::EventKind;
use super::signature::VerifyError;

/// Outcome of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeliveryOutcome {
    /// The outdated responses were invalidated.
    Applied,
    /// Genuine, but nothing to invalidate: an unknown type, or one that changes nothing that can be fetched.
    Ignored,
    /// The message was processed before.
    Duplicate,
    /// Rejected, see [`VerifyError::MissingHeader`].
    MissingHeader,
    /// Rejected, see [`VerifyError::BadTimestamp`].
    BadTimestamp,
    /// Rejected, see [`VerifyError::TooOld`].
    TooOld,
    /// Rejected, see [`VerifyError::TooNew`].
    TooNew,
    /// Rejected, see [`VerifyError::BadSignature`].
    BadSignature,
    /// Not verified for lack of a usable secret, see [`VerifyError::BadSecret`].
    BadSecret,
    /// Genuine, but not an event.
    Malformed,
    /// The body is too large.
    TooLarge,
    /// The body has a content encoding.
    Encoded,
    /// The body was incomplete or too slow.
    Incomplete,
    /// The sink failed. Svix will deliver again.
    Failed,
    /// The sink timed out. Svix will deliver again.
    TimedOut,
}

impl DeliveryOutcome {
    /// All outcomes.
    pub const ALL: [Self; 15] = [
        Self::Applied,
        Self::Ignored,
        Self::Duplicate,
        Self::MissingHeader,
        Self::BadTimestamp,
        Self::TooOld,
        Self::TooNew,
        Self::BadSignature,
        Self::BadSecret,
        Self::Malformed,
        Self::TooLarge,
        Self::Encoded,
        Self::Incomplete,
        Self::Failed,
        Self::TimedOut,
    ];

    /// Returns the outcome as a label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Ignored => "ignored",
            Self::Duplicate => "duplicate",
            Self::MissingHeader => "missing_header",
            Self::BadTimestamp => "bad_timestamp",
            Self::TooOld => "too_old",
            Self::TooNew => "too_new",
            Self::BadSignature => "bad_signature",
            Self::BadSecret => "bad_secret",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Encoded => "encoded",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
        }
    }

    /// Returns the response status. Svix takes 2xx as delivered and retries all others for about a day.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Applied | Self::Ignored | Self::Duplicate => StatusCode::OK,
            // 400 and not 401, as in the examples of Svix and Clerk: there are no credentials to request.
            Self::MissingHeader
            | Self::BadTimestamp
            | Self::TooOld
            | Self::TooNew
            | Self::BadSignature
            | Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Incomplete => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Encoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BadSecret => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Failed | Self::TimedOut => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl From<VerifyError> for DeliveryOutcome {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::MissingHeader(_) => Self::MissingHeader,
            VerifyError::BadTimestamp => Self::BadTimestamp,
            VerifyError::TooOld { .. } => Self::TooOld,
            VerifyError::TooNew { .. } => Self::TooNew,
            VerifyError::BadSignature => Self::BadSignature,
            VerifyError::BadSecret(_) => Self::BadSecret,
        }
    }
}

/// Snapshot of the counters. They only grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookStats {
    /// Deliveries by event kind and outcome; contains every pair, including zeros.
    pub deliveries: Vec<(EventKind, DeliveryOutcome, u64)>,
    /// Deliveries by the index of the secret that signed them, in the order of configuration. An old secret can be
    /// removed once its counter stops growing.
    pub matched_secrets: Vec<u64>,
}

impl WebhookStats {
    /// Returns the number of deliveries of a kind with this outcome.
    #[must_use]
    pub fn get(&self, family: EventKind, outcome: DeliveryOutcome) -> u64 {
        self.deliveries.iter().filter(|entry| (entry.0, entry.1) == (family, outcome)).map(|entry| entry.2).sum()
    }
}

const FAMILIES: usize = EventKind::ALL.len();
const OUTCOMES: usize = DeliveryOutcome::ALL.len();

#[derive(Debug)]
pub(super) struct WebhookCounters {
    deliveries: [[AtomicU64; OUTCOMES]; FAMILIES],
    matched_secrets: Box<[AtomicU64]>,
}

impl WebhookCounters {
    pub(super) fn new(secrets: usize) -> Self {
        Self {
            deliveries: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            matched_secrets: (0..secrets).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub(super) fn count(&self, family: EventKind, outcome: DeliveryOutcome) {
        self.deliveries[family as usize][outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_secret(&self, index: usize) {
        if let Some(counter) = self.matched_secrets.get(index) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn snapshot(&self) -> WebhookStats {
        let pairs = EventKind::ALL.into_iter().flat_map(|family| DeliveryOutcome::ALL.map(|outcome| (family, outcome)));
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WebhookStats {
            deliveries: pairs
                .map(|(family, outcome)| (family, outcome, value(&self.deliveries[family as usize][outcome as usize])))
                .collect(),
            matched_secrets: self.matched_secrets.iter().map(value).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_and_outcome_has_its_own_counter() {
        assert!(EventKind::ALL.iter().enumerate().all(|(index, family)| *family as usize == index));
        assert!(DeliveryOutcome::ALL.iter().enumerate().all(|(index, outcome)| *outcome as usize == index));
        let counters = WebhookCounters::new(2);
        counters.count(EventKind::Unread, DeliveryOutcome::TimedOut);
        counters.count_secret(1);
        counters.count_secret(2);
        let counts = counters.snapshot();
        assert_eq!(counts.deliveries.len(), FAMILIES * OUTCOMES);
        assert_eq!(counts.get(EventKind::Unread, DeliveryOutcome::TimedOut), 1);
        assert_eq!(counts.deliveries.iter().map(|entry| entry.2).sum::<u64>(), 1);
        assert_eq!(counts.matched_secrets, [0, 1]);
    }
}
