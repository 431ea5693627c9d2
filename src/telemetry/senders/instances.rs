//! Finds the instance of Clerk that a span's resource belongs to.

use std::collections::BTreeMap;
use std::sync::Arc;

use opentelemetry_proto::tonic::common::v1::KeyValue;

use super::text_attribute;

/// The attribute that is used if the configured one is missing: its old name in OpenTelemetry.
const FALLBACK: &str = "deployment.environment";

/// How resources are mapped to instances.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attribution {
    /// The aliases of the configured instances.
    pub names: Vec<Arc<str>>,
    /// The attribute that names the instance. Then `deployment.environment` is tried.
    pub attribute: Option<String>,
    /// The aliases by the attribute's values.
    pub values: BTreeMap<String, Arc<str>>,
}

/// The instance of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The instance at this position of [`Attribution::names`].
    Instance(usize),
    /// The value is missing or unknown.
    Unattributed,
}

impl Attribution {
    /// Finds the instance of a resource. With one configured instance it is that one.
    #[must_use]
    pub fn choose(&self, resource: &[KeyValue]) -> Choice {
        if self.names.len() == 1 {
            return Choice::Instance(0);
        }
        let named = self.attribute.as_deref().and_then(|name| text_attribute(resource, name));
        let value = named.or_else(|| text_attribute(resource, FALLBACK));
        let alias = value.and_then(|value| self.values.get(value));
        let place = alias.and_then(|alias| self.names.iter().position(|name| name == alias));
        place.map_or(Choice::Unattributed, Choice::Instance)
    }
}
