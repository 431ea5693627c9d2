//! Errors that show that a request never reached Clerk.
//!
//! Only errors that cannot happen after a request was sent are listed. A reset connection, a timeout without a phase, or
//! a general connection error may also come later, so these calls count. Where the names are from:
//!
//! - Node.js and undici: `error.code` as the undici instrumentation puts it into `error.type` and the exception's type.
//!   System calls from the errors of `getaddrinfo` and `connect`, TLS from Node's list of certificate errors
//!   (documentation of `tls`), `UND_ERR_CONNECT_TIMEOUT` from undici's documentation of errors.
//! - httpx, requests with urllib3, aiohttp: their exception hierarchies. In httpx, `ConnectError` covers DNS, TCP and TLS.
//! - Go: the types that `net`, `crypto/tls` and `crypto/x509` return, as `otelhttp` puts them into `error.type`. A
//!   `*net.OpError` may be of any phase; its text begins with `dial` if it was the connection.
//! - Rust: `reqwest` and `hyper-util` say `client error (Connect)` in the chain of causes.
//! - Java, .NET and Ruby: exception types for failed connections; not tried with these languages' senders.

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::Event;

use super::attributes::{Attributes, text};

/// Names of errors, without module or package, sorted.
const NAMES: &[&str] = &[
    "CERT_HAS_EXPIRED",
    "CERT_NOT_YET_VALID",
    "CERT_REVOKED",
    "CERT_UNTRUSTED",
    "CertificateInvalidError",
    "CertificateVerificationError",
    "ClientConnectorCertificateError",
    "ClientConnectorDNSError",
    "ClientConnectorError",
    "ClientConnectorSSLError",
    "ClientProxyConnectionError",
    "ConnectError",
    "ConnectException",
    "ConnectTimeout",
    "ConnectTimeoutError",
    "ConnectTimeoutException",
    "ConnectionTimeoutError",
    "DEPTH_ZERO_SELF_SIGNED_CERT",
    "DNSError",
    "EADDRNOTAVAIL",
    "EAI_AGAIN",
    "EAI_FAIL",
    "EAI_NODATA",
    "EAI_NONAME",
    "ECONNREFUSED",
    "ENOTFOUND",
    "ERR_TLS_CERT_ALTNAME_INVALID",
    "HOSTNAME_MISMATCH",
    "HostnameError",
    "HttpConnectTimeoutException",
    "HttpHostConnectException",
    "NameResolutionError",
    "NewConnectionError",
    "NoRouteToHostException",
    "OpenTimeout",
    "PoolTimeout",
    "RecordHeaderError",
    "SELF_SIGNED_CERT_IN_CHAIN",
    "SSLHandshakeException",
    "SSLPeerUnverifiedException",
    "UNABLE_TO_GET_ISSUER_CERT",
    "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
    "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
    "UND_ERR_CONNECT_TIMEOUT",
    "UnknownAuthorityError",
    "UnknownHostException",
    "UnresolvedAddressException",
    "UnsupportedProtocol",
    "connection_error",
    "name_resolution_error",
    "proxy_tunnel_error",
    "secure_connection_error",
    "tlsHandshakeTimeoutError",
];

/// How texts of such errors begin, where the type does not tell.
const BEGINNINGS: [&str; 8] = [
    "dial tcp",
    "dial unix",
    "proxyconnect tcp",
    "net/http: TLS handshake timeout",
    "tls: failed to verify certificate",
    "getaddrinfo ",
    "connect ECONNREFUSED",
    "connect ENETUNREACH",
];

/// A part of the text of such errors in Rust.
const RUST: &str = "client error (Connect)";

/// Events that are looked at.
const MAX_EVENTS: usize = 16;

/// Whether the error of a span without a status shows that the request was never sent.
pub(super) fn never_sent(span: &Span, found: &Attributes<'_>) -> bool {
    let message = span.status.as_ref().map(|status| &*status.message);
    found.error_type.is_some_and(is_name)
        || [message, found.error_message].into_iter().flatten().any(is_message)
        || span.events.iter().take(MAX_EVENTS).filter(|event| event.name == "exception").any(is_exception)
}

fn is_exception(event: &Event) -> bool {
    event.attributes.iter().any(|KeyValue { key, value, .. }| {
        let is_it: fn(&str) -> bool = match &**key {
            "exception.type" => is_name,
            "exception.message" => is_message,
            _ => return false,
        };
        value.as_ref().and_then(|value| value.value.as_ref()).and_then(text).is_some_and(is_it)
    })
}

/// Whether this is one of the names, with or without its module: `*net.DNSError`, `httpx.ConnectError`.
fn is_name(name: &str) -> bool {
    let name = name.rsplit(['.', ':', '*']).next().unwrap_or_default();
    NAMES.binary_search(&name).is_ok()
}

fn is_message(text: &str) -> bool {
    BEGINNINGS.iter().any(|beginning| text.starts_with(beginning)) || text.contains(RUST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted() {
        assert!(NAMES.is_sorted());
    }

    #[test]
    fn errors_after_sending_are_not_listed() {
        for name in ["ECONNRESET", "ETIMEDOUT", "EPIPE", "UND_ERR_SOCKET", "UND_ERR_HEADERS_TIMEOUT", "ReadTimeout"] {
            assert!(!is_name(name), "{name}");
        }
        for name in ["*net.OpError", "httpx.ReadError", "requests.exceptions.ConnectionError", "timeout", "Error", ""] {
            assert!(!is_name(name), "{name}");
        }
        for message in ["read tcp 10.0.0.1:1->2.2.2.2:443: connection reset by peer", "fetch failed", ""] {
            assert!(!is_message(message), "{message}");
        }
    }

    #[test]
    fn errors_before_sending_are_found() {
        for name in ["ECONNREFUSED", "*net.DNSError", "httpx.ConnectError", "java.net.UnknownHostException"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["Net::OpenTimeout", "*tls.CertificateVerificationError", "name_resolution_error"] {
            assert!(is_name(name), "{name}");
        }
        for message in [
            "dial tcp: lookup api.clerk.com: no such host",
            "getaddrinfo ENOTFOUND api.clerk.com",
            "error sending request: client error (Connect): dns error",
        ] {
            assert!(is_message(message), "{message}");
        }
    }
}
