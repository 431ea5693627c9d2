//! `GET /_simulator/`: what the simulator knows, as JSON for programs and as HTML for browsers.

use std::fmt::Write as _;

use axum::response::{Html, IntoResponse, Response};
use axum::{Json, extract::State};
use http::HeaderMap;
use http::header::{ACCEPT, VARY};
use serde::Serialize;
use serde_json::{Value, json};

use super::Simulator;
use super::route::{Access, ROUTES, RouteInfo};
use super::webhook::Deliveries;

/// The control endpoints and what each does.
const CONTROLS: [(&str, &str); 6] = [
    ("GET /_simulator/", "this list, as JSON or HTML"),
    ("GET /_simulator/truth?events=N", "use of every budget, with its N newest requests (default 1000)"),
    ("GET /_simulator/faults", "the active faults"),
    (
        "POST /_simulator/faults",
        "adds faults, for example \
         {\"rules\": [{\"fault\": {\"kind\": \"status\", \"status\": 503}, \"times\": 3, \"path_prefix\": \"/v1/users\"}]}",
    ),
    ("PUT /_simulator/faults, DELETE /_simulator/faults", "replaces or removes the faults"),
    ("POST /_simulator/reset", "clears everything recorded, and the changes of clients"),
];

#[derive(Serialize)]
struct Index {
    simulator: &'static str,
    limiter: String,
    headers: String,
    users: u32,
    organizations: u32,
    seed: u64,
    routes: Vec<RouteEntry>,
    endpoints: Value,
    faults: Value,
    webhooks: Deliveries,
}

#[derive(Serialize)]
struct RouteEntry {
    method: &'static str,
    path: &'static str,
    /// The bucket that requests count against; null if they are not counted.
    bucket: Option<&'static str>,
    key: &'static str,
    also_without_version: bool,
}

impl From<&RouteInfo> for RouteEntry {
    fn from(route: &RouteInfo) -> Self {
        Self {
            method: route.method(),
            path: route.template(),
            bucket: route.bucket().map(|bucket| bucket.as_str()),
            key: match route.access {
                Access::Secret => "sk_",
                Access::Machine => "ak_",
                Access::Any => "sk_ or ak_",
            },
            also_without_version: route.is_also_without_version(),
        }
    }
}

impl Index {
    fn of(simulator: &Simulator) -> Self {
        let options = &simulator.shared.options;
        Self {
            simulator: "a simulator of Clerk's Backend API with its rate limiter",
            limiter: options.limiter.to_string(),
            headers: options.headers.to_string(),
            users: options.users,
            organizations: options.organizations,
            seed: options.seed,
            routes: ROUTES.iter().map(RouteEntry::from).collect(),
            endpoints: CONTROLS.iter().map(|(name, text)| ((*name).to_owned(), Value::from(*text))).collect(),
            faults: faults(),
            webhooks: simulator.deliveries(),
        }
    }

    fn html(&self) -> String {
        let mut rows = String::new();
        for RouteEntry { method, path, bucket, key, also_without_version } in &self.routes {
            let bucket = bucket.unwrap_or("not counted");
            let also = if *also_without_version { " (also without /v1)" } else { "" };
            // Writing to a String does not fail.
            let _ = writeln!(rows, "<tr><td>{method}<td><code>{}</code>{also}<td>{bucket}<td>{key}", escaped(path));
        }
        let mut controls = String::new();
        for (name, text) in CONTROLS {
            let _ = writeln!(controls, "<dt><code>{}</code><dd>{}", escaped(name), escaped(text));
        }
        let Self { limiter, headers, users, organizations, seed, webhooks, .. } = self;
        format!(
            "<!DOCTYPE html><html lang=\"en\"><meta charset=\"utf-8\"><title>Simulated Clerk</title>\
             <style>body{{font:15px/1.5 system-ui;margin:2em auto;max-width:60em;padding:0 1em}}\
             td,th{{text-align:left;padding:.1em 1em .1em 0}}</style>\
             <h1>Simulated Clerk</h1>\
             <p>{users} users and {organizations} organizations (seed {seed}), limiter {limiter}, quota headers {headers}. \
             Webhooks: {} delivered, {} failed attempts, {} given up, {} lost.\
             <h2>Routes</h2><table><tr><th>Method<th>Path<th>Bucket<th>Key\n{rows}</table>\
             <h2>Controls</h2><dl>{controls}</dl>\n",
            webhooks.delivered, webhooks.failed_attempts, webhooks.given_up, webhooks.lost,
        )
    }
}

fn faults() -> Value {
    json!([
        {"kind": "latency", "millis": 1500},
        {"kind": "status", "status": 503, "body": "clerk | html | empty"},
        {"kind": "throttled", "retry_after": "0", "body": "clerk | html | empty"},
        {"kind": "reset", "after_bytes": 10},
        {"kind": "malformed_quota_headers"},
        {"kind": "huge_body", "bytes": 1_000_000},
        {"kind": "gzip_bomb", "bytes": 1_000_000},
        {"kind": "redirect", "location": "https://example.com/"},
        {"kind": "quota_exceeded", "code": "user_quota_exceeded"},
    ])
}

/// Responds with HTML to a client that names it in `Accept`, as browsers do, and with JSON to all others.
pub(super) async fn show(State(simulator): State<Simulator>, headers: HeaderMap) -> Response {
    let index = Index::of(&simulator);
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kinds = accepted.split(',').map(|part| part.split(';').next().unwrap_or_default().trim());
    let first = kinds.into_iter().find(|kind| matches!(*kind, "text/html" | "application/json"));
    let response =
        if first == Some("text/html") { Html(index.html()).into_response() } else { Json(index).into_response() };
    ([(VARY, "accept")], response).into_response()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
