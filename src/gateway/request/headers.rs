//! Rejects requests that must not be forwarded, and rewrites heads. Everything else stays byte for byte.
//!
//! - Hop-by-hop fields are removed in both directions (RFC 9110, section 7.6.1): the known ones and those that
//!   `Connection` names. hyper regenerates the framing.
//! - `Host` becomes that of the configured address. Only that address decides where a request goes (no absolute-form, no
//!   CONNECT), so that the gateway is not an open proxy.
//! - Baggage is removed, and the context of traces unless it is asked for (`trace_context`).
//! - `Expect` is removed; hyper sends `100 Continue` as soon as the body is read.
//! - No `Via`, `Forwarded` or `X-Forwarded-For` is added: Clerk sees what it would see without the gateway.

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::uri::{self, Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, request, response};

use super::trace_context::{self, TracingField};
use clerk_client::transport::host_of;

/// Hop-by-hop fields without a constant in `http`.
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Fields that are not forwarded: hop-by-hop fields, and fields for the gateway itself. `Host` is replaced.
static NOT_FORWARDED: [HeaderName; 10] = [
    CONNECTION,
    TRANSFER_ENCODING,
    TE,
    UPGRADE,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    HOST,
    EXPECT,
    PROXY_AUTHORIZATION,
    PROXY_AUTHENTICATE,
];

/// Places in [`NOT_FORWARDED`], as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fields(u16);

impl Fields {
    const CONNECTION: Self = Self(1);
    const TRANSFER_ENCODING: Self = Self(1 << 1);
    const TE: Self = Self(1 << 2);
    /// Trace context or baggage: several names.
    const TRACING: Self = Self(1 << Self::TRACING_PLACE);
    const TRACING_PLACE: u8 = 10;
    /// Those that requests do not keep, and those that responses do not.
    const OF_REQUESTS: Self = Self(0b01_1011_1111);
    const OF_RESPONSES: Self = Self(0b10_0011_1011);

    /// The fields that are there. One pass over all names is cheaper than a lookup of each, since most are absent.
    fn of(headers: &HeaderMap) -> Self {
        let bit = |name: &HeaderName| Self::place(name.as_str()).map_or(0, |place| 1 << place);
        Self(headers.keys().map(bit).fold(0, |all, one| all | one))
    }

    fn place(name: &str) -> Option<u8> {
        Some(match name {
            "connection" => 0,
            "transfer-encoding" => 1,
            "te" => 2,
            "upgrade" => 3,
            "keep-alive" => 4,
            "proxy-connection" => 5,
            "host" => 6,
            "expect" => 7,
            "proxy-authorization" => 8,
            "proxy-authenticate" => 9,
            _ => return TracingField::of(name).map(|_| Self::TRACING_PLACE),
        })
    }

    const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Removes those of `which` that are there.
    fn remove(self, which: Self, headers: &mut HeaderMap) {
        let fields = self.0 & which.0;
        if fields == 0 {
            return;
        }
        for (place, field) in NOT_FORWARDED.iter().enumerate() {
            if fields >> place & 1 == 1 {
                headers.remove(field);
            }
        }
    }
}

/// Where the requests of an instance are sent.
#[derive(Debug, Clone)]
pub(in crate::gateway) struct UpstreamTarget {
    scheme: Scheme,
    authority: Authority,
    host: HeaderValue,
    /// Path prefix of the instance's address; usually empty.
    prefix: String,
    /// Whether the context of a client's trace is sent, too. Baggage never is.
    forwards_trace_context: bool,
}

/// The address of an instance is invalid.
#[derive(Debug, thiserror::Error)]
#[error("not a URL: write `https://api.clerk.com`")]
pub(in crate::gateway) struct UpstreamTargetError;

impl UpstreamTarget {
    pub(in crate::gateway) fn parse(base: &str) -> Result<Self, UpstreamTargetError> {
        let parts = base.parse::<Uri>().map_err(|_| UpstreamTargetError)?.into_parts();
        let prefix = parts.path_and_query.as_ref().map_or("", PathAndQuery::path).trim_end_matches('/').to_owned();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else { return Err(UpstreamTargetError) };
        let host = host_of(&scheme, &authority).ok_or(UpstreamTargetError)?;
        Ok(Self { scheme, authority, host, prefix, forwards_trace_context: false })
    }

    /// Sets whether the context of a client's trace is sent, too.
    pub(in crate::gateway) fn forward_trace_context(self, forwards: bool) -> Self {
        Self { forwards_trace_context: forwards, ..self }
    }

    /// The path prefix of the instance's address; usually empty.
    pub(in crate::gateway) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The host, and the port if it is not the scheme's.
    pub(in crate::gateway) fn server(&self) -> (&str, Option<u16>) {
        (self.authority.host(), self.authority.port_u16())
    }

    /// The URI of a request: the prefix, then path and query unchanged.
    fn uri(&self, path_and_query: PathAndQuery) -> Result<Uri, http::Error> {
        let path_and_query = if self.prefix.is_empty() {
            path_and_query
        } else {
            PathAndQuery::try_from(format!("{}{path_and_query}", self.prefix))?
        };
        // The builder would move and validate all parts three times.
        let mut parts = uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path_and_query);
        Ok(Uri::from_parts(parts)?)
    }
}

/// Why a request is not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::gateway) enum RequestRejection {
    #[error("CONNECT is not supported: this is not a general proxy")]
    Connect,
    #[error("the request target must be a path: this is not a general proxy")]
    Target,
    #[error("a request must have exactly one Host")]
    Host,
    #[error("a request target must not contain `#`: encode it as %23")]
    Fragment,
    #[error("Content-Length and Transfer-Encoding are mutually exclusive")]
    Framing,
    #[error("chunked is the only supported Transfer-Encoding")]
    TransferEncoding,
    #[error("a request must not have several Authorization fields")]
    Authorization,
    #[error("send a caller's token as `Authorization: Bearer <token>`, and nowhere else")]
    Token,
    #[error("TRACE is not allowed with a caller's token")]
    Trace,
    #[error(
        "this path is, or resembles, one of the gateway's or the exporter's own, and is never forwarded: webhooks are \
         accepted only at the configured path, and the pages are on the exporter's port"
    )]
    OwnPath,
}

/// Checks what hyper does not.
pub(in crate::gateway) fn check(head: &request::Parts) -> Result<(), RequestRejection> {
    if head.method == Method::CONNECT {
        return Err(RequestRejection::Connect);
    }
    let is_http1 = head.version < Version::HTTP_2;
    // HTTP/2 requests always have a scheme and an authority; both are ignored.
    let is_absolute = head.uri.scheme().is_some() || head.uri.authority().is_some();
    if (is_http1 && is_absolute) || !head.uri.path().starts_with('/') {
        return Err(RequestRejection::Target);
    }
    let hosts = head.headers.get_all(HOST).iter().count();
    // RFC 9112, section 3.2.
    if hosts > 1 || (hosts == 0 && head.version == Version::HTTP_11) {
        return Err(RequestRejection::Host);
    }
    if let Some(encoding) = head.headers.get(TRANSFER_ENCODING) {
        if head.headers.contains_key(CONTENT_LENGTH) {
            return Err(RequestRejection::Framing);
        }
        let is_single = head.headers.get_all(TRANSFER_ENCODING).iter().count() == 1;
        if !is_single || !is_chunked(encoding) {
            return Err(RequestRejection::TransferEncoding);
        }
    }
    Ok(())
}

/// Rewrites a client's request head for Clerk. `is_chunked`: the body has an unknown length.
pub(in crate::gateway) fn request(
    head: &mut request::Parts,
    target: &UpstreamTarget,
    is_chunked: bool,
) -> Result<(), http::Error> {
    let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    head.uri = target.uri(path)?;
    if head.version == Version::HTTP_2 {
        join_cookies(&mut head.headers);
    }
    head.version = Version::HTTP_11;
    let fields = Fields::of(&head.headers);
    let takes_trailers =
        fields.contains(Fields::TE) && head.headers.get_all(TE).iter().any(|value| names(value).any(is_trailers));
    if fields.contains(Fields::CONNECTION) {
        remove_named_by_connection(&mut head.headers);
    }
    fields.remove(Fields::OF_REQUESTS, &mut head.headers);
    if fields.contains(Fields::TRACING) {
        trace_context::remove(&mut head.headers, target.forwards_trace_context);
    }
    // In its place: to remove it here and add it again when the request is sent costs more.
    match head.headers.get_mut(HOST) {
        Some(host) => host.clone_from(&target.host),
        // HTTP/2 requests have none.
        None => drop(head.headers.insert(HOST, target.host.clone())),
    }
    if takes_trailers {
        // RFC 9110, section 10.1.4: TE is hop-by-hop and must be listed in `Connection`.
        head.headers.insert(TE, HeaderValue::from_static("trailers"));
        head.headers.insert(CONNECTION, HeaderValue::from_static("TE"));
    }
    if is_chunked {
        // Without it, hyper sends no body with GET.
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    Ok(())
}

/// Whether a response can be forwarded: it is final, and has no unknown transfer coding, whose bytes the client would
/// take for content.
pub(in crate::gateway) fn is_final(head: &response::Parts) -> bool {
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let is_understood = codings.next().is_none_or(is_chunked) && codings.next().is_none();
    is_understood && !head.status.is_informational()
}

fn is_chunked(coding: &HeaderValue) -> bool {
    coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")
}

/// Rewrites the head of Clerk's response for the client.
pub(in crate::gateway) fn response(head: &mut response::Parts) {
    let fields = Fields::of(&head.headers);
    if fields.contains(Fields::TRANSFER_ENCODING) {
        // RFC 9112, section 6.3: Transfer-Encoding overrides Content-Length.
        head.headers.remove(CONTENT_LENGTH);
    }
    settle_length(head);
    if fields.contains(Fields::CONNECTION) {
        remove_named_by_connection(&mut head.headers);
    }
    fields.remove(Fields::OF_RESPONSES, &mut head.headers);
    head.version = Version::HTTP_11;
}

/// Removes duplicates of an identical length, and the length of a 204 (RFC 9110, section 8.6).
fn settle_length(head: &mut response::Parts) {
    if head.status == StatusCode::NO_CONTENT {
        head.headers.remove(CONTENT_LENGTH);
        return;
    }
    let mut lengths = head.headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return };
    if length.as_bytes().iter().all(u8::is_ascii_digit) && lengths.next().is_none() {
        return;
    }
    let once = names(length).next().and_then(|length| HeaderValue::from_bytes(length).ok());
    if let Some(once) = once {
        head.headers.insert(CONTENT_LENGTH, once);
    }
}

fn remove_named_by_connection(headers: &mut HeaderMap) {
    let named = headers.get_all(CONNECTION).iter().flat_map(names);
    // `keep-alive` is the usual one; it is removed anyway.
    let named = named.filter(|name| !name.eq_ignore_ascii_case(b"keep-alive"));
    let named: Vec<HeaderName> = named.filter_map(|name| HeaderName::from_bytes(name).ok()).collect();
    for name in named {
        headers.remove(name);
    }
}

/// The elements of a comma-separated list.
fn names(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// `trailers`, possibly with a weight.
fn is_trailers(element: &[u8]) -> bool {
    let name = element.split(|byte| *byte == b';').next().unwrap_or_default();
    name.trim_ascii().eq_ignore_ascii_case(b"trailers")
}

/// HTTP/2 clients may send each cookie in its own field; HTTP/1.1 allows only one field (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(uri: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn path_is_appended_and_cannot_change_the_host() {
        for (base, path, expected) in [
            ("https://api.clerk.com", "/v1/users", "https://api.clerk.com/v1/users"),
            ("https://api.clerk.com/", "//evil/v1", "https://api.clerk.com//evil/v1"),
            ("http://127.0.0.1:1", "/@evil:80/", "http://127.0.0.1:1/@evil:80/"),
            ("https://p.example/clerk", "/v1/a%2Fb/../c?a=1&&b", "https://p.example/clerk/v1/a%2Fb/../c?a=1&&b"),
        ] {
            let mut head = head(path, &[("host", "evil")]);
            request(&mut head, &UpstreamTarget::parse(base).unwrap(), false).unwrap();
            assert_eq!(head.uri.to_string(), expected);
            assert_eq!(head.headers.get_all(HOST).iter().collect::<Vec<_>>(), [head.uri.authority().unwrap().as_str()]);
        }
    }

    #[test]
    fn places_of_fields_are_those_of_the_list() {
        let names = |fields: Fields| {
            let listed = NOT_FORWARDED.iter().enumerate().filter(|(place, _)| fields.0 >> place & 1 == 1);
            listed.map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(" ")
        };
        for (place, name) in NOT_FORWARDED.iter().enumerate() {
            assert_eq!(Fields::place(name.as_str()).map(usize::from), Some(place), "{name}");
        }
        assert_eq!(names(Fields::CONNECTION), "connection");
        assert_eq!(names(Fields::TRANSFER_ENCODING), "transfer-encoding");
        assert_eq!(names(Fields::TE), "te");
        assert_eq!(
            names(Fields::OF_REQUESTS),
            "connection transfer-encoding te upgrade keep-alive proxy-connection expect proxy-authorization"
        );
        assert_eq!(
            names(Fields::OF_RESPONSES),
            "connection transfer-encoding upgrade keep-alive proxy-connection proxy-authenticate"
        );
    }

    #[test]
    fn hop_by_hop_fields_are_removed() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Foo"),
            ("connection", " x-bar ,, keep-alive"),
            ("x-foo", "1"),
            ("x-bar", "2"),
            ("x-baz", "3"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let fields = Fields::of(&headers);
        remove_named_by_connection(&mut headers);
        fields.remove(Fields::OF_RESPONSES, &mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-baz"]);
    }

    #[test]
    fn request_not_for_an_origin_is_rejected() {
        let host = ("host", "h");
        for (parts, refusal) in [
            (head("/v1/users", &[host]), None),
            (head("http://evil/v1/users", &[host]), Some(RequestRejection::Target)),
            (head("evil:80", &[host]), Some(RequestRejection::Target)),
            (head("*", &[host]), Some(RequestRejection::Target)),
            (head("/", &[]), Some(RequestRejection::Host)),
            (head("/", &[host, host]), Some(RequestRejection::Host)),
            (head("/", &[host, ("transfer-encoding", "Chunked ")]), None),
            (head("/", &[host, ("transfer-encoding", "gzip, chunked")]), Some(RequestRejection::TransferEncoding)),
            (
                head("/", &[host, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]),
                Some(RequestRejection::TransferEncoding),
            ),
            (
                head("/", &[host, ("transfer-encoding", "chunked"), ("content-length", "1")]),
                Some(RequestRejection::Framing),
            ),
        ] {
            assert_eq!(check(&parts).err(), refusal, "{} {:?}", parts.uri, parts.headers);
        }
    }

    #[test]
    fn only_trailers_of_te_is_forwarded() {
        let target = UpstreamTarget::parse("http://h").unwrap();
        for (te, expected) in [("trailers", Some("trailers")), ("gzip, Trailers;q=1", Some("trailers")), ("gzip", None)]
        {
            let mut head = head("/", &[("te", te), ("connection", "TE")]);
            request(&mut head, &target, false).unwrap();
            assert_eq!(head.headers.get(TE).and_then(|value| value.to_str().ok()), expected, "{te}");
            assert_eq!(head.headers.contains_key(CONNECTION), expected.is_some());
        }
    }

    #[test]
    fn http2_cookies_become_one_field() {
        let mut head = head("http://h/", &[("cookie", "a=1"), ("cookie", "b=2")]);
        head.version = Version::HTTP_2;
        request(&mut head, &UpstreamTarget::parse("http://h").unwrap(), false).unwrap();
        assert_eq!(head.headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    }
}
