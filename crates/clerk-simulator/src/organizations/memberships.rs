//! Members of organizations.

use http::Uri;
use serde_json::{Map, Value};

use super::{Organization, Organizations};
use crate::body::{Fields, malformed};
use crate::context::Context;
use crate::error::ApiError;
use crate::list_query::ListQuery;
use crate::users::store::Users;
use crate::users::view::View;

/// Clerk's system permissions of its two default roles.
const ADMIN_PERMISSIONS: &[&str] = &[
    "org:sys_profile:manage",
    "org:sys_profile:delete",
    "org:sys_memberships:read",
    "org:sys_memberships:manage",
    "org:sys_domains:read",
    "org:sys_domains:manage",
];
const MEMBER_PERMISSIONS: &[&str] = &["org:sys_memberships:read"];

/// A user in an organization.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) role: String,
    pub(super) public_metadata: Map<String, Value>,
    pub(super) private_metadata: Map<String, Value>,
    /// Milliseconds since the epoch.
    created_at: i64,
    pub(super) updated_at: i64,
}

impl Member {
    pub(super) fn new(id: String, role: &str, now_millis: i64) -> Self {
        Self {
            id,
            role: role.to_owned(),
            public_metadata: Map::new(),
            private_metadata: Map::new(),
            created_at: now_millis,
            updated_at: now_millis,
        }
    }

    pub(super) fn created_at(&self) -> i64 {
        self.created_at
    }

    pub(super) fn permissions(&self) -> &'static [&'static str] {
        match self.role.as_str() {
            "org:admin" | "admin" => ADMIN_PERMISSIONS,
            "org:member" | "basic_member" => MEMBER_PERMISSIONS,
            _ => &[],
        }
    }
}

impl Organization {
    pub(super) fn add_member(&mut self, context: &mut Context<'_>, users: &Users, user: u32, member: Member) -> Value {
        let view = View { directory: context.directory, users };
        let json = self.membership_json(&view, user, &member);
        self.members.insert(user, member);
        context.emit("organizationMembership.created", &self.id, &json);
        json
    }

    fn changed_member(
        &mut self,
        context: &mut Context<'_>,
        users: &Users,
        user_id: &str,
        change: impl FnOnce(&mut Member) -> Result<(), ApiError>,
    ) -> Result<Value, ApiError> {
        let view = View { directory: context.directory, users };
        let not_found = || ApiError::not_found("membership", user_id);
        let user = view.find(user_id).ok_or_else(not_found)?;
        let member = self.members.get_mut(&user).ok_or_else(not_found)?;
        change(member)?;
        member.updated_at = context.now;
        let member = self.members.get(&user).ok_or_else(not_found)?;
        let json = self.membership_json(&view, user, member);
        context.emit("organizationMembership.updated", &self.id, &json);
        Ok(json)
    }
}

impl Organizations {
    /// Returns the sorted numbers of the users that are in any of these organizations.
    pub(crate) fn members_of(&self, ids: &[String]) -> Vec<u32> {
        let organizations = ids.iter().filter_map(|id| self.all.get(id));
        let mut members: Vec<u32> = organizations.flat_map(|it| it.members.keys().copied()).collect();
        members.sort_unstable();
        members.dedup();
        members
    }

    /// `GET /v1/organizations/{organization_id}/memberships`.
    ///
    /// # Errors
    ///
    /// 404 if there is no such organization, 422 for a parameter that Clerk would reject.
    pub(crate) fn members(&self, view: &View<'_>, id: &str, uri: &Uri) -> Result<Value, ApiError> {
        let query = ListQuery::of(uri)?;
        let organization = self.find(id)?;
        let text = query.get("query").map(str::to_lowercase);
        let has_text = |user: u32| {
            let words = [view.identifier(user), view.first_name(user), view.last_name(user), Some(view.id(user))];
            text.as_ref().is_none_or(|text| words.iter().flatten().any(|word| word.to_lowercase().contains(text)))
        };
        let mut found = organization.members_newest_first();
        found.retain(|(user, member)| {
            query.allows("user_id", &view.id(*user))
                && query.allows("role", &member.role)
                && query.allows("email_address", &view.email(*user).unwrap_or_default())
                && has_text(*user)
        });
        let key = |user: u32, field: &str| match field {
            "first_name" => view.first_name(user),
            "last_name" => view.last_name(user),
            "username" => view.username(user),
            _ => view.email(user),
        };
        if let Some((field, is_descending)) = query.order() {
            match field {
                "created_at" => found.sort_by_key(|(_, member)| member.created_at),
                "first_name" | "last_name" | "username" | "email_address" => {
                    found.sort_by_cached_key(|(user, _)| key(*user, field).map(|text| text.to_lowercase()));
                }
                // No member has a phone number that others see.
                "phone_number" => {}
                _ => return Err(malformed("order_by", "a sortable field with an optional leading + or -")),
            }
            if is_descending {
                found.reverse();
            }
        }
        let found = found.into_iter().map(|(user, member)| organization.membership_json(view, user, member));
        Ok(query.page(found).counted())
    }

    /// `GET /v1/users/{user_id}/organization_memberships`.
    ///
    /// # Errors
    ///
    /// 404 if there is no such user, 422 for a parameter that Clerk would reject.
    pub(crate) fn of_user(&self, view: &View<'_>, id: &str, uri: &Uri) -> Result<Value, ApiError> {
        let user = view.find(id).ok_or_else(|| ApiError::not_found("user", id))?;
        let query = ListQuery::of(uri)?;
        let found = self.all.newest_first().filter_map(|organization| {
            let member = organization.members.get(&user)?;
            Some(organization.membership_json(view, user, member))
        });
        Ok(query.page(found).counted())
    }

    /// `POST /v1/organizations/{organization_id}/memberships`.
    ///
    /// # Errors
    ///
    /// 404 if the organization or the user does not exist; 400, 403 or 422 if the user cannot become a member.
    pub(crate) fn add_membership(
        &mut self,
        context: &mut Context<'_>,
        users: &Users,
        id: &str,
        body: &[u8],
    ) -> Result<Value, ApiError> {
        let mut fields = Fields::parse(body)?;
        let organization = self.find_mut(id)?;
        let user_id = fields.required_text("user_id")?;
        let role = fields.required_text("role")?;
        let mut member = Member::new(context.new_id("orgmem_"), &role, context.now);
        fields.merge_metadata("public_metadata", &mut member.public_metadata, true)?;
        fields.merge_metadata("private_metadata", &mut member.private_metadata, true)?;
        let view = View { directory: context.directory, users };
        let user = view.find(&user_id).ok_or_else(|| ApiError::not_found("user", &user_id))?;
        if organization.members.contains_key(&user) {
            let long = format!("User {user_id} is already a member of the organization.");
            return Err(ApiError::bad_request("already_a_member_in_organization", "already a member", long));
        }
        let most = usize::try_from(organization.max_allowed_memberships).unwrap_or(usize::MAX);
        if most > 0 && organization.members.len() >= most {
            return Err(ApiError::quota_exceeded("organization_membership_quota_exceeded".to_owned()));
        }
        Ok(organization.add_member(context, users, user, member))
    }

    /// `PATCH /v1/organizations/{organization_id}/memberships/{user_id}`.
    ///
    /// # Errors
    ///
    /// 404 if there is no such member; 400 or 422 if the body is invalid.
    pub(crate) fn update_membership(
        &mut self,
        context: &mut Context<'_>,
        users: &Users,
        (id, user_id): (&str, &str),
        body: &[u8],
    ) -> Result<Value, ApiError> {
        let organization = self.find_mut(id)?;
        organization.changed_member(context, users, user_id, |member| {
            member.role = Fields::parse(body)?.required_text("role")?;
            Ok(())
        })
    }

    /// `PATCH /v1/organizations/{organization_id}/memberships/{user_id}/metadata`.
    ///
    /// # Errors
    ///
    /// As [`Self::update_membership`].
    pub(crate) fn update_membership_metadata(
        &mut self,
        context: &mut Context<'_>,
        users: &Users,
        (id, user_id): (&str, &str),
        body: &[u8],
    ) -> Result<Value, ApiError> {
        let organization = self.find_mut(id)?;
        organization.changed_member(context, users, user_id, |member| {
            let mut fields = Fields::parse(body)?;
            fields.merge_metadata("public_metadata", &mut member.public_metadata, false)?;
            fields.merge_metadata("private_metadata", &mut member.private_metadata, false)
        })
    }

    /// `DELETE /v1/organizations/{organization_id}/memberships/{user_id}`.
    ///
    /// # Errors
    ///
    /// 404 if there is no such member.
    pub(crate) fn remove_membership(
        &mut self,
        context: &mut Context<'_>,
        users: &Users,
        (id, user_id): (&str, &str),
    ) -> Result<Value, ApiError> {
        let organization = self.find_mut(id)?;
        let view = View { directory: context.directory, users };
        let not_found = || ApiError::not_found("membership", user_id);
        let user = view.find(user_id).ok_or_else(not_found)?;
        let member = organization.members.remove(&user).ok_or_else(not_found)?;
        let json = organization.membership_json(&view, user, &member);
        context.emit("organizationMembership.deleted", id, &json);
        Ok(json)
    }
}
