//! The attributes of an HTTP client span that matter here, in both conventions.

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;

use super::OWN_MARK;
use super::url::{Scheme, Url, split_port};

/// What precedes the name of a captured response header.
pub(super) const HEADER_PREFIX: &str = "http.response.header.";

/// The attributes of a span, borrowed. The first of several with the same key counts.
#[derive(Default)]
pub(super) struct Attributes<'a> {
    pub method: Option<&'a str>,
    pub original_method: Option<&'a str>,
    pub error_type: Option<&'a str>,
    /// A description of the error, for people.
    pub error_message: Option<&'a str>,
    pub is_own: bool,
    pub is_nextjs: bool,
    /// Whether there are captured response headers.
    pub has_headers: bool,
    status: Option<&'a Value>,
    url: Option<&'a str>,
    path: Option<&'a str>,
    scheme: Scheme,
    server_address: Option<&'a str>,
    server_port: Option<&'a Value>,
    http_host: Option<&'a str>,
    peer_name: Option<&'a str>,
    peer_port: Option<&'a Value>,
}

/// Where a request went.
#[derive(Default)]
pub(super) struct Target<'a> {
    pub scheme: Scheme,
    pub host: Option<&'a str>,
    pub port: Option<u16>,
    /// With the query.
    pub path: Option<&'a str>,
}

impl<'a> Attributes<'a> {
    pub(super) fn read(attributes: &'a [KeyValue]) -> Self {
        let mut found = Self::default();
        for KeyValue { key, value, .. } in attributes {
            let Some(value) = value.as_ref().and_then(|value| value.value.as_ref()) else { continue };
            let text = || text(value);
            match &**key {
                "http.request.method" | "http.method" => set(&mut found.method, text()),
                "http.request.method_original" => set(&mut found.original_method, text()),
                "http.response.status_code" | "http.status_code" => set(&mut found.status, Some(value)),
                "url.full" | "http.url" => set(&mut found.url, text()),
                "url.path" | "http.target" => set(&mut found.path, text()),
                "url.scheme" | "http.scheme" => found.scheme = found.scheme.or(Scheme::of(text().unwrap_or_default())),
                "server.address" => set(&mut found.server_address, text()),
                "server.port" => set(&mut found.server_port, Some(value)),
                "http.host" => set(&mut found.http_host, text()),
                "net.peer.name" => set(&mut found.peer_name, text()),
                "net.peer.port" => set(&mut found.peer_port, Some(value)),
                "error.type" => set(&mut found.error_type, text()),
                "http.error_message" | "error.message" | "error.cause_chain" => {
                    set(&mut found.error_message, text());
                }
                "next.span_type" => found.is_nextjs = true,
                OWN_MARK => found.is_own |= is_true(value),
                _ => found.has_headers |= key.starts_with(HEADER_PREFIX),
            }
        }
        found
    }

    /// Whether the span is about an HTTP request, and not about its connection alone.
    pub(super) const fn is_http(&self) -> bool {
        self.method.is_some() || self.url.is_some() || self.status.is_some()
    }

    /// The response's status. In the stable conventions it may be given as the error's type alone.
    pub(super) fn status(&self) -> Option<u16> {
        let status = self.status.and_then(number).and_then(|status| u16::try_from(status).ok());
        let status = status.filter(|status| (100..=999).contains(status));
        let error = || {
            let text = self.error_type.filter(|text| text.len() == 3)?;
            text.parse().ok().filter(|status| (400..=599).contains(status))
        };
        status.or_else(error)
    }

    /// Where the request went: `server.address`, else the URL, else `http.host`, else `net.peer.name`.
    pub(super) fn target(&self) -> Target<'a> {
        let url = self.url.and_then(Url::parse).unwrap_or_default();
        let port_of = |value: Option<&Value>| value.and_then(number).and_then(|port| u16::try_from(port).ok());
        let (host, port) = if let Some(address) = self.server_address {
            let (host, port) = split_port(address);
            let is_same = url.host.is_some_and(|other| other.eq_ignore_ascii_case(host));
            (Some(host), port_of(self.server_port).or(port).or(url.port.filter(|_| is_same)))
        } else if url.host.is_some() {
            (url.host, url.port)
        } else if let Some(host) = self.http_host {
            let (host, port) = split_port(host);
            (Some(host), port)
        } else if let Some(name) = self.peer_name {
            let (host, port) = split_port(name);
            (Some(host), port_of(self.peer_port).or(port))
        } else {
            (None, None)
        };
        Target { scheme: url.scheme.or(self.scheme), host, port, path: url.path.or(self.path) }
    }
}

fn set<T>(place: &mut Option<T>, value: Option<T>) {
    if place.is_none() {
        *place = value;
    }
}

/// Returns a value's text, if it is one.
pub(super) fn text(value: &Value) -> Option<&str> {
    if let Value::StringValue(text) = value { Some(text) } else { None }
}

/// Returns a number, which some senders write as text.
fn number(value: &Value) -> Option<i64> {
    match value {
        Value::IntValue(number) => Some(*number),
        Value::StringValue(text) => text.parse().ok(),
        _ => None,
    }
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::BoolValue(is_true) => *is_true,
        Value::StringValue(text) => text == "true",
        _ => false,
    }
}
