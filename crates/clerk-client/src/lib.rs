//! A client for [Clerk's Backend API](https://clerk.com/docs/reference/backend-api) that stays below its rate limit.
//!
//! # The rooms
//!
//! A room uses only rooms above it in this list.
//!
//! - [`secret`]: keys that cannot be printed, and where they are kept.
//! - [`upstream`]: Clerk's address, and how requests reach it, over the network or in memory.
//! - `store` (feature `redis`): the Redis that several processes share, and an end to every wait for it.
//! - [`limiter`]: the client-side rate limiter: a queue by priority, for one process or several.
//! - [`webhook`]: deliveries of Clerk's webhooks, verified, and which cached answers they make stale.
//! - [`cache`]: answers kept in memory over Redis, until they age or a webhook makes them old.
//! - [`outbound`]: the one path to Clerk, paced and retried, which tells the ledger what it learns.
//! - [`clerk`]: the client for applications: users, instance and key set, typed, in batches and by pages.
//!
//! # Features
//!
//! None is on by default.
//!
//! - `redis`: the cache's second tier and the shared limiter.
//! - `axum`: the webhook endpoint.
//! - `hyper`: a transport that forwards requests of others byte for byte.
//! - `test-util`: a transport to a router in the same process, without sockets.

pub mod cache;
pub mod clerk;
pub mod limiter;
pub mod outbound;
#[cfg(feature = "redis")]
pub mod redis;
pub mod secret;
pub mod transport;
pub mod webhook;
