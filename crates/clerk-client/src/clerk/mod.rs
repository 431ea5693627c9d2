//! The client for applications: Clerk's users, instance and key set, typed, in batches and by pages.
//!
//! Everything goes through [`outbound`](crate::outbound): it is paced to stay within Clerk's rate limit, repeated where
//! that is safe, and each exchange becomes an observation of [`Source::Client`] in the ledger.
//!
//! ```no_run
//! # async fn example() -> Result<(), clerk_client::clerk::Error> {
//! let clerk = clerk_client::clerk::Clerk::from_env()?;
//! let user = clerk.users().get("user_2NNEqL2nrIRdJ194ndJqAHwEfxC").await?;
//! let mut pages = clerk.users().list_all();
//! while let Some(page) = pages.next().await? {
//!     // Keep `page.cursor` beside what was made of `page.users`: a later walk goes on from there.
//! }
//! # Ok(())
//! # }
//! ```

mod batcher;
mod builder;
mod error;
mod loader;
mod lookup;
mod pages;
mod query;
mod raw;
mod repr;
mod request;
mod types;
mod users;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};

pub use batcher::BatchShare;
pub use builder::Builder;
pub use error::{ApiError, Error};
pub use loader::{Loader, LoaderOptions};
pub use lookup::{FoundUsers, Lookup, LookupOutcome, MAX_IDS};
pub use pages::{Cursor, InvalidCursor, Page, Pages};
pub use raw::Raw;
pub use repr::{RawUser, UserRepr};
pub use types::{Count, Instance, Jwks, User};
pub use users::{ListUsers, MAX_PAGE, Order, OrderField, UserFilter, Users};

use crate::limiter::Priority;
use crate::outbound::{ExecuteOptions, Outbound, RequestOptions};
use clerk_quota::{CallerId, Source};

/// A client for one Clerk instance. Cheap to clone: clones share connections, pacer and retry budget.
///
/// ```no_run
/// # async fn example() -> Result<(), clerk_client::clerk::Error> {
/// use clerk_client::clerk::{Clerk, UserFilter};
///
/// let clerk = Clerk::from_env()?;
/// let count = clerk.users().count(&UserFilter::default()).await?.total_count;
/// // Nobody waits for this: it goes last, and leaves a tenth of the limit to others.
/// let pages = clerk.low_priority().users().list_all();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Clerk {
    outbound: Arc<Outbound>,
    options: ExecuteOptions,
    bulk: RequestOptions,
    source: Source,
    caller: CallerId,
    headers: Arc<HeaderMap>,
}

impl Clerk {
    /// A client that is yet to be set up: a key is the least it needs.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A client for the key in `CLERK_SECRET_KEY`, or in the file that `CLERK_SECRET_KEY_FILE` names, at the address in
    /// `CLERK_API_URL` (`https://api.clerk.com` if there is none).
    ///
    /// # Errors
    /// When no usable key, or several, or no usable address is set.
    pub fn from_env() -> Result<Self, Error> {
        Builder::from_env()?.build()
    }

    /// A client on a way to Clerk that exists already, so that it shares its pacer, key and ledger with others.
    #[must_use]
    pub fn with_transport(outbound: Arc<Outbound>) -> Self {
        let (options, bulk) = (ExecuteOptions::from(&RequestOptions::default()), RequestOptions::low_priority());
        Self { outbound, options, bulk, source: Source::Client, caller: CallerId::UNNAMED, headers: Arc::default() }
    }

    /// The same client with another policy for requests at which somebody waits.
    #[must_use]
    pub fn with_policy(self, policy: RequestOptions) -> Self {
        Self { options: ExecuteOptions::from(&policy), ..self }
    }

    /// The same client with a policy of which parts may be off.
    #[must_use]
    pub fn with_options(self, options: ExecuteOptions) -> Self {
        Self { options, ..self }
    }

    /// The same client with another policy for bulk work. Its priority is always [`Priority::Low`].
    #[must_use]
    pub fn with_bulk_policy(self, policy: RequestOptions) -> Self {
        Self { bulk: RequestOptions { priority: Priority::Low, ..policy }, ..self }
    }

    /// The same client with other timeouts: for one attempt, from its start to the head of its answer, and for
    /// everything that a call does, waits included.
    #[must_use]
    pub fn with_timeouts(self, attempt: Duration, overall: Duration) -> Self {
        let options = ExecuteOptions { attempt_timeout: attempt, deadline: overall, ..self.options };
        let bulk = RequestOptions { attempt_timeout: attempt, deadline: overall, ..self.bulk };
        Self { options, bulk, ..self }
    }

    /// The same client with all that it asks observed as of this source.
    #[must_use]
    pub fn with_source(self, source: Source) -> Self {
        Self { source, ..self }
    }

    /// The same client with all that it asks charged to this caller.
    #[must_use]
    pub(super) fn charged_to(self, caller: CallerId) -> Self {
        Self { caller, ..self }
    }

    /// The same client with these headers on each request, such as `Clerk-API-Version`. `Authorization` and `Host` are
    /// the client's own and are left out.
    #[must_use]
    pub fn with_headers(self, headers: HeaderMap) -> Self {
        Self { headers: Arc::new(headers), ..self }
    }

    /// The same client for work at which nobody waits: all that it sends goes last and leaves a reserve of the limit.
    #[must_use]
    pub fn low_priority(&self) -> Self {
        Self { options: ExecuteOptions::from(&self.bulk), ..self.clone() }
    }

    /// The way to Clerk, with its ledger and its counters.
    #[must_use]
    pub const fn outbound(&self) -> &Arc<Outbound> {
        &self.outbound
    }

    /// Requests about users.
    #[must_use]
    pub fn users(&self) -> Users {
        Users::new(self.clone())
    }

    /// The instance that the key belongs to: `GET /v1/instance`.
    ///
    /// # Errors
    /// When Clerk does not answer with it.
    pub async fn instance(&self) -> Result<Instance, Error> {
        self.get("/v1/instance").await
    }

    /// The public keys that session tokens are verified with: `GET /v1/jwks`. Clerk counts it in no rate limit.
    ///
    /// # Errors
    /// When Clerk does not answer with them.
    pub async fn jwks(&self) -> Result<Jwks, Error> {
        self.get("/v1/jwks").await
    }

    /// Any request of the Backend API. `path` begins with `/v1/`; it may hold a query.
    pub fn raw(&self, method: Method, path: &str) -> Raw {
        Raw::new(self.clone(), self.call(method, path))
    }
}
