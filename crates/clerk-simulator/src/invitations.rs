//! Invitations to an instance.

use http::Uri;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::body::{Fields, malformed};
use super::collection::Collection;
use super::context::Context;
use super::error::ApiError;
use super::list_query::{ListQuery, to_value};
use super::users::create::check_email;
use super::users::store::Users;
use super::users::view::View;

/// Clerk's largest bulk request.
pub(super) const MAX_BULK: usize = 10;
const DEFAULT_EXPIRY_DAYS: u64 = 30;
const DAY_MILLIS: i64 = 86_400_000;

/// The state of an invitation. None is ever accepted, since no one signs up at a simulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum InvitationStatus {
    Pending,
    Revoked,
}

impl InvitationStatus {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Revoked => "revoked",
        }
    }
}

/// An invitation to an instance, as Clerk writes it.
#[derive(Debug, Clone, Serialize)]
struct Invitation {
    object: &'static str,
    id: String,
    email_address: String,
    public_metadata: Map<String, Value>,
    revoked: bool,
    status: InvitationStatus,
    url: &'static str,
    expires_at: i64,
    created_at: i64,
    updated_at: i64,
}

/// The invitations of one instance.
#[derive(Debug, Default)]
pub(super) struct Invitations(Collection<Invitation>);

impl Invitations {
    /// `POST /v1/invitations`.
    ///
    /// # Errors
    ///
    /// 400 if the body is not an object or the address was invited before, 422 if a field is missing or invalid or a user
    /// has the address.
    pub(super) fn create(&mut self, context: &mut Context<'_>, users: &Users, body: &[u8]) -> Result<Value, ApiError> {
        let made = self.invite(context, users, &mut Fields::parse(body)?)?;
        Ok(self.keep(made))
    }

    /// `POST /v1/invitations/bulk`: all or none.
    ///
    /// # Errors
    ///
    /// As [`Self::create`], and 400 for more than ten items.
    pub(super) fn create_bulk(
        &mut self,
        context: &mut Context<'_>,
        users: &Users,
        body: &[u8],
    ) -> Result<Value, ApiError> {
        let mut made = Vec::new();
        for mut fields in Fields::parse_list(body, MAX_BULK)? {
            made.push(self.invite(context, users, &mut fields)?);
        }
        Ok(Value::Array(made.into_iter().map(|invitation| self.keep(invitation)).collect()))
    }

    /// `GET /v1/invitations`: those that are not revoked, unless the query asks for these.
    ///
    /// # Errors
    ///
    /// 422 for a parameter that Clerk would reject.
    pub(super) fn list(&self, uri: &Uri) -> Result<Value, ApiError> {
        let query = ListQuery::of(uri)?;
        let text = query.get("query").map(str::to_lowercase);
        let has_status = |it: &Invitation| match query.get("status") {
            Some(_) => query.allows("status", it.status.as_str()),
            None => it.status != InvitationStatus::Revoked,
        };
        let found = self.0.newest_first().filter(|it| {
            let has_text = |text: &String| it.email_address.to_lowercase().contains(text) || it.id == *text;
            has_status(it) && text.as_ref().is_none_or(has_text)
        });
        Ok(query.page(found).array_or_counted(&query))
    }

    /// `POST /v1/invitations/{invitation_id}/revoke`.
    ///
    /// # Errors
    ///
    /// 404 if there is none, 400 if it is revoked already.
    pub(super) fn revoke(&mut self, context: &Context<'_>, id: &str) -> Result<Value, ApiError> {
        let found = self.0.get_mut(id).ok_or_else(|| ApiError::not_found("invitation", id))?;
        if found.revoked {
            let long = "This invitation is already revoked.";
            return Err(ApiError::bad_request("invitation_already_revoked", "already revoked", long));
        }
        found.revoked = true;
        found.status = InvitationStatus::Revoked;
        found.updated_at = context.now;
        Ok(to_value(found))
    }

    /// `DELETE /v1/invitations/{invitation_id}`.
    ///
    /// # Errors
    ///
    /// 404 if there is none.
    pub(super) fn delete(&mut self, id: &str) -> Result<Value, ApiError> {
        self.0.remove(id).ok_or_else(|| ApiError::not_found("invitation", id))?;
        Ok(json!({ "object": "invitation", "id": id, "deleted": true }))
    }

    fn invite(&self, context: &mut Context<'_>, users: &Users, fields: &mut Fields) -> Result<Invitation, ApiError> {
        let email_address = fields.required_text("email_address")?;
        check_email(&email_address)?;
        if !fields.boolean("ignore_existing")?.unwrap_or(false) {
            if (View { directory: context.directory, users }).find_email(&email_address).is_some() {
                return Err(ApiError::identifier_exists("email_address"));
            }
            let is_same = |it: &Invitation| it.email_address.eq_ignore_ascii_case(&email_address);
            if self.0.newest_first().any(|it| it.status == InvitationStatus::Pending && is_same(it)) {
                return Err(duplicate(&email_address));
            }
        }
        let now = context.now;
        Ok(Invitation {
            object: "invitation",
            id: context.new_id("inv_"),
            email_address,
            public_metadata: fields.metadata("public_metadata")?.unwrap_or_default(),
            revoked: false,
            status: InvitationStatus::Pending,
            url: "https://accounts.example.com/v1/tickets/accept?ticket=simulated",
            expires_at: expiry(fields, now)?,
            created_at: now,
            updated_at: now,
        })
    }

    fn keep(&mut self, invitation: Invitation) -> Value {
        let json = to_value(&invitation);
        self.0.insert(invitation.id.clone(), invitation);
        json
    }
}

/// The end of an invitation, in milliseconds since the epoch.
///
/// # Errors
///
/// 422 if `expires_in_days` is not 1 to 365.
pub(super) fn expiry(fields: &mut Fields, now_millis: i64) -> Result<i64, ApiError> {
    let days = fields.number("expires_in_days")?.unwrap_or(DEFAULT_EXPIRY_DAYS);
    let days = i64::try_from(days).ok().filter(|days| (1..=365).contains(days));
    let days = days.ok_or_else(|| malformed("expires_in_days", "a number of days from 1 to 365"))?;
    Ok(now_millis.saturating_add(days * DAY_MILLIS))
}

/// The error for a second invitation of one address.
pub(super) fn duplicate(email: &str) -> ApiError {
    let long = format!("There are already pending invitations for the following email addresses: {email}");
    ApiError::bad_request("duplicate_record", "duplicate invitation", long)
}
