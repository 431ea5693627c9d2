//! Reads a request body within the limits on one body and on all that wait.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::Failure;
use crate::telemetry::decode::DecodeError;

/// What a request costs besides its body.
const OVERHEAD: u32 = 1024;

/// Reads a body. The permit holds its bytes in the limit on all bodies.
pub(super) async fn read(
    mut body: Body,
    waiting: &Arc<Semaphore>,
    max_bytes: usize,
) -> Result<(Bytes, OwnedSemaphorePermit), Failure> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > max_bytes {
        return Err(Failure::Decode(DecodeError::BodyTooLarge));
    }
    let reserve = |bytes: usize| {
        let bytes = u32::try_from(bytes).map_err(|_| Failure::Overloaded)?;
        Arc::clone(waiting).try_acquire_many_owned(bytes).map_err(|_| Failure::Overloaded)
    };
    let mut permit = reserve(OVERHEAD as usize + announced)?;
    let mut reserved = announced;
    let mut first = Bytes::new();
    let mut whole = Vec::new();
    let mut length = 0_usize;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Failure::Incomplete)?.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length > max_bytes {
            return Err(Failure::Decode(DecodeError::BodyTooLarge));
        }
        if length > reserved {
            permit.merge(reserve(length - reserved)?);
            reserved = length;
        }
        // Most bodies are one piece, which needs no copy.
        if first.is_empty() && whole.is_empty() {
            first = data;
        } else {
            if whole.is_empty() {
                whole.reserve(announced.max(length));
                whole.extend_from_slice(&first);
                first = Bytes::new();
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok((if whole.is_empty() { first } else { whole.into() }, permit))
}
