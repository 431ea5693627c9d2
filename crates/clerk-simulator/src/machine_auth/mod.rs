//! Authentication of machines: API keys of users and organizations, tokens between machines, OAuth access tokens.

pub(super) mod api_keys;
pub(super) mod m2m_tokens;
pub(super) mod oauth_tokens;

use serde::Serialize;

use super::body::{Fields, malformed};
use super::context::Context;
use super::error::ApiError;
use super::ids::KSUID_LENGTH;

/// What keys and tokens have in common. A revoked or expired one is verified with 200, and says so.
#[derive(Debug, Clone, Serialize)]
struct Validity {
    revoked: bool,
    revocation_reason: Option<String>,
    expired: bool,
    /// Milliseconds since the epoch; `None`: never.
    expiration: Option<i64>,
    last_used_at: Option<i64>,
    created_at: i64,
    updated_at: i64,
}

impl Validity {
    fn new(now_millis: i64, seconds: Option<u64>) -> Self {
        Self {
            revoked: false,
            revocation_reason: None,
            expired: false,
            expiration: expiration(now_millis, seconds),
            last_used_at: None,
            created_at: now_millis,
            updated_at: now_millis,
        }
    }

    /// Brings `expired` up to date, which is otherwise only right when the value was last written.
    fn refresh(&mut self, now_millis: i64) {
        self.expired = self.expiration.is_some_and(|at| at <= now_millis);
    }

    fn is_valid(&self, now_millis: i64) -> bool {
        !self.revoked && self.expiration.is_none_or(|at| at > now_millis)
    }

    /// Applies the body of `…/revoke`. A second revocation changes nothing.
    ///
    /// # Errors
    ///
    /// 400 or 422 if the body is invalid.
    fn revoke(&mut self, body: &[u8], now_millis: i64) -> Result<(), ApiError> {
        let reason = Fields::parse_optional(body)?.text("revocation_reason")?.flatten();
        if !self.revoked {
            self.revoked = true;
            self.revocation_reason = reason;
            self.updated_at = now_millis;
        }
        Ok(())
    }
}

/// The end of a lifetime, in milliseconds since the epoch.
fn expiration(now_millis: i64, seconds: Option<u64>) -> Option<i64> {
    let millis = i64::try_from(seconds?).unwrap_or(i64::MAX).saturating_mul(1_000);
    Some(now_millis.saturating_add(millis))
}

/// The field `seconds_until_expiration`.
///
/// # Errors
///
/// 422 if it is not a positive whole number.
fn lifetime(fields: &mut Fields) -> Result<Option<u64>, ApiError> {
    const NAME: &str = "seconds_until_expiration";
    match fields.number(NAME)? {
        Some(0) => Err(malformed(NAME, "a positive number of seconds")),
        seconds => Ok(seconds),
    }
}

/// Returns a new secret of the resource with this identifier, with which it begins.
fn new_secret(context: &mut Context<'_>, id: &str) -> String {
    format!("{id}{:016x}", context.next_random())
}

/// Returns the identifier of the resource that a secret may belong to.
fn id_of_secret<'a>(prefix: &str, secret: &'a str) -> Option<&'a str> {
    secret.get(..prefix.len() + KSUID_LENGTH)
}
