//! Tracks the frames of HTTP/2 (RFC 9113, section 4.1), to know whether a head is complete.

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Follows the frames that a client sends.
#[derive(Debug, Default)]
pub(super) struct Http2Frames {
    /// The received part of a frame's nine-byte header.
    frame: [u8; 9],
    length: usize,
    /// Bytes left of the frame's payload.
    content: usize,
    /// Whether a head has started and its last frame is not complete.
    is_in_head: bool,
    /// Whether the current frame is the last of its head.
    ends_head: bool,
}

impl Http2Frames {
    /// Processes the next bytes.
    pub(super) fn scan(&mut self, mut bytes: &[u8]) {
        loop {
            let skipped = self.content.min(bytes.len());
            self.content -= skipped;
            bytes = &bytes[skipped..];
            if self.content == 0 && self.ends_head {
                self.ends_head = false;
                self.is_in_head = false;
            }
            if bytes.is_empty() {
                return;
            }
            let taken = (self.frame.len() - self.length).min(bytes.len());
            self.frame[self.length..self.length + taken].copy_from_slice(&bytes[..taken]);
            self.length += taken;
            bytes = &bytes[taken..];
            if self.length == self.frame.len() {
                self.length = 0;
                self.begin();
            }
        }
    }

    /// Returns whether a head has started and is not complete.
    pub(super) const fn is_in_head(&self) -> bool {
        self.is_in_head
    }

    fn begin(&mut self) {
        let [a, b, c, kind, flags, ..] = self.frame;
        self.content = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if kind == HEADERS || kind == CONTINUATION {
            self.is_in_head = true;
            self.ends_head = flags & END_HEADERS != 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, 1], content].concat()
    }

    #[test]
    fn head_is_open_until_the_end_of_its_last_frame() {
        let settings = frame(4, 0, b"");
        let half = frame(HEADERS, 0, b"abc");
        let ping = frame(6, 4, b"12345678");
        let rest = frame(CONTINUATION, END_HEADERS, b"de");
        let whole = frame(HEADERS, END_HEADERS, b"abc");
        for piece in [1, 2, 5, 9, 100] {
            let mut frames = Http2Frames::default();
            let mut after = |bytes: &[u8]| {
                bytes.chunks(piece).for_each(|piece| frames.scan(piece));
                frames.is_in_head()
            };
            assert!(!after(&settings));
            assert!(after(&half));
            assert!(after(&ping), "another frame does not end a head");
            assert!(after(&rest[..10]));
            assert!(!after(&rest[10..]));
            assert!(after(&whole[..11]));
            assert!(!after(&whole[11..]));
            assert!(!after(&frame(HEADERS, END_HEADERS, b"")));
        }
    }
}
