//! The endpoints' responses to requests that passed the limiter.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::Uri;
use serde_json::{Value, json};

use super::Shared;
use super::clock::epoch_millis;
use super::error::ApiError;
use super::ids::mix;
use super::invitations::{self, Target};
use super::organizations;
use super::route::Route;
use super::users::edits::Edit;
use super::users::json::View;
use super::users::query::UserQuery;

impl Shared {
    /// Returns the JSON of the endpoint's response to a client of `instance`.
    ///
    /// # Errors
    ///
    /// As Clerk: 404 for what does not exist, 400 and 422 for invalid input.
    pub(super) fn respond(&self, instance: usize, route: Route<'_>, uri: &Uri, body: &[u8]) -> Result<Bytes, ApiError> {
        let now = epoch_millis(self.clock.now());
        let serial = || self.next_serial();
        match route {
            Route::Jwks => Ok(self.jwks(instance)),
            Route::Instance => Ok(self.instance(instance)),
            Route::Users => {
                let query = UserQuery::of(uri)?;
                self.with_users(instance, |view| view.page(&query)).map(Bytes::from)
            }
            Route::UsersCount => {
                let query = UserQuery::of(uri)?;
                let count = self.with_users(instance, |view| view.count(&query));
                Ok(Bytes::from(format!(r#"{{"object":"total_count","total_count":{count}}}"#)))
            }
            Route::User { user } => {
                let number = self.find(user)?;
                Ok(self.with_users(instance, |view| user_json(view, number)))
            }
            Route::UserUpdate { user } => self.edit(instance, user, |edit| edit.update(body, now)),
            Route::UserMetadata { user, replace } => {
                self.edit(instance, user, |edit| edit.update_metadata(body, replace, now))
            }
            Route::Invitation => invitations::create(Target::Instance, body, serial(), now).map(bytes),
            Route::InvitationsBulk => invitations::create_bulk(Target::Instance, body, serial(), now).map(bytes),
            Route::OrganizationInvitation { organization } => {
                organizations::check_id(organization)?;
                invitations::create(Target::Organization(organization), body, serial(), now).map(bytes)
            }
            Route::OrganizationInvitationsBulk { organization } => {
                organizations::check_id(organization)?;
                invitations::create_bulk(Target::Organization(organization), body, serial(), now).map(bytes)
            }
            Route::Organization { organization } => organizations::organization(organization, &[], now).map(bytes),
            // Organizations are not stored, so merging and replacing metadata are the same.
            Route::OrganizationUpdate { organization } | Route::OrganizationMetadata { organization, .. } => {
                let body = if body.is_empty() { b"{}" } else { body };
                organizations::organization(organization, body, now).map(bytes)
            }
            Route::MembershipUpdate { organization, user } | Route::MembershipMetadata { organization, user } => self
                .with_users(instance, |view| organizations::membership(organization, user, view, body, now))
                .map(bytes),
            Route::Unknown => Err(ApiError::not_found("resource", uri.path())),
        }
    }

    fn find(&self, id: &str) -> Result<u32, ApiError> {
        self.directory.find(id).ok_or_else(|| ApiError::not_found("user", id))
    }

    fn with_users<T>(&self, instance: usize, work: impl FnOnce(View<'_>) -> T) -> T {
        let edits = self.edits.lock();
        work(View { directory: &self.directory, edits: &edits, instance })
    }

    fn edit(
        &self,
        instance: usize,
        id: &str,
        change: impl FnOnce(Edit) -> Result<Edit, ApiError>,
    ) -> Result<Bytes, ApiError> {
        let user = self.find(id)?;
        let mut edits = self.edits.lock();
        let edit = change(edits.get(instance, user).cloned().unwrap_or_default())?;
        edits.set(instance, user, edit);
        Ok(user_json(View { directory: &self.directory, edits: &edits, instance }, user))
    }

    fn instance(&self, instance: usize) -> Bytes {
        let keys = self.keys.lock();
        let Some(instance) = keys.instances().get(instance) else { return Bytes::from_static(b"{}") };
        bytes(json!({
            "object": "instance",
            "id": instance.id,
            "environment_type": instance.environment.as_str(),
            "allowed_origins": null,
        }))
    }

    /// Returns a key set with one RSA key. Its modulus is made up: it cannot verify anything.
    fn jwks(&self, instance: usize) -> Bytes {
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
        bytes(json!({ "keys": [{ "use": "sig", "kty": "RSA", "kid": id, "alg": "RS256", "n": modulus, "e": "AQAB" }] }))
    }

    fn next_serial(&self) -> u64 {
        mix(self.options.seed, self.responses.load(Ordering::Relaxed))
    }
}

fn user_json(view: View<'_>, user: u32) -> Bytes {
    let mut json = Vec::with_capacity(2_048);
    view.write(user, &mut json);
    Bytes::from(json)
}

#[expect(clippy::needless_pass_by_value, reason = "so that it can be mapped over a result")]
fn bytes(value: Value) -> Bytes {
    Bytes::from(value.to_string())
}
