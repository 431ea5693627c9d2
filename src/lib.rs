//! See, explain and prevent rate limiting of [Clerk's Backend API](https://clerk.com/docs/reference/backend-api).
//!
//! Clerk allows an application instance so many requests in 10 seconds; beyond that, sign-ins fail. This crate is a
//! Prometheus exporter that sees it coming, a library under it, and a simulator of Clerk's limiter so that neither tests
//! nor the demo need an account.
//!
//! # The one way of data
//!
//! ```text
//! probe ──► outbound ──► upstream ──► Clerk
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
//! A room uses only rooms above it in this list; a test holds that.
//!
//! - [`config`]: the YAML file and the environment, checked as a whole.
//! - [`gateway`]: a reverse proxy that applications' own SDKs talk to: sees who uses what, and spares Clerk what it can.
//! - [`probe`]: what is due when, whether it is done, and doing it.
//! - [`metrics`]: the catalogue of metrics and their encoding for Prometheus.
//! - [`site`]: what is shown over HTTP.
//! - [`app`]: wiring: from a configuration to running parts, and back.
//! - [`cli`]: the commands.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod gateway;
pub mod metrics;
pub mod probe;
