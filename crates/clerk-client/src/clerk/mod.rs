//! The client: users, instance and key set as types, single, in batches, in pages, and cached.
//!
//! Every request goes through [`outbound`](crate::outbound): it waits for the rate limit, is retried where that is safe,
//! and becomes one observation of [`Source::Client`] in the ledger.

mod batcher;
mod builder;
mod cached_reads;
mod error;
mod loader;
mod lookup;
mod lookup_state;
mod pages;
mod query;
mod request;
mod request_builder;
mod types;
mod user_list;
mod user_params;
mod user_repr;
mod users;
mod write_guard;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};

pub use batcher::BatchShare;
pub use builder::ClerkBuilder;
pub use error::{ApiError, Error};
pub use loader::{Loader, LoaderOptions};
pub use lookup::{FoundUser, Lookup, LookupOutcome, MAX_IDS};
pub use pages::{Cursor, InvalidCursor, Page, Pages};
pub use request_builder::RequestBuilder;
pub use types::{Count, DeletedUser, Instance, Jwks, User};
pub use user_list::{ListUsers, MAX_PAGE, Order, OrderField, UserFilter};
pub use user_params::{CreateUser, UpdateUser};
pub use user_repr::{RawUser, UserRepr};
pub use users::Users;

use crate::cache::{Cache, CacheBuilder};
use crate::limiter::Priority;
use crate::outbound::{ExecuteOptions, Outbound, RequestMembers, RequestOptions};
use crate::secret::Secret;
#[cfg(feature = "axum")]
use crate::webhook::{WebhookOptions, Webhooks};
use cached_reads::ReadCache;
use clerk_quota::{CallerId, Source};

/// A client for one Clerk instance. Clones share connections, limiter, retry budget and cache.
///
/// ```no_run
/// # async fn example() -> Result<(), clerk_client::Error> {
/// use clerk_client::{Clerk, UserFilter};
///
/// let clerk = Clerk::from_env()?;
/// let count = clerk.users().count(&UserFilter::default()).await?.total_count;
/// // Batch work goes last and leaves a tenth of the limit to others.
/// let pages = clerk.low_priority().users().list_all();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Clerk {
    outbound: Arc<Outbound>,
    options: ExecuteOptions,
    low_priority: RequestOptions,
    source: Source,
    caller: CallerId,
    /// The lookups that share its requests.
    members: RequestMembers,
    headers: Arc<HeaderMap>,
    cache: Option<Arc<ReadCache>>,
}

impl Clerk {
    /// Creates a client with this secret key and the default settings.
    ///
    /// # Errors
    /// Returns an error if the key is not a Clerk secret key, or the HTTP client cannot be set up.
    pub fn new(secret_key: impl Into<Secret>) -> Result<Self, Error> {
        Self::builder().secret_key(secret_key).build()
    }

    /// Returns a builder without a key.
    pub fn builder() -> ClerkBuilder {
        ClerkBuilder::default()
    }

    /// Creates a client from `CLERK_SECRET_KEY` or `CLERK_SECRET_KEY_FILE`, and `CLERK_API_URL`
    /// ([`ClerkBuilder::from_env`]).
    ///
    /// # Errors
    /// Returns an error if there is no usable key, or two, or the address cannot be used.
    pub fn from_env() -> Result<Self, Error> {
        ClerkBuilder::from_env().build()
    }

    /// Creates a client that shares limiter, key and ledger with others on the same [`Outbound`].
    #[must_use]
    pub fn with_transport(outbound: Arc<Outbound>) -> Self {
        Self {
            outbound,
            options: ExecuteOptions::from(&RequestOptions::default()),
            low_priority: RequestOptions::low_priority(),
            source: Source::Client,
            caller: CallerId::UNNAMED,
            members: RequestMembers::default(),
            headers: Arc::default(),
            cache: None,
        }
    }

    /// Sets timeouts, retries and queueing of ordinary requests.
    #[must_use]
    pub fn with_options(self, options: RequestOptions) -> Self {
        Self { options: ExecuteOptions::from(&options), ..self }
    }

    /// Sets options of which parts may be off.
    #[must_use]
    pub fn with_execute_options(self, options: ExecuteOptions) -> Self {
        Self { options, ..self }
    }

    /// Sets timeouts, retries and queueing of low-priority requests. Their priority is always [`Priority::Low`].
    #[must_use]
    pub fn with_low_priority_options(self, options: RequestOptions) -> Self {
        Self { low_priority: RequestOptions { priority: Priority::Low, ..options }, ..self }
    }

    /// Sets the timeout of one attempt, from its start to the head of the response, and that of a whole call, queueing and
    /// retries included.
    #[must_use]
    pub fn with_timeouts(self, attempt: Duration, overall: Duration) -> Self {
        let options = ExecuteOptions { attempt_timeout: attempt, deadline: overall, ..self.options };
        let low_priority = RequestOptions { attempt_timeout: attempt, deadline: overall, ..self.low_priority };
        Self { options, low_priority, ..self }
    }

    /// Sets the source of this client's observations in the ledger.
    #[must_use]
    pub fn with_source(self, source: Source) -> Self {
        Self { source, ..self }
    }

    /// Sets the caller that this client's requests are charged to.
    #[must_use]
    pub(super) fn charged_to(self, caller: CallerId) -> Self {
        Self { caller, ..self }
    }

    /// Sets the lookups that share this client's requests.
    #[must_use]
    pub(super) fn shared_by(self, members: RequestMembers) -> Self {
        Self { members, ..self }
    }

    /// Sets headers of each request, such as `Clerk-API-Version`. `Authorization` and `Host` are the client's own and are
    /// ignored.
    #[must_use]
    pub fn with_headers(self, headers: HeaderMap) -> Self {
        Self { headers: Arc::new(headers), ..self }
    }

    /// Adds a cache to this client and its later clones.
    ///
    /// # Errors
    /// Returns an error if the URL of its Redis cannot be used.
    pub fn with_cache(self, cache: CacheBuilder) -> Result<Self, Error> {
        #[cfg(feature = "redis")]
        if let Some(error) = cache.redis_error {
            return Err(error.into());
        }
        let CacheBuilder { options, policy, .. } = cache;
        let cache = Cache::new(options, Arc::clone(&self.outbound.clock));
        Ok(Self { cache: Some(Arc::new(ReadCache { cache, policy })), ..self })
    }

    /// The same client without its cache: each call is a request.
    #[must_use]
    pub fn without_cache(self) -> Self {
        Self { cache: None, ..self }
    }

    /// The same client for batch work: its requests go last and leave a tenth of the limit to others.
    #[must_use]
    pub fn low_priority(&self) -> Self {
        Self { options: ExecuteOptions::from(&self.low_priority), ..self.clone() }
    }

    /// The transport with its ledger, limiter and statistics.
    #[must_use]
    pub const fn outbound(&self) -> &Arc<Outbound> {
        &self.outbound
    }

    /// The cache, if the client has one.
    #[must_use]
    pub fn cache(&self) -> Option<&Cache> {
        self.cache.as_deref().map(|cache| &cache.cache)
    }

    /// Creates the endpoint for Clerk's webhooks that invalidate this client's cache. Mount [`Webhooks::handler`] in the
    /// application's router.
    ///
    /// # Errors
    /// Returns an error if a signing secret cannot be used, or the client has no cache.
    #[cfg(feature = "axum")]
    pub fn webhooks(&self, options: WebhookOptions) -> Result<Webhooks<Cache>, Error> {
        let cache = self.cache().ok_or(Error::Configuration("no cache to invalidate: call ClerkBuilder::cache"))?;
        Ok(Webhooks::new(options, cache.clone())?)
    }

    /// Requests about users.
    #[must_use]
    pub fn users(&self) -> Users {
        Users::new(self.clone())
    }

    /// Returns the instance of the secret key: `GET /v1/instance`. Served from the cache if there is one.
    ///
    /// # Errors
    /// Returns an error if Clerk does not respond with it.
    pub async fn instance(&self) -> Result<Instance, Error> {
        self.get("/v1/instance").await
    }

    /// Returns the public keys that session tokens are verified with: `GET /v1/jwks`, which counts in no rate limit. Served
    /// from the cache if there is one.
    ///
    /// # Errors
    /// Returns an error if Clerk does not respond with them.
    pub async fn jwks(&self) -> Result<Jwks, Error> {
        self.get("/v1/jwks").await
    }

    /// Starts any request of the Backend API. `path` begins with `/v1/` and may have a query.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        RequestBuilder::new(self.clone(), self.api_request(method, path))
    }
}
