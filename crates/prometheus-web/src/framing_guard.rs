//! A look at the heads of HTTP/1 requests as they come, for what hyper does not tell: of a request with both
//! `Content-Length` and `Transfer-Encoding` it drops the former without a word, and of a target what follows a `#`.
//!
//! Requests that a client sends before it has the answer to the last one are not looked at: they are framed as hyper
//! frames them, which is safe, and only the refusal is lost.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use memchr::memchr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection_state::ConnectionState;
use super::handler::Ambiguity;

/// A stream whose incoming bytes are looked at.
pub(super) struct FramingGuard<S> {
    stream: S,
    /// None: they are not.
    activity: Option<Arc<ConnectionState>>,
    /// None while a request is in flight.
    scanner: Option<Scanner>,
}

impl<S> FramingGuard<S> {
    pub(super) const fn new(stream: S, activity: Option<Arc<ConnectionState>>) -> Self {
        Self { stream, activity, scanner: None }
    }

    fn look(&mut self, bytes: &[u8]) {
        let Some(activity) = &self.activity else { return };
        if self.scanner.is_none() && activity.awaits_head() {
            self.scanner = Some(Scanner::default());
        }
        if let Some(scanner) = &mut self.scanner
            && scanner.scan(bytes)
        {
            if let Some(ambiguity) = scanner.ambiguity() {
                activity.head_is_ambiguous(ambiguity);
            }
            self.scanner = None;
        }
    }
}

/// What is known of a head so far.
#[derive(Debug, Default)]
struct Scanner {
    /// The beginning of the line, and the length of all of it.
    line: [u8; LONGEST.len()],
    length: usize,
    lines: usize,
    has_fragment: bool,
    has_length: bool,
    has_encoding: bool,
}

const LONGEST: &[u8] = b"transfer-encoding:";

impl Scanner {
    /// Takes in the next bytes; true if the head ends in them.
    fn scan(&mut self, mut bytes: &[u8]) -> bool {
        while let Some(end) = memchr(b'\n', bytes) {
            self.extend(&bytes[..end]);
            if self.end_line() {
                return true;
            }
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes);
        false
    }

    fn ambiguity(&self) -> Option<Ambiguity> {
        if self.has_length && self.has_encoding {
            return Some(Ambiguity::Framing);
        }
        self.has_fragment.then_some(Ambiguity::Fragment)
    }

    fn extend(&mut self, part: &[u8]) {
        if self.lines == 0 {
            self.has_fragment |= memchr(b'#', part).is_some();
        }
        if let Some(free) = self.line.get_mut(self.length..) {
            let fits = free.len().min(part.len());
            free[..fits].copy_from_slice(&part[..fits]);
        }
        self.length = self.length.saturating_add(part.len());
    }

    fn end_line(&mut self) -> bool {
        let line = &self.line[..self.length.min(self.line.len())];
        let begins = |name: &[u8]| line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        // Empty lines before the request line are skipped (RFC 9112, section 2.2).
        let is_empty = matches!(line, [] | [b'\r']);
        self.has_length |= begins(b"content-length:");
        self.has_encoding |= begins(LONGEST);
        self.length = 0;
        if is_empty {
            return self.lines > 0;
        }
        self.lines += 1;
        false
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FramingGuard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let new = &buf.filled()[before..];
        if self.activity.is_some() && !new.is_empty() {
            self.look(new);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FramingGuard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the head ended, and what is ambiguous in it; the text comes in pieces of this size.
    fn scan(text: &str, piece: usize) -> (bool, Option<Ambiguity>) {
        let mut scanner = Scanner::default();
        let ended = text.as_bytes().chunks(piece).any(|piece| scanner.scan(piece));
        (ended, scanner.ambiguity())
    }

    #[test]
    fn what_is_ambiguous_is_found_in_any_order_spelling_and_pieces() {
        for (text, expected) in [
            (
                "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                (true, Some(Ambiguity::Framing)),
            ),
            (
                "POST / HTTP/1.1\r\ntransfer-encoding:chunked\r\nCONTENT-LENGTH:1\r\n\r\n",
                (true, Some(Ambiguity::Framing)),
            ),
            (
                "\r\n\r\nPOST / HTTP/1.1\nContent-Length: 1\nTransfer-Encoding: chunked\n\n",
                (true, Some(Ambiguity::Framing)),
            ),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nTransfer-Encoding: chunked\r\n\r\n", (true, None)),
            ("POST / HTTP/1.1\r\nX-Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", (true, None)),
            ("GET /content-length:/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", (true, None)),
            ("GET /?a=1#b HTTP/1.1\r\n\r\n", (true, Some(Ambiguity::Fragment))),
            ("\r\nGET /# HTTP/1.1\r\nHost: x\r\n\r\n", (true, Some(Ambiguity::Fragment))),
            ("GET / HTTP/1.1\r\nX: #\r\n\r\n", (true, None)),
            (
                "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
                (false, Some(Ambiguity::Framing)),
            ),
        ] {
            for piece in [1, 2, 3, 7, 1000] {
                assert_eq!(scan(text, piece), expected, "{text:?} in pieces of {piece}");
            }
        }
    }
}
