//! Quota headers of real servers: the shared vectors, the rules behind them, and invariants for any bytes.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod exchange;
mod rules;

use std::time::Duration;

use exchange::{Exchange, NAMES};
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use proptest::prelude::*;
use ratelimit_headers::parse;
use serde::Deserialize;

#[derive(Deserialize)]
struct Vector {
    id: String,
    why: String,
    response: Response,
    now: Option<String>,
    expect: Expected,
}

#[derive(Deserialize)]
struct Response {
    status: u16,
    headers: Vec<(String, String)>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    limit: Option<u64>,
    remaining: Option<u64>,
    reset_seconds: Option<u64>,
    retry_after_seconds: Option<u64>,
    family: Option<String>,
    error: Option<String>,
}

fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

fn run(vector: &Vector) -> Expected {
    let mut headers = HeaderMap::new();
    for (name, value) in &vector.response.headers {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    let now = vector.now.as_ref().map(|now| chrono::DateTime::parse_from_rfc3339(now).unwrap().into());
    let status = StatusCode::from_u16(vector.response.status).unwrap();
    let quota = parse(status, &headers, now);
    Expected {
        limit: quota.limit,
        remaining: quota.remaining,
        reset_seconds: quota.reset.map(whole_seconds),
        retry_after_seconds: quota.retry_after.map(whole_seconds),
        family: quota.dialect.map(|family| family.as_str().to_owned()),
        error: quota.errors.first().map(|error| error.as_str().to_owned()),
    }
}

#[test]
fn all_vectors_parse_as_expected() {
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("../data/headers.json")).unwrap();
    let mut failures = Vec::new();
    for vector in &vectors {
        let got = run(vector);
        if got != vector.expect {
            failures.push(format!("{}: {}\n  expected {:?}\n  got      {got:?}", vector.id, vector.why, vector.expect));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(vectors.len(), 124);
}

/// Text that the parser recognises, for better coverage than random bytes.
const WORDS: [&str; 40] = [
    "0",
    "1",
    "42",
    "100",
    "-1",
    "0.5",
    "1e3",
    "999999999",
    "1000000000",
    "1795608010",
    "1795608010000",
    "9007199254740991",
    "9007199254740992",
    "31536000",
    "31536001",
    "99999999999999999999999999",
    "unlimited",
    "none",
    "NaN",
    "inf",
    "Wed, 25 Nov 2026 12:00:30 GMT",
    "Wednesday, 25-Nov-26 12:00:30 GMT",
    "Wed Nov 25 12:00:30 2026",
    "2026-11-25T12:00:20.5+01:00",
    "1m30s",
    "500ms",
    "2m59.56s",
    "limit=100",
    "remaining=50",
    "reset=30",
    "\"default\"",
    ";r=50",
    ";t=30",
    ";q=100",
    ";w=60",
    ";qu=\"content-bytes\"",
    "\"",
    " ",
    "\t",
    "@1795608010",
];

fn value() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(&WORDS[..]).prop_map(|word| word.as_bytes().to_vec());
    let words = prop::collection::vec((word, prop::sample::select(&["", "", ",", ", ", ";"][..])), 0..6);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        words.prop_map(|words| {
            words.into_iter().flat_map(|(word, separator)| [word, separator.into()]).collect::<Vec<_>>().concat()
        }),
    ]
}

fn exchange() -> impl Strategy<Value = Exchange> {
    let lines = prop::collection::vec((0..NAMES.len(), value()), 0..8);
    (any::<u8>(), 0_u8..4, lines).prop_map(|(status, clock, lines)| Exchange::new(status, clock, lines))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_for_any_headers(exchange in exchange()) {
        exchange.check();
    }

    #[test]
    fn invariants_hold_for_any_bytes(data in prop::collection::vec(any::<u8>(), 0..300)) {
        Exchange::from_bytes(&data).check();
    }

    #[test]
    fn plain_response_is_parsed_unchanged(
        limit in 1_u64..1 << 53,
        remaining in 0_u64..1 << 53,
        reset in 0_u64..=31_536_000,
    ) {
        let quota = rules::read(200, &[
            ("x-ratelimit-limit", &limit.to_string()),
            ("x-ratelimit-remaining", &remaining.to_string()),
            ("x-ratelimit-reset", &reset.to_string()),
        ]);
        prop_assert_eq!(quota.limit, Some(limit));
        prop_assert_eq!(quota.remaining, Some(remaining));
        prop_assert_eq!(quota.reset, Some(Duration::from_secs(reset)));
        prop_assert!(quota.errors.is_empty());
    }
}
