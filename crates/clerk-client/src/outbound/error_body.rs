//! Clerk's error bodies, parsed leniently: proxies in front of Clerk respond with HTML or an empty body.

use http::StatusCode;
use serde::Deserialize;

/// The errors of a response; empty if its body has none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorBody {
    /// The errors, in order.
    pub errors: Vec<ErrorItem>,
    /// Clerk's trace ID, for its support.
    pub trace_id: Option<String>,
}

/// One error of Clerk's Backend API.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct ErrorItem {
    /// The code, such as `resource_not_found`.
    pub code: String,
    /// The short message.
    pub message: String,
    /// The long message.
    pub long_message: String,
}

impl ErrorBody {
    /// Parses a response body. Never fails: a body that is not Clerk's has no errors.
    #[must_use]
    pub fn parse(status: StatusCode, body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Wire {
            errors: Vec<serde_json::Value>,
            clerk_trace_id: Option<String>,
        }
        if !status.is_client_error() && !status.is_server_error() {
            return Self::default();
        }
        let Ok(wire) = serde_json::from_slice::<Wire>(body) else { return Self::default() };
        let errors = wire.errors.into_iter().filter_map(|error| serde_json::from_value(error).ok()).collect();
        Self { errors, trace_id: wire.clerk_trace_id }
    }

    /// The code of the first error.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.errors.first().map(|error| error.code.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clerk_error_body_is_parsed() {
        let body = br#"{"errors":[{"message":"m","long_message":"l","code":"clerk_key_invalid","meta":{}}],"clerk_trace_id":"t"}"#;
        let errors = ErrorBody::parse(StatusCode::UNAUTHORIZED, body);
        assert_eq!((errors.code(), errors.trace_id.as_deref()), (Some("clerk_key_invalid"), Some("t")));
    }

    #[test]
    fn foreign_body_has_no_errors() {
        for body in [&b""[..], b"<html>", b"{}", b"[]", b"{\"errors\":7}", b"{\"errors\":[7,null]}", b"\xff\xfe"] {
            assert_eq!(ErrorBody::parse(StatusCode::FORBIDDEN, body).code(), None);
        }
    }

    #[test]
    fn missing_and_unknown_fields_are_accepted() {
        let errors = ErrorBody::parse(StatusCode::FORBIDDEN, br#"{"errors":[{"code":"x","new":1}],"other":2}"#);
        assert_eq!(errors.code(), Some("x"));
    }
}
