//! Answers as OTLP/HTTP defines them, in the format of the request.

use std::fmt;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Response, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
use prost::Message;
use serde::Serialize;

use super::Rejected;
use crate::telemetry::decode::{BodyFormat, DecodeError};
use crate::telemetry::stats::Refusal;

/// Seconds after which an exporter may try again: bodies are decoded within a fraction of it.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// Why a request is refused as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The body cannot be decoded.
    Decode(DecodeError),
    /// The body did not arrive.
    Incomplete,
    /// Too much waits already.
    Overloaded,
}

impl Failure {
    const fn status(self) -> StatusCode {
        match self {
            Self::Decode(error) => match error.status() {
                413 => StatusCode::PAYLOAD_TOO_LARGE,
                415 => StatusCode::UNSUPPORTED_MEDIA_TYPE,
                _ => StatusCode::BAD_REQUEST,
            },
            Self::Incomplete => StatusCode::BAD_REQUEST,
            Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The code of gRPC that belongs to the status.
    const fn code(self) -> i32 {
        const INVALID_ARGUMENT: i32 = 3;
        const RESOURCE_EXHAUSTED: i32 = 8;
        const UNAVAILABLE: i32 = 14;
        match self.status() {
            StatusCode::PAYLOAD_TOO_LARGE => RESOURCE_EXHAUSTED,
            StatusCode::SERVICE_UNAVAILABLE => UNAVAILABLE,
            _ => INVALID_ARGUMENT,
        }
    }

    /// The counter; `None` if the client left.
    pub(super) const fn refusal(self) -> Option<Refusal> {
        match self {
            Self::Incomplete => None,
            Self::Overloaded => Some(Refusal::Overloaded),
            Self::Decode(error) => Some(match error.status() {
                413 => Refusal::TooLarge,
                415 => Refusal::Unsupported,
                _ => Refusal::Invalid,
            }),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decode(error) => error.fmt(f),
            Self::Incomplete => f.write_str("the body did not arrive completely"),
            Self::Overloaded => f.write_str("too many trace requests wait; try again later"),
        }
    }
}

/// `google.rpc.Status`, the body of errors.
#[derive(Clone, PartialEq, Message, Serialize)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// The JSON form of the response. Numbers of 64 bits are texts.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonResponse {
    #[serde(skip_serializing_if = "Option::is_none")]
    partial_success: Option<JsonPartialSuccess>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonPartialSuccess {
    rejected_spans: String,
    error_message: String,
}

/// Answers an accepted request.
pub(super) fn success(format: BodyFormat, rejected: Rejected) -> Response<Body> {
    let partial = (rejected.spans() > 0).then(|| message(rejected));
    let body = match format {
        BodyFormat::Protobuf => {
            let rejected_spans = i64::try_from(rejected.spans()).unwrap_or(i64::MAX);
            let partial_success =
                partial.map(|error_message| ExportTracePartialSuccess { rejected_spans, error_message });
            ExportTraceServiceResponse { partial_success }.encode_to_vec()
        }
        BodyFormat::Json => {
            let partial_success = partial.map(|error_message| JsonPartialSuccess {
                rejected_spans: rejected.spans().to_string(),
                error_message,
            });
            to_json(&JsonResponse { partial_success })
        }
    };
    response(StatusCode::OK, format, body)
}

fn message(rejected: Rejected) -> String {
    let Rejected { malformed, dropped } = rejected;
    match (malformed, dropped) {
        (_, 0) => format!("{malformed} spans of calls to Clerk have no valid ids or times"),
        (0, _) => format!("{dropped} spans of calls to Clerk exceed a limit and count only in totals"),
        _ => format!(
            "{malformed} spans of calls to Clerk have no valid ids or times, and {dropped} more exceed a limit and count \
             only in totals"
        ),
    }
}

/// Answers a refused request. Without a known format of the request, in JSON.
pub(super) fn failure(format: Option<BodyFormat>, failure: &Failure) -> Response<Body> {
    let status = RpcStatus { code: failure.code(), message: failure.to_string() };
    let format = format.unwrap_or(BodyFormat::Json);
    let body = match format {
        BodyFormat::Protobuf => status.encode_to_vec(),
        BodyFormat::Json => to_json(&status),
    };
    let mut response = response(failure.status(), format, body);
    if *failure == Failure::Overloaded {
        response.headers_mut().insert(RETRY_AFTER, RETRY_SECONDS);
    }
    response
}

fn response(status: StatusCode, format: BodyFormat, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    response
}

/// Structs of numbers and texts always have a JSON form.
fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
