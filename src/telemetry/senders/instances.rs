//! Finds the instance of Clerk that a span belongs to.

use std::collections::BTreeMap;
use std::sync::Arc;

use opentelemetry_proto::tonic::common::v1::KeyValue;

use super::text_attribute;

/// How spans are mapped to instances.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attribution {
    /// The attributes of resources that name the instance; the first that is present counts.
    pub attributes: Vec<Arc<str>>,
    /// The aliases by the attribute's values. If empty, the host alone decides.
    pub values: BTreeMap<Arc<str>, Arc<str>>,
}

/// What a resource says about the instance of its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice<'a> {
    /// The instance that has the call's host, if it is the only one.
    ByHost,
    /// The instance with this alias, if it has the call's host.
    Named(&'a str),
    /// The value is missing or unknown.
    Unattributed,
}

impl Attribution {
    /// Returns what a resource says.
    #[must_use]
    pub fn choose(&self, resource: &[KeyValue]) -> Choice<'_> {
        if self.values.is_empty() {
            return Choice::ByHost;
        }
        let value = self.attributes.iter().find_map(|name| text_attribute(resource, name));
        let alias = value.and_then(|value| self.values.get(value));
        alias.map_or(Choice::Unattributed, |alias| Choice::Named(alias))
    }
}
