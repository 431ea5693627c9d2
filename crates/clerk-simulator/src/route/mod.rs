//! The endpoint of a request and the budget that it counts against.

mod table;

use http::Method;

use super::limits::SimulatedBucket;

pub use table::RouteInfo;
pub(super) use table::{Access, Endpoint, ROUTES};

/// Most parameters in one path.
const MAX_PARAMETERS: usize = 2;

/// The route of a request with the identifiers in its path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route<'a> {
    /// `None` if there is no such endpoint.
    pub(super) info: Option<&'static RouteInfo>,
    parameters: [&'a str; MAX_PARAMETERS],
}

impl<'a> Route<'a> {
    pub(super) fn of(method: &Method, path: &'a str) -> Self {
        let versioned = path.strip_prefix("/v1/");
        let rest = versioned.or_else(|| path.strip_prefix('/')).unwrap_or(path);
        let method = if method == Method::HEAD { "GET" } else { method.as_str() };
        let found = ROUTES.iter().filter(|info| info.method() == method).find_map(|info| {
            let parameters = parameters(info.template().strip_prefix("/v1/")?, rest)?;
            (versioned.is_some() || info.is_also_without_version()).then_some((info, parameters))
        });
        match found {
            Some((info, parameters)) => Self { info: Some(info), parameters },
            None => Self { info: None, parameters: [""; MAX_PARAMETERS] },
        }
    }

    /// The first identifier in the path.
    pub(super) fn id(&self) -> &'a str {
        self.parameters[0]
    }

    /// The second identifier in the path.
    pub(super) fn second_id(&self) -> &'a str {
        self.parameters[1]
    }

    /// Returns the bucket and the entity that owns the budget; `None` if the request is not counted.
    ///
    /// A path that does not exist counts against the instance's bucket.
    pub(super) fn budget(&self) -> Option<(SimulatedBucket, Option<String>)> {
        let Some(info) = self.info else { return Some((SimulatedBucket::Instance, None)) };
        let bucket = info.bucket()?;
        let entity = match bucket {
            SimulatedBucket::UserUpdate | SimulatedBucket::OrganizationUpdate => Some(self.id().to_owned()),
            SimulatedBucket::MembershipUpdate => Some(format!("{}/{}", self.id(), self.second_id())),
            _ => None,
        };
        Some((bucket, entity))
    }
}

/// Returns the values of the template's parameters in the path, if they match.
fn parameters<'a>(template: &str, path: &'a str) -> Option<[&'a str; MAX_PARAMETERS]> {
    let mut values = [""; MAX_PARAMETERS];
    let mut count = 0;
    let mut segments = path.split('/');
    for part in template.split('/') {
        let segment = segments.next()?;
        if part.starts_with('{') {
            if segment.is_empty() {
                return None;
            }
            *values.get_mut(count)? = segment;
            count += 1;
        } else if part != segment {
            return None;
        }
    }
    segments.next().is_none().then_some(values)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn routes_count_against_their_documented_bucket() {
        let cases = [
            ("GET", "/v1/users", Some((SimulatedBucket::Instance, None))),
            ("HEAD", "/v1/users/count", Some((SimulatedBucket::Instance, None))),
            ("GET", "/v1/users/user_a", Some((SimulatedBucket::Instance, None))),
            ("DELETE", "/v1/users/user_a", Some((SimulatedBucket::Instance, None))),
            ("POST", "/v1/users", Some((SimulatedBucket::Instance, None))),
            ("GET", "/v1/instance", Some((SimulatedBucket::Instance, None))),
            ("GET", "/v1/nothing/like/it", Some((SimulatedBucket::Instance, None))),
            ("GET", "/v1/invitations", Some((SimulatedBucket::Instance, None))),
            ("GET", "/v1/jwks", None),
            ("POST", "/v1/api_keys/verify", Some((SimulatedBucket::Instance, None))),
            ("POST", "/m2m_tokens/verify", Some((SimulatedBucket::Instance, None))),
            ("POST", "/v1/invitations", Some((SimulatedBucket::Invitations, None))),
            ("POST", "/v1/invitations/bulk", Some((SimulatedBucket::InvitationsBulk, None))),
            ("POST", "/v1/organizations/org_a/invitations", Some((SimulatedBucket::OrganizationInvitations, None))),
            (
                "POST",
                "/v1/organizations/org_a/invitations/bulk",
                Some((SimulatedBucket::OrganizationInvitationsBulk, None)),
            ),
            ("PATCH", "/v1/users/user_a", Some((SimulatedBucket::UserUpdate, Some("user_a")))),
            ("PATCH", "/v1/users/user_a/metadata", Some((SimulatedBucket::UserUpdate, Some("user_a")))),
            ("PUT", "/v1/users/user_a/metadata", Some((SimulatedBucket::UserUpdate, Some("user_a")))),
            ("PATCH", "/v1/organizations/org_a", Some((SimulatedBucket::OrganizationUpdate, Some("org_a")))),
            ("PATCH", "/v1/organizations/org_a/metadata", Some((SimulatedBucket::OrganizationUpdate, Some("org_a")))),
            ("PUT", "/v1/organizations/org_a/metadata", Some((SimulatedBucket::OrganizationUpdate, Some("org_a")))),
            (
                "PATCH",
                "/v1/organizations/org_a/memberships/user_a",
                Some((SimulatedBucket::MembershipUpdate, Some("org_a/user_a"))),
            ),
            (
                "PATCH",
                "/v1/organizations/org_a/memberships/user_a/metadata",
                Some((SimulatedBucket::MembershipUpdate, Some("org_a/user_a"))),
            ),
            ("DELETE", "/v1/organizations/org_a/memberships/user_a", Some((SimulatedBucket::Instance, None))),
        ];
        for (method, path, expected) in cases {
            let budget = Route::of(&method.parse().unwrap(), path).budget();
            let expected = expected.map(|(bucket, entity)| (bucket, entity.map(str::to_owned)));
            assert_eq!(budget, expected, "{method} {path}");
        }
    }

    fn template(method: &str, path: &str) -> Option<&'static str> {
        Route::of(&method.parse().unwrap(), path).info.map(RouteInfo::template)
    }

    #[test]
    fn routes_match_whole_paths_and_fixed_segments_first() {
        assert_eq!(template("GET", "/v1/users/count"), Some("/v1/users/count"));
        assert_eq!(template("HEAD", "/v1/users/user_1"), Some("/v1/users/{user_id}"));
        let invitations = "/v1/organizations/org_a/invitations";
        assert_eq!(
            template("GET", &format!("{invitations}/pending")),
            Some("/v1/organizations/{organization_id}/invitations/pending")
        );
        for path in ["/v1/users/", "/v1/users/a/b", "/v1/users/count/x", "/v1", "/", "", "/v1/users//metadata", "//"] {
            assert_eq!(template("GET", path), None, "{path}");
        }
    }

    #[test]
    fn only_machine_authentication_is_also_without_the_version() {
        assert_eq!(template("POST", "/m2m_tokens"), Some("/v1/m2m_tokens"));
        assert_eq!(template("GET", "/api_keys/ak_1/secret"), Some("/v1/api_keys/{api_key_id}/secret"));
        assert_eq!(template("GET", "/users"), None);
    }

    #[test]
    fn no_route_is_listed_twice() {
        let distinct: BTreeSet<_> = ROUTES.iter().map(|info| (info.method(), info.template())).collect();
        assert_eq!(distinct.len(), ROUTES.len());
    }
}
