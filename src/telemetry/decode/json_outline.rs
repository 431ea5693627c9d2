//! Bounds the depth of a JSON body and the memory that it decodes to, before it is decoded.

use std::mem::size_of;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::Span;

use super::weight::{FIRST_ITEM, GROWTH};
use super::{DecodeError, DecodeLimits};

/// Depth of the objects that are spans: request, list, resource, list, scope, list, span.
const SPAN_DEPTH: usize = 7;

/// Checks the brackets of a body. Whether it is valid JSON is left to the parser.
pub(super) fn check(body: &[u8], limits: &DecodeLimits) -> Result<(), DecodeError> {
    let mut left = limits.max_decoded_bytes / GROWTH;
    let mut depth = 0_usize;
    let mut in_text = false;
    // The last byte that is neither space nor in a text.
    let mut last = 0;
    let mut bytes = body.iter();
    while let Some(byte) = bytes.next() {
        if in_text {
            match byte {
                b'\\' => {
                    bytes.next();
                }
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => continue,
            b'"' => in_text = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > limits.max_depth {
                    return Err(DecodeError::TooDeep);
                }
                let size = match byte {
                    b'[' => 0,
                    _ if depth <= SPAN_DEPTH => size_of::<Span>(),
                    _ => size_of::<KeyValue>(),
                };
                let items = if last == b'[' { FIRST_ITEM } else { 1 };
                left = left.checked_sub(size * items).ok_or(DecodeError::DecodedTooLarge)?;
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        last = *byte;
    }
    Ok(())
}
