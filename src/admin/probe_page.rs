//! `/probe`: the last probe of an instance step by step, for people who look for a fault. Sends nothing to Clerk.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::Admin;

#[derive(Debug, Deserialize)]
pub(super) struct ProbeQuery {
    instance: Option<String>,
    debug: Option<String>,
}

pub(super) async fn page(State(site): State<Arc<Admin>>, Query(query): Query<ProbeQuery>) -> Response {
    if !site.enable_probe_debug {
        let text = "Probe debugging is not enabled: start with --web.enable-probe-debug.\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let names = || {
        let names = site.probes.names();
        let lines: String = names.iter().map(|name| format!("  {name}\n")).collect();
        format!("Instances:\n{lines}")
    };
    let usage = "/probe?instance=NAME&debug=true";
    let Some(instance) = query.instance.filter(|name| !name.is_empty()) else {
        return plain(StatusCode::BAD_REQUEST, format!("The instance is missing: write {usage}.\n{}", names()));
    };
    if query.debug.as_deref() != Some("true") {
        let text = format!("Add debug=true: write {usage}. Metrics of all instances are on the metrics page.\n");
        return plain(StatusCode::BAD_REQUEST, text);
    }
    match site.probes.story(&instance) {
        Some(story) => plain(StatusCode::OK, story),
        None => plain(StatusCode::NOT_FOUND, format!("There is no such instance.\n{}", names())),
    }
}

fn plain(status: StatusCode, text: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, text).into_response()
}
