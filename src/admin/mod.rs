//! The exporter's HTTP endpoints: metrics, landing page, status as JSON, overrides of callers, health, reload.
//!
//! No endpoint calls Clerk or waits, except for a reload and for the Redis of overrides: responses are made from the
//! current state of the ledger.

mod landing;
mod lifecycle;
mod metrics_page;
mod overrides;
mod probe_page;
mod status;
mod top;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::Request;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use tokio_util::sync::CancellationToken;
use tower_http::compression::CompressionLayer;

pub use lifecycle::{ReloadError, ReloadRequest, Reloader};
pub use overrides::OverrideStatus;
pub use status::Status;
pub use top::{InstanceTop, TopEntry, TopPage};

use crate::metrics::Metrics;
use crate::probe::Probes;
use crate::sources::Sources;
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;

/// Health checks for orchestrators. They reveal nothing about the instances.
const HEALTH_PATHS: [&str; 2] = ["/-/healthy", "/-/ready"];

/// The condition of an instance that another process observes.
const STANDBY: &str = "standby";

/// Reserved paths other than the metrics path, `/` and those below `/-/`.
pub const PATHS: [&str; 5] = ["/api/v1/overrides", "/api/v1/status", "/api/v1/top", "/config", "/probe"];

/// Paths of the endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminOptions {
    /// Path of the metrics; starts with a slash, is none of [`PATHS`] and not below `/-/`.
    pub telemetry_path: String,
    /// Prefix of all paths: empty, or with a leading and without a trailing slash.
    pub route_prefix: String,
    /// The prefix that browsers see, if a reverse proxy changes it; same format as `route_prefix`.
    pub external_prefix: String,
}

impl AdminOptions {
    /// The health check paths. They need no password.
    #[must_use]
    pub fn health_paths(&self) -> Vec<String> {
        HEALTH_PATHS.iter().map(|path| format!("{}{path}", self.route_prefix)).collect()
    }
}

impl Default for AdminOptions {
    fn default() -> Self {
        Self { telemetry_path: "/metrics".to_owned(), route_prefix: String::new(), external_prefix: String::new() }
    }
}

/// The inputs of the pages.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Paths of the endpoints.
    pub options: AdminOptions,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// The clock.
    pub clock: Arc<Clock>,
    /// The gateway and the receiver of traces, if configured.
    pub sources: Sources,
    /// The probes, for readiness.
    pub probes: Arc<Probes>,
    /// The current configuration without secrets.
    pub config_text: Arc<ArcSwap<String>>,
    /// Reloads the configuration; `None` if disabled.
    pub reloader: Option<Reloader>,
    /// Whether `/probe` is on.
    pub enable_probe_debug: bool,
    /// Cancelled when the process is about to stop: from then on it is not ready.
    pub leaving: CancellationToken,
}

impl Admin {
    /// Returns the router of all paths. Needs a runtime: it starts the thread that encodes metrics.
    pub fn router(self) -> Router {
        let prefix = self.options.route_prefix.clone();
        let telemetry_path = self.options.telemetry_path.clone();
        let metrics = get(metrics_page::page).layer(CompressionLayer::new().gzip(true));
        let metrics = metrics.with_state(metrics_page::Writer::start(Arc::clone(&self.metrics)));
        let router = Router::new()
            .route("/", get(landing::page))
            .route("/api/v1/status", get(status::json))
            .route("/api/v1/top", get(top::json))
            .route("/api/v1/overrides", get(overrides::list).post(overrides::set).delete(overrides::end))
            .route("/config", get(config))
            .route("/probe", get(probe_page::page))
            .route(HEALTH_PATHS[0], get(async || "Healthy\n"))
            .route(HEALTH_PATHS[1], get(ready))
            .route("/-/reload", any(lifecycle::reload))
            .route(&telemetry_path, metrics)
            .with_state(Arc::new(self));
        if prefix.is_empty() {
            return router;
        }
        let to_landing = format!("{prefix}/");
        Router::new()
            .nest(&prefix, router.clone())
            .route(&to_landing, get(async move |request: Request| at_root(router, request).await))
            .route("/", get(async move || axum::response::Redirect::temporary(&to_landing.clone())))
    }
}

/// axum's `nest` serves the root of the nested router only without a trailing slash.
async fn at_root(router: Router, mut request: Request) -> Response {
    use tower::ServiceExt;
    *request.uri_mut() = Uri::from_static("/");
    match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

async fn config(State(site): State<Arc<Admin>>) -> Response {
    let text = String::clone(&site.config_text.load());
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

async fn ready(State(site): State<Arc<Admin>>) -> Response {
    let trouble = if site.leaving.is_cancelled() {
        "Not ready: shutting down\n"
    } else if !site.probes.has_polled() {
        "Not ready: no probe has finished yet\n"
    } else {
        return "Ready\n".into_response();
    };
    (StatusCode::SERVICE_UNAVAILABLE, trouble).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_recognizes_every_exporter_path() {
        let telemetry_path = AdminOptions::default().telemetry_path;
        let health = ["/-/healthy", "/-/ready", "/-/reload"];
        for path in PATHS.into_iter().chain(health).chain([&*telemetry_path]) {
            assert!(crate::gateway::is_exporter_page(path), "{path}");
        }
    }
}
