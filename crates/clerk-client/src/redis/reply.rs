//! What a script returns.

use bytes::Bytes;
use redis::Value;

/// Result of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `nil` or `false`.
    Nil,
    /// A number, or `true` as 1.
    Int(i64),
    /// A string.
    Bytes(Bytes),
    /// A table with indexes from 1, up to the first `nil`.
    List(Vec<Reply>),
}

impl Reply {
    pub(super) fn read(value: Value) -> Option<Self> {
        Some(match value {
            Value::Nil => Self::Nil,
            Value::Int(number) => Self::Int(number),
            Value::BulkString(bytes) => Self::Bytes(bytes.into()),
            Value::SimpleString(text) => Self::Bytes(text.into()),
            Value::Okay => Self::Bytes(Bytes::from_static(b"OK")),
            Value::Array(values) => Self::List(values.into_iter().map(Self::read).collect::<Option<_>>()?),
            Value::Boolean(is_true) => {
                if is_true {
                    Self::Int(1)
                } else {
                    Self::Nil
                }
            }
            _ => return None,
        })
    }

    /// Returns the number, if it is one.
    #[must_use]
    pub const fn int(&self) -> Option<i64> {
        if let Self::Int(number) = self { Some(*number) } else { None }
    }

    /// Returns the bytes, if it is a string.
    #[must_use]
    pub fn into_bytes(self) -> Option<Bytes> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// Returns the entries, if it is a table.
    #[must_use]
    pub fn into_list(self) -> Option<Vec<Self>> {
        if let Self::List(entries) = self { Some(entries) } else { None }
    }
}
