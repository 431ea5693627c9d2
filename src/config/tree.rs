//! YAML as a tree in which every value has its position.
//!
//! Structs derived by serde would stop at the first mistake and quote the offending text. The tree lets
//! [`file`](super::file) report all mistakes at once and never repeat a value, which may be a key. Only this file uses
//! the YAML library.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Error, Spanned};

use super::error::Position;

/// A value and its position. Not `Debug`: the text may be a secret.
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Position,
}

/// A YAML value by the rules of YAML 1.2: `yes` and `off` are text.
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In file order. Keys are unique; the parser rejects duplicates.
    Map(Vec<(Node, Node)>),
}

impl Value {
    /// The kind of value, for messages.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a section of keys",
        }
    }
}

/// Invalid YAML: position and cause. The message repeats nothing of the text.
pub(super) struct SyntaxError {
    pub(super) place: Option<Position>,
    pub(super) message: String,
}

/// Parses one YAML document.
pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let options = serde_saphyr::options! {
        // A snippet would show the lines around the error, and one of them may contain a key.
        with_snippet: false,
        strict_booleans: true,
        // Configurations use four levels. The parser recurses, and its own limits are too high for the stack of a
        // thread.
        budget: serde_saphyr::budget! { max_depth: 8, max_nodes: 100_000 },
        alias_limits: serde_saphyr::alias_limits! {
            max_replay_stack_depth: 8,
            max_total_replayed_events: 100_000,
        },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| SyntaxError {
        place: error.location().and_then(place),
        message: describe(error.without_snippet()),
    })
}

fn place(location: serde_saphyr::Location) -> Option<Position> {
    (location.line() > 0).then(|| Position { line: location.line(), column: location.column() })
}

/// Messages for the parser's errors. Those of variants that may contain text of the file are not used.
fn describe(error: &Error) -> String {
    match error {
        // The scanner's messages are fixed sentences about the syntax.
        Error::ExternalMessage { msg, .. } => {
            format!("not valid YAML: {msg}; check indentation, quotes and the space after `:`")
        }
        Error::DuplicateMappingKey { .. } => "the key is written twice; keep one".to_owned(),
        Error::MultipleDocuments { .. } => "more than one YAML document; remove the `---` line".to_owned(),
        Error::UnknownAnchor { .. } => {
            "`*` refers to an anchor that is not defined above; put text in quotes".to_owned()
        }
        Error::NonFiniteFloat { .. } => "not a finite number; write one such as 0.1".to_owned(),
        Error::Budget { .. } | Error::AliasReplayLimitExceeded { .. } | Error::AliasReplayStackDepthExceeded { .. } => {
            "too large or too deeply nested for a configuration".to_owned()
        }
        Error::Eof { .. } => "the file is truncated".to_owned(),
        _ => "not valid YAML; check indentation, quotes and the space after `:`".to_owned(),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        let place = place(spanned.referenced).unwrap_or(Position { line: 1, column: 1 });
        Ok(Self { value: spanned.value, place })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(Value::Integer(value.try_into().unwrap_or(i128::MAX)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(node: &Node) -> String {
        let Position { line, column } = node.place;
        let value = match &node.value {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Integer(value) => value.to_string(),
            Value::Float(value) => format!("{value:?}"),
            Value::Text(value) => format!("{value:?}"),
            Value::List(items) => format!("[{}]", items.iter().map(outline).collect::<Vec<_>>().join(" ")),
            Value::Map(entries) => {
                let entries: Vec<_> =
                    entries.iter().map(|(key, value)| format!("{}={}", outline(key), outline(value))).collect();
                format!("{{{}}}", entries.join(" "))
            }
        };
        format!("{value}@{line}:{column}")
    }

    fn parsed(text: &str) -> String {
        parse(text).map_or_else(|error| error.message, |node| outline(&node))
    }

    #[test]
    fn every_key_and_value_has_its_position() {
        let text = "low: 0.1\nitems:\n  - name: prod\n    n: 10\n  - {a: \"x\", b: [1, -2]}\n";
        assert_eq!(
            parsed(text),
            r#"{"low"@1:1=0.1@1:6 "items"@2:1=[{"name"@3:5="prod"@3:11 "n"@4:5=10@4:8}@3:5 {"a"@5:6="x"@5:9 "b"@5:14=[1@5:18 -2@5:21]@5:17}@5:5]@3:3}@1:1"#
        );
    }

    #[test]
    fn scalars_follow_yaml_1_2() {
        assert_eq!(
            parsed("a: yes\nb: off\nc: true\nd: ~\ne:\nf: 'null'\n1: 2\n"),
            r#"{"a"@1:1="yes"@1:4 "b"@2:1="off"@2:4 "c"@3:1=true@3:4 "d"@4:1=null@4:4 "e"@5:1=null@5:2 "f"@6:1="null"@6:4 1@7:1=2@7:4}@1:1"#
        );
    }

    #[test]
    fn alias_has_the_position_of_its_use() {
        assert_eq!(
            parsed("a: &x {t: 1s}\nb: *x\nc:\n  <<: *x\n"),
            r#"{"a"@1:1={"t"@1:8="1s"@1:11}@1:7 "b"@2:1={"t"@2:4="1s"@2:4}@2:4 "c"@3:1={"t"@4:7="1s"@4:7}@4:3}@1:1"#
        );
    }

    #[test]
    fn an_empty_document_is_null() {
        assert_eq!(parsed(""), "null@1:1");
        assert_eq!(parsed("# only a comment\n"), "null@2:1");
    }

    #[test]
    fn invalid_yaml_is_rejected_without_repeating_it() {
        let broken = [
            "a: [CANARY",
            "a: \"CANARY",
            "a: CANARY: b",
            "CANARY: 1\nCANARY: 2",
            "a: *CANARY",
            "a: 1\n---\nCANARY: 2",
            "a:\n\tCANARY: 1",
            "a: !!int CANARY",
            "a: !!binary CANARY!",
            "a: .nan # CANARY",
            "a: @CANARY",
            "a: 'CANARY' CANARY",
            "%CANARY\n",
            "a: !CANARY!x b",
            "a: \"\\CANARY\"",
            "a\n  CANARY: 1\n b: 2",
        ];
        for text in broken {
            let error = parse(text).err().unwrap_or_else(|| panic!("{text:?} was accepted"));
            assert!(!error.message.contains("CANARY"), "{}", error.message);
            assert!(error.place.is_some(), "{text:?}: {}", error.message);
        }
    }
}
