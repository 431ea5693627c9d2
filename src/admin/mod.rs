//! What the exporter shows over HTTP: metrics, the landing page, the state as JSON, health, reload.
//!
//! Nothing here calls Clerk, and nothing waits: everything is made from the ledger as it is.

mod landing;
mod lifecycle;
mod status;
mod top;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::extract::Request;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Extension, Router};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tower_http::compression::CompressionLayer;

pub use lifecycle::{ReloadError, ReloadRequest, Reloader};
pub use status::Status;
pub use top::{InstanceTop, TopEntry, TopPage};

use crate::gateway::Gateway;
use crate::metrics::{Format, Metrics};
use crate::probe::Probes;
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use prometheus_web::HeldBytes;

/// Paths that orchestrators ask, and that say nothing of the instances.
const HEALTH_PATHS: [&str; 2] = ["/-/healthy", "/-/ready"];

/// What compressing a response takes in memory.
const COMPRESSION_BYTES: usize = 300 * 1024;

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
    /// All paths.
    pub fn router(self) -> Router {
        let prefix = self.options.route_prefix.clone();
        let telemetry_path = self.options.telemetry_path.clone();
        let compressed = CompressionLayer::new().gzip(true);
        let router = Router::new()
            .route("/", get(landing::page))
            .route("/api/v1/status", get(status::json))
            .route("/api/v1/top", get(top::json))
            .route("/config", get(config))
            .route(HEALTH_PATHS[0], get(async || "Healthy\n"))
            .route(HEALTH_PATHS[1], get(ready))
            .route("/-/reload", any(lifecycle::reload))
            .route(&telemetry_path, get(metrics).layer(compressed))
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

async fn metrics(State(site): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    let format = Format::negotiate(&headers);
    // Thousands of instances take a while to write down: not on a thread that serves others.
    let encoded = tokio::task::spawn_blocking(move || site.metrics.encode(format)).await;
    match encoded {
        Ok(Ok(parts)) => {
            let held = HeldBytes(parts.iter().map(String::len).sum::<usize>() + COMPRESSION_BYTES);
            let body = Body::new(Parts(parts.into_iter().map(Bytes::from).collect()));
            let content_type = HeaderValue::from_static(format.content_type());
            let vary = HeaderValue::from_static("accept");
            (Extension(held), [(header::CONTENT_TYPE, content_type), (header::VARY, vary)], body).into_response()
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "metrics cannot be encoded");
            (StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be encoded; see the log\n").into_response()
        }
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n").into_response(),
    }
}

/// A body in parts, of a length that is known.
struct Parts(VecDeque<Bytes>);

impl HttpBody for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|part| part.len() as u64).sum())
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
