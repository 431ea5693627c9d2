//! Clerk's resources: common fields have methods, and every field is preserved.
//!
//! Methods read the fields, rather than typed struct fields: `null` and absent stay apart, a field that changes its type does
//! not fail a whole page, and a serialised value equals what was read.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use clerk_quota::Environment;

/// A user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct User {
    /// The identifier, `user_...`.
    pub id: String,
    /// All other fields, as Clerk wrote them.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl User {
    /// When the user was created, in milliseconds since the UNIX epoch.
    #[must_use]
    pub fn created_at(&self) -> Option<i64> {
        self.millis("created_at")
    }

    /// When the user was last changed, in milliseconds since the UNIX epoch.
    #[must_use]
    pub fn updated_at(&self) -> Option<i64> {
        self.millis("updated_at")
    }

    /// When the user last signed in, in milliseconds since the UNIX epoch.
    #[must_use]
    pub fn last_sign_in_at(&self) -> Option<i64> {
        self.millis("last_sign_in_at")
    }

    /// When the user was last active, in milliseconds since the UNIX epoch, rounded to a day by Clerk.
    #[must_use]
    pub fn last_active_at(&self) -> Option<i64> {
        self.millis("last_active_at")
    }

    /// The first name.
    #[must_use]
    pub fn first_name(&self) -> Option<&str> {
        self.text("first_name")
    }

    /// The last name.
    #[must_use]
    pub fn last_name(&self) -> Option<&str> {
        self.text("last_name")
    }

    /// The username.
    #[must_use]
    pub fn username(&self) -> Option<&str> {
        self.text("username")
    }

    /// The application's own id of the user.
    #[must_use]
    pub fn external_id(&self) -> Option<&str> {
        self.text("external_id")
    }

    /// The primary email address: the one that `primary_email_address_id` names.
    #[must_use]
    pub fn primary_email_address(&self) -> Option<&str> {
        let primary = self.text("primary_email_address_id")?;
        let addresses = self.fields.get("email_addresses")?.as_array()?;
        addresses.iter().find(|address| address["id"] == primary)?["email_address"].as_str()
    }

    /// Whether the user is banned; false if the field is absent.
    #[must_use]
    pub fn is_banned(&self) -> bool {
        self.fields.get("banned").and_then(Value::as_bool).unwrap_or_default()
    }

    /// Metadata that browsers can read.
    #[must_use]
    pub fn public_metadata(&self) -> Option<&Map<String, Value>> {
        self.fields.get("public_metadata")?.as_object()
    }

    /// Metadata that only the Backend API can read.
    #[must_use]
    pub fn private_metadata(&self) -> Option<&Map<String, Value>> {
        self.fields.get("private_metadata")?.as_object()
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.as_str()
    }

    fn millis(&self, name: &str) -> Option<i64> {
        self.fields.get(name)?.as_i64()
    }
}

/// A Clerk instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Instance {
    /// The identifier, `ins_...`.
    pub id: String,
    /// All other fields, as Clerk wrote them.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl Instance {
    /// The kind of the instance; unknown if the field is absent.
    #[must_use]
    pub fn environment(&self) -> Environment {
        match self.fields.get("environment_type").and_then(Value::as_str) {
            Some("production") => Environment::Production,
            Some("development") => Environment::Development,
            _ => Environment::Unknown,
        }
    }
}

/// The public keys that session tokens are verified with: a JWK Set (RFC 7517, section 5).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Jwks {
    /// The keys.
    pub keys: Vec<Map<String, Value>>,
    /// All other fields, as Clerk wrote them.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl Jwks {
    /// The key with this `kid`.
    #[must_use]
    pub fn key(&self, kid: &str) -> Option<&Map<String, Value>> {
        self.keys.iter().find(|key| key.get("kid").and_then(Value::as_str) == Some(kid))
    }
}

/// What Clerk says of a deleted user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeletedUser {
    /// The identifier, `user_...`.
    pub id: String,
    /// Whether the user was deleted.
    pub deleted: bool,
    /// All other fields, as Clerk wrote them.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// A number of resources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Count {
    /// The number.
    pub total_count: u64,
    /// All other fields, as Clerk wrote them.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::json;

    use super::*;

    fn survives<T: Serialize + DeserializeOwned>(value: &Value) {
        let typed: T = serde_json::from_str(&value.to_string()).unwrap();
        let written: Value = serde_json::from_str(&serde_json::to_string(&typed).unwrap()).unwrap();
        assert_eq!(written, *value);
    }

    #[test]
    fn every_field_survives_a_round_trip() {
        for user in [
            json!({"id": "user_1"}),
            json!({"id": "user_1", "first_name": null, "created_at": 1_700_000_000_123_i64, "banned": true}),
            json!({"id": "user_1", "first_name": 7, "new": {"deep": [1, 2.5, -3, null, {"x": []}]}, "big": u64::MAX}),
            json!({"id": "user_1", "least": i64::MIN, "float": 1e300, "": "empty name", "fields": {"fields": 1}}),
        ] {
            survives::<User>(&user);
        }
        survives::<Instance>(&json!({"id": "ins_1", "object": "instance", "allowed_origins": null}));
        survives::<Jwks>(&json!({"keys": [{"kid": "a", "n": "x", "new": [1]}], "more": 1}));
        survives::<Count>(&json!({"object": "total_count", "total_count": 7}));
    }

    #[test]
    fn fields_that_are_missing_or_of_another_type_are_none() {
        let user: User = serde_json::from_value(json!({
            "id": "user_1", "first_name": "Ada", "last_name": null, "created_at": 5, "updated_at": "yesterday",
            "primary_email_address_id": "idn_2", "banned": true, "public_metadata": {"plan": "pro"},
            "email_addresses": [{"id": "idn_1", "email_address": "a@x"}, {"id": "idn_2", "email_address": "b@x"}, 7],
        }))
        .unwrap();
        assert_eq!((user.first_name(), user.last_name(), user.username()), (Some("Ada"), None, None));
        assert_eq!((user.created_at(), user.updated_at(), user.last_active_at()), (Some(5), None, None));
        assert_eq!((user.primary_email_address(), user.is_banned()), (Some("b@x"), true));
        assert_eq!(user.public_metadata().unwrap()["plan"], "pro");
        assert_eq!(user.private_metadata(), None);
    }
}
