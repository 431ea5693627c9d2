//! Records the requests that a test suite sends to the simulator.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use clerk_simulator::Simulator;
use http::header::USER_AGENT;
use http::{Method, StatusCode};
use parking_lot::Mutex;

use super::bounds::name;

/// The route of requests to paths that the simulator does not have.
const UNKNOWN_ROUTE: &str = "(unknown)";
/// The caller of requests beyond [`MAX_CALLERS`].
const OTHER_CALLERS: &str = "(other)";
const NO_CALLER: &str = "(no User-Agent)";

/// So that a suite with random names does not fill the memory.
const MAX_CALLERS: usize = 100;
const MAX_CALLER_CHARS: usize = 60;
/// Resources that repeated reads are counted of.
const MAX_RESOURCES: usize = 100_000;

/// The requests so far. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct SuiteRecord(Arc<Mutex<SuiteCounts>>);

/// Requests by route and caller, and reads by resource.
#[derive(Debug, Clone, Default)]
pub(super) struct SuiteCounts {
    by_route: BTreeMap<(String, String), RouteCount>,
    reads: BTreeMap<String, u64>,
}

/// Requests of one route by one caller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RouteCount {
    pub(super) requests: u64,
    /// Of those, responses with 429.
    pub(super) throttled: u64,
}

impl SuiteRecord {
    pub(super) fn counts(&self) -> SuiteCounts {
        self.0.lock().clone()
    }
}

/// Passes a request on and records it, unless it is for the simulator's own endpoints.
pub(super) async fn note(State(record): State<SuiteRecord>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path == "/_simulator" || path.starts_with("/_simulator/") {
        return next.run(request).await;
    }
    let route = Simulator::route_of(request.method(), path).map_or_else(|| UNKNOWN_ROUTE.to_owned(), name);
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let resource = is_read.then(|| request.uri().path_and_query().map_or(path, |it| it.as_str()).to_owned());
    let agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok());
    let caller = agent.map_or(NO_CALLER, |agent| agent.trim()).chars().take(MAX_CALLER_CHARS).collect();
    let mut noted = NotedRequest { record, route, caller, resource, status: StatusCode::OK };
    let response = next.run(request).await;
    noted.status = response.status();
    response
}

/// A request in flight. It is recorded when it ends, also if its client does not wait for the response.
struct NotedRequest {
    record: SuiteRecord,
    route: String,
    caller: String,
    resource: Option<String>,
    status: StatusCode,
}

impl Drop for NotedRequest {
    fn drop(&mut self) {
        let (route, caller) = (std::mem::take(&mut self.route), std::mem::take(&mut self.caller));
        self.record.0.lock().add(route, caller, self.resource.take(), self.status);
    }
}

impl SuiteCounts {
    fn add(&mut self, route: String, caller: String, resource: Option<String>, status: StatusCode) {
        let caller =
            if self.knows(&caller) || self.callers() < MAX_CALLERS { caller } else { OTHER_CALLERS.to_owned() };
        let count = self.by_route.entry((route, caller)).or_default();
        count.requests += 1;
        count.throttled += u64::from(status == StatusCode::TOO_MANY_REQUESTS);
        if let Some(resource) = resource
            && (self.reads.len() < MAX_RESOURCES || self.reads.contains_key(&resource))
        {
            *self.reads.entry(resource).or_default() += 1;
        }
    }

    fn knows(&self, caller: &str) -> bool {
        self.by_route.keys().any(|(_, known)| known == caller)
    }

    fn callers(&self) -> usize {
        let mut callers: Vec<_> = self.by_route.keys().map(|(_, caller)| caller).collect();
        callers.sort_unstable();
        callers.dedup();
        callers.len()
    }

    pub(super) fn total(&self) -> u64 {
        self.by_route.values().map(|count| count.requests).sum()
    }

    pub(super) fn throttled(&self) -> u64 {
        self.by_route.values().map(|count| count.throttled).sum()
    }

    /// Requests of one route by all callers.
    pub(super) fn of_route(&self, route: &str) -> u64 {
        self.by_route.iter().filter(|((known, _), _)| known == route).map(|(_, count)| count.requests).sum()
    }

    /// Routes and callers, those with the most requests first.
    pub(super) fn routes(&self) -> Vec<(&str, &str, RouteCount)> {
        let mut routes: Vec<_> =
            self.by_route.iter().map(|((route, caller), count)| (route.as_str(), caller.as_str(), *count)).collect();
        routes.sort_by_key(|(.., count)| std::cmp::Reverse(count.requests));
        routes
    }

    /// Resources that were read more than once, those with the most reads first.
    pub(super) fn repeated_reads(&self) -> Vec<(&str, u64)> {
        let mut reads: Vec<_> =
            self.reads.iter().filter(|(_, count)| **count > 1).map(|(path, count)| (path.as_str(), *count)).collect();
        reads.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        reads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_by_route_caller_and_resource() {
        let mut counts = SuiteCounts::default();
        let ok = StatusCode::OK;
        for (route, caller, resource, status) in [
            ("GET /a", "x", Some("/a?b=1"), ok),
            ("GET /a", "x", Some("/a?b=1"), StatusCode::TOO_MANY_REQUESTS),
            ("GET /a", "y", Some("/a?b=2"), ok),
            ("POST /a", "y", None, ok),
        ] {
            counts.add(route.to_owned(), caller.to_owned(), resource.map(str::to_owned), status);
        }
        assert_eq!((counts.total(), counts.throttled(), counts.of_route("GET /a")), (4, 1, 3));
        assert_eq!(counts.routes()[0], ("GET /a", "x", RouteCount { requests: 2, throttled: 1 }));
        assert_eq!(counts.repeated_reads(), [("/a?b=1", 2)]);
    }

    #[test]
    fn callers_are_bounded() {
        let mut counts = SuiteCounts::default();
        for number in 0..MAX_CALLERS + 9 {
            counts.add("GET /a".to_owned(), number.to_string(), None, StatusCode::OK);
        }
        assert_eq!(counts.callers(), MAX_CALLERS + 1);
        assert_eq!(counts.routes()[0].1, OTHER_CALLERS);
    }
}
