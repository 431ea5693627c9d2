//! Tokens between machines.

use http::Uri;
use serde::Serialize;
use serde_json::Value;

use super::{Validity, id_of_secret, lifetime, new_secret};
use crate::body::{Fields, malformed, missing};
use crate::collection::Collection;
use crate::context::Context;
use crate::error::ApiError;
use crate::list_query::{ListQuery, to_value};

/// The lifetime of tokens without `seconds_until_expiration`: Clerk's default of a machine.
const DEFAULT_LIFETIME_SECONDS: u64 = 3_600;

/// A token, as Clerk writes it.
#[derive(Debug, Clone, Serialize)]
struct MachineToken {
    object: &'static str,
    id: String,
    /// The machine that it was created by.
    subject: String,
    claims: Value,
    scopes: Vec<String>,
    #[serde(flatten)]
    validity: Validity,
    #[serde(skip)]
    token: String,
}

#[derive(Serialize)]
struct TokenList<'a> {
    m2m_tokens: &'a [Value],
    total_count: usize,
}

/// The tokens of one instance. `machine` is the caller's, or `None` for a secret key of the instance.
#[derive(Debug, Default)]
pub(crate) struct MachineTokens {
    tokens: Collection<MachineToken>,
}

impl MachineTokens {
    /// `POST /v1/m2m_tokens`. With `min_remaining_ttl_seconds`, an older token that is still valid for this long is
    /// returned.
    ///
    /// # Errors
    ///
    /// 400 or 422 if the body is invalid, or asks for a JWT.
    pub(crate) fn create(&mut self, context: &mut Context<'_>, machine: &str, body: &[u8]) -> Result<Value, ApiError> {
        let mut fields = Fields::parse_optional(body)?;
        if fields.text("token_format")?.flatten().is_some_and(|format| format != "opaque") {
            return Err(malformed("token_format", "opaque: the simulator signs no tokens"));
        }
        let claims = fields.value("claims").unwrap_or_default();
        let seconds = lifetime(&mut fields)?.unwrap_or(DEFAULT_LIFETIME_SECONDS);
        if let Some(least) = fields.number("min_remaining_ttl_seconds")? {
            if least >= seconds {
                let long = "min_remaining_ttl_seconds must be less than the lifetime of the token.";
                return Err(ApiError::bad_request("form_param_value_invalid", "is invalid", long));
            }
            let least = i64::try_from(least).unwrap_or(i64::MAX).saturating_mul(1_000);
            let until = context.now.saturating_add(least);
            let is_same = |token: &&MachineToken| {
                token.subject == machine && token.claims == claims && token.validity.is_valid(until)
            };
            if let Some(token) = self.tokens.newest_first().find(is_same) {
                return Ok(token.with_secret(context.now));
            }
        }
        let mut token = MachineToken {
            object: "machine_to_machine_token",
            id: context.new_id("mt_"),
            subject: machine.to_owned(),
            claims,
            scopes: Vec::new(),
            validity: Validity::new(context.now, Some(seconds)),
            token: String::new(),
        };
        token.token = new_secret(context, &token.id);
        let json = token.with_secret(context.now);
        self.tokens.insert(token.id.clone(), token);
        Ok(json)
    }

    /// `GET /v1/m2m_tokens`, of one machine: a machine sees its own.
    ///
    /// # Errors
    ///
    /// 422 if the query names no machine; 404 if a machine asks for another's.
    pub(crate) fn list(&self, context: &Context<'_>, machine: Option<&str>, uri: &Uri) -> Result<Value, ApiError> {
        let query = ListQuery::of(uri)?;
        let subject = query.get("subject").or(machine).ok_or_else(|| missing("subject"))?;
        if machine.is_some_and(|machine| machine != subject) {
            return Err(ApiError::not_found("machine", subject));
        }
        let (revoked, expired) = (query.is_set("revoked"), query.is_set("expired"));
        let found = self.tokens.newest_first().filter(|token| {
            let is_expired = token.validity.expiration.is_some_and(|at| at <= context.now);
            token.subject == subject && (revoked || !token.validity.revoked) && (expired || !is_expired)
        });
        let page = query.page(found.map(|token| token.at(context.now)));
        Ok(to_value(&TokenList { m2m_tokens: &page.items, total_count: page.total }))
    }

    /// `POST /v1/m2m_tokens/{m2m_token_id}/revoke`.
    ///
    /// # Errors
    ///
    /// 404 if there is none, or it is another machine's; 400 or 422 if the body is invalid.
    pub(crate) fn revoke(
        &mut self,
        context: &Context<'_>,
        machine: Option<&str>,
        id: &str,
        body: &[u8],
    ) -> Result<Value, ApiError> {
        let found = self.tokens.get_mut(id).filter(|token| machine.is_none_or(|machine| machine == token.subject));
        let token = found.ok_or_else(|| ApiError::not_found("M2M token", id))?;
        token.validity.revoke(body, context.now)?;
        Ok(token.at(context.now))
    }

    /// `POST /v1/m2m_tokens/verify`, by any machine of the instance. A revoked or expired token is found, and says so.
    ///
    /// # Errors
    ///
    /// 404 if there is no such token, 400 or 422 if the body is invalid.
    pub(crate) fn verify(&mut self, context: &Context<'_>, body: &[u8]) -> Result<Value, ApiError> {
        let secret = Fields::parse(body)?.required_text("token")?;
        let found = id_of_secret("mt_", &secret).and_then(|id| self.tokens.get_mut(id)).filter(|it| it.token == secret);
        let token = found.ok_or_else(|| ApiError::not_found("M2M token", "the given token"))?;
        if token.validity.is_valid(context.now) {
            token.validity.last_used_at = Some(context.now);
        }
        Ok(token.at(context.now))
    }
}

impl MachineToken {
    /// The JSON at this time.
    fn at(&self, now_millis: i64) -> Value {
        let mut token = self.clone();
        token.validity.refresh(now_millis);
        to_value(&token)
    }

    fn with_secret(&self, now_millis: i64) -> Value {
        let mut json = self.at(now_millis);
        json["token"] = Value::from(self.token.as_str());
        json
    }
}
