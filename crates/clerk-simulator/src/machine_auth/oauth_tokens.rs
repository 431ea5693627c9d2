//! OAuth access tokens. Clients cannot create them through the Backend API: each generated user has one.

use serde_json::{Value, json};

use crate::body::{Fields, missing};
use crate::error::ApiError;
use crate::users::Directory;
use crate::users::view::View;

/// What makes the identifiers of tokens differ from those of their users.
const TOKEN_SEED: u64 = 0x0A07;

/// The access token of a generated user.
pub(crate) fn token(directory: &Directory, user: u32) -> String {
    directory.spread_id("oat_", user, TOKEN_SEED)
}

/// `POST /v1/oauth_applications/access_tokens/verify`. The token of a deleted user is revoked.
///
/// # Errors
///
/// 404 if there is no such token, 400 or 422 if the body is invalid.
pub(crate) fn verify(view: &View<'_>, body: &[u8]) -> Result<Value, ApiError> {
    let mut fields = Fields::parse(body)?;
    let (token, secret) = (fields.text("access_token")?, fields.text("secret")?);
    let token = token.flatten().or(secret.flatten()).ok_or_else(|| missing("access_token"))?;
    let directory = view.directory;
    let user = directory.of_spread("oat_", &token, TOKEN_SEED);
    let user = user.ok_or_else(|| ApiError::not_found("OAuth access token", "the given token"))?;
    let is_revoked = !view.exists(user);
    let created_at = directory.created_at(user);
    Ok(json!({
        "object": "clerk_idp_oauth_access_token",
        "id": token,
        "client_id": "oauth_simulated",
        "subject": directory.id(user),
        "scopes": ["email", "profile"],
        "revoked": is_revoked,
        "revocation_reason": is_revoked.then_some("the user was deleted"),
        "expired": false,
        "expiration": null,
        "created_at": created_at,
        "updated_at": created_at,
    }))
}
