//! What HTTP/2 says of requests that got no answer, and what of that its library does not hand on.

use std::error::Error as StdError;

use h2::Reason;

use super::ErrorKind;
use super::classify::has_cause;

/// Bytes of a frame's header (RFC 9113, section 4.1).
const HEADER: usize = 9;
const GOAWAY: u8 = 7;

/// What an error of HTTP/2 says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Http2Failure {
    /// None where it is the request's own, such as a body that broke off at its source.
    pub(super) kind: Option<ErrorKind>,
    /// The server did nothing with the request.
    pub(super) is_unprocessed: bool,
    /// The whole connection is gone, and not this stream alone.
    pub(super) is_closed: bool,
}

/// What an error says, if one of its causes is an error of HTTP/2.
pub(super) fn failure_of(error: &(dyn StdError + 'static)) -> Option<Http2Failure> {
    // The server acknowledged no ping: to hyper that is a time-out of its own.
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
    // Streams up to the last one that the server takes do not get this error (see `hyper`: `end_of_http2`).
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

/// Reads a server's frames along, and sees it announce that it closes the connection without an error.
#[derive(Debug, Default)]
pub(super) struct GoAwayWatch {
    header: [u8; HEADER],
    of_header: usize,
    /// Bytes of the frame that are still to come.
    left: usize,
    /// Last stream and error code.
    said: [u8; 8],
    of_said: usize,
}

impl GoAwayWatch {
    /// Further bytes came. Says whether the announcement was among them.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> bool {
        let mut is_announced = false;
        while !bytes.is_empty() {
            if self.of_header < HEADER {
                let (now, later) = bytes.split_at(bytes.len().min(HEADER - self.of_header));
                self.header[self.of_header..self.of_header + now.len()].copy_from_slice(now);
                self.of_header += now.len();
                bytes = later;
                if self.of_header == HEADER {
                    let [high, middle, low, ..] = self.header;
                    self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                    self.of_said = 0;
                }
            }
            if self.of_header == HEADER {
                let (now, later) = bytes.split_at(bytes.len().min(self.left));
                if self.header[3] == GOAWAY {
                    let wanted = now.len().min(self.said.len() - self.of_said);
                    self.said[self.of_said..self.of_said + wanted].copy_from_slice(&now[..wanted]);
                    self.of_said += wanted;
                }
                self.left -= now.len();
                bytes = later;
                if self.left == 0 {
                    let is_go_away = self.header[3] == GOAWAY && self.of_said == self.said.len();
                    is_announced |= is_go_away && self.said[4..] == [0; 4];
                    self.of_header = 0;
                }
            }
        }
        is_announced
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
    fn the_announcement_is_seen_wherever_reads_end() {
        let (settings, data) = (frame(4, &[]), frame(0, &[7; 40]));
        let stream = |code: u8| {
            let go_away = frame(7, &[&[0, 0, 0, 5, 0, 0, 0, code][..], b"debug data"].concat());
            [settings.clone(), data.clone(), go_away, data.clone()].concat()
        };
        for (code, is_announced) in [(0, true), (2, false), (11, false)] {
            let bytes = stream(code);
            for length in 1..=bytes.len() {
                let mut watch = GoAwayWatch::default();
                let seen = bytes.chunks(length).filter(|bytes| watch.read(bytes)).count();
                assert_eq!(seen, usize::from(is_announced), "code {code}, {length} bytes at once");
            }
        }
        assert!(!GoAwayWatch::default().read(&frame(7, &[0; 4])), "cut off");
    }
}
