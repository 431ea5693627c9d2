//! Secret text: where it comes from, what a Clerk key must look like, and how it is kept out of everything we print.
//!
//! - [`Secret`] is text that cannot be printed by accident.
//! - [`ClerkKey`] is a secret that was checked to be a Clerk secret key.
//! - [`SecretSource`] says where a secret is kept (file, environment variable, configuration file).
//! - [`SecretScanner`] finds secrets in texts that others send, in whatever spelling.
//! - [`KeySource`] is a source together with the key last read from it: keys rotate while we run.
//!
//! The text leaves this room by two doors only: [`Secret::expose`], which is easy to search for, and
//! [`ClerkKey::authorization_header`]. This room uses no other room.

mod clerk_key;
mod key_source;
mod scan;
mod source;

pub use clerk_key::ClerkKey;
pub use key_source::KeySource;
pub use scan::{SecretScanner, base64_decoded, percent_decoded};
pub use source::{EnvLookup, SecretError, SecretFault, SecretSource, process_env};

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, Serializer};

/// What is printed in place of a secret, as Prometheus' own exporters print it.
pub const REDACTED: &str = "<secret>";

/// Text that must never be shown.
///
/// `Debug`, `Display` and `Serialize` give [`REDACTED`], so that a new log line or status page cannot leak it. The
/// memory is wiped when the value is dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes over `text`. Its allocation becomes the secret's; nothing is copied unless it has spare capacity.
    pub fn new(text: String) -> Self {
        Self(SecretString::from(text))
    }

    /// The secret text itself. Every call is a place where it could leak: keep them few.
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
    /// Length in bytes, which alone says little.
    #[must_use]
    pub fn len(&self) -> usize {
        self.expose().len()
    }

    /// Whether there is no text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this is what somebody presents. Takes the same time for every text of the same length.
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

/// Compares the texts, to see whether a key was rotated.
///
/// The time it takes depends on the texts: do not use it to check a secret that somebody sent us.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

/// Whether `text` contains what looks like a key of Clerk's (`sk_`, `pk_`, `ak_`) or a webhook secret (`whsec_`).
///
/// For text that is not supposed to be secret but that people paste secrets into: a file name, the name of a variable,
/// an alias. What looks like a secret is not repeated in messages.
pub fn looks_like_secret(text: &str) -> bool {
    const MARKS: [&str; 7] = ["sk_live_", "sk_test_", "pk_live_", "pk_test_", "ak_live_", "ak_test_", "whsec_"];
    let lower = text.to_ascii_lowercase();
    MARKS.iter().any(|mark| lower.contains(mark)) || lower.starts_with("sk_") || lower.starts_with("pk_")
}

/// [`looks_like_secret`] for names of files, where `/run/secrets/sk_live_prod` is a name and no key.
///
/// Keys have no slash and end in some 40 letters and digits.
pub fn looks_like_secret_path(path: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric();
    looks_like_secret(path) && (!path.contains(['/', '\\']) || path.split(|c| !is_word(c)).any(|word| word.len() >= 16))
}

/// Whether a text that stands where a name belongs may be a secret of some other kind: an address, which may hold a
/// password, or a long word of letters and digits.
///
/// For what messages repeat, and no more: names may look like that, too.
pub fn may_be_secret(text: &str) -> bool {
    let is_random = |word: &str| {
        word.len() >= 16
            && word.contains(|c: char| c.is_ascii_digit())
            && word.contains(|c: char| c.is_ascii_alphabetic())
    };
    text.contains("://") || text.contains('@') || text.split(|c: char| !c.is_ascii_alphanumeric()).any(is_random)
}

/// What keys begin with. Alone they are no secret: messages say which one is wanted.
const PREFIXES: [&str; 6] = ["sk_live_", "sk_test_", "pk_live_", "pk_test_", "pk_", "whsec_"];

/// `text` with every word that [looks like a key](looks_like_secret_path) replaced, for messages that repeat what
/// somebody typed.
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
    fn a_secret_prints_as_a_placeholder_in_every_form() {
        let secret = Secret::new("sk_live_CANARY".to_owned());
        assert_eq!(
            format!("{secret} {secret:?} {secret:#?} {:?}", Some(&secret)),
            "<secret> <secret> <secret> Some(<secret>)"
        );
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"<secret>\"");
        assert_eq!(secret.expose(), "sk_live_CANARY");
    }

    #[test]
    fn keys_are_taken_out_of_messages() {
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
    fn pasted_keys_are_recognised_in_text_that_is_not_meant_to_be_secret() {
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
