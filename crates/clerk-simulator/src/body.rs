//! The JSON bodies of requests: fields with the checks that Clerk makes.

use serde_json::{Map, Value};

use super::error::ApiError;

/// Clerk's limit for a metadata object.
pub(super) const METADATA_MAX_BYTES: usize = 8 * 1024;
const TEXT_MAX_CHARS: usize = 256;

/// The fields of a request's body. Each is taken once.
#[derive(Debug, Default)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Parses a JSON object.
    ///
    /// # Errors
    ///
    /// 400 if it is anything else.
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        serde_json::from_slice(body).map_err(|_| ApiError::body_invalid()).and_then(Self::of)
    }

    /// The same, for endpoints whose body is optional.
    ///
    /// # Errors
    ///
    /// As [`Self::parse`].
    pub(super) fn parse_optional(body: &[u8]) -> Result<Self, ApiError> {
        if body.is_empty() { Ok(Self::default()) } else { Self::parse(body) }
    }

    /// Parses an array of at most `most` JSON objects.
    ///
    /// # Errors
    ///
    /// 400 if it is anything else.
    pub(super) fn parse_list(body: &[u8], most: usize) -> Result<Vec<Self>, ApiError> {
        let items: Vec<Value> = serde_json::from_slice(body).map_err(|_| ApiError::body_invalid())?;
        if items.len() > most {
            return Err(ApiError::bulk_size_exceeded(most));
        }
        items.into_iter().map(Self::of).collect()
    }

    fn of(value: Value) -> Result<Self, ApiError> {
        match value {
            Value::Object(fields) => Ok(Self(fields)),
            _ => Err(ApiError::body_invalid()),
        }
    }

    /// Returns a field as it is; `None` if it was not given.
    pub(super) fn value(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// Returns a text field; `Some(None)` if it is null or empty.
    ///
    /// # Errors
    ///
    /// 422 if it is no text or too long.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<Option<String>>, ApiError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        match value {
            Value::Null => Ok(Some(None)),
            Value::String(text) if text.chars().count() <= TEXT_MAX_CHARS => {
                Ok(Some(Some(text).filter(|text| !text.is_empty())))
            }
            _ => Err(malformed(name, &format!("text of at most {TEXT_MAX_CHARS} characters"))),
        }
    }

    /// Returns a text field that must be there.
    ///
    /// # Errors
    ///
    /// 422 if it is missing, empty, no text or too long.
    pub(super) fn required_text(&mut self, name: &str) -> Result<String, ApiError> {
        self.text(name)?.flatten().ok_or_else(|| missing(name))
    }

    /// Returns a field that is an array of texts, or one text.
    ///
    /// # Errors
    ///
    /// 422 if it is anything else.
    pub(super) fn texts(&mut self, name: &str) -> Result<Vec<String>, ApiError> {
        let text = |value| match value {
            Value::String(text) if text.chars().count() <= TEXT_MAX_CHARS => Ok(text),
            _ => Err(malformed(name, "an array of texts")),
        };
        match self.value(name) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(values)) => values.into_iter().map(text).collect(),
            Some(value) => Ok(vec![text(value)?]),
        }
    }

    /// Returns a boolean field.
    ///
    /// # Errors
    ///
    /// 422 if it is anything else.
    pub(super) fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.value(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(_) => Err(malformed(name, "true or false")),
        }
    }

    /// Returns a field with a number that is not negative.
    ///
    /// # Errors
    ///
    /// 422 if it is anything else.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<u64>, ApiError> {
        match self.value(name) {
            None | Some(Value::Null) => Ok(None),
            // The Python SDK sends seconds as `60.0`.
            Some(Value::Number(number)) => whole(&number).map(Some).ok_or_else(|| malformed(name, "a whole number")),
            Some(_) => Err(malformed(name, "a whole number")),
        }
    }

    /// Returns a metadata field; `None` if it was not given.
    ///
    /// # Errors
    ///
    /// 422 if it is not an object or too large.
    pub(super) fn metadata(&mut self, name: &str) -> Result<Option<Map<String, Value>>, ApiError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        checked_metadata(name, object(name, value)?).map(Some)
    }

    /// Merges a metadata field into `kept`, or replaces it.
    ///
    /// # Errors
    ///
    /// 422 if the field is not an object or the result is too large. `kept` stays as it is then.
    pub(super) fn merge_metadata(
        &mut self,
        name: &str,
        kept: &mut Map<String, Value>,
        replace: bool,
    ) -> Result<(), ApiError> {
        let Some(value) = self.value(name) else { return Ok(()) };
        let given = object(name, value)?;
        let mut merged = if replace { Map::new() } else { kept.clone() };
        merge(&mut merged, given);
        *kept = checked_metadata(name, merged)?;
        Ok(())
    }
}

/// The error for a missing field.
pub(super) fn missing(name: &str) -> ApiError {
    ApiError::parameter("form_param_missing", name, format!("{name} must be included."))
}

/// The error for a field of the wrong form.
pub(super) fn malformed(name: &str, expected: &str) -> ApiError {
    ApiError::parameter("form_param_format_invalid", name, format!("{name} must be {expected}"))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
fn whole(number: &serde_json::Number) -> Option<u64> {
    const LARGEST: f64 = 9_007_199_254_740_992.0;
    let float = || number.as_f64().filter(|value| (0.0..=LARGEST).contains(value) && value.fract() == 0.0);
    number.as_u64().or_else(|| float().map(|value| value as u64))
}

/// Merges as Clerk does: objects key by key, `null` removes the key, anything else replaces.
fn merge(kept: &mut Map<String, Value>, given: Map<String, Value>) {
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
        _ => Err(malformed(name, "an object")),
    }
}

fn checked_metadata(name: &str, metadata: Map<String, Value>) -> Result<Map<String, Value>, ApiError> {
    let size = serde_json::to_vec(&metadata).map_or(usize::MAX, |text| text.len());
    if size > METADATA_MAX_BYTES {
        let message = format!("{name} is larger than {METADATA_MAX_BYTES} bytes");
        return Err(ApiError::parameter("form_param_value_too_large", name, message));
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::parse(value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn metadata_merges_or_replaces() {
        let mut kept = Map::new();
        for (given, replace, expected) in [
            (json!({"a": {"b": 1, "c": 2}, "d": 3}), false, json!({"a": {"b": 1, "c": 2}, "d": 3})),
            (json!({"a": {"b": null, "e": 4}, "d": [5]}), false, json!({"a": {"c": 2, "e": 4}, "d": [5]})),
            (json!({"f": 6, "g": null}), true, json!({"f": 6})),
        ] {
            fields(json!({"m": given})).merge_metadata("m", &mut kept, replace).unwrap();
            assert_eq!(Value::Object(kept.clone()), expected);
        }
        let large = json!({"m": {"x": "x".repeat(METADATA_MAX_BYTES)}});
        let error = fields(large).merge_metadata("m", &mut kept, false).unwrap_err();
        assert_eq!((error.code(), kept.len()), ("form_param_value_too_large", 1));
    }

    #[test]
    fn numbers_may_have_a_fraction_of_zero() {
        let number = |value| fields(json!({"n": value})).number("n").map_err(|error| error.code());
        assert_eq!(number(json!(60.0)), Ok(Some(60)));
        assert_eq!(number(json!(60)), Ok(Some(60)));
        assert_eq!(number(json!(null)), Ok(None));
        for wrong in [json!(-1), json!(0.5), json!(1e300), json!("60")] {
            assert_eq!(number(wrong), Err("form_param_format_invalid"));
        }
    }

    #[test]
    fn texts_may_be_one_or_several() {
        assert_eq!(fields(json!({"t": "a"})).texts("t").unwrap(), ["a"]);
        assert_eq!(fields(json!({"t": ["a", "b"]})).texts("t").unwrap(), ["a", "b"]);
        assert!(fields(json!({})).texts("t").unwrap().is_empty());
        assert!(fields(json!({"t": [1]})).texts("t").is_err());
        assert_eq!(fields(json!({"t": ""})).required_text("t").unwrap_err().code(), "form_param_missing");
    }
}
