//! The endpoint of a request and the budget that it counts against.

use http::Method;

use super::limits::SimulatedBucket;

/// An endpoint of the Backend API with the identifiers in its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route<'a> {
    Jwks,
    Instance,
    Users,
    UsersCount,
    User { user: &'a str },
    UserUpdate { user: &'a str },
    UserMetadata { user: &'a str, replace: bool },
    Invitation,
    InvitationsBulk,
    Organization { organization: &'a str },
    OrganizationUpdate { organization: &'a str },
    OrganizationMetadata { organization: &'a str, replace: bool },
    OrganizationInvitation { organization: &'a str },
    OrganizationInvitationsBulk { organization: &'a str },
    MembershipUpdate { organization: &'a str, user: &'a str },
    MembershipMetadata { organization: &'a str, user: &'a str },
    Unknown,
}

impl<'a> Route<'a> {
    pub(super) fn of(method: &Method, path: &'a str) -> Self {
        let Some(path) = path.strip_prefix("/v1/") else { return Self::Unknown };
        let segments: Vec<&str> = path.splitn(7, '/').collect();
        match (method.as_str(), segments.as_slice()) {
            ("GET" | "HEAD", ["jwks"]) => Self::Jwks,
            ("GET" | "HEAD", ["instance"]) => Self::Instance,
            ("GET" | "HEAD", ["users"]) => Self::Users,
            ("GET" | "HEAD", ["users", "count"]) => Self::UsersCount,
            ("GET" | "HEAD", ["users", user]) => Self::User { user },
            ("PATCH", ["users", user]) => Self::UserUpdate { user },
            ("PATCH", ["users", user, "metadata"]) => Self::UserMetadata { user, replace: false },
            ("PUT", ["users", user, "metadata"]) => Self::UserMetadata { user, replace: true },
            ("POST", ["invitations"]) => Self::Invitation,
            ("POST", ["invitations", "bulk"]) => Self::InvitationsBulk,
            ("GET" | "HEAD", ["organizations", organization]) => Self::Organization { organization },
            ("PATCH", ["organizations", organization]) => Self::OrganizationUpdate { organization },
            ("PATCH", ["organizations", organization, "metadata"]) => {
                Self::OrganizationMetadata { organization, replace: false }
            }
            ("PUT", ["organizations", organization, "metadata"]) => {
                Self::OrganizationMetadata { organization, replace: true }
            }
            ("POST", ["organizations", organization, "invitations"]) => Self::OrganizationInvitation { organization },
            ("POST", ["organizations", organization, "invitations", "bulk"]) => {
                Self::OrganizationInvitationsBulk { organization }
            }
            ("PATCH", ["organizations", organization, "memberships", user]) => {
                Self::MembershipUpdate { organization, user }
            }
            ("PATCH", ["organizations", organization, "memberships", user, "metadata"]) => {
                Self::MembershipMetadata { organization, user }
            }
            _ => Self::Unknown,
        }
    }

    /// Returns the bucket and the entity that owns the budget; `None` if the request is not counted.
    ///
    /// A path that does not exist counts against the instance's bucket.
    pub(super) fn budget(self) -> Option<(SimulatedBucket, Option<String>)> {
        Some(match self {
            Self::Jwks => return None,
            Self::Instance
            | Self::Users
            | Self::UsersCount
            | Self::User { .. }
            | Self::Organization { .. }
            | Self::Unknown => (SimulatedBucket::Instance, None),
            Self::UserUpdate { user } | Self::UserMetadata { user, .. } => {
                (SimulatedBucket::UserUpdate, Some(user.to_owned()))
            }
            Self::Invitation => (SimulatedBucket::Invitations, None),
            Self::InvitationsBulk => (SimulatedBucket::InvitationsBulk, None),
            Self::OrganizationUpdate { organization } | Self::OrganizationMetadata { organization, .. } => {
                (SimulatedBucket::OrganizationUpdate, Some(organization.to_owned()))
            }
            Self::OrganizationInvitation { .. } => (SimulatedBucket::OrganizationInvitations, None),
            Self::OrganizationInvitationsBulk { .. } => (SimulatedBucket::OrganizationInvitationsBulk, None),
            Self::MembershipUpdate { organization, user } | Self::MembershipMetadata { organization, user } => {
                (SimulatedBucket::MembershipUpdate, Some(format!("{organization}/{user}")))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_count_against_their_documented_bucket() {
        let cases = [
            ("GET", "/v1/users", Some((SimulatedBucket::Instance, None))),
            ("HEAD", "/v1/users/count", Some((SimulatedBucket::Instance, None))),
            ("GET", "/v1/users/user_a", Some((SimulatedBucket::Instance, None))),
            ("DELETE", "/v1/users/user_a", Some((SimulatedBucket::Instance, None))),
            ("GET", "/v1/instance", Some((SimulatedBucket::Instance, None))),
            ("GET", "/v1/nothing/like/it", Some((SimulatedBucket::Instance, None))),
            ("GET", "/v1/invitations", Some((SimulatedBucket::Instance, None))),
            ("GET", "/v1/jwks", None),
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
        ];
        for (method, path, expected) in cases {
            let budget = Route::of(&method.parse().unwrap(), path).budget();
            let expected = expected.map(|(bucket, entity)| (bucket, entity.map(str::to_owned)));
            assert_eq!(budget, expected, "{method} {path}");
        }
    }
}
