//! The client's socket, monitored in both directions.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::connection_state::ConnectionState;
use super::socket::Stream;

/// Reports reads to [`ConnectionState`] and fails a write that the client does not read in time.
///
/// It is below TLS, where a stalled client shows: TLS itself buffers.
pub(super) struct TimeoutStream {
    stream: Stream,
    activity: Arc<ConnectionState>,
    write_timeout: Duration,
    /// Runs while the socket accepts no bytes.
    stall: Option<Pin<Box<Sleep>>>,
    /// Runs from the end of the response until the socket is closed.
    linger: Option<Pin<Box<Sleep>>>,
}

/// How long a client may continue sending an unread body before its socket is closed.
const LINGER: Duration = Duration::from_secs(5);

impl TimeoutStream {
    pub(super) fn new(stream: Stream, activity: Arc<ConnectionState>, write_timeout: Duration) -> Self {
        Self { stream, activity, write_timeout, stall: None, linger: None }
    }

    fn watch_write(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            if self.stall.take().is_some() {
                self.activity.set_write_stalled(false);
            }
            return written;
        }
        let stall = self.stall.get_or_insert_with(|| {
            self.activity.set_write_stalled(true);
            Box::pin(tokio::time::sleep(self.write_timeout))
        });
        match stall.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for TimeoutStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.bytes_received();
        }
        read
    }
}

impl AsyncWrite for TimeoutStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    // A socket has no buffer of its own: neither of these waits for the client.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Closes the connection in stages (RFC 9112, section 9.6).
    ///
    /// A socket that is closed while data arrives sends a reset, which can make a client lose a response that it has
    /// not read yet.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            if !self.activity.has_unread() {
                return Poll::Ready(Ok(()));
            }
        }
        let this = &mut *self;
        let linger = this.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        let mut unread = [0; 8 * 1024];
        // A client that never stops sending must not occupy the thread.
        for _ in 0..64 {
            if linger.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buf = ReadBuf::new(&mut unread);
            match Pin::new(&mut this.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
