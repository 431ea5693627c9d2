//! Organizations and memberships as Clerk's Backend API writes them.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Map, Value};

use super::Organization;
use super::memberships::Member;
use crate::list_query::to_value;
use crate::users::json::IMAGE_URL;
use crate::users::view::View;

/// The fields of the `Organization` schema in Clerk's public OpenAPI description.
#[derive(Serialize)]
struct OrganizationJson<'a> {
    object: &'static str,
    id: &'a str,
    name: &'a str,
    slug: &'a str,
    image_url: &'static str,
    has_image: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    members_count: Option<usize>,
    pending_invitations_count: usize,
    max_allowed_memberships: u64,
    admin_delete_enabled: bool,
    public_metadata: &'a Map<String, Value>,
    private_metadata: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_by: Option<&'a str>,
    created_at: i64,
    updated_at: i64,
}

#[derive(Serialize)]
struct MembershipJson<'a> {
    object: &'static str,
    id: &'a str,
    role: &'a str,
    role_name: &'a str,
    permissions: &'a [&'a str],
    public_metadata: &'a Map<String, Value>,
    private_metadata: &'a Map<String, Value>,
    organization: Value,
    public_user_data: PublicUserData<'a>,
    created_at: i64,
    updated_at: i64,
}

/// What others see of a user.
#[derive(Serialize)]
pub(super) struct PublicUserData<'a> {
    user_id: Cow<'a, str>,
    first_name: Option<Cow<'a, str>>,
    last_name: Option<Cow<'a, str>>,
    image_url: &'static str,
    profile_image_url: &'static str,
    has_image: bool,
    identifier: Cow<'a, str>,
    username: Option<Cow<'a, str>>,
    banned: bool,
}

impl<'a> PublicUserData<'a> {
    pub(super) fn of(view: &View<'a>, user: u32) -> Self {
        Self {
            user_id: view.id(user),
            first_name: view.first_name(user),
            last_name: view.last_name(user),
            image_url: IMAGE_URL,
            profile_image_url: IMAGE_URL,
            has_image: false,
            identifier: view.identifier(user).unwrap_or_default(),
            username: view.username(user),
            banned: view.is_banned(user),
        }
    }
}

impl Organization {
    /// The number of members is only in responses to requests that ask for it.
    pub(super) fn json(&self, with_members_count: bool) -> Value {
        to_value(&OrganizationJson {
            object: "organization",
            id: &self.id,
            name: &self.name,
            slug: &self.slug,
            image_url: IMAGE_URL,
            has_image: false,
            members_count: with_members_count.then_some(self.members.len()),
            pending_invitations_count: self.invitations.newest_first().filter(|it| it.is_pending()).count(),
            max_allowed_memberships: self.max_allowed_memberships,
            admin_delete_enabled: self.admin_delete_enabled,
            public_metadata: &self.public_metadata,
            private_metadata: &self.private_metadata,
            created_by: self.created_by.as_deref(),
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }

    pub(super) fn membership_json(&self, view: &View<'_>, user: u32, member: &Member) -> Value {
        to_value(&MembershipJson {
            object: "organization_membership",
            id: &member.id,
            role: &member.role,
            role_name: role_name(&member.role),
            permissions: member.permissions(),
            public_metadata: &member.public_metadata,
            private_metadata: &member.private_metadata,
            organization: self.json(false),
            public_user_data: PublicUserData::of(view, user),
            created_at: member.created_at(),
            updated_at: member.updated_at,
        })
    }
}

/// The part of a role after its prefix.
pub(super) fn role_name(role: &str) -> &str {
    role.rsplit(':').next().unwrap_or(role)
}
