//! HAR: one JSON document. Its entries are cut out one by one, so that the document is never held whole.

use super::call::LogCall;
use super::json::{Elements, Members, Value};
use super::line::malformed;
use super::request::{self, Parts, Requests};
use super::skip::SkipKind;
use super::time;

const MILLISECOND: u64 = 1_000_000;

/// Returns whether a file begins as a HAR document: `{"log": {`.
pub(super) fn is_har(start: &[u8]) -> bool {
    let mut rest = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    for token in [&b"{"[..], b"\"log\"", b":", b"{"] {
        rest = rest.trim_ascii_start();
        let Some(after) = rest.strip_prefix(token) else { return false };
        rest = after;
    }
    true
}

/// Cuts the entries out of a document that arrives in pieces.
#[derive(Debug, Default)]
pub(super) struct EntryCutter {
    depth: usize,
    in_text: bool,
    is_escaped: bool,
    /// The last string, as far as it is a name of interest.
    name: Vec<u8>,
    in_entries: bool,
    entry: Vec<u8>,
    is_too_long: bool,
}

/// What the cutter found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cut<'a> {
    Entry(&'a [u8]),
    TooLong,
}

/// Depth of the list of entries: document, log, list.
const LIST: usize = 3;
const NAME: &[u8] = b"entries";

impl EntryCutter {
    /// Takes the next piece in and passes each entry that ends in it to `found`. Entries longer than `longest` bytes are
    /// not kept.
    pub(super) fn feed(&mut self, piece: &[u8], longest: usize, mut found: impl FnMut(Cut<'_>)) {
        for byte in piece {
            let is_inside = self.in_entries && self.depth > LIST;
            if is_inside {
                self.keep(*byte, longest);
            }
            if self.in_text {
                self.in_text(*byte);
                continue;
            }
            match byte {
                b'"' => {
                    self.in_text = true;
                    self.name.clear();
                }
                b'{' | b'[' => {
                    self.depth += 1;
                    if self.in_entries && self.depth == LIST + 1 {
                        self.entry.clear();
                        self.is_too_long = false;
                        self.keep(*byte, longest);
                    } else if self.depth == LIST && *byte == b'[' && self.name == NAME {
                        self.in_entries = true;
                    }
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if is_inside && self.depth == LIST {
                        found(if self.is_too_long { Cut::TooLong } else { Cut::Entry(&self.entry) });
                    } else if self.depth < LIST {
                        self.in_entries = false;
                    }
                }
                _ => {}
            }
        }
    }

    /// Returns whether the document has ended.
    pub(super) const fn is_done(&self) -> bool {
        self.depth == 0 && !self.in_text
    }

    fn in_text(&mut self, byte: u8) {
        match byte {
            _ if std::mem::take(&mut self.is_escaped) => {}
            b'\\' => self.is_escaped = true,
            b'"' => self.in_text = false,
            _ if self.name.len() <= NAME.len() => self.name.push(byte),
            _ => {}
        }
    }

    fn keep(&mut self, byte: u8, longest: usize) {
        if self.entry.len() < longest {
            self.entry.push(byte);
        } else {
            self.is_too_long = true;
        }
    }
}

impl Requests {
    /// Reads an entry.
    pub(super) fn parse_har_entry(&mut self, entry: &[u8]) -> Result<LogCall, SkipKind> {
        let [mut started, mut took, mut request, mut response] = [None; 4];
        for member in Members::of(entry).map_err(malformed)? {
            let (key, value) = member.map_err(malformed)?;
            match key.raw() {
                b"startedDateTime" => started = Some(value),
                b"time" => took = Some(value),
                b"request" => request = Some(value),
                b"response" => response = Some(value),
                _ => {}
            }
        }
        let Some(Value::Object(request)) = request else { return Err(SkipKind::BadRequest) };
        let [mut method, mut url, mut agent] = [None, None, None];
        for member in Members::of(request).map_err(malformed)? {
            let (key, value) = member.map_err(malformed)?;
            match (key.raw(), value) {
                (b"method", value) => method = value.scalar(),
                (b"url", value) => url = value.scalar(),
                (b"headers", Value::Array(list)) => {
                    each_header(list, |name, value| {
                        if name.eq_ignore_ascii_case(b"user-agent") {
                            agent = value.scalar();
                        }
                    })?;
                }
                _ => {}
            }
        }
        let (Some(method), Some(url)) = (method, url) else { return Err(SkipKind::BadRequest) };
        let started = started.and_then(Value::scalar).and_then(|text| time::parse(&text)).ok_or(SkipKind::BadTime)?;
        let (mut status, mut headers) = (None, Vec::new());
        if let Some(Value::Object(response)) = response {
            for member in Members::of(response).map_err(malformed)? {
                let (key, value) = member.map_err(malformed)?;
                match (key.raw(), value) {
                    (b"status", value) => status = value.scalar().map_or(Ok(None), |text| request::status(&text))?,
                    (b"headers", Value::Array(list)) => {
                        each_header(list, |name, value| {
                            let known = request::quota_header(name).filter(|name| !matches!(*name, "date" | "age"));
                            headers.extend(known.zip(value.scalar()));
                        })?;
                    }
                    _ => {}
                }
            }
        }
        let quota = request::quota(status, headers.iter().map(|(name, value)| (*name, &**value)));
        let took = took.and_then(Value::scalar).and_then(|text| time::duration(&text, MILLISECOND));
        self.call(Parts {
            time: started,
            is_end: false,
            took,
            method: &method,
            target: &url,
            is_clerk: false,
            host: None,
            caller: agent.as_deref(),
            status,
            quota,
        })
    }
}

/// Passes each `{"name": ..., "value": ...}` of a list.
fn each_header<'a>(list: &'a [u8], mut visit: impl FnMut(&[u8], Value<'a>)) -> Result<(), SkipKind> {
    for header in Elements::of(list).map_err(malformed)? {
        let Value::Object(header) = header.map_err(malformed)? else { continue };
        let (mut name, mut content) = (None, None);
        for member in Members::of(header).map_err(malformed)? {
            let (key, value) = member.map_err(malformed)?;
            match key.raw() {
                b"name" => name = value.scalar(),
                b"value" => content = Some(value),
                _ => {}
            }
        }
        if let (Some(name), Some(content)) = (name, content) {
            visit(&name, content);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DOCUMENT: &str = r#"{"log": {"version": "1.2", "pages": [{"id": "entries"}], "creator": {"name": "entries"},
        "entries": [{"a": [1, {"b": "}]\""}]}, {"c": {}}], "comment": "entries"}}"#;

    fn cut(document: &[u8], piece: usize, longest: usize) -> (Vec<Option<String>>, bool) {
        let mut cutter = EntryCutter::default();
        let mut entries = Vec::new();
        for piece in document.chunks(piece) {
            cutter.feed(piece, longest, |cut| {
                entries.push(match cut {
                    Cut::Entry(entry) => Some(String::from_utf8_lossy(entry).into_owned()),
                    Cut::TooLong => None,
                });
            });
        }
        (entries, cutter.is_done())
    }

    #[test]
    fn entries_are_cut_out_whatever_the_pieces() {
        let expected = [Some(r#"{"a": [1, {"b": "}]\""}]}"#.to_owned()), Some(r#"{"c": {}}"#.to_owned())];
        for piece in [1, 2, 7, 1000] {
            assert_eq!(cut(DOCUMENT.as_bytes(), piece, 1000), (expected.to_vec(), true), "{piece}");
        }
        assert_eq!(cut(DOCUMENT.as_bytes(), 3, 10), (vec![None, expected[1].clone()], true));
        assert!(!cut(&DOCUMENT.as_bytes()[..DOCUMENT.len() - 1], 5, 1000).1);
    }

    #[test]
    fn document_is_known_by_its_begin() {
        assert!(is_har(DOCUMENT.as_bytes()) && is_har(b"\xef\xbb\xbf \n{ \"log\"\n:\t{}}"));
        for other in ["", "{", "{\"log\": \"text\"}", "{\"logs\": {}}", "[{\"log\": {}}]"] {
            assert!(!is_har(other.as_bytes()), "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_cut_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut document = b"{\"log\":{\"entries\":[".to_vec();
            document.extend(bytes);
            cut(&document, 16, 64);
        }
    }
}
