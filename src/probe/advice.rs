//! What an operator can do about a probe that failed.

use clerk_client::outbound::{BufferedResponse, RequestError};
use clerk_client::transport::ErrorKind;
use clerk_quota::ProbeFailure;

/// What an operator can do about this failure.
pub(super) fn advice(failure: ProbeFailure, answer: &Result<BufferedResponse, RequestError>) -> &'static str {
    match answer {
        Ok(answer) => hint(failure, answer),
        Err(error) => request_hint(error),
    }
}

/// What an operator can do about this response.
pub(crate) fn hint(failure: ProbeFailure, answer: &BufferedResponse) -> &'static str {
    match failure {
        ProbeFailure::Key => "Clerk rejects the secret key: check that it was not revoked and belongs to this instance",
        ProbeFailure::Throttled => "the instance is over its rate limit: see what calls Clerk most",
        ProbeFailure::Redirect => "redirects are not followed: check api_url",
        ProbeFailure::Status if answer.status.is_server_error() => "Clerk or its edge is failing: see status.clerk.com",
        ProbeFailure::Status => "check api_url and the probe's path",
        _ => "not a response of Clerk's API: check api_url, and for a proxy or a login page in between",
    }
}

/// What an operator can do about a request without a response.
pub(crate) fn request_hint(error: &RequestError) -> &'static str {
    match error {
        RequestError::Key(_) => "the key must be readable by this process",
        RequestError::Request(_) => "check api_url and the probe's path",
        RequestError::Timeout(_) => "check the network and any proxy, or give the probe a longer timeout",
        RequestError::BodyTooLarge { .. } => "check the probe's path: its response should be small",
        RequestError::Upstream(error) => match error.kind() {
            ErrorKind::Dns => "check api_url and this machine's name servers",
            ErrorKind::Timeout => "check the network and any proxy",
            ErrorKind::Connect => "check api_url, the network, and HTTPS_PROXY",
            ErrorKind::Tls => "if a proxy inspects TLS, give its certificate as tls_config.ca_file",
            ErrorKind::Broken => "the connection broke: try again",
            ErrorKind::Decode => "not valid HTTP: check api_url",
            ErrorKind::Other => "check the network",
        },
    }
}
