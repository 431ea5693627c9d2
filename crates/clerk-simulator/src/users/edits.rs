//! Changes by clients: stored next to the generated users, within bounds.

use std::collections::{HashMap, VecDeque};

use serde_json::{Map, Value};

use crate::error::ApiError;

/// Changed users that are stored. Beyond, the user that was changed first returns to its generated state.
const MAX_EDITED_USERS: usize = 4_096;

/// Clerk's limit for a metadata object.
const METADATA_MAX_BYTES: usize = 8 * 1024;
const TEXT_MAX_CHARS: usize = 256;

/// The changes of one user. `None`: as generated; `Some(None)`: removed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Edit {
    pub(super) first_name: Option<Option<String>>,
    pub(super) last_name: Option<Option<String>>,
    pub(super) username: Option<Option<String>>,
    pub(super) external_id: Option<Option<String>>,
    pub(super) public_metadata: Map<String, Value>,
    pub(super) private_metadata: Map<String, Value>,
    pub(super) unsafe_metadata: Map<String, Value>,
    /// Milliseconds since the epoch.
    pub(super) updated_at: i64,
}

impl Edit {
    /// Applies the body of `PATCH /v1/users/{user_id}`: each given field replaces the old one.
    ///
    /// # Errors
    ///
    /// 400 if the body is not a JSON object, 422 if a field has the wrong type or is too long. Nothing changes then.
    pub(crate) fn update(mut self, body: &[u8], now_millis: i64) -> Result<Self, ApiError> {
        for (name, value) in parse_object(body)? {
            match name.as_str() {
                "first_name" => self.first_name = Some(text(&name, value)?),
                "last_name" => self.last_name = Some(text(&name, value)?),
                "username" => self.username = Some(text(&name, value)?),
                "external_id" => self.external_id = Some(text(&name, value)?),
                "public_metadata" => self.public_metadata = checked(&name, object(&name, value)?)?,
                "private_metadata" => self.private_metadata = checked(&name, object(&name, value)?)?,
                "unsafe_metadata" => self.unsafe_metadata = checked(&name, object(&name, value)?)?,
                // Clerk has many more fields. The simulator accepts them but does not store them.
                _ => {}
            }
        }
        self.updated_at = now_millis;
        Ok(self)
    }

    /// Applies the body of `PATCH` (merge: `null` removes a key) or `PUT` (`replace`) `…/metadata`.
    ///
    /// # Errors
    ///
    /// As [`Self::update`].
    pub(crate) fn update_metadata(mut self, body: &[u8], replace: bool, now_millis: i64) -> Result<Self, ApiError> {
        for (name, value) in parse_object(body)? {
            let kept = match name.as_str() {
                "public_metadata" => &mut self.public_metadata,
                "private_metadata" => &mut self.private_metadata,
                "unsafe_metadata" => &mut self.unsafe_metadata,
                _ => continue,
            };
            let given = object(&name, value)?;
            let mut merged = if replace { Map::new() } else { std::mem::take(kept) };
            merge(&mut merged, given);
            *kept = checked(&name, merged)?;
        }
        self.updated_at = now_millis;
        Ok(self)
    }
}

/// Parses the body of a request as a JSON object.
///
/// # Errors
///
/// 400 if it is anything else.
pub(crate) fn parse_object(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(ApiError::body_invalid()),
    }
}

/// Returns the value of an optional metadata field.
///
/// # Errors
///
/// 422 if it is not an object or too large.
pub(crate) fn metadata(name: &str, value: Value) -> Result<Map<String, Value>, ApiError> {
    checked(name, object(name, value)?)
}

/// Merges as Clerk does: objects key by key, `null` removes the key, anything else replaces.
pub(crate) fn merge(kept: &mut Map<String, Value>, given: Map<String, Value>) {
    for (key, value) in given {
        match (kept.get_mut(&key), value) {
            (_, Value::Null) => {
                kept.remove(&key);
            }
            (Some(Value::Object(inner)), Value::Object(given)) => merge(inner, given),
            (_, value) => {
                kept.insert(key, value);
            }
        }
    }
}

fn object(name: &str, value: Value) -> Result<Map<String, Value>, ApiError> {
    match value {
        Value::Object(object) => Ok(object),
        Value::Null => Ok(Map::new()),
        _ => Err(ApiError::parameter("form_param_format_invalid", name, format!("{name} must be an object"))),
    }
}

fn checked(name: &str, metadata: Map<String, Value>) -> Result<Map<String, Value>, ApiError> {
    let size = serde_json::to_vec(&metadata).map_or(usize::MAX, |text| text.len());
    if size > METADATA_MAX_BYTES {
        let message = format!("{name} is larger than {METADATA_MAX_BYTES} bytes");
        return Err(ApiError::parameter("form_param_value_too_large", name, message));
    }
    Ok(metadata)
}

fn text(name: &str, value: Value) -> Result<Option<String>, ApiError> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.chars().count() <= TEXT_MAX_CHARS => Ok(Some(text).filter(|text| !text.is_empty())),
        _ => {
            let message = format!("{name} must be text of at most {TEXT_MAX_CHARS} characters");
            Err(ApiError::parameter("form_param_format_invalid", name, message))
        }
    }
}

/// Every changed user of every instance.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    by_user: HashMap<(usize, u32), Edit>,
    order: VecDeque<(usize, u32)>,
}

impl Edits {
    pub(crate) fn get(&self, instance: usize, user: u32) -> Option<&Edit> {
        if self.by_user.is_empty() { None } else { self.by_user.get(&(instance, user)) }
    }

    pub(crate) fn set(&mut self, instance: usize, user: u32, edit: Edit) {
        if self.by_user.insert((instance, user), edit).is_none() {
            self.order.push_back((instance, user));
        }
        while self.by_user.len() > MAX_EDITED_USERS {
            let Some(oldest) = self.order.pop_front() else { break };
            self.by_user.remove(&oldest);
        }
    }

    /// Returns the changed users of one instance, in no particular order.
    pub(super) fn of_instance(&self, instance: usize) -> impl Iterator<Item = (u32, &Edit)> {
        self.by_user.iter().filter(move |((of, _), _)| *of == instance).map(|((_, user), edit)| (*user, edit))
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metadata_of(edit: &Edit) -> Value {
        Value::Object(edit.public_metadata.clone())
    }

    #[test]
    fn metadata_patch_merges_and_put_replaces() {
        let patch =
            |edit: Edit, body: Value, replace| edit.update_metadata(body.to_string().as_bytes(), replace, 1).unwrap();
        let edit = patch(Edit::default(), json!({"public_metadata": {"a": {"b": 1, "c": 2}, "d": 3}}), false);
        let edit = patch(edit, json!({"public_metadata": {"a": {"b": null, "e": 4}, "d": [5]}}), false);
        assert_eq!(metadata_of(&edit), json!({"a": {"c": 2, "e": 4}, "d": [5]}));
        let edit = patch(edit, json!({"public_metadata": {"f": 6}}), true);
        assert_eq!(metadata_of(&edit), json!({"f": 6}));
    }

    #[test]
    fn invalid_bodies_are_rejected() {
        let refused = |body: &str| Edit::default().update(body.as_bytes(), 1).unwrap_err().code();
        assert_eq!(refused("{"), "request_body_invalid");
        assert_eq!(refused("[]"), "request_body_invalid");
        assert_eq!(refused(r#"{"first_name": 5}"#), "form_param_format_invalid");
        assert_eq!(refused(r#"{"public_metadata": 5}"#), "form_param_format_invalid");
        let large = json!({"public_metadata": {"a": "x".repeat(METADATA_MAX_BYTES)}}).to_string();
        assert_eq!(refused(&large), "form_param_value_too_large");
    }

    #[test]
    fn oldest_edit_is_evicted_at_the_limit() {
        let mut edits = Edits::default();
        for user in 0..5_000 {
            edits.set(0, user, Edit::default());
        }
        assert_eq!(edits.by_user.len(), MAX_EDITED_USERS);
        assert_eq!(edits.order.len(), MAX_EDITED_USERS);
        assert!(edits.get(0, 0).is_none());
        assert!(edits.get(0, 4_999).is_some());
        assert!(edits.get(1, 4_999).is_none(), "another instance does not see the change");
    }
}
