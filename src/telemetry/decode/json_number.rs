//! Numbers and ids in JSON, which senders write in several ways. What cannot be read is a default, not an error.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

/// An unsigned number, as a number or text; 0 if `null` or unreadable.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Unsigned(pub u64);

/// A signed number, as a number or text; `None` if `null` or unreadable.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Signed(pub Option<i64>);

impl Signed {
    /// The number as an enum's, 0 if there is none.
    pub(super) fn or_zero(self) -> i32 {
        self.0.and_then(|number| i32::try_from(number).ok()).unwrap_or_default()
    }
}

/// A trace or span id in hex; empty if `null` or unreadable.
#[derive(Debug, Clone, Default)]
pub(super) struct Id(pub Vec<u8>);

/// The integer types that a JSON number may be.
struct Number;

impl Visitor<'_> for Number {
    type Value = Option<i128>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a whole number or a text with one")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Some(number.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Some(number.into()))
    }

    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in the range of the target")]
    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        // JavaScript writes large numbers with an exponent.
        Ok((number.fract() == 0.0 && number.abs() < 1e20).then_some(number as i128))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(match text {
            // Enums by their names, which some senders use against the specification.
            "SPAN_KIND_CLIENT" | "CLIENT" | "client" => Some(3),
            "STATUS_CODE_ERROR" | "ERROR" | "error" => Some(2),
            _ => text.parse().ok(),
        })
    }
}

impl<'de> Deserialize<'de> for Unsigned {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = deserializer.deserialize_any(Number)?;
        Ok(Self(number.and_then(|number| u64::try_from(number).ok()).unwrap_or_default()))
    }
}

impl<'de> Deserialize<'de> for Signed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = deserializer.deserialize_any(Number)?;
        Ok(Self(number.and_then(|number| i64::try_from(number).ok())))
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Hex;

        impl Visitor<'_> for Hex {
            type Value = Id;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an id in hex")
            }

            fn visit_unit<E>(self) -> Result<Id, E> {
                Ok(Id::default())
            }

            fn visit_str<E>(self, text: &str) -> Result<Id, E> {
                Ok(Id(from_hex(text.as_bytes()).unwrap_or_default()))
            }
        }

        deserializer.deserialize_any(Hex)
    }
}

/// Decodes an id of up to 16 bytes.
fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() > 32 || !text.len().is_multiple_of(2) {
        return None;
    }
    text.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

const fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}
