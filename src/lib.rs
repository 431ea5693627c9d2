//! See, explain and prevent rate limiting of [Clerk's Backend API](https://clerk.com/docs/reference/backend-api).
//!
//! Clerk allows an application instance so many requests in 10 seconds; beyond that, sign-ins fail. This crate is a
//! Prometheus exporter that sees it coming. It is a program: what others may want to build on is in the crates below.
//!
//! # The one way of data
//!
//! ```text
//! probe ──► outbound ──► transport ──► Clerk
//!               │ the answer's head
//!               ▼
//!          observation ──► ledger ──► snapshot ──► /metrics, landing page, /api/v1/status, check
//! ```
//!
//! An [`Observation`](clerk_quota::Observation) is what one HTTP exchange with Clerk taught us. The
//! [`Ledger`](clerk_quota::ledger::Ledger) is the only place that observations go to and the only place that numbers come from.
//!
//! # The rooms
//!
//! A room uses what its line says, which stands above it; a test compares this list with every import, and with the
//! picture in `docs/architecture.md`.
//!
//! - [`gateway`]: a reverse proxy that applications' own SDKs talk to: sees who uses what, and spares Clerk what it can.
//! - [`config`]: the YAML file and the environment, checked as a whole. Uses `gateway`.
//! - [`probe`]: what is due when, whether it is done, and doing it.
//! - [`metrics`]: the catalogue of metrics and their encoding for Prometheus. Uses `gateway`.
//! - [`admin`]: what is shown over HTTP. Uses `gateway`, `probe`, `metrics`.
//! - [`state`]: what outlives the process.
//! - [`app`]: wiring: from a configuration to running parts, and back. Uses `gateway`, `config`, `probe`, `metrics`,
//!   `admin`, `state`.
//! - [`cli`]: the commands. Uses `config`, `probe`, `metrics`, `admin`, `app`.
//!
//! # The crates
//!
//! Cargo holds their directions.
//!
//! - `ratelimit_headers`: quota headers of all dialects, read into a quota. Nothing of Clerk in it.
//! - [`clerk_quota`]: Clerk's limits and routes, windows, ledger, forecast. Pure: time is passed in.
//! - [`clerk_client`]: keys, transport, rate limiter, retries, typed users, webhooks, cache.
//! - [`clerk_simulator`]: a stand-in for Clerk. Shares no code with the rest, so that one wrong idea cannot hide in both.
//! - [`prometheus_web`]: serving HTTP with an end to every wait, TLS and authentication. Nothing of Clerk in it.
//! - [`file_fingerprint`]: whether a file is still the one that was read.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod gateway;
pub mod metrics;
pub mod probe;
pub mod state;
