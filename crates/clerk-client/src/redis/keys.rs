//! Names of keys and channels; all of them are created here.
//!
//! `<prefix>{<instance>}:v<schema>:<part>:<part>…`. The braces are a hash tag: all keys of an instance share a slot, as
//! scripts with several keys require. The schema version covers values and messages, so that versions with different
//! schemas can share a server.

use std::fmt::Write as _;

use super::RedisConfigError;

/// Schema version of keys, values and messages. To be incremented whenever an earlier version would misread them.
pub const SCHEMA_VERSION: u32 = 2;

/// Creates the names of an instance's keys and channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceKeys {
    root: String,
}

/// The name of a key, without [`RedisOptions::prefix`](super::RedisOptions::prefix).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RedisKey(String);

/// The name of a channel, without the prefix.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RedisChannel(String);

impl InstanceKeys {
    /// Creates the names for an instance. All processes must use the same instance name, which may be any text.
    #[must_use]
    pub fn new(instance: &str) -> Self {
        // Redis ignores an empty hash tag; `%` alone is not the encoding of any other name.
        let tag = if instance.is_empty() { "%".to_owned() } else { encoded(instance) };
        Self { root: format!("{{{tag}}}:v{SCHEMA_VERSION}") }
    }

    /// Returns the key for these parts. Different parts give different keys, whatever characters they contain.
    #[must_use]
    pub fn key(&self, parts: &[&str]) -> RedisKey {
        RedisKey(self.name(parts))
    }

    /// Returns the channel for these parts.
    #[must_use]
    pub fn channel(&self, parts: &[&str]) -> RedisChannel {
        RedisChannel(self.name(parts))
    }

    fn name(&self, parts: &[&str]) -> String {
        parts.iter().fold(self.root.clone(), |name, part| name + ":" + &encoded(part))
    }
}

impl RedisKey {
    pub(super) fn with_prefix(&self, prefix: &str) -> String {
        [prefix, &self.0].concat()
    }
}

impl RedisChannel {
    pub(super) fn with_prefix(&self, prefix: &str) -> String {
        [prefix, &self.0].concat()
    }
}

/// Percent-encodes separators, the end of a hash tag, and everything but printable ASCII.
fn encoded(part: &str) -> String {
    let mut text = String::with_capacity(part.len());
    for byte in part.bytes() {
        if byte.is_ascii_graphic() && !b"{}:%".contains(&byte) {
            text.push(byte.into());
        } else {
            // Writing into a string does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// Whether a prefix leaves the hash tag after it intact and can be used in an ACL rule.
pub(super) fn check_prefix(prefix: &str) -> Result<(), RedisConfigError> {
    let is_usable = prefix.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'{');
    if is_usable { Ok(()) } else { Err(RedisConfigError::Prefix) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hash tag as defined by Redis (cluster specification, "Hash tags"): between the first `{` and the first `}`
    /// after it, if not empty.
    fn hash_tag(name: &str) -> Option<&str> {
        let (_, rest) = name.split_once('{')?;
        let (tag, _) = rest.split_once('}')?;
        (!tag.is_empty()).then_some(tag)
    }

    #[test]
    fn names_contain_instance_and_schema_after_the_prefix() {
        let key = InstanceKeys::new("prod").key(&["tag", "AbC_-9"]);
        assert_eq!(key.with_prefix("clerk-exporter:"), format!("clerk-exporter:{{prod}}:v{SCHEMA_VERSION}:tag:AbC_-9"));
        let channel = InstanceKeys::new("prod").channel(&["forget"]);
        assert_eq!(channel.with_prefix("x}"), format!("x}}{{prod}}:v{SCHEMA_VERSION}:forget"));
    }

    #[test]
    fn any_instance_name_has_its_own_hash_tag() {
        let instances =
            ["", "%", "prod", "{", "}", "{}", "}{", "a}b", "a{b", "a:b", "a%7Db", " a b", "\u{fc}\u{1f980}", "\n"];
        let mut tags = std::collections::BTreeSet::new();
        for instance in instances {
            let keys = InstanceKeys::new(instance);
            let [one, other] = [keys.key(&["pace", "a}b{c"]), keys.key(&["tag", ""])].map(|key| key.with_prefix("x:}"));
            let tag = hash_tag(&one).unwrap();
            assert_eq!(Some(tag), hash_tag(&other), "{instance:?}");
            assert!(one.bytes().all(|byte| byte.is_ascii_graphic()), "{one}");
            assert!(tags.insert(tag.to_owned()), "{instance:?} shares the tag {tag}");
        }
    }

    #[test]
    fn different_parts_have_different_keys() {
        let keys = InstanceKeys::new("prod");
        let parts: [&[&str]; 6] = [&["a", "b"], &["a:b"], &["a%3Ab"], &["a", "", "b"], &["ab"], &["a", "b", ""]];
        let names: std::collections::BTreeSet<_> = parts.iter().map(|parts| keys.key(parts).with_prefix("")).collect();
        assert_eq!(names.len(), parts.len(), "{names:?}");
    }

    #[test]
    fn prefix_that_hides_the_hash_tag_is_rejected() {
        for prefix in ["", "clerk-exporter:", "team/app:", "a}b:", "a*b?[c]\\"] {
            assert_eq!(check_prefix(prefix), Ok(()), "{prefix}");
        }
        for prefix in ["{}", "{app}:", "a{", "a b", "\u{e9}", "a\n"] {
            assert_eq!(check_prefix(prefix), Err(RedisConfigError::Prefix), "{prefix}");
        }
    }
}
