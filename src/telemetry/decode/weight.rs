//! Bounds the memory that a protobuf body decodes to, before it is decoded.
//!
//! An empty span has two bytes in protobuf and some 300 in memory, so a limit on bytes alone does not bound memory.

use std::mem::size_of;

use opentelemetry_proto::tonic::common::v1::{AnyValue, EntityRef, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};

use super::{DecodeError, DecodeLimits};

/// A growing list has up to twice the room that it needs.
pub(super) const GROWTH: usize = 2;

/// A list begins with room for four items, so that the first one counts as two that grow.
pub(super) const FIRST_ITEM: usize = 4 / GROWTH;

/// The messages of a trace request that repeat or contain messages that do.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Request,
    ResourceSpans,
    Resource,
    ScopeSpans,
    Scope,
    Span,
    Event,
    Link,
    KeyValue,
    Value,
    Values,
    KeyValues,
    EntityRef,
    Text,
}

impl Kind {
    /// Returns the kind of a field, by its number in the `.proto` files; `None` if it needs no memory of its own.
    const fn field(self, number: u64) -> Option<Self> {
        Some(match (self, number) {
            (Self::Request, 1) => Self::ResourceSpans,
            (Self::ResourceSpans, 1) => Self::Resource,
            (Self::ResourceSpans, 2) => Self::ScopeSpans,
            (Self::ScopeSpans, 1) => Self::Scope,
            (Self::ScopeSpans, 2) => Self::Span,
            (Self::Span, 11) => Self::Event,
            (Self::Span, 13) => Self::Link,
            (Self::KeyValue, 2) | (Self::Values, 1) => Self::Value,
            (Self::Value, 5) => Self::Values,
            (Self::Value, 6) => Self::KeyValues,
            (Self::Resource | Self::KeyValues, 1)
            | (Self::Scope | Self::Event, 3)
            | (Self::Span, 9)
            | (Self::Link, 4) => Self::KeyValue,
            (Self::Resource, 3) => Self::EntityRef,
            (Self::EntityRef, 3 | 4) => Self::Text,
            _ => return None,
        })
    }

    /// Whether a field of this kind may be there many times. Those that may not need no room beyond their own.
    const fn is_list(self, parent: Self) -> bool {
        !matches!((self, parent), (Self::Scope, _) | (Self::Value, Self::KeyValue))
    }

    const fn size(self) -> usize {
        match self {
            // Part of the message that holds them, and there once.
            Self::Request | Self::Resource | Self::Values | Self::KeyValues => 0,
            Self::ResourceSpans => size_of::<ResourceSpans>(),
            Self::ScopeSpans => size_of::<ScopeSpans>(),
            Self::Scope => size_of::<InstrumentationScope>(),
            Self::Span => size_of::<Span>(),
            Self::Event => size_of::<Event>(),
            Self::Link => size_of::<Link>(),
            Self::KeyValue => size_of::<KeyValue>(),
            Self::Value => size_of::<AnyValue>(),
            Self::EntityRef => size_of::<EntityRef>(),
            Self::Text => size_of::<String>(),
        }
    }
}

/// The most memory that a byte inside of an attribute can need.
///
/// What grows there are lists of values and of attributes. `n` items of `s` bytes need at most `s * (n + 1)`, as the first
/// one counts twice, and have `2 * (n + 1)` bytes, the beginning of their list included. What they contain is the same
/// again.
const MOST_PER_BYTE: usize =
    if size_of::<KeyValue>() > size_of::<AnyValue>() { size_of::<KeyValue>() } else { size_of::<AnyValue>() }
        .div_ceil(2);

/// How closely a body is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    /// Attributes count by their length. Most bodies have room to spare, and most of their messages are in attributes.
    Outline,
    /// Everything is counted.
    Full,
}

/// Checks how much memory a body needs at most. Returns an error if it is malformed or too deep and this is found on the
/// way; decoding finds the rest, see [`reason`].
pub(super) fn check(body: &[u8], limits: &DecodeLimits) -> Result<(), DecodeError> {
    match measure(body, limits, Detail::Outline) {
        Err(DecodeError::DecodedTooLarge) => measure(body, limits, Detail::Full).map(drop),
        outline => outline.map(drop),
    }
}

/// Returns why a body that passed the check could not be decoded.
pub(super) fn reason(body: &[u8], limits: &DecodeLimits) -> DecodeError {
    measure(body, limits, Detail::Full).err().unwrap_or(DecodeError::Protobuf)
}

/// Returns the bytes of memory that a body needs at most, without the growth of lists.
fn measure(body: &[u8], limits: &DecodeLimits, detail: Detail) -> Result<usize, DecodeError> {
    let limit = limits.max_decoded_bytes / GROWTH;
    let mut left = limit;
    walk(body, Kind::Request, detail, limits.max_depth, &mut left)?;
    Ok(limit - left)
}

fn walk(mut bytes: &[u8], kind: Kind, detail: Detail, depth_left: usize, left: &mut usize) -> Result<(), DecodeError> {
    // The lists that have an item, by the numbers of their fields.
    let mut begun = 0_u64;
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        match key & 7 {
            0 => {
                varint(&mut bytes)?;
            }
            1 => skip(&mut bytes, 8)?,
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).map_err(|_| DecodeError::Protobuf)?;
                let (content, rest) = bytes.split_at_checked(length).ok_or(DecodeError::Protobuf)?;
                bytes = rest;
                if let Some(field) = kind.field(key >> 3) {
                    // All fields that have a kind have small numbers.
                    let list = 1 << (key >> 3);
                    let items = if begun & list == 0 && field.is_list(kind) { FIRST_ITEM } else { 1 };
                    begun |= list;
                    *left = left.checked_sub(field.size() * items).ok_or(DecodeError::DecodedTooLarge)?;
                    match field {
                        Kind::Text => {}
                        Kind::KeyValue if detail == Detail::Outline => {
                            let most = content.len().saturating_mul(MOST_PER_BYTE);
                            *left = left.checked_sub(most).ok_or(DecodeError::DecodedTooLarge)?;
                        }
                        _ => {
                            let depth_left = depth_left.checked_sub(1).ok_or(DecodeError::TooDeep)?;
                            walk(content, field, detail, depth_left, left)?;
                        }
                    }
                }
            }
            5 => skip(&mut bytes, 4)?,
            // Groups: OTLP has none.
            _ => return Err(DecodeError::Protobuf),
        }
    }
    Ok(())
}

fn skip(bytes: &mut &[u8], count: usize) -> Result<(), DecodeError> {
    *bytes = bytes.get(count..).ok_or(DecodeError::Protobuf)?;
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    // Most have one byte.
    if let Some((first, rest)) = bytes.split_first()
        && *first < 0x80
    {
        *bytes = rest;
        return Ok(u64::from(*first));
    }
    let mut value = 0_u64;
    for (place, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            *bytes = &bytes[place + 1..];
            return Ok(value);
        }
    }
    Err(DecodeError::Protobuf)
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValueList};
    use proptest::prelude::*;
    use prost::Message;

    fn value() -> impl Strategy<Value = AnyValue> {
        let leaf = prop_oneof![
            Just(None),
            any::<bool>().prop_map(|it| Some(Value::BoolValue(it))),
            "[a-z]{0,12}".prop_map(|it| Some(Value::StringValue(it))),
        ];
        leaf.prop_map(|value| AnyValue { value }).prop_recursive(12, 40, 6, |inner| {
            let entry = ("[a-z]{0,3}", proptest::option::of(inner.clone())).prop_map(|(key, value)| KeyValue {
                key,
                value,
                ..KeyValue::default()
            });
            prop_oneof![
                proptest::collection::vec(inner, 0..6).prop_map(|values| Value::ArrayValue(ArrayValue { values })),
                proptest::collection::vec(entry, 0..6).prop_map(|values| Value::KvlistValue(KeyValueList { values })),
            ]
            .prop_map(|value| AnyValue { value: Some(value) })
        })
    }

    fn body(attributes: Vec<Option<AnyValue>>) -> Vec<u8> {
        let attributes: Vec<_> =
            attributes.into_iter().map(|value| KeyValue { value, ..KeyValue::default() }).collect();
        let event = Event { attributes: attributes.clone(), ..Event::default() };
        let span = Span { attributes, events: vec![event], ..Span::default() };
        let scope = ScopeSpans { spans: vec![span], ..ScopeSpans::default() };
        let resource = ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() };
        ExportTraceServiceRequest { resource_spans: vec![resource] }.encode_to_vec()
    }

    proptest! {
        /// If it were not, bodies could need more memory than the limit.
        #[test]
        fn outline_is_never_below_the_full_measure(
            attributes in proptest::collection::vec(proptest::option::of(value()), 0..6),
        ) {
            let (body, limits) = (body(attributes), DecodeLimits::default());
            let full = measure(&body, &limits, Detail::Full).expect("a valid body");
            let outline = measure(&body, &limits, Detail::Outline).expect("a valid body");
            prop_assert!(outline >= full, "{} is below {}", outline, full);
        }

        #[test]
        fn limit_is_that_of_the_full_measure(attributes in proptest::collection::vec(proptest::option::of(value()), 0..6)) {
            let body = body(attributes);
            let full = measure(&body, &DecodeLimits::default(), Detail::Full).expect("a valid body");
            let limits = |bytes| DecodeLimits { max_decoded_bytes: bytes * GROWTH, ..DecodeLimits::default() };
            prop_assert_eq!(check(&body, &limits(full)), Ok(()));
            prop_assert_eq!(check(&body, &limits(full - 1)), Err(DecodeError::DecodedTooLarge));
        }
    }
}
