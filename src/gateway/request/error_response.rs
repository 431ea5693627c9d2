//! The gateway's own error responses, in the shape of Clerk's, so that SDKs can parse them.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde::Serialize;

use super::headers::RequestRejection;
use super::upload::ClientError;
use crate::gateway::accounting::credential_shape::CredentialShape;
use crate::gateway::accounting::decision::Decision;
use crate::gateway::accounting::request_record::RequestRecord;
use clerk_client::limiter::{Shed, ShedReason};
use clerk_client::outbound::{Phase, RequestError, SendError};
use clerk_client::transport::ErrorKind;

/// Response header with the gateway's decision, unless the request was simply forwarded.
pub static DECISION: HeaderName = HeaderName::from_static("x-clerk-exporter-decision");

/// Response header with the number of attempts, if more than one.
pub static ATTEMPTS: HeaderName = HeaderName::from_static("x-clerk-exporter-attempts");

/// Response header with the milliseconds that a request waited in the limiter's queue, if any.
pub static WAITED_MS: HeaderName = HeaderName::from_static("x-clerk-exporter-waited-ms");

/// An error response.
#[derive(Debug)]
pub(in crate::gateway) struct ErrorResponse {
    pub(in crate::gateway) decision: Decision,
    pub(in crate::gateway) status: StatusCode,
    code: &'static str,
    message: &'static str,
    long_message: String,
    retry_after: Option<Duration>,
    attempts: Option<u32>,
    closes: bool,
}

impl ErrorResponse {
    fn new(decision: Decision, status: StatusCode, code: &'static str, message: &'static str, why: String) -> Self {
        Self { decision, status, code, message, long_message: why, retry_after: None, attempts: None, closes: false }
    }

    /// A request that is not forwarded. The connection is closed, because its framing can no longer be trusted.
    pub(in crate::gateway) fn rejected(refusal: RequestRejection) -> Self {
        let (status, code) = match refusal {
            // Clerk's code. The connection can stay open: the framing is valid.
            RequestRejection::OwnPath => {
                let (status, code) = (StatusCode::NOT_FOUND, "resource_not_found");
                return Self::new(Decision::Rejected, status, code, "not found", refusal.to_string());
            }
            RequestRejection::Connect | RequestRejection::Trace => {
                (StatusCode::METHOD_NOT_ALLOWED, "gateway_method_not_allowed")
            }
            RequestRejection::TransferEncoding => (StatusCode::NOT_IMPLEMENTED, "gateway_request_invalid"),
            RequestRejection::Target
            | RequestRejection::Host
            | RequestRejection::Fragment
            | RequestRejection::Framing
            | RequestRejection::Authorization
            | RequestRejection::Token => (StatusCode::BAD_REQUEST, "gateway_request_invalid"),
        };
        let own = Self::new(Decision::Rejected, status, code, "invalid request", refusal.to_string());
        Self { closes: true, ..own }
    }

    /// The request path and the instance's address do not form a URI.
    pub(in crate::gateway) fn no_address() -> Self {
        let why = "The path cannot be appended to the instance's address.".to_owned();
        Self::new(Decision::Rejected, StatusCode::BAD_REQUEST, "gateway_request_invalid", "invalid request", why)
    }

    /// An unknown credential, or none. The response describes its shape and never includes any part of it.
    pub(in crate::gateway) fn unknown_key(shape: CredentialShape) -> Self {
        let what = shape.description();
        let why = format!(
            "The gateway only forwards requests with the key of a configured instance or the token of a configured \
             caller. This request has {what}."
        );
        Self::new(Decision::Rejected, StatusCode::UNAUTHORIZED, "gateway_key_unknown", "unknown key", why)
    }

    /// No response arrived, or the request was shed.
    pub(in crate::gateway) fn request_failed(error: &SendError, record: &mut RequestRecord) -> Self {
        match error {
            SendError::Shed(shed) => Self::throttled(shed, record),
            SendError::Request { error, attempts } => Self::bad_gateway(error, *attempts),
        }
    }

    /// The request was shed.
    pub(in crate::gateway) fn throttled(shed: &Shed, record: &mut RequestRecord) -> Self {
        record.shed = Some(shed.reason);
        // SDKs know this code; applications that handle Clerk's limit handle the gateway's, too.
        let (status, code) = (StatusCode::TOO_MANY_REQUESTS, "too_many_requests");
        let why = match shed.reason {
            ShedReason::CallerCap | ShedReason::CallerPaused => format!("{}: {shed}", record.caller_name()),
            ShedReason::QueueFull | ShedReason::WaitTooLong => shed.to_string(),
        };
        let own = Self::new(Decision::Shed, status, code, "too many requests", why);
        Self { retry_after: Some(shed.retry_after), ..own }
    }

    /// No attempt got a response.
    pub(in crate::gateway) fn bad_gateway(error: &RequestError, attempts: u32) -> Self {
        let (status, code, message) = match error {
            RequestError::Key(_) => (StatusCode::SERVICE_UNAVAILABLE, "gateway_key_unavailable", "key unavailable"),
            RequestError::Timeout(_) => {
                (StatusCode::GATEWAY_TIMEOUT, "gateway_upstream_timeout", "no response in time")
            }
            RequestError::Upstream(cause) => match cause.kind() {
                ErrorKind::Timeout => (StatusCode::GATEWAY_TIMEOUT, "gateway_upstream_timeout", "no response in time"),
                // Only if no attempt was sent.
                _ if error.phase() == Phase::Connect => {
                    (StatusCode::BAD_GATEWAY, "gateway_upstream_unreachable", "upstream unreachable")
                }
                _ => (StatusCode::BAD_GATEWAY, "gateway_upstream_broken", "upstream connection broke"),
            },
            RequestError::Request(_) | RequestError::BodyTooLarge { .. } => {
                (StatusCode::BAD_GATEWAY, "gateway_upstream_broken", "upstream connection broke")
            }
        };
        // The cause contains host names and file paths: it goes to the log, not to the client.
        let why = match status {
            StatusCode::SERVICE_UNAVAILABLE => "The gateway has no usable key for this instance.",
            StatusCode::GATEWAY_TIMEOUT => "Clerk did not respond in time. It may have executed the request.",
            _ if code == "gateway_upstream_unreachable" => "The gateway cannot reach Clerk. Nothing was sent.",
            _ => "The connection to Clerk broke before the response was complete. Clerk may have executed the request.",
        };
        Self::new(Decision::Failed, status, code, message, why.to_owned()).after(attempts)
    }

    /// The client did not send its whole request.
    pub(in crate::gateway) fn incomplete_request(blame: ClientError) -> Self {
        let (status, why) = match blame {
            ClientError::Late => (StatusCode::REQUEST_TIMEOUT, "The request body was not complete in time."),
            ClientError::Malformed => (StatusCode::BAD_REQUEST, "The request body is truncated or malformed."),
        };
        let code = "gateway_request_incomplete";
        let own = Self::new(Decision::Rejected, status, code, "incomplete request", why.to_owned());
        Self { closes: true, ..own }
    }

    /// A response that cannot be forwarded.
    pub(in crate::gateway) fn unexpected_response(attempts: u32) -> Self {
        let why = "Clerk's response cannot be forwarded: it is not a final response.".to_owned();
        let code = "gateway_upstream_broken";
        Self::new(Decision::Failed, StatusCode::BAD_GATEWAY, code, "upstream connection broke", why).after(attempts)
    }

    fn after(self, attempts: u32) -> Self {
        let is_of_upstream = matches!(self.status, StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT);
        Self { attempts: Some(attempts).filter(|attempts| is_of_upstream && *attempts > 1), ..self }
    }

    /// For the log.
    pub(in crate::gateway) const fn code(&self) -> &'static str {
        self.code
    }

    pub(in crate::gateway) fn into_response(self) -> Response<Body> {
        let body = error_body(self.message, &self.long_message, self.code, Some(&own_trace_id()));
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        // SDKs only parse the body as JSON if this is the whole value.
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(&DECISION, HeaderValue::from_static(self.decision.as_str()));
        if let Some(wait) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait).max(1)));
        }
        if let Some(attempts) = self.attempts {
            headers.insert(&ATTEMPTS, HeaderValue::from(attempts));
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
        }
        if self.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// The body of an error in Clerk's format.
pub(in crate::gateway) fn error_body(message: &str, long_message: &str, code: &str, trace_id: Option<&str>) -> Bytes {
    #[derive(Serialize)]
    struct Wire<'a> {
        errors: [Error<'a>; 1],
        clerk_trace_id: Option<&'a str>,
    }
    #[derive(Serialize)]
    struct Error<'a> {
        message: &'a str,
        long_message: &'a str,
        code: &'a str,
    }
    let wire = Wire { errors: [Error { message, long_message, code }], clerk_trace_id: trace_id };
    // Serializing strings cannot fail.
    serde_json::to_vec(&wire).unwrap_or_default().into()
}

/// A trace ID for a response that does not come from Clerk.
pub(in crate::gateway) fn own_trace_id() -> String {
    format!("gateway_{:016x}", fastrand::u64(..))
}

/// For `Retry-After` (RFC 9110, section 10.2.3); rounded up, so that clients do not retry too early.
pub(in crate::gateway) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}
