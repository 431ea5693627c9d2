//! What the exporter shows over HTTP: metrics, the landing page, the state as JSON, health, reload.
//!
//! Nothing here calls Clerk, and nothing waits: everything is made from the ledger as it is.

mod landing;
mod lifecycle;
mod metrics_page;
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
use tower_http::compression::CompressionLayer;

pub use lifecycle::{ReloadError, ReloadRequest, Reloader};
pub use status::Status;
pub use top::{InstanceTop, TopEntry, TopPage};

use crate::gateway::Gateway;
use crate::metrics::Metrics;
use crate::probe::Probes;
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;

/// Paths that orchestrators ask, and that say nothing of the instances.
const HEALTH_PATHS: [&str; 2] = ["/-/healthy", "/-/ready"];

/// Paths beside that of the metrics, `/` and those below `/-/`.
pub const PATHS: [&str; 3] = ["/api/v1/status", "/api/v1/top", "/config"];

/// Where things are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminOptions {
    /// Path of the metrics, beginning with a slash; none of [`PATHS`], nor below `/-/`.
    pub telemetry_path: String,
    /// Path before all paths: empty, or beginning with a slash and not ending in one.
    pub route_prefix: String,
    /// Path at which browsers see the prefix, if a proxy in front changes it; as `route_prefix`.
    pub external_prefix: String,
}

impl AdminOptions {
    /// The paths that tell an orchestrator whether the process serves and is ready. They need no password.
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

/// What the pages are made from.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where things are found.
    pub options: AdminOptions,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The numbers.
    pub ledger: Arc<Ledger>,
    /// The time.
    pub clock: Arc<Clock>,
    /// The gateway, if there is one.
    pub gateway: Option<Arc<Gateway>>,
    /// Tells whether anything was polled yet.
    pub probes: Arc<Probes>,
    /// The configuration in force, without secrets.
    pub config_text: Arc<ArcSwap<String>>,
    /// Loads the configuration again; none if that is not enabled.
    pub reloader: Option<Reloader>,
}

impl Admin {
    /// All paths. Needs a runtime, in which a thread writes metrics.
    pub fn router(self) -> Router {
        let prefix = self.options.route_prefix.clone();
        let telemetry_path = self.options.telemetry_path.clone();
        let metrics = get(metrics_page::page).layer(CompressionLayer::new().gzip(true));
        let metrics = metrics.with_state(metrics_page::Writer::start(Arc::clone(&self.metrics)));
        let router = Router::new()
            .route("/", get(landing::page))
            .route("/api/v1/status", get(status::json))
            .route("/api/v1/top", get(top::json))
            .route("/config", get(config))
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

/// axum's `nest` serves the root of what is nested without a slash at the end only.
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
    if site.probes.has_polled() {
        "Ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "Not ready: no probe has finished yet\n").into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_knows_every_path_of_the_exporter_s() {
        let telemetry_path = AdminOptions::default().telemetry_path;
        let health = ["/-/healthy", "/-/ready", "/-/reload"];
        for path in PATHS.into_iter().chain(health).chain([&*telemetry_path]) {
            assert!(crate::gateway::is_exporter_page(path), "{path}");
        }
    }
}
