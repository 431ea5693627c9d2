//! A client for [Clerk's Backend API](https://clerk.com/docs/reference/backend-api) that stays below its rate limit.
//!
//! Clerk allows an instance so many requests in 10 seconds and answers 429 beyond that. This client queues requests until
//! the limit has room, retries what is safe to retry, batches lookups of users, and caches users until a webhook or a write
//! changes them.
//!
//! ```
//! use clerk_client::{Cache, Clerk};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), clerk_client::Error> {
//! # let simulator = clerk_simulator::Simulator::new(clerk_simulator::Options::default());
//! # let transport = clerk_client::transport::MemoryTransport::new(simulator.router());
//! # let id = simulator.user_id(0).unwrap_or_default();
//! let clerk = Clerk::builder()
//!     .secret_key("sk_test_4bMbJyWZ2vnLx0aQ")
//! #   .transport(transport)
//!     .cache(Cache::memory(64 << 20))
//!     .build()?;
//! // `id` is the id of a user, `user_...`.
//! let user = clerk.users().get(&id).await?; // A request, within the rate limit.
//! let same = clerk.users().get(&id).await?; // From the cache.
//! # assert_eq!((user, simulator.truth().requests.total), (same, 1));
//! # Ok(())
//! # }
//! ```
//!
//! # Which type
//!
//! | for | use |
//! |---|---|
//! | one user, cached | [`Users::get`] |
//! | single users for concurrent callers | [`Loader`], kept |
//! | up to a few thousand users by id | [`Users::get_many`] |
//! | more, as a stream | [`Lookup`] |
//! | all users | [`Pages`] |
//! | writes | [`Users::create`], [`Users::update`], [`Users::delete`] |
//! | any other request | [`Clerk::request`] |
//! | a cache, in memory or over Redis | [`Cache::memory`], [`ClerkBuilder::cache`] |
//! | Clerk's webhooks | [`Clerk::webhooks`] (feature `axum`) |
//! | one limit for several processes | [`ClerkBuilder::distributed_limiter`] (feature `redis`) |
//! | why a call failed | [`Error`] |
//!
//! Create one [`Clerk`] per instance and clone it. Batch work goes through [`Clerk::low_priority`].
//!
//! # Features
//!
//! None is on by default.
//!
//! - `redis`: the second tier of the cache, and a limiter that several processes share.
//! - `axum`: the webhook endpoint.
//! - `hyper`: a transport that forwards requests of other programs byte for byte.
//! - `test-util`: a transport to a router in the same process, without sockets.
//!
//! The minimum supported Rust version is 1.95. TLS is rustls with aws-lc-rs; the system's certificate authorities are
//! trusted.
//!
//! # Modules
//!
//! Most applications need only the types above. The modules are for proxies and for other clients of the same limit. A module
//! uses those that its line names; a test compares this list with every import.
//!
//! - [`secret`]: keys that cannot be printed, and where they are stored.
//! - [`transport`]: Clerk's address, and HTTP over the network or in memory. Uses `secret`.
//! - `redis` (feature `redis`): the Redis that several processes share, with a time limit on every operation. Uses `secret`.
//! - [`limiter`]: the client-side rate limiter: a queue by priority, for one process or several. Uses `redis`.
//! - [`webhook`]: verification of Clerk's webhooks, and which cached responses they invalidate. Uses `secret`.
//! - [`cache`]: responses in memory and Redis until they expire or are invalidated. Uses `secret`, `redis`, `limiter`,
//!   `webhook`.
//! - [`outbound`]: sends requests to Clerk, throttled and retried, and records what their responses say. Uses `secret`,
//!   `transport`, `limiter`.
//! - [`clerk`]: the client. Uses `secret`, `transport`, `redis`, `limiter`, `webhook`, `cache`, `outbound`.

/// Implements a setter for each field of an option struct. The structs are `#[non_exhaustive]`, so that a new field breaks
/// no user; setters are how users fill them.
macro_rules! setters {
    ($type:ident { $($(#[$attribute:meta])* $field:ident: $kind:ty),* $(,)? }) => {
        impl $type {
            $(
                #[doc = concat!("Sets [`", stringify!($type), "::", stringify!($field), "`].")]
                $(#[$attribute])*
                #[must_use]
                pub fn $field(mut self, $field: $kind) -> Self {
                    self.$field = $field.into();
                    self
                }
            )*
        }
    };
}

pub mod cache;
pub mod clerk;
pub mod limiter;
pub mod outbound;
#[cfg(feature = "redis")]
pub mod redis;
pub mod secret;
pub mod transport;
pub mod webhook;

#[doc(inline)]
pub use cache::{Cache, CacheBuilder};
#[doc(inline)]
pub use clerk::{
    ApiError, Clerk, ClerkBuilder, Count, CreateUser, Cursor, DeletedUser, Error, FoundUser, Instance, Jwks, ListUsers,
    Loader, LoaderOptions, Lookup, LookupOutcome, Order, OrderField, Page, Pages, RawUser, RequestBuilder, UpdateUser,
    User, UserFilter, UserRepr, Users,
};
