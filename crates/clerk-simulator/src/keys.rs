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

/// Maximum number of keys that are not configured, so that clients cannot exhaust memory with invented keys.
const MAX_UNCONFIGURED_KEYS: usize = 1_000;

const KEY_MAX_BYTES: usize = 256;

/// An accepted key, and optionally its instance. Keys of one instance share its budgets.
///
/// A key is a secret key of an instance (`sk_live_…`, `sk_test_…`) or of a machine (`ak_…`). A machine key says nothing of
/// the environment: name an instance that has a secret key, too. Written as `KEY` or `INSTANCE=KEY`. Neither `Debug` nor `Display` shows the key.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyGrant {
    instance: Option<String>,
    key: String,
    kind: KeyKind,
}

/// What a key says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    /// A secret key of an instance in this environment.
    Instance(Environment),
    /// A secret key of a machine.
    Machine,
}

impl KeyKind {
    /// An instance that only has machine keys is for development.
    const fn environment(self) -> Environment {
        match self {
            Self::Instance(environment) => environment,
            Self::Machine => Environment::Development,
        }
    }
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
        let kind = kind_of(key).ok_or_else(|| {
            ParseOptionError::new(
                "not a Clerk secret key: keys start with sk_test_, sk_live_ or ak_, followed by letters, digits, - and _",
            )
        })?;
        Ok(Self { instance: instance.map(str::to_owned), key: key.to_owned(), kind })
    }
}

impl fmt::Debug for KeyGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyGrant")
            .field("instance", &self.instance)
            .field("key", &"<secret>")
            .field("kind", &self.kind)
            .finish()
    }
}

/// Who sends a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) instance: usize,
    /// The identifier of the machine, if the key is one of a machine.
    pub(super) machine: Option<String>,
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
    by_key: HashMap<String, Caller>,
    /// The instance that was made for a machine key, until a secret key of an instance gets it.
    machines_only: Option<usize>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("open", &self.open).field("instances", &self.instances).finish_non_exhaustive()
    }
}

impl KeyRing {
    /// If a key is granted twice, the first grant counts. The environment of an instance is that of its first secret key.
    pub(super) fn new(grants: &[KeyGrant], seed: u64) -> Self {
        let mut ring =
            Self { seed, open: grants.is_empty(), instances: Vec::new(), by_key: HashMap::new(), machines_only: None };
        // Secret keys of instances first: they know the environment.
        let is_machine = |grant: &&KeyGrant| grant.kind == KeyKind::Machine;
        for grant in grants.iter().filter(|it| !is_machine(it)).chain(grants.iter().filter(is_machine)) {
            if ring.by_key.contains_key(&grant.key) {
                continue;
            }
            let named = grant.instance().and_then(|name| ring.instances.iter().position(|known| known.name == name));
            let instance = named.unwrap_or_else(|| ring.add_instance(grant.instance(), grant.kind.environment()));
            ring.add_key(&grant.key, grant.kind, instance);
        }
        ring
    }

    pub(super) fn instances(&self) -> &[Instance] {
        &self.instances
    }

    /// Returns whose key is in the `Authorization` header.
    ///
    /// # Errors
    ///
    /// Clerk's two 401 responses: no `Bearer` token, or an unknown key.
    pub(super) fn identify(&mut self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let key = bearer_token(headers).ok_or_else(ApiError::authorization_header_format_invalid)?;
        if let Some(caller) = self.by_key.get(key) {
            return Ok(caller.clone());
        }
        let kind = kind_of(key).filter(|_| self.open).ok_or_else(ApiError::key_invalid)?;
        if self.by_key.len() >= MAX_UNCONFIGURED_KEYS {
            return Err(ApiError::key_invalid());
        }
        let instance = self.instance_of_unconfigured(kind);
        Ok(self.add_key(key, kind, instance))
    }

    /// Each secret key has its own instance. All machine keys belong to the first one for development.
    fn instance_of_unconfigured(&mut self, kind: KeyKind) -> usize {
        let environment = kind.environment();
        match kind {
            KeyKind::Machine => {
                let first = self.instances.iter().position(|instance| instance.environment == environment);
                first.unwrap_or_else(|| {
                    let instance = self.add_instance(None, environment);
                    self.machines_only = Some(instance);
                    instance
                })
            }
            KeyKind::Instance(Environment::Development) if self.machines_only.is_some() => {
                self.machines_only.take().unwrap_or_default()
            }
            KeyKind::Instance(_) => self.add_instance(None, environment),
        }
    }

    fn add_key(&mut self, key: &str, kind: KeyKind, instance: usize) -> Caller {
        let machine = (kind == KeyKind::Machine).then(|| {
            let spread = mix_text(self.seed, key);
            ksuid("mch_", 1_650_000_000, spread, mix_text(spread, "machine"))
        });
        let caller = Caller { instance, machine };
        self.by_key.insert(key.to_owned(), caller.clone());
        caller
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

fn kind_of(key: &str) -> Option<KeyKind> {
    let prefixes = [
        ("sk_live_", KeyKind::Instance(Environment::Production)),
        ("sk_test_", KeyKind::Instance(Environment::Development)),
        ("ak_", KeyKind::Machine),
    ];
    let (rest, kind) = prefixes.into_iter().find_map(|(prefix, kind)| Some((key.strip_prefix(prefix)?, kind)))?;
    let well_formed = !rest.is_empty()
        && key.len() <= KEY_MAX_BYTES
        && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    well_formed.then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(authorization: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, authorization.parse().unwrap())])
    }

    fn identify(ring: &mut KeyRing, authorization: &str) -> Result<usize, &'static str> {
        ring.identify(&headers(authorization)).map(|caller| caller.instance).map_err(|error| error.code())
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
    fn machine_keys_belong_to_an_instance_like_other_keys() {
        let grants = ["prod=ak_machine", "prod=sk_live_a", "ak_own"].map(|grant| grant.parse().unwrap());
        let mut ring = KeyRing::new(&grants, 1);
        assert_eq!(identify(&mut ring, "Bearer ak_machine"), identify(&mut ring, "Bearer sk_live_a"));
        assert_eq!(ring.instances()[0].environment, Environment::Production);
        assert_eq!(identify(&mut ring, "Bearer ak_own"), Ok(1));
        assert_eq!(identify(&mut ring, "Bearer ak_other"), Err("clerk_key_invalid"));
        let mut machine = |key| ring.identify(&headers(key)).unwrap().machine;
        assert_eq!(machine("Bearer sk_live_a"), None);
        assert!(machine("Bearer ak_own").unwrap().starts_with("mch_"));
        assert_ne!(machine("Bearer ak_own"), machine("Bearer ak_machine"));
    }

    #[test]
    fn unconfigured_machine_keys_share_the_first_development_instance() {
        for order in [["ak_a", "sk_test_a", "ak_b"], ["sk_test_a", "ak_a", "ak_b"]] {
            let mut ring = KeyRing::new(&[], 1);
            for key in order {
                assert_eq!(identify(&mut ring, &format!("Bearer {key}")), Ok(0), "{key}");
            }
            assert_eq!(identify(&mut ring, "Bearer sk_test_b"), Ok(1));
            assert_eq!(identify(&mut ring, "Bearer ak_c"), Ok(0));
        }
    }

    #[test]
    fn unconfigured_instances_are_bounded() {
        let mut ring = KeyRing::new(&[], 1);
        for number in 0..MAX_UNCONFIGURED_KEYS + 10 {
            let _ = identify(&mut ring, &format!("Bearer sk_test_{number}"));
        }
        assert_eq!(ring.instances().len(), MAX_UNCONFIGURED_KEYS);
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
