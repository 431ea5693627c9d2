//! Secrets: their sources, the format of Clerk's keys, and how they stay out of all output.
//!
//! - [`Secret`] is text that cannot be printed by accident.
//! - [`ClerkKey`] is a validated Clerk secret key.
//! - [`SecretSource`] is a file, an environment variable or an inline value.
//! - [`SecretScanner`] finds secrets in untrusted text, in common encodings.
//! - [`KeySource`] is a source with the key last read from it, for rotation at runtime.
//!
//! Only [`Secret::expose`] (easy to search for) and [`ClerkKey::authorization_header`] return the text. This module
//! depends on no other module of the crate.

mod clerk_key;
mod key_source;
mod scan;
mod source;

pub use clerk_key::ClerkKey;
pub use key_source::KeySource;
pub use scan::{SecretScanner, base64_decoded, percent_decoded};
pub use source::{EnvLookup, SecretError, SecretFault, SecretSource, io_reason, process_env};

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, Serializer};

/// Printed in place of a secret, as in Prometheus' own exporters.
pub const REDACTED: &str = "<secret>";

/// Text that must never be shown.
///
/// `Debug`, `Display` and `Serialize` write [`REDACTED`], so that a log line or status page cannot leak it. The
/// memory is wiped on drop.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps `text`. Copies it only if its allocation has spare capacity.
    pub fn new(text: String) -> Self {
        Self(SecretString::from(text))
    }

    /// Returns the secret text. Every call can leak it, so keep calls few.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text.to_owned())
    }
}

impl Secret {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.expose().len()
    }

    /// Whether the text is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Compares with a presented secret, in constant time for texts of equal length.
    #[must_use]
    pub fn is(&self, presented: &[u8]) -> bool {
        verify_slices_are_equal(self.expose().as_bytes(), presented).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

/// Compares the texts, to detect a rotation.
///
/// Not constant-time: use [`Secret::is`] to check a presented secret.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

/// Whether `text` contains something like a Clerk key (`sk_`, `pk_`, `ak_`) or a webhook secret (`whsec_`).
///
/// For text that users may paste a secret into by mistake, such as a file name, a variable name or an alias. Messages
/// must not repeat such text.
pub fn looks_like_secret(text: &str) -> bool {
    const MARKS: [&str; 7] = ["sk_live_", "sk_test_", "pk_live_", "pk_test_", "ak_live_", "ak_test_", "whsec_"];
    let lower = text.to_ascii_lowercase();
    MARKS.iter().any(|mark| lower.contains(mark)) || lower.starts_with("sk_") || lower.starts_with("pk_")
}

/// [`looks_like_secret`] for file names, where `/run/secrets/sk_live_prod` is a name and not a key.
///
/// Keys contain no slash and end in about 40 letters and digits.
pub fn looks_like_secret_path(path: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric();
    looks_like_secret(path) && (!path.contains(['/', '\\']) || path.split(|c| !is_word(c)).any(|word| word.len() >= 16))
}

/// Whether text in place of a name may be another secret: a URL, which may contain a password, or a long random word.
///
/// Only for deciding what messages repeat, because names can match too.
pub fn may_be_secret(text: &str) -> bool {
    let is_random = |word: &str| {
        word.len() >= 16
            && word.contains(|c: char| c.is_ascii_digit())
            && word.contains(|c: char| c.is_ascii_alphabetic())
    };
    text.contains("://") || text.contains('@') || text.split(|c: char| !c.is_ascii_alphanumeric()).any(is_random)
}

/// Key prefixes. A prefix alone is not secret: messages name the expected one.
const PREFIXES: [&str; 6] = ["sk_live_", "sk_test_", "pk_live_", "pk_test_", "pk_", "whsec_"];

/// Replaces every word that [looks like a key](looks_like_secret_path), for messages that repeat user input.
pub fn mask_secrets(text: &str) -> String {
    let is_border = |c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '`' | '=' | ':' | ',' | ';' | '(' | ')');
    let words = text.split_inclusive(is_border).map(|word| {
        let bare = word.trim_end_matches(is_border);
        let is_secret = looks_like_secret_path(bare) && !PREFIXES.contains(&bare);
        if is_secret { format!("{REDACTED}{}", &word[bare.len()..]) } else { word.to_owned() }
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_redacted_in_every_format() {
        let secret = Secret::new("sk_live_CANARY".to_owned());
        assert_eq!(
            format!("{secret} {secret:?} {secret:#?} {:?}", Some(&secret)),
            "<secret> <secret> <secret> Some(<secret>)"
        );
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"<secret>\"");
        assert_eq!(secret.expose(), "sk_live_CANARY");
    }

    #[test]
    fn keys_are_masked_in_messages() {
        let message = "unexpected argument 'sk_live_CANARY', not --key=sk_test_CANARY\n file /run/secrets/sk_live_prod";
        let masked = "unexpected argument '<secret>', not --key=<secret>\n file /run/secrets/sk_live_prod";
        assert_eq!(mask_secrets(message), masked);
        for plain in
            ["no key, no change\n", "a publishable key (pk_); use one that begins with `sk_live_` or `sk_test_`"]
        {
            assert_eq!(mask_secrets(plain), plain);
        }
    }

    #[test]
    fn pasted_keys_are_detected_in_names_and_paths() {
        for text in ["sk_live_abc", "SK_TEST_abc", "/run/secrets/sk_live_abc", "pk_test_x", "whsec_abc", "sk_abc"] {
            assert!(looks_like_secret(text), "{text}");
        }
        assert!(looks_like_secret_path("sk_live_abc"));
        assert!(looks_like_secret_path("/run/secrets/sk_live_4bMbJyWZ2vnLx0aQ"));
        assert!(!looks_like_secret_path("/run/secrets/sk_live_prod"));
        for text in ["prod", "CLERK_SECRET_KEY", "/run/secrets/clerk_prod", "desk_live", "task_list"] {
            assert!(!looks_like_secret(text) && !may_be_secret(text), "{text}");
        }
        for text in [
            "redis://:hunter2@redis:6379",
            "user:hunter2@redis",
            "8f14e45fceea167a5a36dedd4bea2543",
            "/8f14e45fceea167a",
            "import-0123456789abcdef-x",
        ] {
            assert!(may_be_secret(text), "{text}");
        }
    }
}
