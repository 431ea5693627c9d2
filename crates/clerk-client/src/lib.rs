//! A client for [Clerk's Backend API](https://clerk.com/docs/reference/backend-api) that stays below its rate limit.
//!
//! # The rooms
//!
//! A room uses what its line says, which stands above it; a test compares this list with every import.
//!
//! - [`secret`]: keys that cannot be printed, and where they are kept.
//! - [`transport`]: Clerk's address, and how requests reach it, over the network or in memory. Uses `secret`.
//! - `redis` (feature `redis`): the Redis that several processes share, and an end to every wait for it. Uses `secret`.
//! - [`limiter`]: the client-side rate limiter: a queue by priority, for one process or several. Uses `redis`.
//! - [`webhook`]: deliveries of Clerk's webhooks, verified, and which cached answers they make stale. Uses `secret`.
//! - [`cache`]: answers kept in memory over Redis, until they age or a webhook makes them old. Uses `secret`, `redis`,
//!   `limiter`, `webhook`.
//! - [`outbound`]: the one path to Clerk, paced and retried, which tells the ledger what it learns. Uses `secret`,
//!   `transport`, `limiter`.
//! - [`clerk`]: the client for applications: users, instance and key set, typed, in batches and by pages. Uses `secret`,
//!   `transport`, `limiter`, `outbound`.
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
