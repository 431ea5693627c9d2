//! Callers: a bounded set of names from the configuration or from `User-Agent`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use clerk_client::secret::looks_like_secret;
use clerk_quota::CallerId;

/// The caller of requests without a `User-Agent`.
pub(in crate::gateway) const UNKNOWN: &str = "unknown";

/// The caller of requests whose name is invalid or exceeds the limit on names.
pub(in crate::gateway) const OTHER: &str = "other";

/// Maximum length of a name taken from a `User-Agent`.
const MAX_NAME: usize = 40;

/// Maximum number and length of cached `User-Agent` values; others are parsed for each request.
const MAX_AGENTS: usize = 256;
const MAX_AGENT: usize = 256;

/// All callers' names. A name is never removed, so that a [`CallerId`] stays valid.
#[derive(Debug)]
pub(crate) struct CallerRegistry {
    /// Maximum number of names taken from `User-Agent`.
    max_found: usize,
    names: RwLock<Names>,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Names {
    all: Vec<Arc<str>>,
    found: usize,
    agents: HashMap<Box<[u8]>, CallerId>,
    /// Of callers with a token: these have shares, and no `User-Agent` may use them.
    reserved: HashSet<CallerId>,
}

impl CallerRegistry {
    pub(crate) fn new(max_found: usize) -> Self {
        // In the order of `CallerId`.
        let all = vec![Arc::from(UNKNOWN), Arc::from(OTHER)];
        let names = RwLock::new(Names { all, found: 0, agents: HashMap::new(), reserved: HashSet::new() });
        Self { max_found, names, dropped: AtomicU64::new(0) }
    }

    /// Returns the ID of a configured name.
    pub(crate) fn configured(&self, name: &Arc<str>) -> CallerId {
        self.names.write().intern(name).unwrap_or(CallerId::OTHER)
    }

    /// Returns the ID of the name of a caller with a token. From now on, no `User-Agent` can claim it.
    pub(crate) fn reserve(&self, name: &Arc<str>) -> CallerId {
        let id = self.configured(name);
        let mut names = self.names.write();
        names.agents.retain(|_, known| *known != id);
        names.reserved.insert(id);
        id
    }

    /// Returns the caller that a `User-Agent` names.
    pub(crate) fn found(&self, agent: Option<&[u8]>) -> CallerId {
        let Some(agent) = agent.map(<[u8]>::trim_ascii).filter(|agent| !agent.is_empty()) else {
            return CallerId::UNNAMED;
        };
        if let Some(id) = self.names.read().agents.get(agent) {
            return self.counted(*id);
        }
        let id = match product(agent) {
            Some(name) => self.intern_found(&name),
            None => CallerId::OTHER,
        };
        let mut names = self.names.write();
        if agent.len() <= MAX_AGENT && names.agents.len() < MAX_AGENTS {
            names.agents.insert(agent.into(), id);
        }
        drop(names);
        self.counted(id)
    }

    /// The name as it is known, if it is: configured, seen before, or one of those that every registry has.
    pub(crate) fn known(&self, name: &str) -> Option<Arc<str>> {
        self.names.read().all.iter().find(|known| ***known == *name).cloned()
    }

    /// All names, in the order in which they became known.
    pub(crate) fn names(&self) -> Vec<Arc<str>> {
        self.names.read().all.clone()
    }

    fn intern_found(&self, name: &str) -> CallerId {
        let mut names = self.names.write();
        if let Some(place) = names.find(name) {
            return if names.reserved.contains(&place) { CallerId::OTHER } else { place };
        }
        if names.found >= self.max_found {
            return CallerId::OTHER;
        }
        names.found += 1;
        names.intern(&Arc::from(name)).unwrap_or(CallerId::OTHER)
    }

    fn counted(&self, id: CallerId) -> CallerId {
        if id == CallerId::OTHER {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        id
    }

    pub(crate) fn name(&self, id: CallerId) -> Arc<str> {
        self.names.read().all.get(usize::from(id.0)).map_or_else(|| Arc::from(OTHER), Arc::clone)
    }

    /// Number of requests whose caller became [`OTHER`].
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Names {
    fn find(&self, name: &str) -> Option<CallerId> {
        let place = self.all.iter().position(|known| **known == *name)?;
        u16::try_from(place).ok().map(CallerId)
    }

    fn intern(&mut self, name: &Arc<str>) -> Option<CallerId> {
        self.find(name).or_else(|| {
            let id = u16::try_from(self.all.len()).ok()?;
            self.all.push(Arc::clone(name));
            Some(CallerId(id))
        })
    }
}

/// The first product without its version: `@clerk/backend` for `@clerk/backend@3.25.0`, `speakeasy-sdk/python` for
/// `speakeasy-sdk/python 7.0.0 ...`, `curl` for `curl/8.1`.
fn product(agent: &[u8]) -> Option<String> {
    let first = agent.split(u8::is_ascii_whitespace).next()?;
    let first = std::str::from_utf8(first).ok()?.to_ascii_lowercase();
    let is_version = |rest: &str| rest.strip_prefix('v').unwrap_or(rest).starts_with(|c: char| c.is_ascii_digit());
    let mut marks = first.match_indices(['@', '/']);
    let end = marks.find(|(at, _)| *at > 0 && is_version(&first[at + 1..])).map_or(first.len(), |(at, _)| at);
    let name = &first[..end];
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '@' | '/' | '.' | '_' | '-' | '+');
    (!name.is_empty() && name.len() <= MAX_NAME && name.chars().all(is_fit) && !looks_like_secret(name))
        .then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sdk_name_is_taken_without_its_version() {
        for (agent, name) in [
            ("@clerk/backend@3.25.0", Some("@clerk/backend")),
            ("speakeasy-sdk/python 7.0.0 2.6 x", Some("speakeasy-sdk/python")),
            ("clerk-sdk-go/v2.1", Some("clerk-sdk-go")),
            ("curl/8.1", Some("curl")),
            ("Mozilla/5.0 (X11)", Some("mozilla")),
            ("sk_live_abcdefgh", None),
            ("a\u{e4}", None),
            ("{}", None),
            ("x1234567890123456789012345678901234567890", None),
        ] {
            assert_eq!(product(agent.as_bytes()).as_deref(), name, "{agent}");
        }
    }

    #[test]
    fn number_of_names_is_bounded() {
        let callers = CallerRegistry::new(3);
        let names: std::collections::BTreeSet<_> =
            (0..1000).map(|n| callers.name(callers.found(Some(format!("app{n}x/1").as_bytes())))).collect();
        assert_eq!(names.len(), 4);
        assert!(names.contains(OTHER));
        assert_eq!(callers.dropped(), 997);
        assert_eq!(callers.found(None), CallerId::UNNAMED);
        assert_eq!(callers.found(Some(b"  ")), CallerId::UNNAMED);
    }

    #[test]
    fn name_of_a_token_is_only_for_its_holder() {
        let callers = CallerRegistry::new(5);
        let seen = callers.found(Some(b"web/1"));
        assert_eq!(*callers.name(seen), *"web");
        let reserved = callers.reserve(&Arc::from("web"));
        assert_eq!((reserved, callers.name(callers.found(Some(b"web/1")))), (seen, Arc::from(OTHER)));
        assert_eq!(callers.found(Some(b"web/2")), CallerId::OTHER);
    }

    #[test]
    fn configured_name_does_not_count_as_found() {
        let callers = CallerRegistry::new(0);
        let billing: Arc<str> = Arc::from("billing");
        let id = callers.configured(&billing);
        assert_eq!(callers.configured(&billing), id);
        assert_eq!(callers.name(id), billing);
        assert_eq!(callers.found(Some(b"billing/1")), id);
    }
}
