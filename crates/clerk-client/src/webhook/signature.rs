//! Verifies signatures of Svix, which delivers Clerk's webhooks.
//!
//! The signed text is `{id}.{timestamp}.{body}`, byte for byte as received, with HMAC-SHA256. The header contains
//! `v1,<base64>` entries separated by spaces. The scheme is that of [Standard
//! Webhooks](https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md). Pure: time is
//! passed in.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::engine::{DecodePaddingMode, Engine};
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;
use sha2::Sha256;

use crate::secret::REDACTED;

/// Headers for id, timestamp and signature: Svix's own, and the unbranded ones of Standard Webhooks.
const HEADER_FAMILIES: [[&str; 3]; 2] =
    [["svix-id", "svix-timestamp", "svix-signature"], ["webhook-id", "webhook-timestamp", "webhook-signature"]];

/// Prefix of signing secrets.
const SECRET_PREFIX: &str = "whsec_";

/// Minimum length of a secret in Standard Webhooks. Svix issues 24 bytes and accepts no shorter ones.
const MIN_SECRET_BYTES: usize = 24;

/// Maximum length of an id. Svix's ids are `msg_` and 27 characters.
const MAX_ID_BYTES: usize = 256;

/// A secret without its trailing `=`, often lost when copied, is accepted; padding carries no information.
const SECRET_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Maximum difference between a delivery's timestamp and the clock, in either direction, inclusive.
///
/// 1 s to 3600 s; 300 s by default, as in Svix's libraries. No value disables the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct Tolerance(u16);

impl Tolerance {
    /// Valid range in seconds.
    pub const RANGE: std::ops::RangeInclusive<i64> = 1..=3600;

    /// Creates a tolerance in seconds.
    ///
    /// # Errors
    ///
    /// Returns an error if `seconds` is not within [`RANGE`](Self::RANGE).
    pub fn from_secs(seconds: i64) -> Result<Self, InvalidTolerance> {
        let refused = InvalidTolerance { seconds };
        if !Self::RANGE.contains(&seconds) {
            return Err(refused);
        }
        u16::try_from(seconds).map(Self).map_err(|_| refused)
    }

    /// Returns the tolerance in seconds.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 as u64
    }

    /// Returns the tolerance as a duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.as_secs())
    }
}

impl Default for Tolerance {
    fn default() -> Self {
        Self(300)
    }
}

impl TryFrom<i64> for Tolerance {
    type Error = InvalidTolerance;

    fn try_from(seconds: i64) -> Result<Self, Self::Error> {
        Self::from_secs(seconds)
    }
}

/// A tolerance outside [`Tolerance::RANGE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("webhook timestamp tolerance {seconds} s is out of range; use 1 to 3600 whole seconds (default: 300)")]
pub struct InvalidTolerance {
    /// The invalid value in seconds.
    pub seconds: i64,
}

/// A parsed signing secret. It is never shown, and wiped from memory when dropped.
#[derive(Clone)]
pub struct SigningSecret(Hmac<Sha256>);

impl SigningSecret {
    /// Parses `whsec_<base64>`; prefix, padding and surrounding white space are optional.
    ///
    /// # Errors
    ///
    /// Returns what is wrong. An undecodable secret is never used as an empty key.
    pub fn parse(text: &str) -> Result<Self, BadSecret> {
        let text = text.trim();
        let encoded = text.strip_prefix(SECRET_PREFIX).unwrap_or(text);
        if encoded.is_empty() {
            return Err(BadSecret::Empty);
        }
        let key = Zeroizing::new(SECRET_BASE64.decode(encoded).map_err(|_| BadSecret::NotBase64)?);
        if key.len() < MIN_SECRET_BYTES {
            return Err(BadSecret::TooShort);
        }
        Hmac::new_from_slice(&key).map(Self).map_err(|_| BadSecret::TooShort)
    }

    /// Returns the signature header of a delivery, `v1,<base64>`, for tests of webhook receivers.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let mac = self.mac(id.as_bytes(), timestamp.to_string().as_bytes(), body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }

    fn mac(&self, id: &[u8], timestamp: &[u8], body: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        for part in [id, b".", timestamp, b".", body] {
            mac.update(part);
        }
        mac
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningSecret({REDACTED})")
    }
}

/// A verified delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified<'a> {
    /// Id of the message, the same in every attempt to deliver it.
    pub id: &'a str,
    /// Index of the first secret that matches.
    pub matched_secret: usize,
}

/// Verifies headers and body of a delivery.
///
/// `body` must contain the bytes as received: reserializing even equal JSON changes the signature. `now` is the wall
/// clock; it and the timestamp count in whole seconds. The secrets are tried in order, and one `v1` entry that matches
/// one of them suffices, so that either side can rotate first. The comparison takes constant time.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
/// use clerk_client::webhook::{SigningSecret, Tolerance, verify};
///
/// let secret = SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")?;
/// let mut headers = http::HeaderMap::new();
/// headers.insert("svix-id", "msg_1".parse()?);
/// headers.insert("svix-timestamp", "1795608000".parse()?);
/// headers.insert("svix-signature", secret.sign("msg_1", 1_795_608_000, b"{}").parse()?);
///
/// let now = UNIX_EPOCH + Duration::from_secs(1_795_608_060);
/// let verified = verify(&[secret], Tolerance::default(), &headers, b"{}", now)?;
/// assert_eq!((verified.id, verified.matched_secret), ("msg_1", 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Returns the first reason to reject the delivery: headers first, then time, then the signature.
pub fn verify<'h>(
    secrets: &[SigningSecret],
    tolerance: Tolerance,
    headers: &'h HeaderMap,
    body: &[u8],
    now: SystemTime,
) -> Result<Verified<'h>, VerifyError> {
    let Signed { id, timestamp, signature_header } = Signed::of(headers)?;
    if secrets.is_empty() {
        return Err(VerifyError::BadSecret(BadSecret::Empty));
    }
    check_time(timestamp, tolerance, now)?;
    let id_text = plausible_id(id).ok_or(VerifyError::BadSignature)?;
    let candidates: Vec<Vec<u8>> = headers
        .get_all(signature_header)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b' '))
        .filter_map(|entry| STANDARD.decode(entry.strip_prefix(b"v1,")?).ok())
        .collect();
    let fits = |secret: &SigningSecret| {
        let mac = secret.mac(id, timestamp, body);
        candidates.iter().any(|candidate| mac.clone().verify_slice(candidate).is_ok())
    };
    match secrets.iter().position(fits) {
        Some(matched_secret) => Ok(Verified { id: id_text, matched_secret }),
        None => Err(VerifyError::BadSignature),
    }
}

/// The signed headers, all of one naming scheme.
struct Signed<'h> {
    id: &'h [u8],
    timestamp: &'h [u8],
    signature_header: &'static str,
}

impl<'h> Signed<'h> {
    fn of(headers: &'h HeaderMap) -> Result<Self, VerifyError> {
        let value = |name: &str| headers.get(name).map(|value| value.as_bytes()).filter(|value| !value.is_empty());
        for [id, timestamp, signature_header] in HEADER_FAMILIES {
            if let (Some(id), Some(timestamp), Some(_)) = (value(id), value(timestamp), value(signature_header)) {
                return Ok(Self { id, timestamp, signature_header });
            }
        }
        // Reports a header missing from the scheme that is partly present.
        let begun = HEADER_FAMILIES.iter().find(|family| family.iter().any(|name| value(name).is_some()));
        let family = begun.unwrap_or(&HEADER_FAMILIES[0]);
        let name = family.iter().copied().find(|name| value(name).is_none()).unwrap_or(family[0]);
        Err(VerifyError::MissingHeader(name))
    }
}

fn check_time(timestamp: &[u8], tolerance: Tolerance, now: SystemTime) -> Result<(), VerifyError> {
    if !timestamp.iter().all(u8::is_ascii_digit) {
        return Err(VerifyError::BadTimestamp);
    }
    // A number beyond u64 is far in the future, not unreadable.
    let sent = timestamp
        .iter()
        .fold(0_u64, |seconds, digit| seconds.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let tolerance = tolerance.as_secs();
    if now.saturating_sub(sent) > tolerance {
        return Err(VerifyError::TooOld { seconds: now - sent, tolerance });
    }
    if sent.saturating_sub(now) > tolerance {
        return Err(VerifyError::TooNew { seconds: sent - now, tolerance });
    }
    Ok(())
}

/// The id as text, if valid: visible ASCII without a full stop.
///
/// Standard Webhooks forbids the full stop, which separates the signed parts. With it, one signature would match
/// several ways of splitting the same bytes into id, timestamp and body.
fn plausible_id(id: &[u8]) -> Option<&str> {
    let is_plausible = id.len() <= MAX_ID_BYTES && id.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.');
    if is_plausible { std::str::from_utf8(id).ok() } else { None }
}

/// Why a delivery is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// One of the three headers is missing or empty.
    #[error("missing header {0}; this endpoint accepts Clerk's webhooks only")]
    MissingHeader(&'static str),
    /// The timestamp is not a number.
    #[error("the timestamp is not a UNIX time in whole seconds")]
    BadTimestamp,
    /// The delivery was sent too long ago.
    #[error("sent {seconds} s ago, more than the allowed {tolerance} s; check the clocks of both sides")]
    TooOld {
        /// Its age in seconds.
        seconds: u64,
        /// The allowed age in seconds.
        tolerance: u64,
    },
    /// The delivery's timestamp is too far ahead.
    #[error("sent {seconds} s in the future, more than the allowed {tolerance} s; check the clocks of both sides")]
    TooNew {
        /// How far ahead, in seconds.
        seconds: u64,
        /// The allowed distance in seconds.
        tolerance: u64,
    },
    /// No `v1` entry matches any of the secrets.
    #[error(
        "no signature matches; check that the signing secret is that of this endpoint (Clerk dashboard, Webhooks) \
         and that no proxy changes the body"
    )]
    BadSignature,
    /// No usable secret is configured: a fault of the receiver, not the sender.
    #[error("no usable signing secret is configured: {0}")]
    BadSecret(BadSecret),
}

impl VerifyError {
    /// Returns the reason as a label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MissingHeader(_) => "missing_header",
            Self::BadTimestamp => "bad_timestamp",
            Self::TooOld { .. } => "too_old",
            Self::TooNew { .. } => "too_new",
            Self::BadSignature => "bad_signature",
            Self::BadSecret(_) => "bad_secret",
        }
    }
}

impl From<BadSecret> for VerifyError {
    fn from(fault: BadSecret) -> Self {
        Self::BadSecret(fault)
    }
}

/// What is wrong with a signing secret. No variant contains any part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadSecret {
    /// The secret is empty, or only the prefix.
    #[error("is empty; use the endpoint's signing secret (Clerk dashboard, Webhooks)")]
    Empty,
    /// The text after the prefix is not base64.
    #[error("is not `whsec_` and base64; copy the endpoint's signing secret again (Clerk dashboard, Webhooks)")]
    NotBase64,
    /// Shorter than any secret of Svix.
    #[error(
        "decodes to fewer than {MIN_SECRET_BYTES} bytes; copy the whole signing secret (Clerk dashboard, Webhooks)"
    )]
    TooShort,
}
