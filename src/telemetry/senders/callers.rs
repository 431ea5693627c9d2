//! Caller names from attributes of resources: bounded in number and length, harmless, and never a secret.

use std::sync::Arc;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use rustc_hash::FxHashMap;

use super::text_attribute;
use clerk_client::secret::looks_like_secret;
use clerk_quota::CallerId;

/// The caller of spans whose resource has none of the attributes.
const UNKNOWN: &str = "unknown";

/// The caller of spans whose name is invalid or exceeds the limit on names.
const OTHER: &str = "other";

/// How the name of a service begins that has none. SDKs add the program, with the path by which it was started.
const UNNAMED_SERVICE: &str = "unknown_service:";

/// Maximum bytes of a name.
const MAX_NAME: usize = 64;

/// All callers' names. A name is never removed, so that a [`CallerId`] stays valid.
#[derive(Debug, Clone)]
pub struct CallerNames {
    /// In the order of [`CallerId`].
    names: Vec<Arc<str>>,
    ids: FxHashMap<Arc<str>, CallerId>,
    max_names: usize,
    /// The name that is being put together. Kept to save allocations; only names that are in `names` stay.
    draft: String,
}

impl CallerNames {
    /// Creates a list for this many names besides `unknown` and `other`.
    #[must_use]
    pub fn new(max_names: usize) -> Self {
        let names: Vec<Arc<str>> = vec![Arc::from(UNKNOWN), Arc::from(OTHER)];
        let ids = [(Arc::clone(&names[0]), CallerId::UNNAMED), (Arc::clone(&names[1]), CallerId::OTHER)];
        Self { names, ids: ids.into_iter().collect(), max_names, draft: String::new() }
    }

    /// Returns the caller that a resource names: the values of these attributes, joined with `/`.
    ///
    /// Missing ones are left out; if all are missing, the caller is [`CallerId::UNNAMED`].
    pub fn find(&mut self, resource: &[KeyValue], attributes: &[Arc<str>]) -> CallerId {
        self.draft.clear();
        for value in attributes.iter().filter_map(|name| text_attribute(resource, name)) {
            if !self.draft.is_empty() {
                self.draft.push('/');
            }
            let (start, value) = without_path(value);
            if self.draft.len() + start.len() + value.len() > MAX_NAME || !value.chars().all(is_harmless) {
                self.draft.clear();
                return CallerId::OTHER;
            }
            self.draft.push_str(start);
            self.draft.push_str(value);
        }
        if self.draft.is_empty() {
            return CallerId::UNNAMED;
        }
        let id = self.ids.get(&*self.draft).copied().or_else(|| self.add()).unwrap_or(CallerId::OTHER);
        self.draft.clear();
        id
    }

    fn add(&mut self) -> Option<CallerId> {
        if self.names.len() >= self.max_names.saturating_add(2) || looks_like_secret(&self.draft) {
            return None;
        }
        let id = CallerId(u16::try_from(self.names.len()).ok()?);
        let name: Arc<str> = Arc::from(&*self.draft);
        self.names.push(Arc::clone(&name));
        self.ids.insert(name, id);
        Some(id)
    }

    /// Returns a caller's name.
    #[must_use]
    pub fn name(&self, id: CallerId) -> Arc<str> {
        self.names.get(usize::from(id.0)).map_or_else(|| Arc::from(OTHER), Arc::clone)
    }

    /// Returns all names, in the order of [`CallerId`].
    #[must_use]
    pub fn all(&self) -> &[Arc<str>] {
        &self.names
    }
}

/// Splits off [`UNNAMED_SERVICE`]. Of the program only the name stays: a path tells nothing about the caller, but about
/// its machine.
fn without_path(value: &str) -> (&str, &str) {
    match value.strip_prefix(UNNAMED_SERVICE) {
        Some(program) => (UNNAMED_SERVICE, program.rsplit(['/', '\\']).next().unwrap_or_default()),
        None => ("", value),
    }
}

/// Characters that no format of metrics, logs or pages has to escape.
const fn is_harmless(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '@' | '/' | '.' | '_' | '-' | '+' | ':')
}
