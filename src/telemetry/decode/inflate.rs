//! Decompresses gzip up to a limit.

use std::io::Read;

use flate2::bufread::MultiGzDecoder;

use super::DecodeError;

/// Decompresses all members of a gzip body.
pub(super) fn inflate(body: &[u8], max_bytes: usize) -> Result<Vec<u8>, DecodeError> {
    // Traces shrink to about a tenth; more is allocated as it arrives.
    let mut inflated = Vec::with_capacity(body.len().saturating_mul(8).min(max_bytes));
    let stop = u64::try_from(max_bytes).unwrap_or(u64::MAX).saturating_add(1);
    MultiGzDecoder::new(body).take(stop).read_to_end(&mut inflated).map_err(|_| DecodeError::Gzip)?;
    if inflated.len() > max_bytes { Err(DecodeError::InflatedTooLarge) } else { Ok(inflated) }
}
