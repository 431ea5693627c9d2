//! Cache keys: which requests have the same response.

use std::fmt;
use std::hash::{Hash, Hasher};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::zeroize::Zeroize;
use sha2::{Digest, Sha256};

/// The key of a keyed hash.
pub(super) type MacKey = Hmac<Sha256>;

/// A key of this process.
pub(super) fn random_mac() -> MacKey {
    let mut bytes = [0; 32];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        // The system has no randomness available.
        bytes = std::array::from_fn(|_| fastrand::u8(..));
    }
    MacKey::new_from_slice(&bytes).expect("HMAC accepts keys of any length")
}

/// The parts of a request that its response depends on, as sent.
///
/// Credentials are not part of the key: all keys of an instance see the same responses, so entries survive a key
/// rotation. [`Cache::key`](super::Cache::key) adds the instance.
#[derive(Clone, Copy, Debug, Default)]
pub struct CacheKeyParts<'a> {
    /// Method in upper case.
    pub method: &'a str,
    /// Path, percent-encoded as sent.
    pub path: &'a str,
    /// Query without the question mark; `None` if there is none.
    pub query: Option<&'a str>,
    /// `Accept`.
    pub accept: Option<&'a [u8]>,
    /// `Accept-Encoding`, unless responses are stored decoded.
    pub accept_encoding: Option<&'a [u8]>,
    /// `Clerk-API-Version`.
    pub api_version: Option<&'a [u8]>,
}

impl CacheKeyParts<'_> {
    /// Appends bytes that are equal for requests with the same response, and only for these: a key before its hash.
    pub fn write(&self, text: &mut Vec<u8>) {
        write_part(text, Some(self.method.as_bytes()));
        write_part(text, Some(self.path.as_bytes()));
        write_part(text, self.query.map(|_| b"?".as_slice()));
        match self.query {
            // Most queries have one parameter.
            Some(query) if query.contains('&') => {
                for parameter in sorted(query) {
                    write_part(text, Some(parameter.as_bytes()));
                }
            }
            query => write_part(text, Some(query.unwrap_or_default().as_bytes())),
        }
        write_part(text, self.accept);
        write_part(text, self.accept_encoding);
        write_part(text, self.api_version);
    }
}

fn write_part(text: &mut Vec<u8>, part: Option<&[u8]>) {
    // Length prefixes separate the parts, and distinguish an absent part from an empty one.
    text.extend_from_slice(&part.map_or(u64::MAX, |part| part.len() as u64).to_be_bytes());
    text.extend_from_slice(part.unwrap_or_default());
}

/// The key of a cached response.
///
/// It is a hash, so that personal data in queries (such as e-mail addresses) is neither in Redis nor in memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CacheKey([u8; 32]);

impl CacheKey {
    /// Like [`CacheKey::keyed`], contains the instance.
    pub(super) fn new(instance: &str, parts: &CacheKeyParts<'_>) -> Self {
        let mut text = Vec::with_capacity(512);
        write_part(&mut text, Some(b"answer 1"));
        write_part(&mut text, Some(instance.as_bytes()));
        parts.write(&mut text);
        Self(Sha256::digest(&text).into())
    }

    /// The key of a request that contains a secret.
    pub(super) fn keyed(mac: &MacKey, instance: &str, parts: &[Option<&[u8]>]) -> Self {
        let mut text = Vec::with_capacity(512);
        write_part(&mut text, Some(b"secret 1"));
        write_part(&mut text, Some(instance.as_bytes()));
        for part in parts {
            write_part(&mut text, *part);
        }
        let mut mac = mac.clone();
        mac.update(&text);
        text.zeroize();
        Self(mac.finalize().into_bytes().into())
    }

    /// The key as text, for Redis.
    pub(super) fn to_text(self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }
}

/// Sorts parameters by name. Those with the same name keep their order, which may be significant.
fn sorted(query: &str) -> Vec<&str> {
    let mut parameters: Vec<_> = query.split('&').collect();
    parameters.sort_by(|a, b| name(a).cmp(name(b)));
    parameters
}

fn name(parameter: &str) -> &str {
    parameter.split_once('=').map_or(parameter, |(name, _)| name)
}

/// Part of the SHA-256 suffices, since it is uniform.
impl Hash for CacheKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({})", self.to_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(query: &str) -> CacheKey {
        CacheKey::new(
            "prod",
            &CacheKeyParts { method: "GET", path: "/v1/users", query: Some(query), ..CacheKeyParts::default() },
        )
    }

    #[test]
    fn parameter_order_matters_only_within_a_name() {
        assert_eq!(key("limit=10&offset=0&user_id=a&user_id=b"), key("user_id=a&offset=0&user_id=b&limit=10"));
        assert_ne!(key("user_id=a&user_id=b"), key("user_id=b&user_id=a"));
        // `a` and `a-b` sort by name, whatever their values.
        assert_eq!(key("a=z&a-b=1"), key("a-b=1&a=z"));
    }

    #[test]
    fn different_queries_have_different_keys() {
        let queries = ["", "a", "a=", "a=1", "a=1&", "&a=1", "a=1&a=1", "a=1&b", "a=1%26b", "A=1", "a=1b", "a%3D1"];
        for (index, one) in queries.iter().enumerate() {
            for other in &queries[index + 1..] {
                // Only the order of parameters may be lost.
                let same = { sorted(one) == sorted(other) };
                assert_eq!(key(one) == key(other), same, "{one:?} and {other:?}");
            }
        }
        assert_ne!(key("a=1&"), key("a=1"));
    }

    #[test]
    fn each_part_counts() {
        let base = CacheKeyParts { method: "GET", path: "/v1/users", ..CacheKeyParts::default() };
        let value = Some(&b"x"[..]);
        let others = [
            ("dev", base),
            ("prod", CacheKeyParts { method: "HEAD", ..base }),
            ("prod", CacheKeyParts { path: "/v1/user", ..base }),
            ("prod", CacheKeyParts { query: Some(""), ..base }),
            ("prod", CacheKeyParts { accept: value, ..base }),
            ("prod", CacheKeyParts { accept: Some(b""), ..base }),
            ("prod", CacheKeyParts { accept_encoding: value, ..base }),
            ("prod", CacheKeyParts { api_version: value, ..base }),
        ];
        let mut keys: Vec<_> = others.iter().map(|(instance, parts)| CacheKey::new(instance, parts)).collect();
        keys.push(CacheKey::new("prod", &base));
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), others.len() + 1);
    }

    #[test]
    fn keyed_hash_depends_on_key_instance_and_each_part() {
        let (mac, other) = (random_mac(), random_mac());
        let base = CacheKey::keyed(&mac, "prod", &[Some(b"a"), Some(b"b")]);
        assert_eq!(CacheKey::keyed(&mac, "prod", &[Some(b"a"), Some(b"b")]), base);
        for different in [
            CacheKey::keyed(&other, "prod", &[Some(b"a"), Some(b"b")]),
            CacheKey::keyed(&mac, "dev", &[Some(b"a"), Some(b"b")]),
            CacheKey::keyed(&mac, "prod", &[Some(b"ab"), Some(b"")]),
            CacheKey::keyed(&mac, "prod", &[Some(b"a"), None, Some(b"b")]),
            CacheKey::keyed(&mac, "prod", &[Some(b"b"), Some(b"a")]),
        ] {
            assert_ne!(different, base);
        }
    }

    #[test]
    fn personal_data_of_a_query_is_not_in_the_key() {
        let key = key("email_address=jane%40example.com");
        assert!(!format!("{key:?} {}", key.to_text()).contains("jane"));
    }
}
