//! Who uses the budgets now: `/api/v1/top` and a table on the landing page, by what the gateway saw.

use std::fmt::Write;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::Admin;
use super::landing::escape;
use crate::gateway::{GatewayStats, Share, Span};

/// Shares that the landing page shows of each instance.
const MAX_ROWS: usize = 10;

/// Who used the budgets of each instance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TopPage {
    /// The instances of which requests were seen.
    pub instances: Vec<InstanceTop>,
}

/// Who used the budgets of one instance, most first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InstanceTop {
    /// The alias; `other` for requests of unknown keys.
    pub name: Arc<str>,
    /// In the last 10 s.
    pub last_10s: Vec<TopEntry>,
    /// In the last minute.
    pub last_1m: Vec<TopEntry>,
    /// In the last hour.
    pub last_1h: Vec<TopEntry>,
}

/// The use of one caller and route.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TopEntry {
    /// The template, or `other`.
    pub route: &'static str,
    /// Who called.
    pub caller: Arc<str>,
    /// Requests that a budget paid for.
    pub requests: u64,
    /// Of all requests of that time, from 0 to 1.
    pub ratio: f64,
}

impl From<&Share> for TopEntry {
    fn from(share: &Share) -> Self {
        let Share { route, caller, requests, ratio } = share;
        Self { route, caller: Arc::clone(caller), requests: *requests, ratio: *ratio }
    }
}

impl TopPage {
    /// From the gateway's numbers.
    #[must_use]
    pub fn new(numbers: &GatewayStats) -> Self {
        let seen = numbers.instances.iter().filter(|(_, numbers)| numbers.top.iter().any(|shares| !shares.is_empty()));
        let instances = seen.map(|(name, numbers)| {
            let uses = |span: Span| numbers.top[span as usize].iter().map(TopEntry::from).collect();
            InstanceTop {
                name: Arc::clone(name),
                last_10s: uses(Span::Window),
                last_1m: uses(Span::Minute),
                last_1h: uses(Span::Hour),
            }
        });
        Self { instances: instances.collect() }
    }
}

pub(super) async fn json(State(site): State<Arc<Admin>>) -> Response {
    match &site.gateway {
        Some(gateway) => Json(TopPage::new(&gateway.stats())).into_response(),
        None => {
            (StatusCode::NOT_FOUND, "no gateway is configured, and only a gateway sees who calls\n").into_response()
        }
    }
}

/// The table of the landing page; empty where nothing was seen in the last hour.
pub(super) fn table(numbers: &GatewayStats) -> String {
    let mut rows = String::new();
    for InstanceTop { name, last_10s, last_1m, last_1h } in TopPage::new(numbers).instances {
        let of = |uses: &[TopEntry], route: &str, caller: &str| {
            uses.iter().find(|it| it.route == route && *it.caller == *caller).map_or(0, |it| it.requests)
        };
        for used in last_1h.iter().take(MAX_ROWS) {
            let (window, minute) = (of(&last_10s, used.route, &used.caller), of(&last_1m, used.route, &used.caller));
            let _ = writeln!(
                rows,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{window}</td><td>{minute}</td><td>{}</td><td>{:.0} %</td></tr>",
                escape(&name),
                escape(&used.caller),
                escape(used.route),
                used.requests,
                used.ratio * 100.0,
            );
        }
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "<h2>Who uses it</h2><table><thead><tr><th>Instance</th><th>Caller</th><th>Route</th><th>Last 10 s</th>\
         <th>Last minute</th><th>Last hour</th><th>Share of the hour</th></tr></thead><tbody>{rows}</tbody></table>"
    )
}
