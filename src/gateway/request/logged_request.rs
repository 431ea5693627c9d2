//! What the access log says of a request.

use http::Method;

use super::routing_table::InstanceRuntime;
use super::turn::Turn;
use super::upstream_request::UpstreamRequest;
use crate::gateway::accounting::access_log::{AccessLog, LoggedRequest};
use crate::gateway::config::policy::RoutePolicies;
use crate::gateway::reads::instance_state::LookUpKind;
use crate::gateway::reads::read_path::ReadRequest;
use clerk_client::outbound::Credentials;
use clerk_client::webhook::{tags_named_by, tags_of_write};
use clerk_quota::Route;

/// What the access log says of a request. `may_share`: other requests may get its response.
pub(super) fn logged_request(
    log: &AccessLog,
    request: &UpstreamRequest,
    instance: &InstanceRuntime,
    route: Route,
    (credentials, turn, policies): (Credentials, Turn, RoutePolicies),
    may_share: bool,
) -> LoggedRequest {
    let (method, path) = (request.method(), request.path());
    if *method != Method::GET {
        let changes = log.tags(&tags_of_write(method, route.template, path));
        return LoggedRequest { changes, ..LoggedRequest::default() };
    }
    let changes = log.tags(&tags_named_by(route.template, path));
    let read = ReadRequest::of(request, route, credentials, &instance.state.cache).filter(|_| may_share);
    let kind = LookUpKind::of(request.headers(), turn, policies);
    let logged = read.map(|read| read.logged(log, &kind)).unwrap_or_default();
    LoggedRequest { changes, ..logged }
}
