//! The endpoints that the simulator has.

use Access::{Any, Machine, Secret};
use SimulatedBucket::{
    Instance, Invitations, InvitationsBulk, MembershipUpdate, OrganizationInvitations, OrganizationInvitationsBulk,
    OrganizationUpdate, UserUpdate,
};

use crate::limits::SimulatedBucket;

/// An endpoint of the Backend API, one per method and path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Jwks,
    Instance,
    UserList,
    UserCount,
    UserCreate,
    UserGet,
    UserUpdate,
    UserDelete,
    UserMetadataMerge,
    UserMetadataReplace,
    UserBan,
    UserUnban,
    UserLock,
    UserUnlock,
    UserMemberships,
    UserInvitations,
    OrganizationList,
    OrganizationCreate,
    OrganizationGet,
    OrganizationUpdate,
    OrganizationDelete,
    OrganizationMetadataMerge,
    OrganizationMetadataReplace,
    MembershipList,
    MembershipCreate,
    MembershipUpdate,
    MembershipDelete,
    MembershipMetadata,
    OrganizationInvitationList,
    OrganizationInvitationCreate,
    OrganizationInvitationBulk,
    OrganizationInvitationPending,
    OrganizationInvitationGet,
    OrganizationInvitationRevoke,
    InvitationList,
    InvitationCreate,
    InvitationBulk,
    InvitationDelete,
    InvitationRevoke,
    SessionList,
    SessionCreate,
    SessionGet,
    SessionRevoke,
    ApiKeyList,
    ApiKeyCreate,
    ApiKeyVerify,
    ApiKeyGet,
    ApiKeyUpdate,
    ApiKeyDelete,
    ApiKeySecret,
    ApiKeyRevoke,
    TokenList,
    TokenCreate,
    TokenVerify,
    TokenRevoke,
    OauthTokenVerify,
}

/// The keys that an endpoint accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// A secret key of the instance, `sk_…`.
    Secret,
    /// A secret key of a machine, `ak_…`.
    Machine,
    /// Both.
    Any,
}

/// A route of the simulated Backend API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteInfo {
    pub(super) method: &'static str,
    pub(super) template: &'static str,
    pub(super) bucket: Option<SimulatedBucket>,
    pub(crate) endpoint: Endpoint,
    pub(crate) access: Access,
}

impl RouteInfo {
    /// Returns the HTTP method. `HEAD` has the routes of `GET`.
    #[must_use]
    pub const fn method(&self) -> &'static str {
        self.method
    }

    /// Returns the path with its parameters, such as `/v1/users/{user_id}`.
    #[must_use]
    pub const fn template(&self) -> &'static str {
        self.template
    }

    /// Returns the bucket that requests count against; `None` if they are not counted.
    #[must_use]
    pub const fn bucket(&self) -> Option<SimulatedBucket> {
        self.bucket
    }

    const fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Returns whether the route also exists without `/v1`, as some calls of Clerk's SDKs request it.
    #[must_use]
    pub fn is_also_without_version(&self) -> bool {
        ["/v1/api_keys", "/v1/m2m_tokens", "/v1/oauth_applications"].iter().any(|path| self.template.starts_with(path))
    }
}

const fn route(
    method: &'static str,
    template: &'static str,
    endpoint: Endpoint,
    bucket: Option<SimulatedBucket>,
) -> RouteInfo {
    RouteInfo { method, template, bucket, endpoint, access: Secret }
}

/// All routes. The first that matches counts, so `count` stands before `{user_id}`.
pub(crate) const ROUTES: &[RouteInfo] = &[
    route("GET", "/v1/jwks", Endpoint::Jwks, None),
    route("GET", "/v1/instance", Endpoint::Instance, Some(Instance)),
    route("GET", "/v1/users", Endpoint::UserList, Some(Instance)),
    route("GET", "/v1/users/count", Endpoint::UserCount, Some(Instance)),
    route("POST", "/v1/users", Endpoint::UserCreate, Some(Instance)),
    route("GET", "/v1/users/{user_id}", Endpoint::UserGet, Some(Instance)),
    route("PATCH", "/v1/users/{user_id}", Endpoint::UserUpdate, Some(UserUpdate)),
    route("DELETE", "/v1/users/{user_id}", Endpoint::UserDelete, Some(Instance)),
    route("PATCH", "/v1/users/{user_id}/metadata", Endpoint::UserMetadataMerge, Some(UserUpdate)),
    route("PUT", "/v1/users/{user_id}/metadata", Endpoint::UserMetadataReplace, Some(UserUpdate)),
    route("POST", "/v1/users/{user_id}/ban", Endpoint::UserBan, Some(Instance)),
    route("POST", "/v1/users/{user_id}/unban", Endpoint::UserUnban, Some(Instance)),
    route("POST", "/v1/users/{user_id}/lock", Endpoint::UserLock, Some(Instance)),
    route("POST", "/v1/users/{user_id}/unlock", Endpoint::UserUnlock, Some(Instance)),
    route("GET", "/v1/users/{user_id}/organization_memberships", Endpoint::UserMemberships, Some(Instance)),
    route("GET", "/v1/users/{user_id}/organization_invitations", Endpoint::UserInvitations, Some(Instance)),
    route("GET", "/v1/organizations", Endpoint::OrganizationList, Some(Instance)),
    route("POST", "/v1/organizations", Endpoint::OrganizationCreate, Some(Instance)),
    route("GET", "/v1/organizations/{organization_id}", Endpoint::OrganizationGet, Some(Instance)),
    route("PATCH", "/v1/organizations/{organization_id}", Endpoint::OrganizationUpdate, Some(OrganizationUpdate)),
    route("DELETE", "/v1/organizations/{organization_id}", Endpoint::OrganizationDelete, Some(Instance)),
    route(
        "PATCH",
        "/v1/organizations/{organization_id}/metadata",
        Endpoint::OrganizationMetadataMerge,
        Some(OrganizationUpdate),
    ),
    route(
        "PUT",
        "/v1/organizations/{organization_id}/metadata",
        Endpoint::OrganizationMetadataReplace,
        Some(OrganizationUpdate),
    ),
    route("GET", "/v1/organizations/{organization_id}/memberships", Endpoint::MembershipList, Some(Instance)),
    route("POST", "/v1/organizations/{organization_id}/memberships", Endpoint::MembershipCreate, Some(Instance)),
    route(
        "PATCH",
        "/v1/organizations/{organization_id}/memberships/{user_id}",
        Endpoint::MembershipUpdate,
        Some(MembershipUpdate),
    ),
    route(
        "DELETE",
        "/v1/organizations/{organization_id}/memberships/{user_id}",
        Endpoint::MembershipDelete,
        Some(Instance),
    ),
    route(
        "PATCH",
        "/v1/organizations/{organization_id}/memberships/{user_id}/metadata",
        Endpoint::MembershipMetadata,
        Some(MembershipUpdate),
    ),
    route(
        "GET",
        "/v1/organizations/{organization_id}/invitations",
        Endpoint::OrganizationInvitationList,
        Some(Instance),
    ),
    route(
        "POST",
        "/v1/organizations/{organization_id}/invitations",
        Endpoint::OrganizationInvitationCreate,
        Some(OrganizationInvitations),
    ),
    route(
        "POST",
        "/v1/organizations/{organization_id}/invitations/bulk",
        Endpoint::OrganizationInvitationBulk,
        Some(OrganizationInvitationsBulk),
    ),
    route(
        "GET",
        "/v1/organizations/{organization_id}/invitations/pending",
        Endpoint::OrganizationInvitationPending,
        Some(Instance),
    ),
    route(
        "GET",
        "/v1/organizations/{organization_id}/invitations/{invitation_id}",
        Endpoint::OrganizationInvitationGet,
        Some(Instance),
    ),
    route(
        "POST",
        "/v1/organizations/{organization_id}/invitations/{invitation_id}/revoke",
        Endpoint::OrganizationInvitationRevoke,
        Some(Instance),
    ),
    route("GET", "/v1/invitations", Endpoint::InvitationList, Some(Instance)),
    route("POST", "/v1/invitations", Endpoint::InvitationCreate, Some(Invitations)),
    route("POST", "/v1/invitations/bulk", Endpoint::InvitationBulk, Some(InvitationsBulk)),
    route("DELETE", "/v1/invitations/{invitation_id}", Endpoint::InvitationDelete, Some(Instance)),
    route("POST", "/v1/invitations/{invitation_id}/revoke", Endpoint::InvitationRevoke, Some(Instance)),
    route("GET", "/v1/sessions", Endpoint::SessionList, Some(Instance)),
    route("POST", "/v1/sessions", Endpoint::SessionCreate, Some(Instance)),
    route("GET", "/v1/sessions/{session_id}", Endpoint::SessionGet, Some(Instance)),
    route("POST", "/v1/sessions/{session_id}/revoke", Endpoint::SessionRevoke, Some(Instance)),
    route("GET", "/v1/api_keys", Endpoint::ApiKeyList, Some(Instance)),
    route("POST", "/v1/api_keys", Endpoint::ApiKeyCreate, Some(Instance)),
    route("POST", "/v1/api_keys/verify", Endpoint::ApiKeyVerify, Some(Instance)),
    route("GET", "/v1/api_keys/{api_key_id}", Endpoint::ApiKeyGet, Some(Instance)),
    route("PATCH", "/v1/api_keys/{api_key_id}", Endpoint::ApiKeyUpdate, Some(Instance)),
    route("DELETE", "/v1/api_keys/{api_key_id}", Endpoint::ApiKeyDelete, Some(Instance)),
    route("GET", "/v1/api_keys/{api_key_id}/secret", Endpoint::ApiKeySecret, Some(Instance)),
    route("POST", "/v1/api_keys/{api_key_id}/revoke", Endpoint::ApiKeyRevoke, Some(Instance)),
    route("GET", "/v1/m2m_tokens", Endpoint::TokenList, Some(Instance)).access(Any),
    route("POST", "/v1/m2m_tokens", Endpoint::TokenCreate, Some(Instance)).access(Machine),
    route("POST", "/v1/m2m_tokens/verify", Endpoint::TokenVerify, Some(Instance)).access(Any),
    route("POST", "/v1/m2m_tokens/{m2m_token_id}/revoke", Endpoint::TokenRevoke, Some(Instance)).access(Any),
    route("POST", "/v1/oauth_applications/access_tokens/verify", Endpoint::OauthTokenVerify, Some(Instance)),
];
