//! Secret keys and the instance of each.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::error::ApiError;
use super::ids::{ksuid, mix_text};
use super::limits::Environment;
use super::options::ParseOptionError;

/// Maximum number of instances for keys that are not configured, so that clients cannot exhaust memory with invented
/// keys.
const MAX_UNCONFIGURED_INSTANCES: usize = 1_000;

const KEY_MAX_BYTES: usize = 256;

/// An accepted key, and optionally its instance. Keys of one instance share its budgets.
///
/// Written as `KEY` or `INSTANCE=KEY`. Neither `Debug` nor `Display` shows the key.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyGrant {
    instance: Option<String>,
    key: String,
    environment: Environment,
}

impl KeyGrant {
    /// Returns the name of the key's instance, if one was given.
    #[must_use]
    pub fn instance(&self) -> Option<&str> {
        self.instance.as_deref()
    }
}

impl FromStr for KeyGrant {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (instance, key) = match text.split_once('=') {
            Some((instance, key)) => (Some(instance), key),
            None => (None, text),
        };
        // The messages do not repeat the text, because it contains a secret.
        if instance.is_some_and(str::is_empty) {
            return Err(ParseOptionError::new("the instance before `=` is empty: write INSTANCE=KEY"));
        }
        let environment = environment_of(key).ok_or_else(|| {
            ParseOptionError::new(
                "not a Clerk secret key: keys start with sk_test_ or sk_live_, followed by letters, digits, - and _",
            )
        })?;
        Ok(Self { instance: instance.map(str::to_owned), key: key.to_owned(), environment })
    }
}

impl fmt::Debug for KeyGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyGrant")
            .field("instance", &self.instance)
            .field("key", &"<secret>")
            .field("environment", &self.environment)
            .finish()
    }
}

/// A Clerk instance.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) environment: Environment,
}

/// The known keys and their instances.
pub(super) struct KeyRing {
    seed: u64,
    /// Whether keys that are not configured are accepted.
    open: bool,
    instances: Vec<Instance>,
    by_key: HashMap<String, usize>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("open", &self.open).field("instances", &self.instances).finish_non_exhaustive()
    }
}

impl KeyRing {
    /// If a key is granted twice, the first grant counts. The environment of an instance is that of its first key.
    pub(super) fn new(grants: &[KeyGrant], seed: u64) -> Self {
        let mut ring = Self { seed, open: grants.is_empty(), instances: Vec::new(), by_key: HashMap::new() };
        for grant in grants {
            if ring.by_key.contains_key(&grant.key) {
                continue;
            }
            let named = grant.instance().and_then(|name| ring.instances.iter().position(|known| known.name == name));
            let instance = named.unwrap_or_else(|| ring.add_instance(grant.instance(), grant.environment));
            ring.by_key.insert(grant.key.clone(), instance);
        }
        ring
    }

    pub(super) fn instances(&self) -> &[Instance] {
        &self.instances
    }

    /// Returns the instance of the key in the `Authorization` header.
    ///
    /// # Errors
    ///
    /// Clerk's two 401 responses: no `Bearer` token, or an unknown key.
    pub(super) fn identify(&mut self, headers: &HeaderMap) -> Result<usize, ApiError> {
        let key = bearer_token(headers).ok_or_else(ApiError::authorization_header_format_invalid)?;
        if let Some(instance) = self.by_key.get(key) {
            return Ok(*instance);
        }
        let environment = environment_of(key).filter(|_| self.open).ok_or_else(ApiError::key_invalid)?;
        if self.instances.len() >= MAX_UNCONFIGURED_INSTANCES {
            return Err(ApiError::key_invalid());
        }
        let instance = self.add_instance(None, environment);
        self.by_key.insert(key.to_owned(), instance);
        Ok(instance)
    }

    fn add_instance(&mut self, name: Option<&str>, environment: Environment) -> usize {
        let name = name.map_or_else(|| self.next_name(environment), str::to_owned);
        let spread = mix_text(self.seed, &name);
        let id = ksuid("ins_", 1_650_000_000, spread, mix_text(spread, "instance"));
        self.instances.push(Instance { name, id, environment });
        self.instances.len() - 1
    }

    /// Returns the next free name of the form `development-1`.
    fn next_name(&self, environment: Environment) -> String {
        let mut number = 1 + self.instances.iter().filter(|known| known.environment == environment).count();
        loop {
            let name = format!("{}-{number}", environment.as_str());
            if !self.instances.iter().any(|known| known.name == name) {
                return name;
            }
            number += 1;
        }
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn environment_of(key: &str) -> Option<Environment> {
    let (environment, rest) = match (key.strip_prefix("sk_live_"), key.strip_prefix("sk_test_")) {
        (Some(rest), _) => (Environment::Production, rest),
        (None, Some(rest)) => (Environment::Development, rest),
        (None, None) => return None,
    };
    let well_formed = !rest.is_empty()
        && key.len() <= KEY_MAX_BYTES
        && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    well_formed.then_some(environment)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(authorization: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, authorization.parse().unwrap())])
    }

    fn identify(ring: &mut KeyRing, authorization: &str) -> Result<usize, &'static str> {
        ring.identify(&headers(authorization)).map_err(|error| error.code())
    }

    #[test]
    fn keys_of_one_instance_share_it() {
        let grants = ["prod=sk_live_a", "prod=sk_live_b", "sk_live_c"].map(|grant| grant.parse().unwrap());
        let mut ring = KeyRing::new(&grants, 1);
        assert_eq!(identify(&mut ring, "Bearer sk_live_a"), Ok(0));
        assert_eq!(identify(&mut ring, "bearer  sk_live_b"), Ok(0));
        assert_eq!(identify(&mut ring, "Bearer sk_live_c"), Ok(1));
        assert_eq!(identify(&mut ring, "Bearer sk_live_d"), Err("clerk_key_invalid"));
    }

    #[test]
    fn unconfigured_keys_each_get_an_instance() {
        let mut ring = KeyRing::new(&[], 1);
        assert_eq!(identify(&mut ring, "Bearer sk_test_a"), Ok(0));
        assert_eq!(identify(&mut ring, "Bearer sk_live_a"), Ok(1));
        assert_eq!(identify(&mut ring, "Bearer sk_test_a"), Ok(0));
        let names: Vec<_> = ring.instances().iter().map(|instance| instance.name.as_str()).collect();
        assert_eq!(names, ["development-1", "production-1"]);
        for wrong in ["Bearer pk_test_a", "Bearer sk_test_", "Bearer sk_test_a.b"] {
            assert_eq!(identify(&mut ring, wrong), Err("clerk_key_invalid"), "{wrong}");
        }
        for wrong in ["Bearer", "Bearer ", "Basic sk_test_a", "sk_test_a"] {
            assert_eq!(identify(&mut ring, wrong), Err("authorization_header_format_invalid"), "{wrong}");
        }
    }

    #[test]
    fn unconfigured_instances_are_bounded() {
        let mut ring = KeyRing::new(&[], 1);
        for number in 0..MAX_UNCONFIGURED_INSTANCES + 10 {
            let _ = identify(&mut ring, &format!("Bearer sk_test_{number}"));
        }
        assert_eq!(ring.instances().len(), MAX_UNCONFIGURED_INSTANCES);
    }

    #[test]
    fn debug_and_errors_do_not_show_the_key() {
        let grant: KeyGrant = "prod=sk_live_CANARY".parse().unwrap();
        let ring = KeyRing::new(std::slice::from_ref(&grant), 1);
        assert!(!format!("{grant:?} {ring:?}").contains("CANARY"));
        let error = "prod=sk_prod_CANARY".parse::<KeyGrant>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("CANARY"));
    }
}
