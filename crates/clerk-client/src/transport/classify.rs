//! What kind of failure an error of the HTTP libraries tells of: they keep some of their types to themselves.

use std::error::Error as StdError;
use std::io;

use super::ErrorKind;

/// The kind of an error by its causes, whichever library reports it; `None` where they do not tell.
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

/// The kind of an error that says that no connection was made.
pub(super) fn kind_of_connect(error: &(dyn StdError + 'static)) -> ErrorKind {
    if has_cause(error, |cause| cause.is::<rustls::Error>()) {
        return ErrorKind::Tls;
    }
    // hyper-util keeps the type of this error to itself, but not its text.
    let dns = has_cause(error, |cause| cause.to_string().starts_with("dns error"));
    if dns { ErrorKind::Dns } else { ErrorKind::Connect }
}

/// Whether the other side closed or reset the connection.
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

/// Such as the size of a chunk that is no number.
fn is_malformed(error: &io::Error) -> bool {
    use std::io::ErrorKind as Io;
    matches!(error.kind(), Io::InvalidData | Io::InvalidInput)
}

/// Whether an error or one of its causes fits; looks into I/O errors, which hide theirs.
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
