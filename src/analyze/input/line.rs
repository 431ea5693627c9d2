//! A line of a JSON access log: of nginx, Envoy, Caddy, this program's gateway, or the OpenTelemetry Collector.

use std::borrow::Cow;
use std::sync::Arc;

use super::call::{LogCall, LogEvent};
use super::field::{FieldNames, Fields, LogField};
use super::json::{JsonValue, Members, NotJson};
use super::request::{self, Parts, Requests};
use super::skip::SkipKind;
use super::{FieldName, access_log, otlp, time};
use crate::gateway::CallerRegistry;
use clerk_quota::{Moment, Quota};

const SECOND: u64 = 1_000_000_000;
const MILLISECOND: u64 = 1_000_000;

/// Envoy's flags of requests that were not sent: no healthy host, no route, a failed connection.
const NOT_SENT_FLAGS: [&[u8]; 5] = [b"UH", b"UF", b"NR", b"UO", b"NC"];

/// nginx's answers from its cache.
const CACHE_ANSWERS: [&[u8]; 3] = [b"HIT", b"STALE", b"UPDATING"];

/// Reads lines of all formats.
#[derive(Debug)]
pub(crate) struct LineParser {
    names: FieldNames,
    pub(super) requests: Requests,
}

impl LineParser {
    /// `hosts` are those that Clerk's API is called by, `named` the members that the user names.
    pub(crate) fn new(hosts: &[String], named: &[FieldName], callers: Arc<CallerRegistry>) -> Self {
        Self { names: FieldNames::new(named), requests: Requests::new(hosts, callers) }
    }

    /// Counts only this instance's requests, in the gateway's access log.
    pub(crate) fn of_instance(mut self, instance: Option<&str>) -> Self {
        self.requests.instance = instance.map(Into::into);
        self
    }

    /// Passes the requests of a line to `found`; returns why it has none.
    pub(crate) fn parse(&mut self, line: &[u8], found: &mut impl FnMut(LogEvent)) -> Result<(), SkipKind> {
        let line = line.trim_ascii();
        // Syslog and container runtimes write something in front.
        let start = memchr::memchr(b'{', line).ok_or(SkipKind::Malformed)?;
        let line = line.get(start..).unwrap_or_default();
        let mut fields = Fields::new();
        let mut members = Members::of(line).map_err(malformed)?;
        let mut place = 0;
        while let Some(member) = members.next_expecting(self.names.expected(place)) {
            let (key, value) = member.map_err(malformed)?;
            if place == 0 {
                match key.raw() {
                    access_log::MARKER => return self.requests.parse_access_log(line).map(found),
                    otlp::MARKER => return otlp::parse(line, &mut self.requests, &mut |call| found(call.into())),
                    _ => {}
                }
            }
            fields.insert(place, key.raw(), value, &mut self.names);
            place += 1;
        }
        let call = match fields.get(LogField::Request) {
            Some(JsonValue::Object(request)) => self.caddy(&fields, request),
            _ => self.flat(&fields),
        };
        call.map(|call| found(call.into()))
    }

    /// nginx and Envoy: all members on the first level.
    fn flat(&mut self, fields: &Fields<'_>) -> Result<LogCall, SkipKind> {
        let request = fields.get(LogField::Request).and_then(JsonValue::scalar);
        let path = fields.get(LogField::Path).and_then(JsonValue::scalar);
        let method = fields.get(LogField::Method).and_then(JsonValue::scalar);
        let line = request.as_deref().and_then(request_line);
        let (method, target) = match (&method, &path, line) {
            (Some(method), Some(path), _) => (&**method, &**path),
            (_, _, Some(line)) => line,
            (None, None, None) if request.is_none() => return Err(SkipKind::OtherKind),
            _ => return Err(SkipKind::BadRequest),
        };
        let host = fields.get(LogField::Host).and_then(JsonValue::scalar);
        if host.as_deref().is_some_and(|host| !self.requests.is_clerk(host)) {
            return Err(SkipKind::OtherHost);
        }
        if is_not_sent(fields) {
            return Err(SkipKind::NotSent);
        }
        let (time, is_end, unit) = match fields.get(LogField::Start) {
            Some(start) => (moment(start)?, false, MILLISECOND),
            None => (moment(fields.get(LogField::Time).ok_or(SkipKind::BadTime)?)?, true, SECOND),
        };
        let status = status(fields)?;
        let caller = fields.get(LogField::Caller).and_then(JsonValue::scalar);
        let headers = [
            ("retry-after", LogField::RetryAfter),
            ("x-ratelimit-limit", LogField::Limit),
            ("x-ratelimit-remaining", LogField::Remaining),
            ("x-ratelimit-reset", LogField::Reset),
        ];
        let headers = headers.map(|(name, field)| (name, fields.get(field).and_then(JsonValue::scalar)));
        let quota = quota(status, &headers);
        let took = took(fields, unit);
        let (host, caller) = (host.as_deref(), caller.as_deref());
        self.requests.call(Parts { time, is_end, took, method, target, is_clerk: false, host, caller, status, quota })
    }

    /// Caddy: method, host, path and headers in an object of their own.
    fn caddy(&mut self, fields: &Fields<'_>, request: &[u8]) -> Result<LogCall, SkipKind> {
        let [mut method, mut host, mut target, mut agent] = [None, None, None, None];
        for member in Members::of(request).map_err(malformed)? {
            let (key, value) = member.map_err(malformed)?;
            match (key.raw(), value) {
                (b"method", value) => method = value.scalar(),
                (b"host", value) => host = value.scalar(),
                (b"uri", value) => target = value.scalar(),
                (b"headers", JsonValue::Object(headers)) => agent = header(headers, b"user-agent")?,
                _ => {}
            }
        }
        let (Some(method), Some(target)) = (method, target) else { return Err(SkipKind::BadRequest) };
        if host.as_deref().is_some_and(|host| !self.requests.is_clerk(host)) {
            return Err(SkipKind::OtherHost);
        }
        let time = moment(fields.get(LogField::Time).ok_or(SkipKind::BadTime)?)?;
        let status = status(fields)?;
        let quota = match fields.get(LogField::ResponseHeaders) {
            Some(JsonValue::Object(headers)) => response_quota(status, headers)?,
            _ => None,
        };
        let caller = fields.get(LogField::Caller).and_then(JsonValue::scalar).or(agent);
        let took = took(fields, SECOND);
        let (host, caller) = (host.as_deref(), caller.as_deref());
        let (method, target) = (&*method, &*target);
        self.requests.call(Parts {
            time,
            is_end: true,
            took,
            method,
            target,
            is_clerk: false,
            host,
            caller,
            status,
            quota,
        })
    }
}

pub(super) const fn malformed(_: NotJson) -> SkipKind {
    SkipKind::Malformed
}

fn moment(value: JsonValue<'_>) -> Result<Moment, SkipKind> {
    value.scalar().and_then(|text| time::parse(&text)).ok_or(SkipKind::BadTime)
}

fn status(fields: &Fields<'_>) -> Result<Option<u16>, SkipKind> {
    fields.get(LogField::Status).and_then(JsonValue::scalar).map_or(Ok(None), |text| request::status(&text))
}

fn took(fields: &Fields<'_>, unit: u64) -> Option<std::time::Duration> {
    let read = |field, unit| time::duration(&fields.get(field)?.scalar()?, unit);
    read(LogField::DurationMs, MILLISECOND).or_else(|| read(LogField::Duration, unit))
}

/// Method and target of `GET /v1/users HTTP/1.1`.
fn request_line(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let first = memchr::memchr(b' ', line)?;
    let last = memchr::memrchr(b' ', line).filter(|last| *last > first)?;
    Some((line.get(..first)?, line.get(first + 1..last)?))
}

fn is_not_sent(fields: &Fields<'_>) -> bool {
    let is_any = |field, known: &[&[u8]]| {
        let value = fields.get(field).and_then(JsonValue::scalar);
        value.is_some_and(|value| value.split(|byte| *byte == b',').any(|part| known.contains(&part)))
    };
    is_any(LogField::CacheStatus, &CACHE_ANSWERS) || is_any(LogField::Flags, &NOT_SENT_FLAGS)
}

fn quota(status: Option<u16>, headers: &[(&'static str, Option<Cow<'_, [u8]>>)]) -> Option<Box<Quota>> {
    if headers.iter().all(|(_, value)| value.is_none()) {
        return None;
    }
    request::quota(status, headers.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))))
}

/// The value of a header, by its name in lower case.
fn header<'a>(headers: &'a [u8], name: &[u8]) -> Result<Option<Cow<'a, [u8]>>, SkipKind> {
    for member in Members::of(headers).map_err(malformed)? {
        let (key, value) = member.map_err(malformed)?;
        if key.raw().eq_ignore_ascii_case(name) {
            return Ok(value.first_text());
        }
    }
    Ok(None)
}

/// The quota in an object of response headers.
fn response_quota(status: Option<u16>, headers: &[u8]) -> Result<Option<Box<Quota>>, SkipKind> {
    let mut found = Vec::new();
    for member in Members::of(headers).map_err(malformed)? {
        let (key, value) = member.map_err(malformed)?;
        if let (Some(name), Some(value)) = (request::quota_header(key.raw()), value.first_text()) {
            found.push((name, value));
        }
    }
    // `Date` alone says nothing.
    if found.iter().all(|(name, _)| matches!(*name, "date" | "age")) {
        return Ok(None);
    }
    Ok(request::quota(status, found.iter().map(|(name, value)| (*name, &**value))))
}
