//! Which member of a log line means what.

use std::str::FromStr;

use rustc_hash::FxHashMap;

use super::json::JsonValue;

macro_rules! fields {
    ($($(#[$doc:meta])* $field:ident $name:literal [$($member:literal),*],)*) => {
        /// A meaning that a member of a log line can have.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum LogField {
            $($(#[$doc])* $field,)*
        }

        impl LogField {
            /// All meanings, in the order of the documentation.
            pub(crate) const ALL: &[Self] = &[$(Self::$field,)*];

            /// The name in the flag `--field`.
            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$field => $name,)* }
            }

            /// The members that have this meaning without a flag, the best first.
            pub(crate) const fn members(self) -> &'static [&'static str] {
                match self { $(Self::$field => &[$($member),*],)* }
            }
        }
    };
}

fields! {
    /// The time at which the request ended, as most servers log it.
    Time "time" ["msec", "time_iso8601", "ts", "timestamp", "@timestamp", "time", "time_local"],
    /// The time at which it started.
    Start "start" ["start_time"],
    /// How long it took, in seconds; in milliseconds where the line has a `start_time` (Envoy).
    Duration "duration" ["request_time", "duration", "upstream_response_time"],
    /// How long it took, in milliseconds.
    DurationMs "duration_ms" ["duration_ms", "request_time_ms"],
    /// The method.
    Method "method" ["request_method", "method"],
    /// Path and query, or the URL.
    Path "path" ["request_uri", "uri", "path", "url"],
    /// The request line: `GET /v1/users HTTP/1.1`. In Caddy's log, an object with method, host and path.
    Request "request" ["request"],
    /// The status of the response.
    Status "status" ["status", "response_code"],
    /// The host that the request was sent to.
    Host "host" ["proxy_host", "authority", ":authority", "http_host", "host", "server_name"],
    /// The application that sent it.
    Caller "caller" ["caller", "service", "app", "http_user_agent", "user_agent", "user-agent"],
    /// The response's `Retry-After`.
    RetryAfter "retry_after" ["upstream_http_retry_after", "sent_http_retry_after", "retry_after"],
    /// The response's `X-RateLimit-Limit`.
    Limit "limit" ["upstream_http_x_ratelimit_limit", "sent_http_x_ratelimit_limit"],
    /// The response's `X-RateLimit-Remaining`.
    Remaining "remaining" ["upstream_http_x_ratelimit_remaining", "sent_http_x_ratelimit_remaining"],
    /// The response's `X-RateLimit-Reset`.
    Reset "reset" ["upstream_http_x_ratelimit_reset", "sent_http_x_ratelimit_reset"],
    /// Whether nginx answered from its cache.
    CacheStatus "cache_status" ["upstream_cache_status"],
    /// Envoy's response flags, which say whether the request was sent.
    Flags "flags" ["response_flags"],
    /// The response's headers in Caddy's log.
    ResponseHeaders "response_headers" ["resp_headers"],
}

/// Number of meanings.
const COUNT: usize = LogField::ALL.len();

/// A member that the user names: `--field time=when`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldName {
    field: LogField,
    member: Box<[u8]>,
}

impl FromStr for FieldName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || LogField::ALL.iter().map(|field| field.as_str()).collect::<Vec<_>>().join(", ");
        let Some((name, member)) = text.split_once('=').filter(|(_, member)| !member.is_empty()) else {
            return Err("write MEANING=MEMBER, as in time=when".to_owned());
        };
        match LogField::ALL.iter().find(|field| field.as_str() == name) {
            Some(field) => Ok(Self { field: *field, member: member.as_bytes().into() }),
            None => Err(format!("not a known meaning; write one of {}", names())),
        }
    }
}

/// A meaning, and the rank of a member among the members of that meaning: those that the user names first.
type Ranked = (LogField, u8);

/// Members of a line whose places are remembered.
const MAX_LAYOUT: usize = 64;

/// The meaning of each member.
#[derive(Debug, Clone)]
pub(super) struct FieldNames {
    names: FxHashMap<Box<[u8]>, Ranked>,
    /// The members of the last lines by their place: most lines of a log have the same members in the same order.
    layout: Vec<(Box<[u8]>, Option<Ranked>)>,
}

impl FieldNames {
    pub(super) fn new(named: &[FieldName]) -> Self {
        let known = LogField::ALL.iter().flat_map(|field| {
            let ranked = field.members().iter().zip(1_u8..);
            ranked.map(|(member, rank)| (member.as_bytes().into(), (*field, rank)))
        });
        let named = named.iter().map(|name| (name.member.clone(), (name.field, 0)));
        Self { names: known.chain(named).collect(), layout: Vec::new() }
    }

    /// The name of the member that the last line had at this place, as written; empty if unknown.
    pub(super) fn expected(&self, place: usize) -> &[u8] {
        self.layout.get(place).map_or(b"", |(known, _)| known)
    }

    /// Returns the meaning of a line's member at this place.
    fn get(&mut self, place: usize, member: &[u8]) -> Option<Ranked> {
        if let Some((known, ranked)) = self.layout.get(place)
            && **known == *member
        {
            return *ranked;
        }
        let ranked = self.names.get(member).copied();
        let entry = (member.into(), ranked);
        if let Some(known) = self.layout.get_mut(place) {
            *known = entry;
        } else if place == self.layout.len() && place < MAX_LAYOUT {
            self.layout.push(entry);
        }
        ranked
    }
}

/// The values of a line by their meaning.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    values: [Option<JsonValue<'a>>; COUNT],
    ranks: [u8; COUNT],
}

impl<'a> Fields<'a> {
    pub(super) const fn new() -> Self {
        Self { values: [None; COUNT], ranks: [u8::MAX; COUNT] }
    }

    /// Takes the member at this place in, if it means something and none of a better name was there.
    pub(super) fn insert(&mut self, place: usize, member: &[u8], value: JsonValue<'a>, names: &mut FieldNames) {
        if let Some((field, rank)) = names.get(place, member) {
            self.set(field, rank, value);
        }
    }

    pub(super) fn set(&mut self, field: LogField, rank: u8, value: JsonValue<'a>) {
        let place = field as usize;
        // An absent value (`-`) leaves the place to a member of a lesser name.
        let is_absent =
            matches!(value, JsonValue::Word(_)) || matches!(value, JsonValue::Text(_)) && value.scalar().is_none();
        if rank < self.ranks[place] && !is_absent {
            self.values[place] = Some(value);
            self.ranks[place] = rank;
        }
    }

    pub(super) const fn get(&self, field: LogField) -> Option<JsonValue<'a>> {
        self.values[field as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn member_names_are_unique() {
        let mut all: Vec<_> = LogField::ALL.iter().flat_map(|field| field.members()).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert_eq!(FieldNames::new(&[]).names.len(), count);
    }

    #[test]
    fn better_name_wins_in_either_order() {
        let mut names = FieldNames::new(&["time=when".parse().unwrap()]);
        let value = |digits: &'static str| JsonValue::Number(digits.as_bytes());
        for order in [["msec", "when", "time_local"], ["time_local", "msec", "when"], ["when", "time_local", "msec"]] {
            let mut fields = Fields::new();
            for (place, member) in order.into_iter().enumerate() {
                fields.insert(place, member.as_bytes(), value(if member == "when" { "1" } else { "2" }), &mut names);
            }
            assert_eq!(fields.get(LogField::Time), Some(value("1")));
        }
    }

    #[test]
    fn field_flag_is_refused_with_what_to_write() {
        for (text, part) in
            [("time", "MEANING=MEMBER"), ("time=", "MEANING=MEMBER"), ("when=time", "one of time, start")]
        {
            assert!(text.parse::<FieldName>().unwrap_err().contains(part), "{text}");
        }
    }
}
