//! A validated Clerk secret key.

use std::collections::HashMap;
use std::fmt;

use http::HeaderValue;

use super::{Secret, SecretFault};
use clerk_quota::Environment;

/// The prefixes of Clerk's secret keys, as documented by Clerk.
const LIVE_PREFIX: &str = "sk_live_";
const TEST_PREFIX: &str = "sk_test_";

/// The prefix of machine secret keys, with which machines create and verify M2M tokens.
const MACHINE_PREFIX: &str = "ak_";

/// A validated secret key of Clerk's Backend API.
///
/// It has a known prefix, is not a placeholder, and contains only visible ASCII: with a line break, the HTTP library
/// would reject the header, and some libraries print rejected headers.
#[derive(Clone)]
pub struct ClerkKey {
    secret: Secret,
    environment: Environment,
    is_machine: bool,
    /// Built once, so that sending the key neither fails nor allocates.
    authorization: HeaderValue,
}

impl ClerkKey {
    /// Validates `secret`, which [`SecretSource`](super::SecretSource) has already trimmed.
    ///
    /// # Errors
    ///
    /// Returns an error if Clerk would reject the key. The error never contains the key or a part of it.
    pub fn parse(secret: Secret) -> Result<Self, SecretFault> {
        let environment = |text: &str| {
            if text.starts_with(LIVE_PREFIX) {
                Ok(Environment::Production)
            } else if text.starts_with(TEST_PREFIX) {
                Ok(Environment::Development)
            } else if text.starts_with(MACHINE_PREFIX) {
                Err(SecretFault::MachineKey)
            } else {
                Err(SecretFault::NotASecretKey)
            }
        };
        Self::checked(secret, environment)
    }

    /// Validates a machine secret key (`ak_`). Its environment is [`Environment::Unknown`].
    ///
    /// # Errors
    ///
    /// Returns an error if Clerk would reject the key. The error never contains the key or a part of it.
    pub fn parse_machine(secret: Secret) -> Result<Self, SecretFault> {
        let environment = |text: &str| {
            let is_machine = text.starts_with(MACHINE_PREFIX);
            is_machine.then_some(Environment::Unknown).ok_or(SecretFault::NotAMachineKey)
        };
        Self::checked(secret, environment).map(|key| Self { is_machine: true, ..key })
    }

    fn checked(
        secret: Secret,
        environment: impl FnOnce(&str) -> Result<Environment, SecretFault>,
    ) -> Result<Self, SecretFault> {
        let text = secret.expose();
        if text.is_empty() {
            return Err(SecretFault::Empty);
        }
        if is_wrapped_in_quotes(text) {
            return Err(SecretFault::Quoted);
        }
        if text.to_ascii_lowercase().starts_with("bearer ") {
            return Err(SecretFault::BearerPrefix);
        }
        if text.starts_with("pk_") {
            return Err(SecretFault::Publishable);
        }
        if is_placeholder(text) {
            return Err(SecretFault::Placeholder);
        }
        if let Some((position, what)) = illegal_byte(text.as_bytes()) {
            return Err(SecretFault::IllegalByte { position, what });
        }
        let environment = environment(text)?;
        let mut authorization =
            HeaderValue::from_str(&format!("Bearer {text}")).map_err(|_| SecretFault::NotASecretKey)?;
        authorization.set_sensitive(true);
        Ok(Self { secret, environment, is_machine: false, authorization })
    }

    /// Returns the environment by the key's prefix; [`Environment::Unknown`] for a machine key.
    pub const fn environment(&self) -> Environment {
        self.environment
    }

    /// Whether this is a machine key. Responses may depend on the machine.
    pub const fn is_machine(&self) -> bool {
        self.is_machine
    }

    /// Returns the `Authorization` header's value, `Bearer <key>`.
    ///
    /// It is marked as sensitive, so that `Debug` hides it and HTTP/2 does not index it.
    pub fn authorization_header(&self) -> HeaderValue {
        self.authorization.clone()
    }

    /// Returns the key as a secret, for comparisons.
    pub const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Returns the duplicates as pairs of indices: first occurrence, duplicate.
    pub fn repeated<'a>(keys: impl IntoIterator<Item = &'a Self>) -> Vec<(usize, usize)> {
        let (mut seen, mut repeated) = (HashMap::new(), Vec::new());
        for (index, key) in keys.into_iter().enumerate() {
            let first = *seen.entry(key.secret.expose()).or_insert(index);
            if first != index {
                repeated.push((first, index));
            }
        }
        repeated
    }
}

impl fmt::Debug for ClerkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClerkKey")
            .field("secret", &self.secret)
            .field("environment", &self.environment)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for ClerkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.secret.fmt(f)
    }
}

impl PartialEq for ClerkKey {
    fn eq(&self, other: &Self) -> bool {
        self.secret == other.secret
    }
}

impl Eq for ClerkKey {}

/// Returns the 1-based position and the kind of the first byte that is not allowed in a key.
///
/// Stricter than header values: Clerk's keys contain no spaces.
pub(super) fn illegal_byte(bytes: &[u8]) -> Option<(usize, &'static str)> {
    bytes.iter().enumerate().find_map(|(index, byte)| {
        let what = match byte {
            b'!'..=b'~' => return None,
            b'\n' => "a line break",
            b'\r' => "a carriage return",
            b'\t' => "a tab",
            b' ' => "a space",
            0 => "a NUL byte",
            0x80.. => "a character outside ASCII",
            _ => "a control character",
        };
        Some((index + 1, what))
    })
}

/// Whether quotes of a shell or of a `.env` file became part of the value: `"sk_..."`.
fn is_wrapped_in_quotes(text: &str) -> bool {
    ['"', '\'', '`'].iter().any(|&quote| text.starts_with(quote) || text.ends_with(quote))
}

/// Whether this is an example value copied from documentation or a template.
///
/// A random key must not match by chance. Keys are about 40 letters and digits, so short words need a separator.
fn is_placeholder(text: &str) -> bool {
    const WORDS: [&str; 10] =
        ["changeme", "change-me", "change_me", "your-", "your_", "placeholder", "replace_", "replace-", "<", ">"];
    let lower = text.to_ascii_lowercase();
    if lower.contains("...") || lower.contains('…') || lower.contains("***") || lower.contains("${") {
        return true;
    }
    if WORDS.iter().any(|word| lower.contains(word)) {
        return true;
    }
    let prefixes = [LIVE_PREFIX, TEST_PREFIX, MACHINE_PREFIX];
    let body = prefixes.iter().find_map(|prefix| lower.strip_prefix(prefix));
    body.is_some_and(|body| body.bytes().all(|byte| Some(byte) == body.bytes().next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ClerkKey, SecretFault> {
        ClerkKey::parse(Secret::new(text.to_owned()))
    }

    #[test]
    fn environment_follows_from_the_prefix() {
        let live = parse("sk_live_4bMbJyWZ2vnLx0aQ").unwrap();
        let test = parse("sk_test_4bMbJyWZ2vnLx0aQ").unwrap();
        assert_eq!(live.environment(), Environment::Production);
        assert_eq!(test.environment(), Environment::Development);
        assert_ne!(live, test);
    }

    #[test]
    fn authorization_header_is_sensitive_and_complete() {
        let header = parse("sk_test_4bMbJyWZ2vnLx0aQ").unwrap().authorization_header();
        assert!(header.is_sensitive());
        assert_eq!(header, "Bearer sk_test_4bMbJyWZ2vnLx0aQ");
        assert_eq!(format!("{header:?}"), "Sensitive");
    }

    #[test]
    fn invalid_key_is_rejected_with_the_reason() {
        let position = |position, what| SecretFault::IllegalByte { position, what };
        let cases = [
            ("", SecretFault::Empty),
            ("\"sk_test_abc\"", SecretFault::Quoted),
            ("'sk_test_abc", SecretFault::Quoted),
            ("Bearer sk_test_abc", SecretFault::BearerPrefix),
            ("pk_test_abcdef", SecretFault::Publishable),
            ("pk_live_...", SecretFault::Publishable),
            ("sk_test_...", SecretFault::Placeholder),
            ("sk_test_…", SecretFault::Placeholder),
            ("sk_live_xxx", SecretFault::Placeholder),
            ("sk_live_XXXXXXXXXXXXX", SecretFault::Placeholder),
            ("sk_live_", SecretFault::Placeholder),
            ("sk_test_************", SecretFault::Placeholder),
            ("sk_test_your_key", SecretFault::Placeholder),
            ("your-key", SecretFault::Placeholder),
            ("<secret>", SecretFault::Placeholder),
            ("changeme", SecretFault::Placeholder),
            ("${CLERK_SECRET_KEY}", SecretFault::Placeholder),
            ("sk_test_ab\ncd", position(11, "a line break")),
            ("sk_test_ab\r\ncd", position(11, "a carriage return")),
            ("sk_test_a b", position(10, "a space")),
            ("sk_test_a\tb", position(10, "a tab")),
            ("sk_test_a\0b", position(10, "a NUL byte")),
            ("sk_test_a\u{7f}b", position(10, "a control character")),
            ("sk_test_aéb", position(10, "a character outside ASCII")),
            ("hunter2", SecretFault::NotASecretKey),
            ("SK_LIVE_abc", SecretFault::NotASecretKey),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).err().as_ref(), Some(&expected), "{text:?}");
        }
    }

    #[test]
    fn machine_keys_and_instance_keys_are_distinguished() {
        let machine = |text: &str| ClerkKey::parse_machine(Secret::new(text.to_owned()));
        let key = machine("ak_4bMbJyWZ2vnLx0aQ").unwrap();
        assert!(key.is_machine() && !parse("sk_test_4bMbJyWZ2vnLx0aQ").unwrap().is_machine());
        assert_eq!(key.environment(), Environment::Unknown);
        assert_eq!(key.authorization_header(), "Bearer ak_4bMbJyWZ2vnLx0aQ");
        assert_eq!(parse("ak_4bMbJyWZ2vnLx0aQ").err(), Some(SecretFault::MachineKey));
        for (text, expected) in [
            ("sk_test_4bMbJyWZ2vnLx0aQ", SecretFault::NotAMachineKey),
            ("pk_test_abc", SecretFault::Publishable),
            ("ak_", SecretFault::Placeholder),
            ("ak_xxxx", SecretFault::Placeholder),
            ("", SecretFault::Empty),
        ] {
            assert_eq!(machine(text).err().as_ref(), Some(&expected), "{text:?}");
        }
    }

    #[test]
    fn key_is_never_printed() {
        let key = parse("sk_test_CANARY123").unwrap();
        assert!(!format!("{key} {key:?} {key:#?}").contains("CANARY"));
    }
}
