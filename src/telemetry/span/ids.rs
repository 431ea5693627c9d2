//! Trace and span ids.

/// The id of a trace: not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId(pub [u8; 16]);

/// The id of a span: not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId(pub [u8; 8]);

impl TraceId {
    /// Reads an id; `None` if its length is wrong or it is all zero.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        <[u8; 16]>::try_from(bytes).ok().filter(|id| *id != [0; 16]).map(Self)
    }
}

impl SpanId {
    /// Reads an id; `None` if its length is wrong or it is all zero.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        <[u8; 8]>::try_from(bytes).ok().filter(|id| *id != [0; 8]).map(Self)
    }

    /// Reads a parent's id, which is empty or all zero for a root. An error if its length is wrong.
    pub(super) fn parent(bytes: &[u8]) -> Result<Option<Self>, ()> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let id = <[u8; 8]>::try_from(bytes).map_err(|_| ())?;
        Ok((id != [0; 8]).then_some(Self(id)))
    }
}
