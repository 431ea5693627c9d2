//! The changes of one user by clients.

use serde_json::{Map, Value};

use crate::body::Fields;
use crate::error::ApiError;

/// The changes of one user. `None`: as generated; `Some(None)`: removed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Edit {
    pub(super) first_name: Option<Option<String>>,
    pub(super) last_name: Option<Option<String>>,
    pub(super) username: Option<Option<String>>,
    pub(super) external_id: Option<Option<String>>,
    pub(super) banned: Option<bool>,
    pub(super) locked: bool,
    pub(super) public_metadata: Map<String, Value>,
    pub(super) private_metadata: Map<String, Value>,
    pub(super) unsafe_metadata: Map<String, Value>,
    /// Milliseconds since the epoch.
    pub(super) updated_at: i64,
}

impl Edit {
    /// Applies the fields of `PATCH /v1/users/{user_id}`: each given field replaces the old one.
    ///
    /// # Errors
    ///
    /// 422 if a field has the wrong type or is too long.
    pub(super) fn update(mut self, fields: &mut Fields, now_millis: i64) -> Result<Self, ApiError> {
        for (name, kept) in [
            ("first_name", &mut self.first_name),
            ("last_name", &mut self.last_name),
            ("username", &mut self.username),
            ("external_id", &mut self.external_id),
        ] {
            if let Some(text) = fields.text(name)? {
                *kept = Some(text);
            }
        }
        for (name, kept) in [
            ("public_metadata", &mut self.public_metadata),
            ("private_metadata", &mut self.private_metadata),
            ("unsafe_metadata", &mut self.unsafe_metadata),
        ] {
            if let Some(metadata) = fields.metadata(name)? {
                *kept = metadata;
            }
        }
        // Clerk has many more fields. The simulator accepts them but does not store them.
        self.updated_at = now_millis;
        Ok(self)
    }

    /// Applies the body of `PATCH` (merge: `null` removes a key) or `PUT` (`replace`) `…/metadata`.
    ///
    /// # Errors
    ///
    /// 400 if the body is not a JSON object, 422 if a field is not an object or the result is too large.
    pub(super) fn update_metadata(mut self, body: &[u8], replace: bool, now_millis: i64) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        fields.merge_metadata("public_metadata", &mut self.public_metadata, replace)?;
        fields.merge_metadata("private_metadata", &mut self.private_metadata, replace)?;
        fields.merge_metadata("unsafe_metadata", &mut self.unsafe_metadata, replace)?;
        self.updated_at = now_millis;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::body::METADATA_MAX_BYTES;

    #[test]
    fn invalid_bodies_are_rejected() {
        let refused = |body: &str| {
            let update = |mut fields| Edit::default().update(&mut fields, 1);
            Fields::parse(body.as_bytes()).and_then(update).unwrap_err().code()
        };
        assert_eq!(refused("{"), "request_body_invalid");
        assert_eq!(refused("[]"), "request_body_invalid");
        assert_eq!(refused(r#"{"first_name": 5}"#), "form_param_format_invalid");
        assert_eq!(refused(r#"{"public_metadata": 5}"#), "form_param_format_invalid");
        let large = json!({"public_metadata": {"a": "x".repeat(METADATA_MAX_BYTES)}}).to_string();
        assert_eq!(refused(&large), "form_param_value_too_large");
    }

    #[test]
    fn update_keeps_the_fields_that_are_not_given() {
        let update =
            |edit: Edit, body: Value| edit.update(&mut Fields::parse(body.to_string().as_bytes()).unwrap(), 1).unwrap();
        let edit = update(Edit::default(), json!({"first_name": "Ada", "username": "ada"}));
        let edit = update(edit, json!({"last_name": "L", "username": null}));
        assert_eq!((edit.first_name, edit.username), (Some(Some("Ada".to_owned())), Some(None)));
    }
}
