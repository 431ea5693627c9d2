//! Invitations to organizations.

use http::Uri;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::json::{PublicUserData, role_name};
use super::{Organization, Organizations};
use crate::body::Fields;
use crate::context::Context;
use crate::error::ApiError;
use crate::invitations::{InvitationStatus, MAX_BULK, duplicate, expiry};
use crate::list_query::{ListQuery, Page, to_value};
use crate::users::create::check_email;
use crate::users::json::IMAGE_URL;
use crate::users::store::Users;
use crate::users::view::View;

/// An invitation to an organization, as Clerk writes it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct OrganizationInvitation {
    object: &'static str,
    id: String,
    email_address: String,
    role: String,
    role_name: String,
    organization_id: String,
    inviter_id: Option<String>,
    public_inviter_data: Value,
    status: InvitationStatus,
    public_metadata: Map<String, Value>,
    private_metadata: Map<String, Value>,
    url: Option<String>,
    expires_at: i64,
    created_at: i64,
    updated_at: i64,
}

impl OrganizationInvitation {
    pub(super) fn is_pending(&self) -> bool {
        self.status == InvitationStatus::Pending
    }
}

impl Organization {
    fn invite(
        &self,
        context: &mut Context<'_>,
        users: &Users,
        fields: &mut Fields,
    ) -> Result<OrganizationInvitation, ApiError> {
        let email_address = fields.required_text("email_address")?;
        check_email(&email_address)?;
        let role = fields.required_text("role")?;
        let is_same = |it: &OrganizationInvitation| it.email_address.eq_ignore_ascii_case(&email_address);
        if self.invitations.newest_first().any(|it| it.is_pending() && is_same(it)) {
            return Err(duplicate(&email_address));
        }
        let inviter_id = fields.text("inviter_user_id")?.flatten();
        let view = View { directory: context.directory, users };
        let public_inviter_data = match &inviter_id {
            Some(id) => {
                let user = view.find(id).ok_or_else(|| ApiError::not_found("user", id))?;
                to_value(&PublicUserData::of(&view, user))
            }
            None => Value::Null,
        };
        let now = context.now;
        Ok(OrganizationInvitation {
            object: "organization_invitation",
            id: context.new_id("orginv_"),
            role_name: role_name(&role).to_owned(),
            role,
            organization_id: self.id.clone(),
            inviter_id,
            public_inviter_data,
            status: InvitationStatus::Pending,
            public_metadata: fields.metadata("public_metadata")?.unwrap_or_default(),
            private_metadata: fields.metadata("private_metadata")?.unwrap_or_default(),
            url: None,
            expires_at: expiry(fields, now)?,
            created_at: now,
            updated_at: now,
            email_address,
        })
    }

    fn keep_invitation(&mut self, context: &mut Context<'_>, invitation: OrganizationInvitation) -> Value {
        let json = to_value(&invitation);
        context.emit("organizationInvitation.created", &self.id, &json);
        self.invitations.insert(invitation.id.clone(), invitation);
        json
    }
}

impl Organizations {
    /// `POST /v1/organizations/{organization_id}/invitations`.
    ///
    /// # Errors
    ///
    /// 404 if there is no such organization or inviter; 400 or 422 if the body is invalid.
    pub(crate) fn invite(
        &mut self,
        context: &mut Context<'_>,
        users: &Users,
        id: &str,
        body: &[u8],
    ) -> Result<Value, ApiError> {
        let organization = self.find_mut(id)?;
        let invitation = organization.invite(context, users, &mut Fields::parse(body)?)?;
        Ok(organization.keep_invitation(context, invitation))
    }

    /// `POST /v1/organizations/{organization_id}/invitations/bulk`: all or none.
    ///
    /// # Errors
    ///
    /// As [`Self::invite`], and 400 for more than ten items.
    pub(crate) fn invite_all(
        &mut self,
        context: &mut Context<'_>,
        users: &Users,
        id: &str,
        body: &[u8],
    ) -> Result<Value, ApiError> {
        let organization = self.find_mut(id)?;
        let mut made = Vec::new();
        for mut fields in Fields::parse_list(body, MAX_BULK)? {
            made.push(organization.invite(context, users, &mut fields)?);
        }
        let items: Vec<_> =
            made.into_iter().map(|invitation| organization.keep_invitation(context, invitation)).collect();
        let total = items.len();
        Ok(Page { items, total }.counted())
    }

    /// `GET /v1/organizations/{organization_id}/invitations`, and `…/pending` with `only_pending`.
    ///
    /// # Errors
    ///
    /// 404 if there is no such organization, 422 for a parameter that Clerk would reject.
    pub(crate) fn invitations(&self, id: &str, uri: &Uri, only_pending: bool) -> Result<Value, ApiError> {
        let query = ListQuery::of(uri)?;
        let found = self.find(id)?.invitations.newest_first().filter(|it| {
            query.allows("status", it.status.as_str())
                && query.allows("email_address", &it.email_address)
                && (!only_pending || it.is_pending())
        });
        Ok(query.page(found).counted())
    }

    /// `GET /v1/organizations/{organization_id}/invitations/{invitation_id}`.
    ///
    /// # Errors
    ///
    /// 404 if there is none.
    pub(crate) fn invitation(&self, id: &str, invitation: &str) -> Result<Value, ApiError> {
        let found = self.find(id)?.invitations.get(invitation);
        found.map(to_value).ok_or_else(|| ApiError::not_found("invitation", invitation))
    }

    /// `POST /v1/organizations/{organization_id}/invitations/{invitation_id}/revoke`.
    ///
    /// # Errors
    ///
    /// 404 if there is none, 400 if it is not pending.
    pub(crate) fn revoke_invitation(
        &mut self,
        context: &mut Context<'_>,
        id: &str,
        invitation: &str,
    ) -> Result<Value, ApiError> {
        let organization = self.find_mut(id)?;
        let found = organization.invitations.get_mut(invitation);
        let found = found.ok_or_else(|| ApiError::not_found("invitation", invitation))?;
        if !found.is_pending() {
            let long = "Only pending organization invitations can be revoked.";
            return Err(ApiError::bad_request("organization_invitation_not_pending", "not pending", long));
        }
        found.status = InvitationStatus::Revoked;
        found.updated_at = context.now;
        let json = to_value(found);
        context.emit("organizationInvitation.revoked", id, &json);
        Ok(json)
    }

    /// `GET /v1/users/{user_id}/organization_invitations`: those to one of the user's e-mail addresses.
    ///
    /// # Errors
    ///
    /// 404 if there is no such user, 422 for a parameter that Clerk would reject.
    pub(crate) fn invitations_of_user(&self, view: &View<'_>, id: &str, uri: &Uri) -> Result<Value, ApiError> {
        let user = view.find(id).ok_or_else(|| ApiError::not_found("user", id))?;
        let query = ListQuery::of(uri)?;
        let is_wanted = |it: &OrganizationInvitation| {
            view.find_email(&it.email_address) == Some(user) && query.allows("status", it.status.as_str())
        };
        let found = self.all.newest_first().flat_map(|organization| {
            let wanted = organization.invitations.newest_first().filter(|it| is_wanted(it));
            wanted.map(move |it| with_organization(organization, it))
        });
        Ok(query.page(found).counted())
    }
}

fn with_organization(organization: &Organization, invitation: &OrganizationInvitation) -> Value {
    let mut json = to_value(invitation);
    json["public_organization_data"] = json!({
        "id": organization.id,
        "name": organization.name,
        "slug": organization.slug,
        "image_url": IMAGE_URL,
        "has_image": false,
    });
    json
}
