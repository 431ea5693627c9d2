//! The shared vectors: genuine and forged deliveries with the expected results.

use std::time::SystemTime;

use clerk_client::webhook::{SeenDeliveries, SigningSecret, Tolerance, VerifyError, verify};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use tokio::time::Instant;

#[derive(Deserialize)]
struct Vector {
    id: String,
    why: String,
    secrets: Vec<String>,
    tolerance_seconds: Tolerance,
    now: String,
    headers: Vec<(String, String)>,
    body: String,
    #[serde(default)]
    seen_ids: Vec<String>,
    expect: Expected,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    valid: bool,
    error: Option<String>,
    matched_secret: Option<usize>,
    duplicate: bool,
}

fn run(vector: &Vector) -> Expected {
    let mut headers = HeaderMap::new();
    for (name, value) in &vector.headers {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let now: SystemTime = chrono::DateTime::parse_from_rfc3339(&vector.now).unwrap().into();
    let mut seen = SeenDeliveries::new(vector.tolerance_seconds);
    for id in &vector.seen_ids {
        seen.insert(id, Instant::now());
    }
    let secrets: Result<Vec<_>, _> = vector.secrets.iter().map(|secret| SigningSecret::parse(secret)).collect();
    let verified = secrets
        .map_err(VerifyError::from)
        .and_then(|secrets| verify(&secrets, vector.tolerance_seconds, &headers, vector.body.as_bytes(), now));
    match verified {
        Ok(verified) => Expected {
            valid: true,
            error: None,
            matched_secret: Some(verified.matched_secret),
            duplicate: seen.contains(verified.id, Instant::now()),
        },
        Err(error) => {
            Expected { valid: false, error: Some(error.as_str().to_owned()), matched_secret: None, duplicate: false }
        }
    }
}

#[test]
fn every_vector_gives_the_expected_result() {
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("../data/webhooks.json")).unwrap();
    assert_eq!(vectors.len(), 40);
    for vector in &vectors {
        assert_eq!(run(vector), vector.expect, "{}: {}", vector.id, vector.why);
    }
}

#[test]
fn tolerance_that_disables_the_check_is_rejected() {
    for seconds in ["0", "-1", "3601", "null", "\"300\"", "1.5", "1e400", "9223372036854775807"] {
        assert!(serde_json::from_str::<Tolerance>(seconds).is_err(), "{seconds}");
    }
    for seconds in [1, 300, 3600] {
        assert_eq!(Tolerance::from_secs(seconds).unwrap().as_secs(), seconds.unsigned_abs());
    }
    assert!(Tolerance::from_secs(0).unwrap_err().to_string().contains("1 to 3600"));
}

#[test]
fn invalid_signing_secret_is_rejected_and_not_shown() {
    let cases = [
        ("", "is empty"),
        ("whsec_", "is empty"),
        (" \n", "is empty"),
        ("sk_live_CANARYabcdefghijklmnopqrstuv", "is not `whsec_` and base64"),
        ("whsec_CANARY*", "is not `whsec_` and base64"),
        ("whsec_CANARYCANARY", "fewer than 24 bytes"),
    ];
    for (text, expected) in cases {
        let error = SigningSecret::parse(text).unwrap_err();
        assert!(error.to_string().contains(expected), "{text:?}: {error}");
        assert!(!format!("{error} {error:?}").contains("CANARY"));
    }
}

#[test]
fn secret_without_padding_is_accepted() {
    let with = SigningSecret::parse("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODk=").unwrap();
    let without = SigningSecret::parse("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODk").unwrap();
    assert_eq!(with.sign("msg_1", 1, b"x"), without.sign("msg_1", 1, b"x"));
}

/// `a.1.b` could be split differently from what its signer meant.
#[test]
fn an_id_with_a_full_stop_never_verifies() {
    let secret = SigningSecret::parse(super::support::SECRET).unwrap();
    let mut headers = super::support::signed_headers(super::support::SECRET, "msg_1.2", super::support::NOW, b"{}");
    let now = super::support::now();
    let verified = verify(std::slice::from_ref(&secret), Tolerance::default(), &headers, b"{}", now);
    assert_eq!(verified, Err(VerifyError::BadSignature));
    headers.insert("svix-id", HeaderValue::from_static(""));
    assert_eq!(
        verify(&[secret], Tolerance::default(), &headers, b"{}", now),
        Err(VerifyError::MissingHeader("svix-id"))
    );
}

#[test]
fn timestamp_beyond_u64_is_too_new() {
    let secret = SigningSecret::parse(super::support::SECRET).unwrap();
    let mut headers = super::support::signed_headers(super::support::SECRET, "msg_1", super::support::NOW, b"{}");
    for (timestamp, expected) in [
        ("99999999999999999999999999", "too_new"),
        ("0", "too_old"),
        ("-1", "bad_timestamp"),
        ("+1795608000", "bad_timestamp"),
        ("1795608000.0", "bad_timestamp"),
        ("0x6b06", "bad_timestamp"),
    ] {
        headers.insert("svix-timestamp", HeaderValue::from_static(timestamp));
        let now = super::support::now();
        let error = verify(std::slice::from_ref(&secret), Tolerance::default(), &headers, b"{}", now).unwrap_err();
        assert_eq!(error.as_str(), expected, "{timestamp}");
    }
}

#[test]
fn verification_without_secrets_fails() {
    let headers = super::support::signed_headers(super::support::SECRET, "msg_1", super::support::NOW, b"{}");
    let error = verify(&[], Tolerance::default(), &headers, b"{}", super::support::now()).unwrap_err();
    assert_eq!(error.as_str(), "bad_secret");
}
