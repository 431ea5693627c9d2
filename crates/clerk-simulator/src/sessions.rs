//! Sessions: one of each generated user who ever signed in, and those that clients create.

use std::collections::HashMap;

use http::Uri;
use serde::Serialize;
use serde_json::Value;

use super::body::Fields;
use super::collection::Collection;
use super::context::Context;
use super::error::ApiError;
use super::list_query::{ListQuery, to_value};
use super::users::store::Users;
use super::users::view::View;

/// Clerk's default lifetime of a session.
const LIFETIME_MILLIS: i64 = 7 * 86_400_000;

/// What makes identifiers of a user's session and client differ from those of the user.
const SESSION_SEED: u64 = 0x5E55;
const CLIENT_SEED: u64 = 0xC11E;

/// A session, as Clerk writes it.
#[derive(Debug, Clone, Serialize)]
struct Session {
    object: &'static str,
    id: String,
    user_id: String,
    client_id: String,
    status: SessionStatus,
    last_active_at: i64,
    expire_at: i64,
    abandon_at: i64,
    created_at: i64,
    updated_at: i64,
    last_active_organization_id: Option<String>,
    actor: Option<()>,
    latest_activity: Option<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum SessionStatus {
    Active,
    Expired,
    Revoked,
}

impl SessionStatus {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// The sessions of one instance.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    created: Collection<Session>,
    /// When generated sessions were revoked, by the number of the user.
    revoked: HashMap<u32, i64>,
}

impl Sessions {
    /// `GET /v1/sessions`, of one user or client.
    ///
    /// # Errors
    ///
    /// 422 if the query names neither.
    pub(super) fn list(&self, context: &Context<'_>, users: &Users, uri: &Uri) -> Result<Value, ApiError> {
        let query = ListQuery::of(uri)?;
        let (user_id, client_id) = (query.get("user_id"), query.get("client_id"));
        if user_id.is_none() && client_id.is_none() {
            let long = "Either user_id or client_id must be included.";
            return Err(ApiError::parameter("form_param_missing", "user_id", long));
        }
        let view = View { directory: context.directory, users };
        let of_client = |client: &str| context.directory.of_spread("client_", client, CLIENT_SEED);
        let user = user_id.and_then(|id| view.find(id)).or_else(|| client_id.and_then(of_client));
        let created = self.created.newest_first().map(|session| session.at(context.now));
        let all = created.chain(user.and_then(|user| self.generated(context, &view, user)));
        let found = all.filter(|session| {
            user_id.is_none_or(|id| session.user_id == id)
                && client_id.is_none_or(|id| session.client_id == id)
                && query.allows("status", session.status.as_str())
        });
        Ok(query.page(found).array_or_counted(&query))
    }

    /// `POST /v1/sessions`.
    ///
    /// # Errors
    ///
    /// 404 if there is no such user, 400 or 422 if the body is invalid.
    pub(super) fn create(&mut self, context: &mut Context<'_>, users: &Users, body: &[u8]) -> Result<Value, ApiError> {
        let mut fields = Fields::parse(body)?;
        let user_id = fields.required_text("user_id")?;
        let view = View { directory: context.directory, users };
        view.find(&user_id).ok_or_else(|| ApiError::not_found("user", &user_id))?;
        let now = context.now;
        let session = Session {
            id: context.new_id("sess_"),
            client_id: context.new_id("client_"),
            last_active_organization_id: fields.text("active_organization_id")?.flatten(),
            ..Session::new(user_id, now)
        };
        let json = to_value(&session);
        context.emit("session.created", &session.id, &json);
        self.created.insert(session.id.clone(), session);
        Ok(json)
    }

    /// `GET /v1/sessions/{session_id}`.
    ///
    /// # Errors
    ///
    /// 404 if there is none.
    pub(super) fn get(&self, context: &Context<'_>, users: &Users, id: &str) -> Result<Value, ApiError> {
        let created = || self.created.get(id).map(|session| session.at(context.now));
        let generated = || {
            let user = context.directory.of_spread("sess_", id, SESSION_SEED)?;
            let session = self.generated(context, &View { directory: context.directory, users }, user)?;
            (session.id == id).then_some(session)
        };
        created().or_else(generated).map(|it| to_value(&it)).ok_or_else(|| ApiError::not_found("session", id))
    }

    /// `POST /v1/sessions/{session_id}/revoke`.
    ///
    /// # Errors
    ///
    /// 404 if there is none.
    pub(super) fn revoke(&mut self, context: &mut Context<'_>, users: &Users, id: &str) -> Result<Value, ApiError> {
        self.get(context, users, id)?;
        if let Some(session) = self.created.get_mut(id) {
            session.revoke(context.now);
        } else if let Some(user) = context.directory.of_spread("sess_", id, SESSION_SEED) {
            self.revoked.insert(user, context.now);
        }
        let json = self.get(context, users, id)?;
        context.emit("session.revoked", id, &json);
        Ok(json)
    }

    /// Revokes the sessions of a banned user, as Clerk does.
    pub(super) fn revoke_of_user(&mut self, context: &mut Context<'_>, users: &Users, user: u32) {
        let view = View { directory: context.directory, users };
        let user_id = view.id(user);
        let created = self.created.newest_first().map(|session| session.at(context.now));
        let all = created.filter(|session| session.user_id == user_id).chain(self.generated(context, &view, user));
        let active: Vec<String> =
            all.filter(|session| session.status == SessionStatus::Active).map(|session| session.id).collect();
        for id in active {
            // They are all there.
            let _ = self.revoke(context, users, &id);
        }
    }

    /// Removes the sessions of a deleted user.
    pub(super) fn forget_user(&mut self, id: &str) {
        let gone: Vec<_> = self.created.newest_first().filter(|it| it.user_id == id).map(|it| it.id.clone()).collect();
        for id in gone {
            self.created.remove(&id);
        }
    }

    /// Returns the generated session of a user who signed in.
    fn generated(&self, context: &Context<'_>, view: &View<'_>, user: u32) -> Option<Session> {
        if !view.exists(user) {
            return None;
        }
        let started = view.last_sign_in_at(user)?;
        let directory = context.directory;
        let mut session = Session {
            id: directory.spread_id("sess_", user, SESSION_SEED),
            client_id: directory.spread_id("client_", user, CLIENT_SEED),
            ..Session::new(view.id(user).into_owned(), started)
        };
        if let Some(at) = self.revoked.get(&user) {
            session.revoke(*at);
        }
        Some(session.at(context.now))
    }
}

impl Session {
    fn new(user_id: String, now_millis: i64) -> Self {
        Self {
            object: "session",
            id: String::new(),
            user_id,
            client_id: String::new(),
            status: SessionStatus::Active,
            last_active_at: now_millis,
            expire_at: now_millis + LIFETIME_MILLIS,
            abandon_at: now_millis + 4 * LIFETIME_MILLIS,
            created_at: now_millis,
            updated_at: now_millis,
            last_active_organization_id: None,
            actor: None,
            latest_activity: None,
        }
    }

    /// The session at this time: an active one expires.
    fn at(&self, now_millis: i64) -> Self {
        let mut session = self.clone();
        if session.status == SessionStatus::Active && session.expire_at <= now_millis {
            session.status = SessionStatus::Expired;
        }
        session
    }

    fn revoke(&mut self, now_millis: i64) {
        self.status = SessionStatus::Revoked;
        self.updated_at = now_millis;
    }
}
