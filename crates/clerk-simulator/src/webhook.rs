//! Signs events as Svix signs Clerk's webhooks, and counts their deliveries.
//!
//! The scheme is that of [Standard
//! Webhooks](https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md): HMAC-SHA256 of
//! `{id}.{timestamp}.{body}`.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;

use super::clock::since_epoch;
use super::events::SimulatedEvent;
use super::options::ParseOptionError;

const PREFIX: &str = "whsec_";

/// Svix issues 24 bytes and accepts up to 75.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=75;

/// A secret that lost its trailing `=` is the same secret.
const SECRET_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A signing secret, `whsec_…`. `Debug` does not show it.
#[derive(Clone)]
pub struct WebhookSecret(Vec<u8>);

impl FromStr for WebhookSecret {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The message does not repeat the text, because it is a secret.
        let bytes = text.strip_prefix(PREFIX).and_then(|rest| SECRET_BASE64.decode(rest).ok());
        bytes.filter(|bytes| SECRET_BYTES.contains(&bytes.len())).map(Self).ok_or_else(|| {
            ParseOptionError::new("not a webhook secret: write whsec_ and 24 to 75 bytes in base64, as Clerk shows it")
        })
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(<secret>)")
    }
}

impl SimulatedEvent {
    /// Returns the headers that an attempt at the time `at` has beside `Content-Type: application/json`.
    #[must_use]
    pub fn signature_headers(&self, secret: &WebhookSecret, at: SystemTime) -> [(&'static str, String); 3] {
        let timestamp = since_epoch(at).as_secs().to_string();
        let mut signature = String::from("v1,");
        // HMAC takes keys of any length.
        if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&secret.0) {
            for part in [self.id.as_bytes(), b".", timestamp.as_bytes(), b".", &self.body] {
                mac.update(part);
            }
            signature.push_str(&STANDARD.encode(mac.finalize().into_bytes()));
        }
        [("svix-id", self.id.clone()), ("svix-timestamp", timestamp), ("svix-signature", signature)]
    }
}

/// What became of an attempt to deliver a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeliveryOutcome {
    /// The receiver responded with a 2xx.
    Delivered,
    /// The receiver did not respond, or not with a 2xx. Another attempt follows.
    FailedAttempt,
    /// The last attempt failed.
    GivenUp,
    /// The event was never sent, because deliveries were too far behind.
    Lost,
}

/// Webhooks of a simulator since its start. In JSON as in `GET /_simulator/`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Deliveries {
    /// Delivered events.
    pub delivered: u64,
    /// Attempts that failed, without the last ones of [`Self::given_up`].
    pub failed_attempts: u64,
    /// Events whose last attempt failed.
    pub given_up: u64,
    /// Events that were never sent.
    pub lost: u64,
}

impl Deliveries {
    pub(super) fn count(&mut self, outcome: DeliveryOutcome) {
        *match outcome {
            DeliveryOutcome::Delivered => &mut self.delivered,
            DeliveryOutcome::FailedAttempt => &mut self.failed_attempts,
            DeliveryOutcome::GivenUp => &mut self.given_up,
            DeliveryOutcome::Lost => &mut self.lost,
        } += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use bytes::Bytes;

    use super::*;

    fn event() -> SimulatedEvent {
        SimulatedEvent {
            id: "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned(),
            instance: "dev".to_owned(),
            kind: "user.created",
            entity: "user_1".to_owned(),
            body: Bytes::from_static(br#"{"test": 2432232314}"#),
        }
    }

    #[test]
    fn secrets_are_checked_and_not_shown() {
        for wrong in ["", "whsec_", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!"] {
            let error = wrong.parse::<WebhookSecret>().unwrap_err().to_string();
            assert!(error.contains("whsec_ and 24"), "{error}");
        }
        let secret: WebhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        assert_eq!(format!("{secret:?}"), "WebhookSecret(<secret>)");
    }

    #[test]
    fn signature_is_that_of_svix_libraries() {
        let secret: WebhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let at = UNIX_EPOCH + Duration::from_secs(1_614_265_330);
        let [(_, id), (_, timestamp), (_, signature)] = event().signature_headers(&secret, at);
        assert_eq!((id.as_str(), timestamp.as_str()), ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330"));
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
