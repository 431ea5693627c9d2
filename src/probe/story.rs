//! What one probe did and found, step by step, as text without secrets. Pure.

use std::time::Duration;

use clerk_client::outbound::BufferedResponse;
use clerk_client::secret::mask_secrets;
use clerk_client::transport::{ConnectionEvent, ConnectionStep};
use clerk_quota::snapshot::{BucketSnapshot, InstanceSnapshot};
use clerk_quota::{HeaderError, KeyVerdict, Moment};
use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::advice::advice;
use super::prober::Finding;
use super::recording::{Exchange, ResponseHead};

/// Longest text of a step, in characters: a server chooses some of it.
const LONGEST: usize = 300;

/// Headers that are shown with their value; of the others, the name only.
const SHOWN: [&str; 6] = ["age", "cf-ray", "clerk-trace-id", "date", "retry-after", "x-clerk-trace-id"];

/// The parts of a story.
pub(super) struct StoryParts<'a> {
    pub(super) exchanges: &'a [Exchange],
    pub(super) finding: &'a Finding,
    /// The ledger after the probe, and the bucket of the probes in it.
    pub(super) snapshot: &'a InstanceSnapshot,
    pub(super) bucket: Option<&'a BucketSnapshot>,
    pub(super) now: Moment,
}

/// Returns a line for each step, with the milliseconds since the start.
pub(super) fn lines(parts: &StoryParts<'_>) -> Vec<String> {
    let mut story = Story(Vec::new());
    for exchange in parts.exchanges {
        story.exchange(exchange);
    }
    story.outcome(parts);
    story.ledger(parts);
    story.0
}

struct Story(Vec<String>);

impl Story {
    fn add(&mut self, at: Duration, step: &str, text: &str) {
        let text: String = mask_secrets(text).chars().flat_map(visible).take(LONGEST).collect();
        self.0.push(format!("{:>7} ms  {step:<12} {text}", at.as_millis()));
    }

    fn exchange(&mut self, exchange: &Exchange) {
        let sent = exchange.sent;
        self.add(sent, "limiter", "no wait: a probe is sent at once and counted as used");
        self.add(sent, "request", &format!("{} {}", exchange.method, exchange.uri));
        for (name, value) in &exchange.headers {
            self.add(sent, "", &format!("{name}: {}", value_of(name, value)));
        }
        self.add(sent, "", "and host, user-agent and accept-encoding of the HTTP library");
        for ConnectionStep { after, event } in &exchange.steps {
            if let Some((step, text)) = connection(event) {
                self.add(sent + *after, step, &text);
            }
        }
        match &exchange.result {
            None => {}
            Some((at, Err(error))) => self.add(*at, "failed", error),
            Some((at, Ok(head))) => self.response(*at, *at - sent, head),
        }
    }

    fn response(&mut self, at: Duration, waited: Duration, head: &ResponseHead) {
        let ResponseHead { status, version, headers } = head;
        let waited = waited.as_millis();
        self.add(
            at,
            "response",
            &format!("{status}, {version:?}; its head arrived {waited} ms after the request began"),
        );
        for (name, value) in headers.iter().filter(|(name, _)| is_shown(name)) {
            self.add(at, "", &format!("{name}: {}", value_of(name, value)));
        }
        let others = other_names(headers);
        if !others.is_empty() {
            self.add(at, "", &format!("further headers, names only: {others}"));
        }
    }

    fn outcome(&mut self, parts: &StoryParts<'_>) {
        let finding = parts.finding;
        let at = finding.duration;
        let is_told = |error: &str| {
            let last = parts.exchanges.last().and_then(|exchange| exchange.result.as_ref());
            last.is_some_and(|(_, result)| result.as_ref().is_err_and(|told| told == error))
        };
        match &finding.answer {
            Ok(answer) => {
                self.add(at, "body", &body(answer));
                self.understood(at, answer);
            }
            Err(error) if is_told(&error.to_string()) => {}
            Err(error) => self.add(at, "no response", &error.to_string()),
        }
        match finding.failure {
            None => self.add(at, "result", "the probe succeeded"),
            Some(failure) => {
                let advice = advice(failure, &finding.answer);
                self.add(at, "result", &format!("the probe failed ({}): {advice}", failure.as_str()));
            }
        }
    }

    fn understood(&mut self, at: Duration, answer: &BufferedResponse) {
        let quota = &answer.observation.quota;
        let read: Vec<String> = [
            quota.limit.map(|limit| format!("limit {limit}")),
            quota.remaining.map(|remaining| format!("remaining {remaining}")),
            quota.reset.map(|reset| format!("reset in {} s", seconds(reset))),
            quota.window.map(|window| format!("window {} s", seconds(window))),
            quota.retry_after.map(|wait| format!("Retry-After {} s", seconds(wait))),
        ]
        .into_iter()
        .flatten()
        .collect();
        match quota.dialect {
            None => self.add(at, "quota", "the response has no quota header"),
            Some(dialect) if read.is_empty() => self.add(at, "quota", &format!("{dialect} headers, nothing readable")),
            Some(dialect) => self.add(at, "quota", &format!("{dialect} headers: {}", read.join(", "))),
        }
        for error in quota.errors.iter() {
            self.add(at, "", &format!("not understood ({error}): {}", meaning(error)));
        }
        if let Some(offset) = answer.observation.clock_offset_seconds {
            self.add(
                at,
                "clock",
                &format!("Clerk's clock is {offset:+.1} s from this machine's (Date, to about a second)"),
            );
        }
    }

    fn ledger(&mut self, parts: &StoryParts<'_>) {
        let (at, now) = (parts.finding.duration, parts.now);
        let key = match parts.finding.answer.as_ref().map(|answer| answer.observation.key) {
            Ok(KeyVerdict::Valid) => "accepted",
            Ok(KeyVerdict::Invalid) => "refused",
            Ok(KeyVerdict::Unknown) | Err(_) => "this response does not tell whether it is accepted",
        };
        self.add(at, "key", key);
        let Some(bucket) = parts.bucket else {
            self.add(at, "ledger", "no limit is known for the probe's path");
            return;
        };
        let number = |value: Option<u64>| value.map_or_else(|| "unknown".to_owned(), |value| value.to_string());
        let basis = bucket.basis.map_or("nothing observed yet", |basis| basis.describe());
        let (limit, remaining, window) = (number(bucket.limit), number(bucket.remaining), seconds(bucket.window));
        self.add(
            at,
            "ledger",
            &format!("bucket {}: limit {limit} per {window} s, remaining {remaining}; {basis}", bucket.bucket.as_str()),
        );
        if let Some(reset) = bucket.reset_at {
            self.add(at, "", &format!("the window resets in {} s", seconds(reset.since(now))));
        }
        if let Some(until) = bucket.blocked_until {
            self.add(at, "", &format!("blocked by a 429 for another {} s", seconds(until.since(now))));
        }
        let throttled: u64 = bucket.throttled.iter().sum();
        self.add(at, "", &format!("429 responses counted since the start: {throttled}"));
        let probes = &parts.snapshot.probes;
        self.add(at, "", &format!("probes counted since the start: {}", probes.total));
    }
}

/// The step and its text.
fn connection(event: &ConnectionEvent) -> Option<(&'static str, String)> {
    Some(match event {
        ConnectionEvent::Route { proxy: None } => ("proxy", "none".to_owned()),
        ConnectionEvent::Route { proxy: Some((variable, uri)) } => ("proxy", format!("{uri} by {variable}")),
        ConnectionEvent::Authorities { ca_file, variables } => {
            let mut text = match variables.is_empty() {
                true => "the system's".to_owned(),
                false => format!("by {}", variables.join(" and ")),
            };
            if let Some(file) = ca_file {
                text.push_str(&format!(", and ca_file {}", file.display()));
            }
            ("authorities", text)
        }
        ConnectionEvent::Resolving(name) => ("resolving", name.clone()),
        ConnectionEvent::Resolved(addresses) => {
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            ("resolved", addresses.join(", "))
        }
        ConnectionEvent::NotResolved(error) => ("not resolved", error.clone()),
        ConnectionEvent::HandshakeStarted(name) => ("connected", format!("TCP; the TLS handshake with {name} begins")),
        ConnectionEvent::Certificate { bytes, intermediates, refusal } => {
            let verdict = refusal.as_ref().map_or_else(|| "accepted".to_owned(), |why| format!("refused: {why}"));
            ("certificate", format!("{bytes} bytes and {intermediates} intermediate certificates, {verdict}"))
        }
        ConnectionEvent::TlsVersion(version) => ("tls", (*version).to_owned()),
        ConnectionEvent::Connected => ("ready", "a new connection, opened for this probe".to_owned()),
        ConnectionEvent::NotConnected(error) => ("no connection", error.clone()),
        ConnectionEvent::Peer(address) => ("peer", format!("answered from {address}")),
        _ => return None,
    })
}

fn body(answer: &BufferedResponse) -> String {
    let codes: Vec<_> = answer.errors.errors.iter().map(|error| error.code.as_str()).collect();
    let mut text = format!("{} bytes after decompression", answer.body.len());
    if !codes.is_empty() {
        text.push_str(&format!("; Clerk's error codes: {}", codes.join(", ")));
    }
    if let Some(trace) = &answer.errors.trace_id {
        text.push_str(&format!("; Clerk's trace id: {trace}"));
    }
    text
}

fn is_shown(name: &HeaderName) -> bool {
    ratelimit_headers::is_quota_header(name.as_str()) || SHOWN.contains(&name.as_str())
}

fn other_names(headers: &HeaderMap) -> String {
    let names: Vec<_> = headers.keys().filter(|name| !is_shown(name)).map(HeaderName::as_str).collect();
    names.join(", ")
}

fn value_of(name: &HeaderName, value: &HeaderValue) -> String {
    if value.is_sensitive() || *name == AUTHORIZATION || *name == PROXY_AUTHORIZATION {
        return "<secret>".to_owned();
    }
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// Control characters could hide text in a terminal.
fn visible(c: char) -> impl Iterator<Item = char> {
    let (plain, escaped) = if c.is_control() { (None, Some(c.escape_default())) } else { (Some(c), None) };
    plain.into_iter().chain(escaped.into_iter().flatten())
}

fn seconds(duration: Duration) -> String {
    let text = format!("{:.1}", duration.as_secs_f64());
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}

const fn meaning(error: HeaderError) -> &'static str {
    match error {
        HeaderError::Stale => "the response came from a cache (Age), so its numbers are outdated",
        HeaderError::InvalidRatelimit => "RateLimit does not parse, or an item has no integer r",
        HeaderError::InvalidPolicy => "RateLimit-Policy does not parse, or an item has no name or no integer q",
        HeaderError::InvalidLimit => "a limit is not a number",
        HeaderError::InvalidRemaining => "a remaining count is not a number, or negative without a limit",
        HeaderError::InvalidReset => "a reset is unreadable, negative, or more than 365 days away",
        HeaderError::ConflictingValues => "a field was sent several times with contradictory values",
        HeaderError::Clamped => "a value was out of range and was clamped",
        HeaderError::InvalidRetryAfter => "Retry-After is unreadable or negative",
        _ => "see the metric clerk_ratelimit_header_errors_total",
    }
}
