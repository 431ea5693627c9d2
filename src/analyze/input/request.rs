//! From the parts of a log line to a request: host, route, caller, resource.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use rustc_hash::FxHashMap;

use super::call::{LogCall, SharedRead};
use super::skip::SkipKind;
use crate::gateway::{CallerRegistry, USER_LOOKUP};
use crate::telemetry::span::Hosts;
use clerk_client::cache::CacheKeyParts;
use clerk_client::cache::simulation::TagSlots;
use clerk_client::webhook::{ReadTags, tags_named_by, tags_of_read, tags_of_write};
use clerk_quota::route;
use clerk_quota::{CallerId, MethodLabel, Moment, Quota};

/// Resources whose tags are remembered.
const MAX_RESOURCES: usize = 1 << 16;

/// Number and length in bytes of names of callers that are remembered.
const MAX_KNOWN_CALLERS: usize = 1024;
const MAX_CALLER: usize = 256;

/// Longer durations are a mistake: a request to Clerk ends within minutes.
const LONGEST: Duration = Duration::from_secs(3600);

/// The parts of a log line.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    /// When the request started, or ended if `is_end`.
    pub(super) time: Moment,
    pub(super) is_end: bool,
    pub(super) took: Option<Duration>,
    pub(super) method: &'a [u8],
    /// Path and query, or a URL.
    pub(super) target: &'a [u8],
    /// Whether the log is known to have requests to Clerk only.
    pub(super) is_clerk: bool,
    pub(super) host: Option<&'a [u8]>,
    pub(super) caller: Option<&'a [u8]>,
    pub(super) status: Option<u16>,
    pub(super) quota: Option<Box<Quota>>,
}

/// What all requests of an analysis share.
#[derive(Debug)]
pub(super) struct Requests {
    /// In lower case, without ports.
    hosts: Vec<Box<[u8]>>,
    pub(super) otlp_hosts: Hosts,
    /// The last host: most lines have the same.
    last_host: (Vec<u8>, bool),
    callers: Arc<CallerRegistry>,
    known_callers: FxHashMap<Box<[u8]>, CallerId>,
    key: RandomState,
    text: Vec<u8>,
    resources: FxHashMap<u64, Resource>,
    /// The instance whose requests count, in the gateway's access log; `None` for all.
    pub(super) instance: Option<Box<str>>,
    /// Instances of which there are requests.
    pub(super) instances: Vec<Box<str>>,
    /// Requests of formats without a host, which count as Clerk's.
    pub(super) without_host: u64,
    /// Requests whose duration is unknown.
    pub(super) without_duration: u64,
}

#[derive(Debug, Clone)]
struct Resource {
    tags: Arc<TagSlots>,
    is_tagged: bool,
    batch: Option<u64>,
}

impl Requests {
    pub(super) fn new(hosts: &[String], callers: Arc<CallerRegistry>) -> Self {
        Self {
            hosts: hosts.iter().map(|host| host.to_ascii_lowercase().into_bytes().into()).collect(),
            callers,
            // Hosts are checked where they are given.
            otlp_hosts: Hosts::new(hosts.iter().map(String::as_str)).unwrap_or_default(),
            last_host: (Vec::new(), false),
            known_callers: FxHashMap::default(),
            key: RandomState::new(),
            text: Vec::new(),
            resources: FxHashMap::default(),
            instance: None,
            instances: Vec::new(),
            without_host: 0,
            without_duration: 0,
        }
    }

    /// Returns whether a host is Clerk's, with or without a port.
    pub(super) fn is_clerk(&mut self, host: &[u8]) -> bool {
        if self.last_host.0 != host {
            let name = match host {
                [b'[', ..] => host.split_inclusive(|byte| *byte == b']').next().unwrap_or(host),
                _ => host.split(|byte| *byte == b':').next().unwrap_or(host),
            };
            let is_name = |known: &[u8]| known.eq_ignore_ascii_case(name) || known.eq_ignore_ascii_case(host);
            self.last_host.1 = self.hosts.iter().any(|known| is_name(known));
            self.last_host.0.clear();
            self.last_host.0.extend_from_slice(host);
        }
        self.last_host.1
    }

    /// Returns the request, or why it does not count.
    pub(super) fn call(&mut self, parts: Parts<'_>) -> Result<LogCall, SkipKind> {
        let (host, target) = match split_url(parts.target) {
            Some((host, target)) => (Some(host), target),
            None => (parts.host, parts.target),
        };
        if host.is_some_and(|host| !self.is_clerk(host)) {
            return Err(SkipKind::OtherHost);
        }
        let method = std::str::from_utf8(parts.method).map_err(|_| SkipKind::BadRequest)?;
        if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(SkipKind::BadRequest);
        }
        let took = parts.took.filter(|took| *took <= LONGEST);
        self.without_host += u64::from(host.is_none() && !parts.is_clerk);
        self.without_duration += u64::from(took.is_none());
        let route = route::find(method, target);
        let label = method_label(method);
        let started = if parts.is_end { parts.time.before(took.unwrap_or_default()) } else { parts.time };
        let (read, changes) = self.sharing(label, &route, target, parts.status);
        let (status, quota) = (parts.status, parts.quota);
        let caller = self.caller(parts.caller);
        Ok(LogCall { started, took, method: label, route, caller, is_repeat: false, status, read, changes, quota })
    }

    /// The caller that a name or a `User-Agent` stands for.
    fn caller(&mut self, name: Option<&[u8]>) -> CallerId {
        let bytes = name.unwrap_or_default();
        if let Some(known) = self.known_callers.get(bytes) {
            return *known;
        }
        let found = self.callers.found(name);
        if self.known_callers.len() < MAX_KNOWN_CALLERS && bytes.len() <= MAX_CALLER {
            self.known_callers.insert(bytes.into(), found);
        }
        found
    }

    /// What a request reads, if its response can be shared; and what it changes or reports as gone.
    fn sharing(
        &mut self,
        method: MethodLabel,
        route: &route::Route,
        target: &[u8],
        status: Option<u16>,
    ) -> (Option<SharedRead>, Option<Arc<TagSlots>>) {
        let Ok(target) = std::str::from_utf8(target) else { return (None, None) };
        let target = target.split('#').next().unwrap_or_default();
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        match method {
            MethodLabel::Get => {
                let is_gone = matches!(status, Some(404 | 410));
                let gone = is_gone.then(|| TagSlots::of(&tags_named_by(route.template, path)));
                let changes = gone.filter(|slots| !slots.is_empty()).map(Arc::new);
                (self.read(route, path, query), changes)
            }
            MethodLabel::Head | MethodLabel::Options => (None, None),
            _ => {
                let slots = TagSlots::of(&tags_of_write(&http_method(method), route.template, path));
                (None, (!slots.is_empty()).then(|| Arc::new(slots)))
            }
        }
    }

    fn read(&mut self, route: &route::Route, path: &str, query: Option<&str>) -> Option<SharedRead> {
        self.text.clear();
        CacheKeyParts { method: "GET", path, query, ..CacheKeyParts::default() }.write(&mut self.text);
        let resource = self.key.hash_one(self.text.as_slice());
        if let Some(known) = self.resources.get(&resource) {
            let Resource { tags, is_tagged, batch } = known.clone();
            return Some(SharedRead { resource, tags, is_tagged, batch });
        }
        let ReadTags { tags, is_covered: is_tagged } = tags_of_read(route.template, path)?;
        // The logs do not tell which lookups differ in their headers.
        let batch = (route.template == USER_LOOKUP && query.is_none()).then_some(0);
        let known = Resource { tags: Arc::new(TagSlots::of(&tags)), is_tagged, batch };
        if self.resources.len() >= MAX_RESOURCES {
            self.resources.clear();
        }
        let Resource { tags, is_tagged, batch } = self.resources.entry(resource).or_insert(known).clone();
        Some(SharedRead { resource, tags, is_tagged, batch })
    }
}

/// The host and the rest of a URL; `None` for a path.
fn split_url(target: &[u8]) -> Option<(&[u8], &[u8])> {
    if target.first() == Some(&b'/') {
        return None;
    }
    let rest = target.strip_prefix(b"https://").or_else(|| target.strip_prefix(b"http://"))?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit(|byte| *byte == b'@').next().unwrap_or(authority);
    Some((host, path))
}

fn method_label(method: &str) -> MethodLabel {
    match method {
        "GET" => MethodLabel::Get,
        "HEAD" => MethodLabel::Head,
        "POST" => MethodLabel::Post,
        "PUT" => MethodLabel::Put,
        "PATCH" => MethodLabel::Patch,
        "DELETE" => MethodLabel::Delete,
        "OPTIONS" => MethodLabel::Options,
        _ => MethodLabel::Other,
    }
}

/// The method of a label; an unknown one is handled as `POST`, a write.
pub(in crate::analyze) const fn http_method(label: MethodLabel) -> Method {
    match label {
        MethodLabel::Get => Method::GET,
        MethodLabel::Head => Method::HEAD,
        MethodLabel::Put => Method::PUT,
        MethodLabel::Patch => Method::PATCH,
        MethodLabel::Delete => Method::DELETE,
        MethodLabel::Options => Method::OPTIONS,
        MethodLabel::Post | MethodLabel::Other => Method::POST,
    }
}

/// The status that a log writes: `None` for none and for nginx's 499, a client that did not wait.
///
/// # Errors
/// Returns an error if it is no status.
pub(super) fn status(text: &[u8]) -> Result<Option<u16>, SkipKind> {
    let number: Option<u16> = std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok());
    match number {
        Some(0 | 499) => Ok(None),
        Some(number @ 100..=999) => Ok(Some(number)),
        _ => Err(SkipKind::BadRequest),
    }
}

/// The quota that response headers report, from their names in lower case and values.
pub(super) fn quota<'a>(
    status: Option<u16>,
    headers: impl Iterator<Item = (&'static str, &'a [u8])>,
) -> Option<Box<Quota>> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            map.append(HeaderName::from_static(name), value);
        }
    }
    let status = StatusCode::from_u16(status?).ok()?;
    (!map.is_empty()).then(|| Box::new(ratelimit_headers::parse(status, &map, None)))
}

/// The response headers that are read.
pub(super) const QUOTA_HEADERS: [&str; 12] = [
    "age",
    "date",
    "retry-after",
    "ratelimit",
    "ratelimit-policy",
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-ratelimit-used",
];

/// The name of a response header that is read, whatever its case.
pub(super) fn quota_header(name: &[u8]) -> Option<&'static str> {
    QUOTA_HEADERS.into_iter().find(|known| known.as_bytes().eq_ignore_ascii_case(name))
}
