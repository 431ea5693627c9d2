//! Monitors and prevents rate limiting of [Clerk's Backend API](https://clerk.com/docs/reference/backend-api).
//!
//! Clerk allows an application instance a fixed number of requests per 10 seconds; beyond it, sign-ins fail. This crate
//! is a Prometheus exporter that warns in advance. It is a program: the reusable parts are in the crates below.
//!
//! # Data flow
//!
//! ```text
//! probe ──► outbound ──► transport ──► Clerk
//!               │ response head
//!               ▼
//!          observation ──► ledger ──► snapshot ──► /metrics, landing page, /api/v1/status, check
//! ```
//!
//! An [`Observation`](clerk_quota::Observation) is the result of one HTTP exchange with Clerk. All observations go to
//! the [`Ledger`](clerk_quota::ledger::Ledger), and all numbers come from it.
//!
//! # Modules
//!
//! A module uses only the modules that its line names, which are listed above it. A test compares this list with the
//! imports and with the diagram in `docs/architecture.md`.
//!
//! - [`otlp`]: sends the program's own spans to an OpenTelemetry collector.
//! - [`gateway`]: a reverse proxy for the applications' own SDKs: attributes requests to callers, and saves requests to
//!   Clerk. Uses `otlp`.
//! - [`telemetry`]: receives the applications' traces and counts their calls to Clerk. Uses `otlp`.
//! - [`analyze`]: what recorded logs say of the quota, and what the gateway's policies would have saved. Uses `gateway`,
//!   `telemetry`.
//! - [`sources`]: gateway and traces together: who sent the requests that they count. Uses `gateway`, `telemetry`.
//! - [`config`]: the YAML file and the environment variables, fully checked. Uses `gateway`.
//! - [`probe`]: schedules probes and user counts, and runs them.
//! - [`metrics`]: the catalogue of metrics and their encoding for Prometheus. Uses `gateway`, `telemetry`, `sources`.
//! - [`admin`]: the HTTP endpoints of the exporter. Uses `gateway`, `probe`, `metrics`, `sources`.
//! - [`state`]: state that survives a restart.
//! - [`app`]: wiring: starts all parts from a configuration, and shuts them down. Uses `otlp`, `gateway`, `telemetry`,
//!   `sources`, `config`, `probe`, `metrics`, `admin`, `state`.
//! - [`cli`]: the commands. Uses `analyze`, `config`, `probe`, `metrics`, `admin`, `app`.
//!
//! # The crates
//!
//! Cargo enforces their dependencies.
//!
//! - `ratelimit_headers`: parses quota headers of all dialects. Independent of Clerk.
//! - [`clerk_quota`]: Clerk's limits and routes, windows, ledger, forecast. Pure: time is passed in.
//! - [`clerk_client`]: keys, transport, rate limiter, retries, typed users, webhooks, cache.
//! - [`clerk_simulator`]: a simulated Clerk. Shares no code with the rest, so that one mistake cannot be in both.
//! - [`prometheus_web`]: an HTTP server with timeouts, TLS and authentication. Independent of Clerk.
//! - [`file_fingerprint`]: detects whether a file has changed since it was read.

pub mod admin;
pub mod analyze;
pub mod app;
pub mod cli;
pub mod config;
pub mod gateway;
pub mod metrics;
pub mod otlp;
pub mod probe;
pub mod sources;
pub mod state;
pub mod telemetry;
