//! The page that Prometheus scrapes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use tokio::task::{JoinHandle, spawn_blocking};

use super::Admin;
use crate::metrics::{Exposition, Format};
use prometheus_web::HeldBytes;

/// What compressing a response takes in memory.
const COMPRESSION_BYTES: usize = 300 * 1024;

/// A piece of the metrics, and what is left of them.
type Written = (Option<Result<String, fmt::Error>>, Exposition);

pub(super) async fn page(State(site): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    let format = Format::negotiate(&headers);
    // Thousands of instances take a while to write down: not on a thread that serves others.
    let first = spawn_blocking(move || {
        let mut exposition = site.metrics.expose(format)?;
        let held = exposition.held_bytes();
        Ok((exposition.next().transpose()?.unwrap_or_default(), exposition, held))
    });
    match first.await {
        Ok(Ok((first, exposition, held))) => {
            let body =
                if exposition.is_finished() { Body::from(first) } else { Body::new(Pieces::new(first, exposition)) };
            let held = HeldBytes(held + COMPRESSION_BYTES);
            let content_type = HeaderValue::from_static(format.content_type());
            let vary = HeaderValue::from_static("accept");
            (Extension(held), [(header::CONTENT_TYPE, content_type), (header::VARY, vary)], body).into_response()
        }
        Ok(Err(fmt::Error)) => {
            tracing::error!("metrics cannot be encoded");
            (StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be encoded; see the log\n").into_response()
        }
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n").into_response(),
    }
}

/// A body that is written while it is sent, a piece ahead of the client.
struct Pieces {
    first: Option<String>,
    next: Option<JoinHandle<Written>>,
}

/// The metrics end before their last line.
#[derive(Debug, thiserror::Error)]
#[error("the metrics were not written to their end")]
struct Unfinished;

impl Pieces {
    fn new(first: String, exposition: Exposition) -> Self {
        Self { first: Some(first), next: Some(write(exposition)) }
    }
}

fn write(mut exposition: Exposition) -> JoinHandle<Written> {
    spawn_blocking(move || (exposition.next(), exposition))
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Unfinished;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Unfinished>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first.into()))));
        }
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let written = ready!(Pin::new(next).poll(cx));
        self.next = None;
        Poll::Ready(match written {
            Ok((None, _)) => None,
            Ok((Some(Ok(piece)), exposition)) => {
                self.next = (!exposition.is_finished()).then(|| write(exposition));
                Some(Ok(Frame::data(piece.into())))
            }
            Ok((Some(Err(fmt::Error)), _)) => {
                tracing::error!("metrics cannot be encoded; the response ends in the middle");
                Some(Err(Unfinished))
            }
            Err(_) => Some(Err(Unfinished)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.next.is_none()
    }
}
