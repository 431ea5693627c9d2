//! A scanner for the members of a JSON object that keeps what it reads as slices of the line.
//!
//! A log line has dozens of members of which few matter. The scanner passes over the others without building anything,
//! and holds no state per nesting level, so that depth costs nothing. Bytes that are not UTF-8, which nginx writes for
//! what its clients send, are kept as they are.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

/// The bytes are not JSON: cut off, or of another format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotJson;

/// A value, unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonValue<'a> {
    Text(JsonText<'a>),
    Number(&'a [u8]),
    /// With its braces.
    Object(&'a [u8]),
    /// With its brackets.
    Array(&'a [u8]),
    /// `true`, `false` or `null`.
    Word(&'a [u8]),
}

/// A string without its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct JsonText<'a> {
    raw: &'a [u8],
    has_escapes: bool,
}

impl<'a> JsonText<'a> {
    /// The string's bytes; an invalid escape is kept as it is.
    pub(super) fn bytes(self) -> Cow<'a, [u8]> {
        if self.has_escapes { Cow::Owned(unescape(self.raw)) } else { Cow::Borrowed(self.raw) }
    }

    /// The string as written, for names, which have no escapes.
    pub(super) const fn raw(self) -> &'a [u8] {
        self.raw
    }
}

impl<'a> JsonValue<'a> {
    /// The bytes of a string or a number; `None` for an empty string, `-` (which logs write for an absent value), and
    /// everything else.
    pub(super) fn scalar(self) -> Option<Cow<'a, [u8]>> {
        let bytes = match self {
            Self::Text(text) => text.bytes(),
            Self::Number(digits) => Cow::Borrowed(digits),
            Self::Object(_) | Self::Array(_) | Self::Word(_) => return None,
        };
        (!matches!(&*bytes, b"" | b"-")).then_some(bytes)
    }

    /// The first string of a list of strings, or the string itself: how headers are logged.
    pub(super) fn first_text(self) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::Array(list) => Elements::of(list).ok()?.next()?.ok()?.scalar(),
            other => other.scalar(),
        }
    }
}

/// The members of an object, in order.
#[derive(Debug)]
pub(super) struct Members<'a> {
    cursor: Cursor<'a>,
    is_first: bool,
    is_done: bool,
}

impl<'a> Members<'a> {
    /// Starts at an object; blanks around it are allowed.
    pub(super) fn of(bytes: &'a [u8]) -> Result<Self, NotJson> {
        let mut cursor = Cursor { rest: bytes };
        cursor.skip_blanks();
        cursor.expect(b'{')?;
        Ok(Self { cursor, is_first: true, is_done: false })
    }

    /// The next member, found faster if `expected` is its name as written.
    #[inline]
    pub(super) fn next_expecting(&mut self, expected: &[u8]) -> Option<Result<(JsonText<'a>, JsonValue<'a>), NotJson>> {
        if self.is_done {
            return None;
        }
        let step = self.step(expected);
        self.is_done |= step.is_err();
        step.transpose()
    }

    #[inline]
    fn step(&mut self, expected: &[u8]) -> Result<Option<(JsonText<'a>, JsonValue<'a>)>, NotJson> {
        let cursor = &mut self.cursor;
        cursor.skip_blanks();
        match cursor.take()? {
            b'}' => {
                self.is_done = true;
                cursor.skip_blanks();
                return if cursor.rest.is_empty() { Ok(None) } else { Err(NotJson) };
            }
            b'"' if self.is_first => {}
            b',' if !self.is_first => {
                cursor.skip_blanks();
                cursor.expect(b'"')?;
            }
            _ => return Err(NotJson),
        }
        self.is_first = false;
        let key = cursor.text_expecting(expected)?;
        cursor.skip_blanks();
        cursor.expect(b':')?;
        cursor.skip_blanks();
        Ok(Some((key, cursor.value()?)))
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Result<(JsonText<'a>, JsonValue<'a>), NotJson>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_expecting(b"")
    }
}

/// The elements of an array, in order.
#[derive(Debug)]
pub(super) struct Elements<'a> {
    cursor: Cursor<'a>,
    is_first: bool,
    is_done: bool,
}

impl<'a> Elements<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Result<Self, NotJson> {
        let mut cursor = Cursor { rest: bytes };
        cursor.skip_blanks();
        cursor.expect(b'[')?;
        Ok(Self { cursor, is_first: true, is_done: false })
    }

    fn step(&mut self) -> Result<Option<JsonValue<'a>>, NotJson> {
        let cursor = &mut self.cursor;
        cursor.skip_blanks();
        if cursor.rest.first() == Some(&b']') {
            self.is_done = true;
            return Ok(None);
        }
        if !std::mem::take(&mut self.is_first) {
            cursor.expect(b',')?;
            cursor.skip_blanks();
        }
        cursor.value().map(Some)
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<JsonValue<'a>, NotJson>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let step = self.step();
        self.is_done |= step.is_err();
        step.transpose()
    }
}

#[derive(Debug)]
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn skip_blanks(&mut self) {
        while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn take(&mut self) -> Result<u8, NotJson> {
        let (first, rest) = self.rest.split_first().ok_or(NotJson)?;
        self.rest = rest;
        Ok(*first)
    }

    fn expect(&mut self, byte: u8) -> Result<(), NotJson> {
        if self.take()? == byte { Ok(()) } else { Err(NotJson) }
    }

    fn split(&mut self, length: usize) -> Result<&'a [u8], NotJson> {
        let (first, rest) = self.rest.split_at_checked(length).ok_or(NotJson)?;
        self.rest = rest;
        Ok(first)
    }

    /// A string whose opening quote was taken.
    fn text(&mut self) -> Result<JsonText<'a>, NotJson> {
        let (mut end, mut has_escapes) = (0, false);
        loop {
            let rest = self.rest.get(end..).ok_or(NotJson)?;
            let at = memchr2(b'"', b'\\', rest).ok_or(NotJson)?;
            end += at;
            if rest.get(at) == Some(&b'"') {
                break;
            }
            has_escapes = true;
            end += 2;
        }
        let raw = self.split(end)?;
        self.take()?;
        Ok(JsonText { raw, has_escapes })
    }

    /// The same for a name, without a search if it is the `expected` one: the whole of a string that was read before, as
    /// written.
    #[inline]
    fn text_expecting(&mut self, expected: &[u8]) -> Result<JsonText<'a>, NotJson> {
        match self.rest.split_at_checked(expected.len()) {
            Some((raw, [b'"', rest @ ..])) if raw == expected && !raw.is_empty() => {
                self.rest = rest;
                Ok(JsonText { raw, has_escapes: false })
            }
            _ => self.text(),
        }
    }

    #[inline]
    fn value(&mut self) -> Result<JsonValue<'a>, NotJson> {
        match self.rest.first().ok_or(NotJson)? {
            b'"' => {
                self.take()?;
                self.text().map(JsonValue::Text)
            }
            b'{' => self.nested().map(JsonValue::Object),
            b'[' => self.nested().map(JsonValue::Array),
            b'-' | b'0'..=b'9' => {
                let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                let length = self.rest.iter().position(|byte| !is_part(byte)).unwrap_or(self.rest.len());
                self.split(length).map(JsonValue::Number)
            }
            _ => {
                let word = [&b"true"[..], b"false", b"null"].into_iter().find(|word| self.rest.starts_with(word));
                self.split(word.ok_or(NotJson)?.len()).map(JsonValue::Word)
            }
        }
    }

    /// An object or array, found by counting its brackets.
    fn nested(&mut self) -> Result<&'a [u8], NotJson> {
        let length = nested_length(self.rest).ok_or(NotJson)?;
        self.split(length)
    }
}

/// Returns the length of the object or array at the start; `None` if it does not end.
pub(super) fn nested_length(bytes: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = 0;
    loop {
        match bytes.get(at)? {
            b'"' => at = end_of_text(bytes, at + 1)?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

/// Returns the place of the quote that ends the string that begins at `from`.
fn end_of_text(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let rest = bytes.get(at..)?;
        at += memchr2(b'"', b'\\', rest)?;
        if bytes.get(at) == Some(&b'"') {
            return Some(at);
        }
        at += 2;
    }
}

fn unescape(raw: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = memchr(b'\\', rest) {
        let (before, escape) = rest.split_at(at);
        text.extend_from_slice(before);
        let (byte, length) = match escape.get(1) {
            Some(b'n') => (b'\n', 2),
            Some(b't') => (b'\t', 2),
            Some(b'r') => (b'\r', 2),
            Some(b'b') => (8, 2),
            Some(b'f') => (12, 2),
            Some(b'u') => {
                let (letter, length) = code_point(escape);
                let mut buffer = [0; 4];
                text.extend_from_slice(letter.encode_utf8(&mut buffer).as_bytes());
                rest = escape.get(length..).unwrap_or_default();
                continue;
            }
            Some(other) => (*other, 2),
            None => (b'\\', 1),
        };
        text.push(byte);
        rest = escape.get(length..).unwrap_or_default();
    }
    text.extend_from_slice(rest);
    text
}

/// The character of an escape such as `\u00e4`, or of a pair of surrogates, and the escape's length.
fn code_point(escape: &[u8]) -> (char, usize) {
    let unit = |from: usize| {
        let digits = std::str::from_utf8(escape.get(from..from + 4)?).ok()?;
        u32::from_str_radix(digits, 16).ok()
    };
    let Some(first) = unit(2) else { return (char::REPLACEMENT_CHARACTER, 2) };
    if let Some(letter) = char::from_u32(first) {
        return (letter, 6);
    }
    let second = unit(8).filter(|second| escape.get(6..8) == Some(b"\\u") && (0xdc00..0xe000).contains(second));
    match second {
        Some(second) if first < 0xdc00 => {
            let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 12)
        }
        _ => (char::REPLACEMENT_CHARACTER, 6),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members(text: &str) -> Result<Vec<(String, String)>, NotJson> {
        let show = |value: JsonValue<'_>| match value {
            JsonValue::Text(text) => String::from_utf8_lossy(&text.bytes()).into_owned(),
            JsonValue::Number(raw) | JsonValue::Object(raw) | JsonValue::Array(raw) | JsonValue::Word(raw) => {
                String::from_utf8_lossy(raw).into_owned()
            }
        };
        let all = Members::of(text.as_bytes())?;
        all.map(|it| it.map(|(key, value)| (String::from_utf8_lossy(key.raw()).into_owned(), show(value)))).collect()
    }

    #[test]
    fn members_are_found_whatever_the_layout() {
        let text =
            " {\"a\" : \"x\\\"\\u00e4\\ud83d\\ude00\", \"b\":-1.5e3,\"c\":{\"}\":[\"]\"]},\"d\":[1,{}],\"e\":null}\r\n";
        let expected = [("a", "x\"ä😀"), ("b", "-1.5e3"), ("c", "{\"}\":[\"]\"]}"), ("d", "[1,{}]"), ("e", "null")];
        assert_eq!(members(text).unwrap(), expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert_eq!(members("{}"), Ok(Vec::new()));
    }

    #[test]
    fn half_lines_and_other_formats_are_not_json() {
        let whole = "{\"a\":\"b\\\\\",\"c\":[{\"d\":1}],\"e\":true}";
        assert!(members(whole).is_ok());
        for end in 0..whole.len() {
            assert_eq!(members(&whole[..end]), Err(NotJson), "{end}");
        }
        for text in
            ["", "[]", "1.2.3.4 - - [x] \"GET / HTTP/1.1\"", "{a:1}", "{\"a\":}", "{\"a\":1 \"b\":2}", "{}{}", "{,}"]
        {
            assert_eq!(members(text), Err(NotJson), "{text}");
        }
    }

    #[test]
    fn expected_names_change_nothing() {
        let text = br#"{"a":1,"ab":2,"a\"":3,"":4}"#;
        let expected = Members::of(text).unwrap();
        let expected: Vec<_> = expected.map(|member| member.map(|(key, value)| (key.raw(), value))).collect();
        for name in [&b""[..], b"a", b"ab", b"a\\\"", b"b"] {
            let mut members = Members::of(text).unwrap();
            let all = std::iter::from_fn(|| members.next_expecting(name));
            let all: Vec<_> = all.map(|member| member.map(|(key, value)| (key.raw(), value))).collect();
            assert_eq!(all, expected, "{name:?}");
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let depth = 1_000_000;
        let text = format!("{{\"a\":{}{},\"b\":1}}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(members(&text).unwrap()[1], ("b".to_owned(), "1".to_owned()));
        assert_eq!(members(&format!("{{\"a\":{}", "{\"a\":".repeat(depth))), Err(NotJson));
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_members_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(members) = Members::of(&bytes) {
                for member in members {
                    let _ = member.map(|(_, value)| (value.scalar().map(|it| it.len()), value.first_text().map(|it| it.len())));
                }
            }
        }

        #[test]
        fn strings_are_read_as_they_were_written(value in "\\PC{0,40}", key in "[a-z]{1,8}") {
            let line = serde_json::json!({ &key: value }).to_string();
            prop_assert_eq!(members(&line).unwrap(), [(key, value)]);
        }
    }
}
