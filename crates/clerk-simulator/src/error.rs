//! Clerk's error responses.

use std::borrow::Cow;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

/// An error response of Clerk's Backend API.
#[derive(Debug, Clone)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    code: Cow<'static, str>,
    message: Cow<'static, str>,
    long_message: Cow<'static, str>,
    meta: Option<Value>,
}

#[derive(Serialize)]
struct Body<'a> {
    errors: [Entry<'a>; 1],
    clerk_trace_id: &'a str,
}

#[derive(Serialize)]
struct Entry<'a> {
    message: &'a str,
    long_message: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<&'a Value>,
}

impl ApiError {
    fn new(
        status: StatusCode,
        code: &'static str,
        message: &'static str,
        long_message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, code: code.into(), message: message.into(), long_message: long_message.into(), meta: None }
    }

    #[cfg(test)]
    pub(super) fn code(&self) -> &'static str {
        match &self.code {
            Cow::Borrowed(code) => code,
            Cow::Owned(_) => "(built at run time)",
        }
    }

    pub(super) fn authorization_header_format_invalid() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "authorization_header_format_invalid",
            "Invalid Authorization header format",
            "The Authorization header must be `Bearer` and a secret key",
        )
    }

    pub(super) fn key_invalid() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "clerk_key_invalid",
            "The provided Clerk Secret Key is invalid",
            "The secret key does not belong to an instance or was revoked",
        )
    }

    pub(super) fn too_many_requests() -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_requests",
            "Too many requests. Please try again in a bit.",
            "Too many requests were made to this endpoint. Try again after the time in the Retry-After header.",
        )
    }

    pub(super) fn not_found(what: &'static str, id: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "resource_not_found",
            "Resource not found",
            format!("No {what} was found: {id}"),
        )
    }

    pub(super) fn parameter(code: &'static str, name: &str, long_message: impl Into<Cow<'static, str>>) -> Self {
        let mut error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, "Invalid parameter", long_message);
        error.meta = Some(json!({ "param_name": name }));
        error
    }

    /// Another user has the identifier in this parameter.
    pub(super) fn identifier_exists(name: &str) -> Self {
        let words = name.replace('_', " ");
        let message = format!("That {words} is taken. Please try another.");
        Self::parameter("form_identifier_exists", name, message)
    }

    /// A user without any identifier.
    pub(super) fn form_data_missing() -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "form_data_missing",
            "missing data",
            "[\"email_address\"] data doesn't match user requirements set for this instance",
        )
    }

    /// A request that Clerk rejects with 400.
    pub(super) fn bad_request(code: &'static str, message: &'static str, long: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message, long)
    }

    pub(super) fn body_invalid() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "request_body_invalid",
            "Request body invalid",
            "The request body is not the JSON that this endpoint expects",
        )
    }

    pub(super) fn body_too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "request_body_too_large",
            "Request body too large",
            "The request body is larger than this endpoint accepts",
        )
    }

    pub(super) fn bulk_size_exceeded(max: usize) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "bulk_size_exceeded",
            "Too many items",
            format!("A bulk request can contain at most {max} items"),
        )
    }

    /// A quota of the plan, sent with 403: not a rate limit.
    pub(super) fn quota_exceeded(code: String) -> Self {
        let mut error = Self::new(
            StatusCode::FORBIDDEN,
            "",
            "Quota exceeded",
            "A quota of the instance's plan is used up. Upgrade the plan or remove something.",
        );
        error.code = code.into();
        error
    }

    /// Returns the error that Clerk would send with this status.
    pub(super) fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            401 => Self::key_invalid(),
            404 => Self::not_found("resource", ""),
            413 => Self::body_too_large(),
            429 => Self::too_many_requests(),
            503 => Self::new(status, "service_unavailable", "Service unavailable", "The service is not available"),
            504 => {
                Self::new(status, "gateway_timeout", "Gateway timeout", "An internal service did not respond in time")
            }
            400..500 => Self::new(status, "bad_request", "Bad request", "The request was rejected"),
            _ => Self::new(status, "internal_clerk_error", "Oops, an unexpected error occurred", "Please try again"),
        }
    }

    pub(super) fn body(&self, trace_id: &str) -> Vec<u8> {
        let entry = Entry {
            message: &self.message,
            long_message: &self.long_message,
            code: &self.code,
            meta: self.meta.as_ref(),
        };
        // Strings and a `Value` always serialize.
        serde_json::to_vec(&Body { errors: [entry], clerk_trace_id: trace_id }).unwrap_or_default()
    }
}
