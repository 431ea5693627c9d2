//! Clerk's error bodies, read leniently: what stands in front of Clerk answers with HTML or nothing at all.

use http::StatusCode;
use serde::Deserialize;

/// The errors of an answer; empty where the body holds none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorBody {
    /// The errors, in order.
    pub errors: Vec<ErrorItem>,
    /// Clerk's own name of the exchange, for its support.
    pub trace_id: Option<String>,
}

/// One error of Clerk's Backend API.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct ErrorItem {
    /// The code, such as `resource_not_found`.
    pub code: String,
    /// A short text.
    pub message: String,
    /// A longer text.
    pub long_message: String,
}

impl ErrorBody {
    /// Reads the body of an answer. Never fails: a body that is not Clerk's gives no errors.
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
    fn clerk_s_shape_is_read() {
        let body = br#"{"errors":[{"message":"m","long_message":"l","code":"clerk_key_invalid","meta":{}}],"clerk_trace_id":"t"}"#;
        let errors = ErrorBody::parse(StatusCode::UNAUTHORIZED, body);
        assert_eq!((errors.code(), errors.trace_id.as_deref()), (Some("clerk_key_invalid"), Some("t")));
    }

    #[test]
    fn what_is_not_clerk_s_gives_no_errors() {
        for body in [&b""[..], b"<html>", b"{}", b"[]", b"{\"errors\":7}", b"{\"errors\":[7,null]}", b"\xff\xfe"] {
            assert_eq!(ErrorBody::parse(StatusCode::FORBIDDEN, body).code(), None);
        }
    }

    #[test]
    fn missing_and_unknown_fields_do_no_harm() {
        let errors = ErrorBody::parse(StatusCode::FORBIDDEN, br#"{"errors":[{"code":"x","new":1}],"other":2}"#);
        assert_eq!(errors.code(), Some("x"));
    }
}
