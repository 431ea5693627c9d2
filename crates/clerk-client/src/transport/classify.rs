//! Classifies errors of the HTTP libraries, some of whose types are private.

use std::error::Error as StdError;
use std::io;

use super::ErrorKind;

/// Classifies an error by its causes, whichever library reports it; `None` if unknown.
pub(super) fn kind_of(error: &(dyn StdError + 'static)) -> Option<ErrorKind> {
    if has_cause(error, |cause| cause.is::<rustls::Error>()) {
        return Some(ErrorKind::Tls);
    }
    let is_decode = |cause: &(dyn StdError + 'static)| {
        cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse)
            || cause.downcast_ref::<io::Error>().is_some_and(is_malformed)
    };
    if has_cause(error, is_decode) {
        return Some(ErrorKind::Decode);
    }
    is_closed(error).then_some(ErrorKind::Broken)
}

/// Classifies an error of establishing a connection.
pub(super) fn kind_of_connect(error: &(dyn StdError + 'static)) -> ErrorKind {
    if has_cause(error, |cause| cause.is::<rustls::Error>()) {
        return ErrorKind::Tls;
    }
    // hyper-util's type of this error is private, so match its text.
    let dns = has_cause(error, |cause| cause.to_string().starts_with("dns error"));
    if dns { ErrorKind::Dns } else { ErrorKind::Connect }
}

/// Whether the peer closed or reset the connection.
pub(super) fn is_closed(error: &(dyn StdError + 'static)) -> bool {
    has_cause(error, |cause| {
        cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message)
            || cause.downcast_ref::<io::Error>().is_some_and(is_broken_connection)
    })
}

fn is_broken_connection(error: &io::Error) -> bool {
    use std::io::ErrorKind as Io;
    matches!(error.kind(), Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe | Io::UnexpectedEof)
}

/// Whether the data is malformed, such as an invalid chunk size.
fn is_malformed(error: &io::Error) -> bool {
    use std::io::ErrorKind as Io;
    matches!(error.kind(), Io::InvalidData | Io::InvalidInput)
}

/// Whether an error or one of its causes matches. Looks into I/O errors, whose `source` skips the inner error.
pub fn has_cause(error: &(dyn StdError + 'static), fits: impl Fn(&(dyn StdError + 'static)) -> bool) -> bool {
    let mut current = Some(error);
    while let Some(error) = current {
        if fits(error) {
            return true;
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        current = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}
