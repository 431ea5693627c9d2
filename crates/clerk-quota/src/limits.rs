//! The buckets that Clerk limits, with their documented limits.
//!
//! Source: <https://clerk.com/docs/guides/how-clerk-works/system-limits>. A test compares this table with a
//! machine-readable copy of that page.

use std::fmt;
use std::time::Duration;

use super::route_id::RouteId;

/// One of Clerk's rate limits. Limits are independent: a 429 of one bucket says nothing about another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bucket {
    /// Every route without its own bucket.
    Instance,
    /// `POST /v1/invitations`.
    Invitations,
    /// `POST /v1/invitations/bulk`.
    InvitationsBulk,
    /// `POST /v1/organizations/{organization_id}/invitations`.
    OrganizationInvitations,
    /// `POST /v1/organizations/{organization_id}/invitations/bulk`.
    OrganizationInvitationsBulk,
    /// Updates of one user.
    UserUpdate,
    /// Updates of one organization.
    OrganizationUpdate,
    /// Updates of one membership.
    MembershipUpdate,
    /// Routes that Clerk does not limit (`GET /v1/jwks`).
    Unlimited,
    /// A route with a limit of its own that is not published: its responses report a different limit than all others, or
    /// Clerk says that it has one (`GET /v1/logs`).
    Route(RouteId),
}

/// Who shares a bucket's budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The whole Clerk instance, with all its keys.
    Instance,
    /// Each user, organization or membership has its own budget.
    Entity,
    /// The bucket has no budget.
    Unlimited,
}

/// The kind of Clerk instance that a secret key belongs to, which decides the instance's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Environment {
    /// Keys that start with `sk_live_`.
    Production,
    /// Keys that start with `sk_test_`.
    Development,
    /// Not known (yet).
    #[default]
    Unknown,
}

impl Environment {
    /// Returns the name that labels and pages use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Development => "development",
            Self::Unknown => "unknown",
        }
    }
}

/// A limit of requests per window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Requests per window.
    pub requests: u64,
    /// Length of the window.
    pub window: Duration,
}

impl Bucket {
    /// The documented buckets, the default one first.
    pub const ALL: [Self; 9] = [
        Self::Instance,
        Self::Invitations,
        Self::InvitationsBulk,
        Self::OrganizationInvitations,
        Self::OrganizationInvitationsBulk,
        Self::UserUpdate,
        Self::OrganizationUpdate,
        Self::MembershipUpdate,
        Self::Unlimited,
    ];

    /// The buckets that have a budget: [`Bucket::ALL`] without [`Bucket::Unlimited`].
    pub const LIMITED: [Self; 8] = [
        Self::Instance,
        Self::Invitations,
        Self::InvitationsBulk,
        Self::OrganizationInvitations,
        Self::OrganizationInvitationsBulk,
        Self::UserUpdate,
        Self::OrganizationUpdate,
        Self::MembershipUpdate,
    ];

    /// Returns the value of the label `bucket`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Invitations => "invitations",
            Self::InvitationsBulk => "invitations_bulk",
            Self::OrganizationInvitations => "organization_invitations",
            Self::OrganizationInvitationsBulk => "organization_invitations_bulk",
            Self::UserUpdate => "user_update",
            Self::OrganizationUpdate => "organization_update",
            Self::MembershipUpdate => "membership_update",
            Self::Unlimited => "none",
            Self::Route(route) => route.bucket_name(),
        }
    }

    /// Returns the position in [`Bucket::ALL`]; `None` for a bucket of a single route.
    #[must_use]
    pub const fn index(self) -> Option<usize> {
        match self {
            Self::Instance => Some(0),
            Self::Invitations => Some(1),
            Self::InvitationsBulk => Some(2),
            Self::OrganizationInvitations => Some(3),
            Self::OrganizationInvitationsBulk => Some(4),
            Self::UserUpdate => Some(5),
            Self::OrganizationUpdate => Some(6),
            Self::MembershipUpdate => Some(7),
            Self::Unlimited => Some(8),
            Self::Route(_) => None,
        }
    }

    /// Returns whether the bucket has a budget.
    #[must_use]
    pub const fn is_limited(self) -> bool {
        !matches!(self, Self::Unlimited)
    }

    /// Returns who shares the budget.
    #[must_use]
    pub const fn scope(self) -> Scope {
        match self {
            Self::UserUpdate | Self::OrganizationUpdate | Self::MembershipUpdate => Scope::Entity,
            Self::Unlimited => Scope::Unlimited,
            Self::Instance
            | Self::Invitations
            | Self::InvitationsBulk
            | Self::OrganizationInvitations
            | Self::OrganizationInvitationsBulk
            | Self::Route(_) => Scope::Instance,
        }
    }

    /// Returns the documented window length: 10 s, or one hour for invitations.
    #[must_use]
    pub const fn window(self) -> Duration {
        match self {
            Self::Invitations
            | Self::InvitationsBulk
            | Self::OrganizationInvitations
            | Self::OrganizationInvitationsBulk => Duration::from_secs(3600),
            Self::Instance
            | Self::UserUpdate
            | Self::OrganizationUpdate
            | Self::MembershipUpdate
            | Self::Unlimited
            | Self::Route(_) => Duration::from_secs(10),
        }
    }

    /// Returns the documented limit in requests per window; `None` if there is none or the environment is not known.
    #[must_use]
    pub const fn limit(self, environment: Environment) -> Option<u64> {
        match self {
            Self::Instance => match environment {
                Environment::Production => Some(1000),
                Environment::Development => Some(100),
                Environment::Unknown => None,
            },
            Self::Invitations => Some(100),
            Self::InvitationsBulk => Some(25),
            Self::OrganizationInvitations => Some(250),
            Self::OrganizationInvitationsBulk => Some(50),
            Self::UserUpdate | Self::OrganizationUpdate | Self::MembershipUpdate => Some(10),
            Self::Unlimited | Self::Route(_) => None,
        }
    }

    /// Returns the bucket of a known route. `template` is from the catalogue, `method` in capitals.
    ///
    /// The logs of an instance have a limit of their own (<https://clerk.com/changelog>, 2026-10-30).
    pub(super) fn of_route(id: RouteId, method: &str, template: &str) -> Self {
        match (method, template) {
            ("GET", "/v1/jwks") => Self::Unlimited,
            ("GET", "/v1/logs") => Self::Route(id),
            ("POST", "/v1/invitations") => Self::Invitations,
            ("POST", "/v1/invitations/bulk") => Self::InvitationsBulk,
            ("POST", "/v1/organizations/{organization_id}/invitations") => Self::OrganizationInvitations,
            ("POST", "/v1/organizations/{organization_id}/invitations/bulk") => Self::OrganizationInvitationsBulk,
            ("PATCH", "/v1/users/{user_id}") | ("PATCH" | "PUT", "/v1/users/{user_id}/metadata") => Self::UserUpdate,
            ("PATCH", "/v1/organizations/{organization_id}")
            | ("PATCH" | "PUT", "/v1/organizations/{organization_id}/metadata") => Self::OrganizationUpdate,
            (
                "PATCH",
                "/v1/organizations/{organization_id}/memberships/{user_id}"
                | "/v1/organizations/{organization_id}/memberships/{user_id}/metadata",
            ) => Self::MembershipUpdate,
            _ => Self::Instance,
        }
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route;

    #[test]
    fn limits_and_routes_match_the_published_page() {
        let page: serde_json::Value = serde_json::from_str(include_str!("../tests/data/limits.json")).unwrap();
        let mut seen = 0;
        for entry in page["buckets"].as_array().unwrap() {
            let name = entry["bucket"].as_str().unwrap();
            let bucket = Bucket::ALL.into_iter().find(|bucket| bucket.as_str() == name).unwrap();
            seen += 1;
            if let Some(window) = entry["window_seconds"].as_u64() {
                assert_eq!(bucket.window(), Duration::from_secs(window), "{name}");
            }
            let limit = &entry["limit"];
            for (environment, word) in
                [(Environment::Production, "production"), (Environment::Development, "development")]
            {
                let figure = limit.as_u64().or_else(|| limit[word].as_u64());
                assert_eq!(bucket.limit(environment), figure, "{name} {word}");
            }
            let scope = match entry["scope"].as_str().unwrap() {
                "instance" => Scope::Instance,
                "none" => Scope::Unlimited,
                _ => Scope::Entity,
            };
            assert_eq!(bucket.scope(), scope, "{name}");
            for line in entry["routes"].as_array().into_iter().flatten() {
                let (method, template) = line.as_str().unwrap().split_once(' ').unwrap();
                let path = template.replace(['{', '}'], "");
                let route = route::find(method, path.as_bytes());
                assert_eq!((route.template, route.bucket), (template, bucket), "{line}");
            }
        }
        assert_eq!(seen, Bucket::ALL.len());
    }

    #[test]
    fn bucket_index_matches_its_position() {
        for (index, bucket) in Bucket::ALL.into_iter().enumerate() {
            assert_eq!(bucket.index(), Some(index));
        }
    }
}
