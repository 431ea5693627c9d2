//! API keys of users and organizations.

use http::Uri;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Validity, expiration, id_of_secret, lifetime, new_secret};
use crate::body::{Fields, malformed};
use crate::collection::Collection;
use crate::context::Context;
use crate::error::ApiError;
use crate::list_query::{ListQuery, to_value};

/// An API key, as Clerk writes it.
#[derive(Debug, Clone, Serialize)]
struct ApiKey {
    object: &'static str,
    id: String,
    r#type: &'static str,
    subject: String,
    name: String,
    description: Option<String>,
    claims: Value,
    scopes: Vec<String>,
    created_by: Option<String>,
    #[serde(flatten)]
    validity: Validity,
    #[serde(skip)]
    secret: String,
}

/// The API keys of one instance.
#[derive(Debug, Default)]
pub(crate) struct ApiKeys {
    keys: Collection<ApiKey>,
}

impl ApiKeys {
    /// `POST /v1/api_keys`. The only response with the secret, beside that of [`Self::secret`].
    ///
    /// # Errors
    ///
    /// 400 or 422 if the body is invalid.
    pub(crate) fn create(&mut self, context: &mut Context<'_>, body: &[u8]) -> Result<Value, ApiError> {
        let mut fields = Fields::parse(body)?;
        let name = fields.required_text("name")?;
        let subject = subject(fields.required_text("subject")?)?;
        let mut key = ApiKey {
            object: "api_key",
            id: context.new_id("ak_"),
            r#type: "api_key",
            subject,
            name,
            description: fields.text("description")?.flatten(),
            claims: fields.value("claims").unwrap_or_default(),
            scopes: fields.texts("scopes")?,
            created_by: fields.text("created_by")?.flatten(),
            validity: Validity::new(context.now, lifetime(&mut fields)?),
            secret: String::new(),
        };
        key.secret = new_secret(context, &key.id);
        let mut json = to_value(&key);
        json["secret"] = Value::from(key.secret.as_str());
        self.keys.insert(key.id.clone(), key);
        Ok(json)
    }

    /// `GET /v1/api_keys`, of one subject.
    ///
    /// # Errors
    ///
    /// 422 if the query names no subject.
    pub(crate) fn list(&self, context: &Context<'_>, uri: &Uri) -> Result<Value, ApiError> {
        let query = ListQuery::of(uri)?;
        let subject = query.get("subject").ok_or_else(|| crate::body::missing("subject"))?;
        let with_invalid = query.is_set("include_invalid");
        let text = query.get("query").map(str::to_lowercase);
        let found = self.keys.newest_first().filter(|key| {
            let has_text = |text: &String| key.name.to_lowercase().contains(text) || key.id == *text;
            key.subject == subject
                && (with_invalid || key.validity.is_valid(context.now))
                && text.as_ref().is_none_or(has_text)
        });
        Ok(query.page(found.map(|key| key.at(context.now))).counted())
    }

    /// `GET /v1/api_keys/{api_key_id}`.
    ///
    /// # Errors
    ///
    /// 404 if there is none.
    pub(crate) fn get(&self, context: &Context<'_>, id: &str) -> Result<Value, ApiError> {
        self.keys.get(id).map(|key| key.at(context.now)).ok_or_else(|| not_found(id))
    }

    /// `GET /v1/api_keys/{api_key_id}/secret`.
    ///
    /// # Errors
    ///
    /// 404 if there is none.
    pub(crate) fn secret(&self, id: &str) -> Result<Value, ApiError> {
        self.keys.get(id).map(|key| json!({ "secret": key.secret })).ok_or_else(|| not_found(id))
    }

    /// `PATCH /v1/api_keys/{api_key_id}`.
    ///
    /// # Errors
    ///
    /// 404 if there is none, 400 or 422 if the body is invalid.
    pub(crate) fn update(&mut self, context: &Context<'_>, id: &str, body: &[u8]) -> Result<Value, ApiError> {
        let key = self.keys.get_mut(id).ok_or_else(|| not_found(id))?;
        let mut fields = Fields::parse(body)?;
        let description = fields.text("description")?;
        let new_subject = fields.text("subject")?.flatten().map(subject).transpose()?;
        let scopes = fields.value("scopes").map(|value| texts("scopes", value)).transpose()?;
        let seconds = lifetime(&mut fields)?;
        if let Some(claims) = fields.value("claims") {
            key.claims = claims;
        }
        key.description = description.unwrap_or_else(|| key.description.take());
        key.subject = new_subject.unwrap_or_else(|| std::mem::take(&mut key.subject));
        key.scopes = scopes.unwrap_or_else(|| std::mem::take(&mut key.scopes));
        if seconds.is_some() {
            key.validity.expiration = expiration(context.now, seconds);
        }
        key.validity.updated_at = context.now;
        Ok(key.at(context.now))
    }

    /// `DELETE /v1/api_keys/{api_key_id}`.
    ///
    /// # Errors
    ///
    /// 404 if there is none.
    pub(crate) fn delete(&mut self, id: &str) -> Result<Value, ApiError> {
        self.keys.remove(id).ok_or_else(|| not_found(id))?;
        Ok(json!({ "object": "api_key", "id": id, "deleted": true }))
    }

    /// `POST /v1/api_keys/{api_key_id}/revoke`.
    ///
    /// # Errors
    ///
    /// 404 if there is none, 400 or 422 if the body is invalid.
    pub(crate) fn revoke(&mut self, context: &Context<'_>, id: &str, body: &[u8]) -> Result<Value, ApiError> {
        let key = self.keys.get_mut(id).ok_or_else(|| not_found(id))?;
        key.validity.revoke(body, context.now)?;
        Ok(key.at(context.now))
    }

    /// `POST /v1/api_keys/verify`. A revoked or expired key is found, and says so.
    ///
    /// # Errors
    ///
    /// 404 if no key has the secret, 400 or 422 if the body is invalid.
    pub(crate) fn verify(&mut self, context: &Context<'_>, body: &[u8]) -> Result<Value, ApiError> {
        let secret = Fields::parse(body)?.required_text("secret")?;
        let found =
            id_of_secret("ak_", &secret).and_then(|id| self.keys.get_mut(id)).filter(|key| key.secret == secret);
        let key = found.ok_or_else(|| ApiError::not_found("API key", "the given secret"))?;
        if key.validity.is_valid(context.now) {
            key.validity.last_used_at = Some(context.now);
        }
        Ok(key.at(context.now))
    }
}

impl ApiKey {
    /// The JSON at this time.
    fn at(&self, now_millis: i64) -> Value {
        let mut key = self.clone();
        key.validity.refresh(now_millis);
        to_value(&key)
    }
}

fn not_found(id: &str) -> ApiError {
    ApiError::not_found("API key", id)
}

/// A user or an organization; it need not exist here.
fn subject(text: String) -> Result<String, ApiError> {
    let is_known_kind = text.starts_with("user_") || text.starts_with("org_");
    if is_known_kind { Ok(text) } else { Err(malformed("subject", "the id of a user or an organization")) }
}

fn texts(name: &str, value: Value) -> Result<Vec<String>, ApiError> {
    serde_json::from_value(value).map_err(|_| malformed(name, "an array of texts"))
}
