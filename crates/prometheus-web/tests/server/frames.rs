//! An HTTP/2 client that sends raw frames, which no library allows.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

const INITIAL_WINDOW_SIZE: u16 = 4;

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) content: Vec<u8>,
}

pub(crate) struct FrameClient<S>(S);

impl<S: AsyncRead + AsyncWrite + Unpin> FrameClient<S> {
    /// Starts a connection with this initial stream window.
    pub(crate) async fn start(mut stream: S, window: u32) -> Self {
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut client = Self(stream);
        client.set_window(window).await;
        client
    }

    /// Changes the window of all streams.
    pub(crate) async fn set_window(&mut self, window: u32) {
        let setting = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &window.to_be_bytes()].concat();
        self.send(SETTINGS, 0, 0, &setting).await;
    }

    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, content: &[u8]) {
        self.send_bytes(&frame(kind, flags, stream, content)).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        // If the server has closed the connection, the next read shows it.
        let _ = self.0.write_all(bytes).await;
    }

    pub(crate) async fn get(&mut self, stream: u32, path: &str) {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &head(0x82, path)).await;
    }

    /// Sends a POST request without a body yet.
    pub(crate) async fn post(&mut self, stream: u32, path: &str) {
        self.send(HEADERS, END_HEADERS, stream, &head(0x83, path)).await;
    }

    pub(crate) async fn allow(&mut self, stream: u32, bytes: u32) {
        self.send(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes()).await;
    }

    /// Returns the next frame other than settings and pings, which are acknowledged; `None` when the connection has
    /// ended.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            let mut start = [0; 9];
            self.0.read_exact(&mut start).await.ok()?;
            let [a, b, c, kind, flags, s, t, u, v] = start;
            let mut content = vec![0; usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)];
            self.0.read_exact(&mut content).await.ok()?;
            if (kind == PING || kind == SETTINGS) && flags & ACK == 0 {
                let answer = if kind == PING { content } else { Vec::new() };
                self.send(kind, ACK, 0, &answer).await;
                continue;
            }
            if kind != PING && kind != SETTINGS {
                return Some(Frame { kind, flags, stream: u32::from_be_bytes([s, t, u, v]), content });
            }
        }
    }

    /// Returns the next frame of a kind on a stream; `None` when the connection has ended.
    pub(crate) async fn next_of(&mut self, kind: u8, stream: u32) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind && frame.stream == stream {
                return Some(frame);
            }
        }
    }

    /// Returns the complete response body of a stream; `None` if it has no end.
    pub(crate) async fn body(&mut self, stream: u32) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let frame = self.next().await?;
            if frame.stream != stream {
                continue;
            }
            match frame.kind {
                DATA => body.extend(frame.content),
                RST_STREAM => return None,
                _ => {}
            }
            if frame.flags & END_STREAM != 0 {
                return Some(body);
            }
        }
    }

    /// Acknowledges pings until the server closes the connection.
    pub(crate) async fn ended(&mut self) {
        while self.next().await.is_some() {}
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&[a, b, c, kind, flags], &stream.to_be_bytes()[..], content].concat()
}

/// Encodes a head in HPACK, all literal except the method: an index of the static table.
pub(crate) fn head(method: u8, path: &str) -> Vec<u8> {
    let literal = |index: u8, text: &str| [&[index, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [&[method, 0x86][..], &literal(4, path), &literal(1, "localhost")].concat()
}
