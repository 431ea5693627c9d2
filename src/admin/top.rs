//! The current consumers of the budgets, as the gateway and traces show them: `/api/v1/top` and a table on the landing
//! page.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde::Serialize;

use super::Admin;
use crate::sources::{InstanceShares, Share};
use clerk_quota::Span;

/// Maximum number of rows on the landing page, in total and per instance, but at least one per instance.
const MAX_ROWS: usize = 10;
const MAX_ALL_ROWS: usize = 30;

/// The consumers of each instance's budgets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TopPage {
    /// The instances with observed requests.
    pub instances: Vec<InstanceTop>,
}

/// The consumers of one instance's budgets, in descending order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InstanceTop {
    /// The alias; `other` for requests with unknown keys.
    pub name: Arc<str>,
    /// In the last 10 s.
    pub last_10s: Vec<TopEntry>,
    /// In the last minute.
    pub last_1m: Vec<TopEntry>,
    /// In the last hour.
    pub last_1h: Vec<TopEntry>,
}

/// The usage of one caller and route.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TopEntry {
    /// The method.
    pub method: &'static str,
    /// The route template that was requested, or `other`.
    pub route: &'static str,
    /// The caller.
    pub caller: Arc<str>,
    /// The part of the program that sent the requests: `gateway`, `probe` or `client`; or
    /// `telemetry` for requests in traces.
    pub source: &'static str,
    /// Requests that Clerk may have counted, including retries and rejected ones.
    pub requests: u64,
    /// Share of all requests in the time span, from 0 to 1.
    pub ratio: f64,
}

impl From<&Share> for TopEntry {
    fn from(share: &Share) -> Self {
        let Share { method, route, caller, source, requests, ratio } = share;
        let (method, source) = (method.as_str(), source.as_str());
        Self { method, route, caller: Arc::clone(caller), source, requests: *requests, ratio: *ratio }
    }
}

impl TopPage {
    /// Builds the page.
    #[must_use]
    pub fn new(instances: &[InstanceShares]) -> Self {
        let instances = instances.iter().map(|InstanceShares { instance, shares }| {
            let uses = |span: Span| shares[span as usize].iter().map(TopEntry::from).collect();
            InstanceTop {
                name: Arc::clone(instance),
                last_10s: uses(Span::Window),
                last_1m: uses(Span::Minute),
                last_1h: uses(Span::Hour),
            }
        });
        Self { instances: instances.collect() }
    }
}

pub(super) async fn json(State(site): State<Arc<Admin>>) -> Response {
    if site.sources.know_callers() {
        Json(TopPage::new(&site.sources.top(&site.ledger, site.clock.now()))).into_response()
    } else {
        let text = "no gateway and no traces are configured; only these identify callers\n";
        (StatusCode::NOT_FOUND, text).into_response()
    }
}

/// The table of the landing page, the clients that spend most now first. Empty without requests in the last hour.
pub(super) fn table(instances: &[InstanceShares]) -> Markup {
    let instances = TopPage::new(instances).instances;
    let max_rows = (MAX_ALL_ROWS / instances.len().max(1)).clamp(1, MAX_ROWS);
    if instances.is_empty() {
        return Markup::default();
    }
    html! {
        h2 { "Top consumers" }
        table class="top" {
            thead {
                tr {
                    @for heading in HEADINGS {
                        th { (heading) }
                    }
                }
            }
            tbody {
                @for InstanceTop { name, last_10s, last_1m, last_1h } in &instances {
                    @for row in rows_of(last_10s, last_1m, last_1h).into_iter().take(max_rows) {
                        (row.html(name))
                    }
                }
            }
        }
    }
}

/// Headings of the table, and labels of its cells on narrow screens.
const HEADINGS: [&str; 7] =
    ["Instance", "Caller", "Route", "Last 10 s", "Share of last 10 s", "Last minute", "Last hour"];

impl Row<'_> {
    fn html(&self, instance: &str) -> Markup {
        let TopEntry { method, route, caller, .. } = self.entry;
        let [window, minute, hour] = self.requests;
        let share = if window == 0 { String::new() } else { format!("{:.0} %", self.present_ratio * 100.0) };
        let cells = [
            instance.to_owned(),
            caller.to_string(),
            format!("{method} {route}"),
            window.to_string(),
            share,
            minute.to_string(),
            hour.to_string(),
        ];
        html! {
            tr {
                @for (heading, cell) in HEADINGS.into_iter().zip(cells) {
                    td data-label=(heading) { (cell) }
                }
            }
        }
    }
}

/// A consumer, with its requests of the last 10 s, minute and hour.
struct Row<'a> {
    entry: &'a TopEntry,
    requests: [u64; 3],
    present_ratio: f64,
}

/// All consumers in any of the lists, current top consumers first.
fn rows_of<'a>(window: &'a [TopEntry], minute: &'a [TopEntry], hour: &'a [TopEntry]) -> Vec<Row<'a>> {
    let same = |a: &TopEntry, b: &TopEntry| {
        (a.route, a.method, &a.caller, a.source) == (b.route, b.method, &b.caller, b.source)
    };
    let mut rows: Vec<Row<'a>> = Vec::new();
    for entry in window.iter().chain(minute).chain(hour) {
        if rows.iter().any(|row| same(row.entry, entry)) {
            continue;
        }
        let of = |uses: &'a [TopEntry]| uses.iter().find(|other| same(other, entry));
        let requests = [of(window), of(minute), of(hour)].map(|found| found.map_or(0, |found| found.requests));
        rows.push(Row { entry, requests, present_ratio: of(window).map_or(0.0, |found| found.ratio) });
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.requests));
    rows
}
