//! HTTP/2 failures: what they say about requests without a response, and what the library does not expose.

use std::error::Error as StdError;

use h2::Reason;

use super::ErrorKind;
use super::classify::has_cause;

/// Length of a frame header in bytes (RFC 9113, section 4.1).
const HEADER: usize = 9;
const GOAWAY: u8 = 7;

/// An HTTP/2 failure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Http2Failure {
    /// `None` if the request itself failed, such as a request body that broke off at its source.
    pub(super) kind: Option<ErrorKind>,
    /// The server did not process the request.
    pub(super) is_unprocessed: bool,
    /// The whole connection is closed, not only this stream.
    pub(super) is_closed: bool,
}

/// Returns the HTTP/2 failure among an error's causes.
pub(super) fn failure_of(error: &(dyn StdError + 'static)) -> Option<Http2Failure> {
    // hyper reports an unacknowledged ping as a timeout of its own.
    let is_dead =
        |cause: &(dyn StdError + 'static)| cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout);
    if has_cause(error, is_dead) {
        return Some(Http2Failure { kind: Some(ErrorKind::Broken), is_unprocessed: false, is_closed: true });
    }
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return Some(of_stream(error));
        }
        current = error.source();
    }
    None
}

fn of_stream(error: &h2::Error) -> Http2Failure {
    let reason = error.reason();
    let is_refused = error.is_reset() && error.is_remote() && reason == Some(Reason::REFUSED_STREAM);
    // Streams up to the last accepted one do not get this error (see `hyper`: `end_of_http2`).
    let is_beyond_last = error.is_go_away() && error.is_remote() && reason == Some(Reason::NO_ERROR);
    let kind = if error.is_library() {
        Some(ErrorKind::Decode)
    } else if error.is_remote() || error.is_io() {
        Some(ErrorKind::Broken)
    } else {
        None
    };
    let is_closed = error.is_io() || (error.is_go_away() && error.is_remote());
    Http2Failure { kind, is_unprocessed: is_refused || is_beyond_last, is_closed }
}

/// Watches a server's frames for a GOAWAY without an error.
#[derive(Debug, Default)]
pub(super) struct GoAwayWatch {
    header: [u8; HEADER],
    of_header: usize,
    /// Remaining bytes of the frame.
    left: usize,
    /// Last stream ID and error code.
    payload: [u8; 8],
    of_payload: usize,
}

impl GoAwayWatch {
    /// Processes further bytes. Returns whether they completed such a GOAWAY.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> bool {
        let mut is_found = false;
        while !bytes.is_empty() {
            if self.of_header < HEADER {
                let (now, later) = bytes.split_at(bytes.len().min(HEADER - self.of_header));
                self.header[self.of_header..self.of_header + now.len()].copy_from_slice(now);
                self.of_header += now.len();
                bytes = later;
                if self.of_header == HEADER {
                    let [high, middle, low, ..] = self.header;
                    self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                    self.of_payload = 0;
                }
            }
            if self.of_header == HEADER {
                let (now, later) = bytes.split_at(bytes.len().min(self.left));
                if self.header[3] == GOAWAY {
                    let wanted = now.len().min(self.payload.len() - self.of_payload);
                    self.payload[self.of_payload..self.of_payload + wanted].copy_from_slice(&now[..wanted]);
                    self.of_payload += wanted;
                }
                self.left -= now.len();
                bytes = later;
                if self.left == 0 {
                    let is_go_away = self.header[3] == GOAWAY && self.of_payload == self.payload.len();
                    is_found |= is_go_away && self.payload[4..] == [0; 4];
                    self.of_header = 0;
                }
            }
        }
        is_found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).expect("a short frame");
        [&[0, 0, length, kind, 0, 0, 0, 0, 0], payload].concat()
    }

    #[test]
    fn goaway_is_found_across_read_boundaries() {
        let (settings, data) = (frame(4, &[]), frame(0, &[7; 40]));
        let stream = |code: u8| {
            let go_away = frame(7, &[&[0, 0, 0, 5, 0, 0, 0, code][..], b"debug data"].concat());
            [settings.clone(), data.clone(), go_away, data.clone()].concat()
        };
        for (code, is_found) in [(0, true), (2, false), (11, false)] {
            let bytes = stream(code);
            for length in 1..=bytes.len() {
                let mut watch = GoAwayWatch::default();
                let seen = bytes.chunks(length).filter(|bytes| watch.read(bytes)).count();
                assert_eq!(seen, usize::from(is_found), "code {code}, {length} bytes at once");
            }
        }
        assert!(!GoAwayWatch::default().read(&frame(7, &[0; 4])), "truncated");
    }
}
