//! Inspects incoming bytes for what hyper does not report.
//!
//! hyper silently drops `Content-Length` from an HTTP/1 request that also has `Transfer-Encoding`, and what follows a
//! `#` in the request target. For HTTP/2 it does not report that a head has started.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection_state::ConnectionState;
use super::http1_framing::Http1Framing;
use super::http2_frames::Http2Frames;

/// The HTTP/2 connection preface (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream whose incoming bytes are inspected.
pub(super) struct FramingGuard<S> {
    stream: S,
    activity: Arc<ConnectionState>,
    protocol: Protocol,
}

enum Protocol {
    /// This many bytes of the preface were received.
    Unknown(usize),
    Http1(Http1Framing),
    Http2(Http2Frames),
}

impl<S> FramingGuard<S> {
    pub(super) fn new(stream: S, activity: Arc<ConnectionState>) -> Self {
        Self { stream, activity, protocol: Protocol::Unknown(0) }
    }
}

impl Protocol {
    fn inspect(&mut self, mut bytes: &[u8], activity: &ConnectionState) {
        if let Self::Unknown(before) = *self {
            let left = &PREFACE[before..];
            let same = left.iter().zip(bytes).take_while(|(expected, byte)| expected == byte).count();
            if same == left.len() {
                *self = Self::Http2(Http2Frames::default());
                bytes = &bytes[same..];
            } else if same == bytes.len() {
                *self = Self::Unknown(before + same);
                return;
            } else {
                let mut framing = Http1Framing::default();
                framing.scan(&PREFACE[..before], |ambiguity| activity.head_read(ambiguity));
                *self = Self::Http1(framing);
            }
        }
        match self {
            Self::Unknown(_) => {}
            Self::Http1(framing) => framing.scan(bytes, |ambiguity| activity.head_read(ambiguity)),
            Self::Http2(frames) => {
                frames.scan(bytes);
                activity.set_part_of_head(frames.is_in_head());
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FramingGuard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        let new = &buf.filled()[before..];
        if !new.is_empty() {
            this.protocol.inspect(new, &this.activity);
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
