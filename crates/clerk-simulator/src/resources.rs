//! The endpoints' responses to requests that passed the limiter.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{StatusCode, Uri};
use serde_json::{Value, json};

use super::Shared;
use super::clock::epoch_millis;
use super::context::Context;
use super::error::ApiError;
use super::ids::mix;
use super::keys::Caller;
use super::machine_auth::oauth_tokens;
use super::route::{Access, Endpoint, Route, RouteInfo};
use super::state::InstanceState;
use super::users::query::UserQuery;
use super::users::write::Flag;

/// A response to a request that succeeded.
#[derive(Debug)]
pub(super) struct Success {
    pub(super) status: StatusCode,
    pub(super) json: Bytes,
}

impl From<Value> for Success {
    fn from(value: Value) -> Self {
        Self { status: StatusCode::OK, json: Bytes::from(value.to_string()) }
    }
}

impl From<Vec<u8>> for Success {
    fn from(json: Vec<u8>) -> Self {
        Self { status: StatusCode::OK, json: Bytes::from(json) }
    }
}

impl Success {
    fn created(value: Value) -> Self {
        Self { status: StatusCode::CREATED, ..value.into() }
    }
}

impl Shared {
    /// Returns the endpoint's response to a client.
    ///
    /// # Errors
    ///
    /// As Clerk: 401 for a key that the endpoint does not accept, 404 for what does not exist, 400 and 422 for invalid
    /// input.
    pub(super) fn respond(
        &self,
        caller: &Caller,
        route: &Route<'_>,
        uri: &Uri,
        body: &[u8],
    ) -> Result<Success, ApiError> {
        let Some(info) = route.info else { return Err(ApiError::not_found("resource", uri.path())) };
        check_access(info, caller)?;
        match info.endpoint {
            Endpoint::Jwks => return Ok(self.jwks(caller.instance).into()),
            Endpoint::Instance => return Ok(self.instance(caller.instance).into()),
            _ => {}
        }
        // Taken before the lock of the state, which the time of two changes follows.
        let mut state = self.state.lock();
        let state = state.of_instance(caller.instance, &self.options, &self.directory);
        let serial = mix(self.options.seed, self.changes.fetch_add(1, Ordering::Relaxed));
        let now = epoch_millis(self.clock.now());
        let mut context = Context::new(&self.directory, now, serial, self.events.is_listened_to());
        let machine = caller.machine.as_deref();
        let done = state.handle(&mut context, machine, (info.endpoint, route), uri, body)?;
        // Sent under the lock, so that the events of one entity are in the order of its changes.
        self.send_events(caller.instance, context);
        Ok(done)
    }

    fn instance(&self, instance: usize) -> Value {
        let keys = self.keys.lock();
        let Some(instance) = keys.instances().get(instance) else { return json!({}) };
        json!({
            "object": "instance",
            "id": instance.id,
            "environment_type": instance.environment.as_str(),
            "allowed_origins": null,
        })
    }

    /// Returns a key set with one RSA key. Its modulus is made up: it cannot verify anything.
    fn jwks(&self, instance: usize) -> Value {
        const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        const MODULUS_LENGTH: u64 = 342;
        let keys = self.keys.lock();
        let id = keys.instances().get(instance).map_or("ins_", |instance| instance.id.as_str());
        let seed = super::ids::mix_text(self.options.seed, id);
        let modulus: String = (0..MODULUS_LENGTH)
            .map(|place| {
                let digit = usize::try_from(mix(seed, place) % 64).unwrap_or(0);
                // 256 bytes: the first bit is set, and the last digit has only two bits.
                let digit = match place {
                    0 => digit | 0b10_0000,
                    341 => digit & 0b11_0000,
                    _ => digit,
                };
                char::from(BASE64_URL[digit])
            })
            .collect();
        json!({ "keys": [{ "use": "sig", "kty": "RSA", "kid": id, "alg": "RS256", "n": modulus, "e": "AQAB" }] })
    }
}

/// Checks that the endpoint accepts this kind of key.
fn check_access(info: &RouteInfo, caller: &Caller) -> Result<(), ApiError> {
    match (info.access, &caller.machine) {
        (Access::Secret, None) | (Access::Machine, Some(_)) | (Access::Any, _) => Ok(()),
        _ => Err(ApiError::key_invalid()),
    }
}

impl InstanceState {
    fn handle(
        &mut self,
        context: &mut Context<'_>,
        machine: Option<&str>,
        (endpoint, route): (Endpoint, &Route<'_>),
        uri: &Uri,
        body: &[u8],
    ) -> Result<Success, ApiError> {
        let (id, second_id) = (route.id(), route.second_id());
        let ids = (id, second_id);
        let value = match endpoint {
            // Handled without the state.
            Endpoint::Jwks | Endpoint::Instance => return Err(ApiError::not_found("resource", uri.path())),
            Endpoint::UserList => return self.view(context).page(&self.user_query(uri)?).map(Success::from),
            Endpoint::UserCount => {
                let count = self.view(context).count(&self.user_query(uri)?);
                json!({ "object": "total_count", "total_count": count })
            }
            Endpoint::UserGet => {
                let view = self.view(context);
                let user = view.find(id).ok_or_else(|| ApiError::not_found("user", id))?;
                return Ok(view.json(user).into());
            }
            Endpoint::UserCreate => return self.create_user(context, body),
            Endpoint::UserUpdate => {
                let user = self.users.update(context.directory, id, body, context.now)?;
                return Ok(self.updated_user(context, user));
            }
            Endpoint::UserMetadataMerge | Endpoint::UserMetadataReplace => {
                let replace = endpoint == Endpoint::UserMetadataReplace;
                let user = self.users.update_metadata(context.directory, id, body, replace, context.now)?;
                return Ok(self.updated_user(context, user));
            }
            Endpoint::UserBan => return self.set_flag(context, id, Flag::Banned(true)),
            Endpoint::UserUnban => return self.set_flag(context, id, Flag::Banned(false)),
            Endpoint::UserLock => return self.set_flag(context, id, Flag::Locked(true)),
            Endpoint::UserUnlock => return self.set_flag(context, id, Flag::Locked(false)),
            Endpoint::UserDelete => self.delete_user(context, id)?,
            Endpoint::UserMemberships => self.organizations.of_user(&self.view(context), id, uri)?,
            Endpoint::UserInvitations => self.organizations.invitations_of_user(&self.view(context), id, uri)?,
            Endpoint::OrganizationList => self.organizations.list(&self.view(context), uri)?,
            Endpoint::OrganizationCreate => self.organizations.create(context, &self.users, body)?,
            Endpoint::OrganizationGet => self.organizations.get(id, uri)?,
            Endpoint::OrganizationUpdate => self.organizations.update(context, id, body)?,
            Endpoint::OrganizationDelete => self.organizations.delete(context, id)?,
            Endpoint::OrganizationMetadataMerge => self.organizations.update_metadata(context, id, body, false)?,
            Endpoint::OrganizationMetadataReplace => self.organizations.update_metadata(context, id, body, true)?,
            Endpoint::MembershipList => self.organizations.members(&self.view(context), id, uri)?,
            Endpoint::MembershipCreate => self.organizations.add_membership(context, &self.users, id, body)?,
            Endpoint::MembershipUpdate => self.organizations.update_membership(context, &self.users, ids, body)?,
            Endpoint::MembershipMetadata => {
                self.organizations.update_membership_metadata(context, &self.users, ids, body)?
            }
            Endpoint::MembershipDelete => self.organizations.remove_membership(context, &self.users, ids)?,
            Endpoint::OrganizationInvitationList => self.organizations.invitations(id, uri, false)?,
            Endpoint::OrganizationInvitationPending => self.organizations.invitations(id, uri, true)?,
            Endpoint::OrganizationInvitationCreate => self.organizations.invite(context, &self.users, id, body)?,
            Endpoint::OrganizationInvitationBulk => self.organizations.invite_all(context, &self.users, id, body)?,
            Endpoint::OrganizationInvitationGet => self.organizations.invitation(id, second_id)?,
            Endpoint::OrganizationInvitationRevoke => self.organizations.revoke_invitation(context, id, second_id)?,
            Endpoint::InvitationList => self.invitations.list(uri)?,
            Endpoint::InvitationCreate => self.invitations.create(context, &self.users, body)?,
            Endpoint::InvitationBulk => self.invitations.create_bulk(context, &self.users, body)?,
            Endpoint::InvitationRevoke => self.invitations.revoke(context, id)?,
            Endpoint::InvitationDelete => self.invitations.delete(id)?,
            Endpoint::SessionList => self.sessions.list(context, &self.users, uri)?,
            Endpoint::SessionCreate => self.sessions.create(context, &self.users, body)?,
            Endpoint::SessionGet => self.sessions.get(context, &self.users, id)?,
            Endpoint::SessionRevoke => self.sessions.revoke(context, &self.users, id)?,
            Endpoint::ApiKeyList => self.api_keys.list(context, uri)?,
            Endpoint::ApiKeyCreate => return self.api_keys.create(context, body).map(Success::created),
            Endpoint::ApiKeyVerify => self.api_keys.verify(context, body)?,
            Endpoint::ApiKeyGet => self.api_keys.get(context, id)?,
            Endpoint::ApiKeyUpdate => self.api_keys.update(context, id, body)?,
            Endpoint::ApiKeyDelete => self.api_keys.delete(id)?,
            Endpoint::ApiKeySecret => self.api_keys.secret(id)?,
            Endpoint::ApiKeyRevoke => self.api_keys.revoke(context, id, body)?,
            Endpoint::TokenList => self.m2m_tokens.list(context, machine, uri)?,
            Endpoint::TokenCreate => {
                let machine = machine.ok_or_else(ApiError::key_invalid)?;
                return self.m2m_tokens.create(context, machine, body).map(Success::created);
            }
            Endpoint::TokenVerify => self.m2m_tokens.verify(context, body)?,
            Endpoint::TokenRevoke => self.m2m_tokens.revoke(context, machine, id, body)?,
            Endpoint::OauthTokenVerify => oauth_tokens::verify(&self.view(context), body)?,
        };
        Ok(value.into())
    }

    fn user_query(&self, uri: &Uri) -> Result<UserQuery, ApiError> {
        Ok(UserQuery::of(uri)?.with_members(|ids| self.organizations.members_of(ids)))
    }

    fn create_user(&mut self, context: &mut Context<'_>, body: &[u8]) -> Result<Success, ApiError> {
        let serial = context.next_random();
        let user = self.users.create(context.directory, body, serial, context.now)?;
        context.emit_user("user.created", &self.users, user);
        Ok(self.view(context).json(user).into())
    }

    fn set_flag(&mut self, context: &mut Context<'_>, id: &str, flag: Flag) -> Result<Success, ApiError> {
        let user = self.users.set_flag(context.directory, id, flag, context.now)?;
        if flag == Flag::Banned(true) {
            self.sessions.revoke_of_user(context, &self.users, user);
        }
        Ok(self.updated_user(context, user))
    }

    fn updated_user(&self, context: &mut Context<'_>, user: u32) -> Success {
        context.emit_user("user.updated", &self.users, user);
        self.view(context).json(user).into()
    }

    fn delete_user(&mut self, context: &mut Context<'_>, id: &str) -> Result<Value, ApiError> {
        let user = self.users.delete(context.directory, id)?;
        self.organizations.forget_user(user);
        self.sessions.forget_user(id);
        let json = json!({ "object": "user", "id": id, "deleted": true });
        context.emit("user.deleted", id, &json);
        Ok(json)
    }
}
