//! Answers: with a body to be read, and complete ones.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::response::Parts;
use http::{HeaderMap, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Full};

use super::pace::Permit;
use super::{CallError, ErrorBody, MAX_BODY_BYTES, is_json};
use crate::quota::Observation;
use crate::upstream::{Body, UpstreamError};

/// An answer whose body is yet to be read. The request counts as in flight until the body ends or is dropped.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// The body, decompressed. Of an error it is in memory already.
    pub body: Body,
    /// What the ledger was told.
    pub observation: Observation,
    /// Clerk's errors, where the body holds any.
    pub errors: ErrorBody,
}

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// The body, decompressed.
    pub body: Bytes,
    /// What the ledger was told.
    pub observation: Observation,
    /// Clerk's errors, where the body holds any.
    pub errors: ErrorBody,
}

impl Reply {
    pub(super) fn streamed(head: Parts, body: Body, observation: Observation, permit: Permit) -> Self {
        let body = Permitted { body, permit: Some(permit) }.boxed_unsync();
        let Parts { status, headers, .. } = head;
        Self { status, headers, body, observation, errors: ErrorBody::default() }
    }

    pub(super) fn whole(head: Parts, body: Bytes, observation: Observation, errors: ErrorBody) -> Self {
        let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
        Self { status: head.status, headers: head.headers, body, observation, errors }
    }

    /// Reads the body. There is no deadline: dropping the future cancels.
    ///
    /// # Errors
    /// When the body breaks off, or is larger than [`MAX_BODY_BYTES`].
    pub async fn collect(self) -> Result<Answer, CallError> {
        let Self { status, headers, body, observation, errors } = self;
        let body = read_body(body).await?.ok_or(CallError::BodyTooLarge { status })?;
        Ok(Answer { status, headers, body, observation, errors })
    }
}

impl Answer {
    /// Whether the body claims to be JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        is_json(&self.headers)
    }
}

/// The whole body; `None` if it is too large. Reads no further than the cap.
pub(super) async fn read_body(mut body: Body) -> Result<Option<Bytes>, UpstreamError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if whole.len() + data.len() > MAX_BODY_BYTES {
                return Ok(None);
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(Some(whole.freeze()))
}

/// A body that holds its permit until it ends.
#[derive(Debug)]
struct Permitted {
    body: Body,
    permit: Option<Permit>,
}

impl http_body::Body for Permitted {
    type Data = Bytes;
    type Error = UpstreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.permit = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
