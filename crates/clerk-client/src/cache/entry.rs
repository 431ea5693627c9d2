//! An answer that can be given again.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

/// An answer of the Backend API. Clones share it.
///
/// Headers are those that the caller put in, and all of them are kept: leave out what belongs to the one exchange, such
/// as `Date`, `Set-Cookie`, quotas, and what is hop-by-hop.
#[derive(Clone)]
pub struct CachedResponse(Arc<Parts>);

/// An answer with the parts of its time to live in which it is stale.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) answer: CachedResponse,
    pub(super) stale_while_revalidate: Duration,
    pub(super) stale_if_error: Duration,
}

struct Parts {
    is_kept: bool,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    fetched_at: SystemTime,
}

/// What the structures around an answer take in memory, about.
const OVERHEAD: usize = 256;

impl CachedResponse {
    /// An answer that came at `fetched_at`.
    #[must_use]
    pub fn new(status: StatusCode, headers: HeaderMap, body: Bytes, fetched_at: SystemTime) -> Self {
        Self(Arc::new(Parts { is_kept: true, status, headers, body, fetched_at }))
    }

    /// The same, for those who wait for it and nobody else: no cache keeps it.
    #[must_use]
    pub fn for_once(self) -> Self {
        let fetched_at = self.0.fetched_at;
        let (status, headers, body) = self.into_parts();
        Self(Arc::new(Parts { is_kept: false, status, headers, body, fetched_at }))
    }

    /// Whether a cache may keep it.
    pub(super) fn may_be_kept(&self) -> bool {
        self.0.is_kept
    }

    /// HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// Its headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    /// Its body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.0.body
    }

    /// Status, headers and body: copies of them, unless this is the only clone.
    #[must_use]
    pub fn into_parts(self) -> (StatusCode, HeaderMap, Bytes) {
        match Arc::try_unwrap(self.0) {
            Ok(Parts { status, headers, body, .. }) => (status, headers, body),
            Err(shared) => (shared.status, shared.headers.clone(), shared.body.clone()),
        }
    }

    /// When it came from Clerk, by the wall clock of whoever fetched it.
    #[must_use]
    pub fn fetched_at(&self) -> SystemTime {
        self.0.fetched_at
    }

    /// How old it is; zero if the clocks disagree.
    #[must_use]
    pub fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.0.fetched_at).unwrap_or_default()
    }

    /// What it takes in memory with its key, in bytes.
    #[must_use]
    pub fn weight(&self) -> u64 {
        let headers: usize = self.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        (size_of::<super::CacheKey>() + OVERHEAD + headers + self.body().len()) as u64
    }

    /// The same with a body that keeps no larger buffer alive than it needs.
    pub(super) fn compact(&self) -> Self {
        let Parts { status, headers, body, fetched_at, .. } = &*self.0;
        Self::new(*status, headers.clone(), Bytes::copy_from_slice(body), *fetched_at)
    }
}

/// Shows no header and no body: they hold personal data.
impl fmt::Debug for CachedResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("status", &self.status())
            .field("headers", &self.headers().len())
            .field("body_bytes", &self.body().len())
            .field("fetched_at", &self.fetched_at())
            .finish()
    }
}
