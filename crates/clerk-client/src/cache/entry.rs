//! Cached responses.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

/// A response of the Backend API. Clones share it.
///
/// All headers that the caller passes are stored: leave out those of the single exchange, such as `Date`, `Set-Cookie`,
/// quota headers and hop-by-hop headers.
#[derive(Clone)]
pub struct CachedResponse(Arc<Parts>);

/// A response with the stale periods of its TTL.
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

/// Approximate memory overhead of an entry in bytes.
const OVERHEAD: usize = 256;

impl CachedResponse {
    /// Creates a response received at `fetched_at`.
    #[must_use]
    pub fn new(status: StatusCode, headers: HeaderMap, body: Bytes, fetched_at: SystemTime) -> Self {
        Self(Arc::new(Parts { is_kept: true, status, headers, body, fetched_at }))
    }

    /// Marks the response as not cacheable: only requests that already wait for it receive it.
    #[must_use]
    pub fn for_once(self) -> Self {
        let fetched_at = self.0.fetched_at;
        let (status, headers, body) = self.into_parts();
        Self(Arc::new(Parts { is_kept: false, status, headers, body, fetched_at }))
    }

    /// Whether a cache may store it.
    pub(super) fn may_be_kept(&self) -> bool {
        self.0.is_kept
    }

    /// Returns the HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// Returns the headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    /// Returns the body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.0.body
    }

    /// Returns status, headers and body; copies them unless this is the only clone.
    #[must_use]
    pub fn into_parts(self) -> (StatusCode, HeaderMap, Bytes) {
        match Arc::try_unwrap(self.0) {
            Ok(Parts { status, headers, body, .. }) => (status, headers, body),
            Err(shared) => (shared.status, shared.headers.clone(), shared.body.clone()),
        }
    }

    /// Returns when it was received from Clerk, by the wall clock of the process that fetched it.
    #[must_use]
    pub fn fetched_at(&self) -> SystemTime {
        self.0.fetched_at
    }

    /// Returns its age; zero if the clocks disagree.
    #[must_use]
    pub fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.0.fetched_at).unwrap_or_default()
    }

    /// Returns its size in memory with its key, in bytes.
    #[must_use]
    pub fn weight(&self) -> u64 {
        let headers: usize = self.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        (size_of::<super::CacheKey>() + OVERHEAD + headers + self.body().len()) as u64
    }

    /// Copies the body, so that it does not keep a larger buffer alive.
    pub(super) fn compact(&self) -> Self {
        let Parts { status, headers, body, fetched_at, .. } = &*self.0;
        Self::new(*status, headers.clone(), Bytes::copy_from_slice(body), *fetched_at)
    }
}

/// Omits headers and body, which contain personal data.
impl fmt::Debug for CachedResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedResponse")
            .field("status", &self.status())
            .field("headers", &self.headers().len())
            .field("body_bytes", &self.body().len())
            .field("fetched_at", &self.fetched_at())
            .finish()
    }
}
