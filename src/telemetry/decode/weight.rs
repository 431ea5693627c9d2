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

/// Checks a body's structure: well-formed, not too deep, not too much in memory.
pub(super) fn check(body: &[u8], limits: &DecodeLimits) -> Result<(), DecodeError> {
    let mut left = limits.max_decoded_bytes / GROWTH;
    walk(body, Kind::Request, limits.max_depth, &mut left)
}

fn walk(mut bytes: &[u8], kind: Kind, depth_left: usize, left: &mut usize) -> Result<(), DecodeError> {
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
                    if !matches!(field, Kind::Text) {
                        let depth_left = depth_left.checked_sub(1).ok_or(DecodeError::TooDeep)?;
                        walk(content, field, depth_left, left)?;
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
