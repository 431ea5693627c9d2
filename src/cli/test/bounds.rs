//! The bounds on the requests of a test suite.

use std::str::FromStr;

use clerk_simulator::{RouteInfo, Simulator};

use super::record::SuiteCounts;

/// Suggestions for an unknown route.
const SUGGESTIONS: usize = 3;

/// The most requests of one route.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouteBound {
    route: &'static RouteInfo,
    most: u64,
}

impl FromStr for RouteBound {
    type Err = String;

    /// Parses `METHOD TEMPLATE=N`. Names of parameters do not matter.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || format!("`{text}` is not a bound: write METHOD PATH=N, as in 'GET /v1/users/{{user_id}}=3'");
        let (route, most) = text.rsplit_once('=').ok_or_else(malformed)?;
        let most = most.trim().parse().map_err(|_| malformed())?;
        let (method, path) = route.trim().split_once(' ').ok_or_else(malformed)?;
        let (method, path) = (method.to_ascii_uppercase(), path.trim());
        let is_wanted = |route: &&RouteInfo| route.method() == method && anonymous(route.template()) == anonymous(path);
        let route = Simulator::routes().iter().find(is_wanted).ok_or_else(|| unknown(&format!("{method} {path}")))?;
        Ok(Self { route, most })
    }
}

/// The path with parameters of the same name.
fn anonymous(path: &str) -> String {
    let part = |part: &str| if part.starts_with('{') { "{}".to_owned() } else { part.to_owned() };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

fn unknown(wanted: &str) -> String {
    let names = Simulator::routes().iter().map(name);
    let mut near: Vec<_> = names.map(|name| (strsim::normalized_damerau_levenshtein(&name, wanted), name)).collect();
    near.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let near: Vec<_> = near.into_iter().take(SUGGESTIONS).map(|(_, name)| format!("`{name}`")).collect();
    format!("the simulator has no route `{wanted}`; near ones: {}", near.join(", "))
}

/// A route as in bounds and reports.
pub(super) fn name(route: &RouteInfo) -> String {
    format!("{} {}", route.method(), route.template())
}

/// A bound that was exceeded.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Exceeded {
    /// The flag.
    pub(super) bound: String,
    pub(super) most: u64,
    pub(super) requests: u64,
}

impl Exceeded {
    /// A line for people.
    pub(super) fn text(&self) -> String {
        let Self { bound, most, requests } = self;
        format!("{requests} requests, {} more than {bound} allows ({most})", requests - most)
    }
}

/// The bounds that these requests exceed.
pub(super) fn exceeded(counts: &SuiteCounts, max_requests: Option<u64>, per_route: &[RouteBound]) -> Vec<Exceeded> {
    let total = max_requests.map(|most| ("--max-requests".to_owned(), most, counts.total()));
    let per_route = per_route.iter().map(|bound| {
        let route = name(bound.route);
        let requests = counts.of_route(&route);
        (format!("--max-per-route '{route}'"), bound.most, requests)
    });
    let all = total.into_iter().chain(per_route);
    let all = all.map(|(bound, most, requests)| Exceeded { bound, most, requests });
    all.filter(|bound| bound.requests > bound.most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<RouteBound>().unwrap_err()
    }

    #[test]
    fn bounds_name_routes_with_any_parameter_names() {
        for text in ["GET /v1/users/{user_id}=3", "get /v1/users/{id} = 3", "GET  /v1/users/{}=3"] {
            let bound: RouteBound = text.parse().unwrap();
            assert_eq!((bound.route.template(), bound.most), ("/v1/users/{user_id}", 3), "{text}");
        }
    }

    #[test]
    fn unknown_routes_are_rejected_with_near_ones() {
        assert!(error("GET /v1/user/{user_id}=3").contains("`GET /v1/users/{user_id}`"));
        assert!(error("POST /v1/users/count=3").contains("`GET /v1/users/count`"));
        for text in ["", "GET /v1/users", "/v1/users=3", "GET /v1/users=", "GET /v1/users=-1"] {
            assert!(error(text).contains("write METHOD PATH=N"), "{text}");
        }
    }
}
