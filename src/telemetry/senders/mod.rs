//! What a span's resource says about its sender: its clock, its caller name, and its instance of Clerk.

mod callers;
mod clocks;
mod instances;

use std::hash::{BuildHasher, Hasher};

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;

pub use callers::CallerNames;
pub use clocks::{MAX_LEAD, SenderClocks};
pub use instances::{Attribution, Choice};

/// A process that sends spans: a keyed hash of what its resource says about its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sender(u64);

/// Attributes of a resource that tell processes, or their clocks, apart.
const IDENTITY: [&str; 10] = [
    "service.name",
    "service.namespace",
    "service.instance.id",
    "host.name",
    "host.id",
    "process.pid",
    "container.id",
    "k8s.pod.uid",
    "faas.instance",
    "cloud.region",
];

impl Sender {
    /// Identifies the sender of a resource's spans.
    pub fn of(resource: &[KeyValue], key: &impl BuildHasher) -> Self {
        let mut hasher = key.build_hasher();
        for (place, name) in IDENTITY.iter().enumerate() {
            match attribute(resource, name) {
                Some(Value::StringValue(text)) => hasher.write(text.as_bytes()),
                Some(Value::IntValue(number)) => hasher.write_i64(*number),
                _ => continue,
            }
            hasher.write_usize(place);
        }
        Self(hasher.finish())
    }
}

/// Returns the value of an attribute; the first of several.
fn attribute<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a Value> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    found.value.as_ref()?.value.as_ref()
}

/// Returns the text of an attribute; `None` if it is missing, empty or of another type.
fn text_attribute<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a str> {
    match attribute(attributes, name)? {
        Value::StringValue(text) => Some(text.trim()).filter(|text| !text.is_empty()),
        _ => None,
    }
}
