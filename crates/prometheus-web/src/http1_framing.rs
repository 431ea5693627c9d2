//! Parses the framing of HTTP/1 requests (RFC 9112, section 6) to inspect every head, also of pipelined requests and
//! after bodies.
//!
//! It parses as hyper does. Where hyper fails, parsing stops.

use memchr::memchr;

use super::handler::Ambiguity;

/// Follows the requests that a client sends.
#[derive(Debug)]
pub(super) struct Http1Framing(Part);

#[derive(Debug)]
enum Part {
    Head(Head),
    /// This many bytes of a body are left.
    Sized(u64),
    Chunked(Chunks),
    /// The input is not HTTP/1.
    Invalid,
}

impl Default for Http1Framing {
    fn default() -> Self {
        Self(Part::Head(Head::default()))
    }
}

impl Http1Framing {
    /// Processes the next bytes, and reports the ambiguity at the end of each head.
    pub(super) fn scan(&mut self, mut bytes: &[u8], mut head_read: impl FnMut(Option<Ambiguity>)) {
        while !bytes.is_empty() {
            match &mut self.0 {
                Part::Head(head) => {
                    let Some(taken) = head.scan(bytes) else { return };
                    bytes = &bytes[taken..];
                    head_read(head.ambiguity());
                    self.0 = head.body();
                }
                Part::Sized(left) => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= taken as u64;
                    bytes = &bytes[taken..];
                    if *left == 0 {
                        self.0 = Part::Head(Head::default());
                    }
                }
                Part::Chunked(chunks) => {
                    bytes = &bytes[chunks.scan(bytes)..];
                    match chunks.state {
                        Chunk::End => self.0 = Part::Head(Head::default()),
                        Chunk::Broken => self.0 = Part::Invalid,
                        _ => {}
                    }
                }
                Part::Invalid => return,
            }
        }
    }
}

/// The parsed part of a head.
#[derive(Debug, Default)]
struct Head {
    /// The start of the current line, and the line's full length.
    line: [u8; TRANSFER_ENCODING.len()],
    length: usize,
    lines: usize,
    has_fragment: bool,
    content_length: Option<u64>,
    has_encoding: bool,
}

const CONTENT_LENGTH: &[u8] = b"content-length:";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding:";

impl Head {
    /// Processes the next bytes. Returns the number consumed if the head ends in them.
    fn scan(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut taken = 0;
        while let Some(end) = memchr(b'\n', &bytes[taken..]) {
            self.extend(&bytes[taken..taken + end]);
            taken += end + 1;
            if self.end_line() {
                return Some(taken);
            }
        }
        self.extend(&bytes[taken..]);
        None
    }

    fn ambiguity(&self) -> Option<Ambiguity> {
        if self.content_length.is_some() && self.has_encoding {
            return Some(Ambiguity::Framing);
        }
        self.has_fragment.then_some(Ambiguity::Fragment)
    }

    /// Returns the framing of what follows the head.
    fn body(&self) -> Part {
        if self.has_encoding {
            return Part::Chunked(Chunks::default());
        }
        match self.content_length {
            None | Some(0) => Part::Head(Self::default()),
            Some(length) => Part::Sized(length),
        }
    }

    fn extend(&mut self, part: &[u8]) {
        if self.lines == 0 {
            self.has_fragment |= memchr(b'#', part).is_some();
        }
        if let Some(free) = self.line.get_mut(self.length..) {
            let fits = free.len().min(part.len());
            free[..fits].copy_from_slice(&part[..fits]);
        }
        let before = self.length;
        self.length = self.length.saturating_add(part.len());
        if self.length < CONTENT_LENGTH.len() || !self.begins(CONTENT_LENGTH) {
            return;
        }
        if before < CONTENT_LENGTH.len() {
            self.content_length = Some(0);
        }
        let value = part.get(CONTENT_LENGTH.len().saturating_sub(before)..).unwrap_or_default();
        // hyper rejects values that are not numbers.
        for digit in value.iter().filter(|byte| byte.is_ascii_digit()) {
            let length = self.content_length.unwrap_or_default().saturating_mul(10);
            self.content_length = Some(length.saturating_add(u64::from(digit - b'0')));
        }
    }

    fn begins(&self, name: &[u8]) -> bool {
        let line = &self.line[..self.length.min(self.line.len())];
        line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
    }

    fn end_line(&mut self) -> bool {
        // Empty lines before the request line are skipped (RFC 9112, section 2.2).
        let is_empty = self.length == 0 || (self.length == 1 && self.line[0] == b'\r');
        self.has_encoding |= self.begins(TRANSFER_ENCODING);
        self.length = 0;
        if is_empty {
            return self.lines > 0;
        }
        self.lines += 1;
        false
    }
}

/// A chunked body (RFC 9112, section 7.1).
#[derive(Debug, Default)]
struct Chunks {
    state: Chunk,
    /// Bytes left of the chunk.
    left: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    #[default]
    Start,
    Size,
    SpaceBehindSize,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    End,
    Broken,
}

impl Chunks {
    /// Processes bytes up to the end of the body. Returns the number consumed.
    fn scan(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() && !matches!(self.state, Chunk::End | Chunk::Broken) {
            if self.state == Chunk::Data {
                let data = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - taken);
                self.left -= data as u64;
                taken += data;
                if self.left == 0 {
                    self.state = Chunk::DataCr;
                }
                continue;
            }
            self.state = self.after(bytes[taken]);
            taken += 1;
        }
        taken
    }

    fn after(&mut self, byte: u8) -> Chunk {
        use Chunk::{
            Broken, Data, DataCr, DataLf, End, EndLf, Extension, Size, SizeLf, SpaceBehindSize, Start, Trailer,
            TrailerLf, TrailerStart,
        };
        match (self.state, byte) {
            (Start | Size, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                match self.left.checked_mul(16) {
                    Some(size) => {
                        self.left = size + u64::from(digit);
                        Size
                    }
                    None => Broken,
                }
            }
            (Size | SpaceBehindSize, b' ' | b'\t') => SpaceBehindSize,
            (Size | SpaceBehindSize | Extension, b'\r') => SizeLf,
            (SizeLf, b'\n') if self.left == 0 => TrailerStart,
            (SizeLf, b'\n') => Data,
            (DataCr, b'\r') => DataLf,
            (DataLf, b'\n') => Start,
            (TrailerStart, b'\r') => EndLf,
            (Trailer, b'\r') => TrailerLf,
            (TrailerLf, b'\n') => TrailerStart,
            (EndLf, b'\n') => End,
            (Extension, b'\n') => Broken,
            (Size | SpaceBehindSize, b';') | (Extension, _) => Extension,
            (TrailerStart | Trailer, _) => Trailer,
            _ => Broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the ambiguity of each head. The text arrives in pieces of this size.
    fn scan(text: &str, piece: usize) -> Vec<Option<Ambiguity>> {
        let mut framing = Http1Framing::default();
        let mut heads = Vec::new();
        for piece in text.as_bytes().chunks(piece) {
            framing.scan(piece, |ambiguity| heads.push(ambiguity));
        }
        heads
    }

    #[test]
    fn ambiguity_is_found_in_any_order_case_and_chunking() {
        for (text, expected) in [
            (
                "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                vec![Some(Ambiguity::Framing)],
            ),
            (
                "POST / HTTP/1.1\r\ntransfer-encoding:chunked\r\nCONTENT-LENGTH:1\r\n\r\n",
                vec![Some(Ambiguity::Framing)],
            ),
            (
                "\r\n\r\nPOST / HTTP/1.1\nContent-Length: 1\nTransfer-Encoding: chunked\n\n",
                vec![Some(Ambiguity::Framing)],
            ),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nTransfer-Encoding: chunked\r\n\r\n", vec![None, None]),
            ("POST / HTTP/1.1\r\nX-Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", vec![None]),
            ("GET /content-length:/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", vec![None]),
            ("GET /?a=1#b HTTP/1.1\r\n\r\n", vec![Some(Ambiguity::Fragment)]),
            ("\r\nGET /# HTTP/1.1\r\nHost: x\r\n\r\n", vec![Some(Ambiguity::Fragment)]),
            ("GET / HTTP/1.1\r\nX: #\r\n\r\n", vec![None]),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n", vec![]),
        ] {
            for piece in [1, 2, 3, 7, 1000] {
                assert_eq!(scan(text, piece), expected, "{text:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn pipelined_heads_are_inspected() {
        const BAD: &str = "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for before in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length:  11 \r\n\r\nhello world",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
            "POST / HTTP/1.1\r\nContent-Length: 20\r\n\r\nGET / HTTP/1.1#\r\n\r\nx",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1a \t;x=\"y\"\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;#\r\n\r\n\r\n00\r\n\r\n",
        ] {
            for piece in [1, 2, 3, 7, 1000] {
                let text = format!("{before}{BAD}");
                assert_eq!(scan(&text, piece), [None, Some(Ambiguity::Framing)], "{text:?} in pieces of {piece}");
                let text = format!("{before}{before}GET /#x HTTP/1.1\r\n\r\n");
                assert_eq!(
                    scan(&text, piece),
                    [None, None, Some(Ambiguity::Fragment)],
                    "{text:?} in pieces of {piece}"
                );
            }
        }
    }

    #[test]
    fn invalid_chunked_body_stops_parsing() {
        for body in ["x\r\n", "\r\n", "1\n", "1\r\nab", "1 2\r\n", "1;\n", "0\r\n\rx", "fffffffffffffffff\r\n"] {
            let text =
                format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}\r\n\r\nGET /# HTTP/1.1\r\n\r\n");
            assert_eq!(scan(&text, 1000), [None], "{text:?}");
        }
    }
}
