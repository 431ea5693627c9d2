//! The metrics endpoint.

use std::fmt;
use std::future::Future;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, ready};
use std::thread;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::metrics::{Exposition, Format, Metrics};
use prometheus_web::HeldBytes;

/// Memory that compressing a response takes, in bytes.
const COMPRESSION_BYTES: usize = 300 * 1024;

/// The thread that encodes metrics. It alternates between concurrent scrapes, one piece at a time.
///
/// Encoding thousands of instances takes long, so that it must not block threads that serve other requests. It is
/// always the same thread, because the C library caches freed memory per thread: many threads would hold many
/// snapshots.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    metrics: Arc<Metrics>,
    jobs: mpsc::Sender<Job>,
}

enum Job {
    Begin(Arc<Metrics>, Format, oneshot::Sender<Result<Begun, fmt::Error>>),
    GoOn(Exposition, oneshot::Sender<Written>),
}

impl Job {
    /// The result is dropped if the client has disconnected.
    fn work(self) {
        match self {
            Self::Begin(metrics, format, to) => drop(to.send(begin(&metrics, format))),
            Self::GoOn(mut exposition, to) => drop(to.send((exposition.next(), exposition))),
        }
    }
}

/// The first piece, the rest, and the approximate memory they take in bytes.
type Begun = (String, Exposition, usize);

/// A piece, and the rest.
type Written = (Option<Result<String, fmt::Error>>, Exposition);

impl Writer {
    /// Starts the thread, which ends when the last clone is dropped. Needs a runtime.
    pub(super) fn start(metrics: Arc<Metrics>) -> Self {
        let (jobs, waiting) = mpsc::channel::<Job>();
        let runtime = Handle::current();
        let work = move || {
            let _guard = runtime.enter();
            for job in waiting {
                // A panic in one scrape must not end all later ones. The panic is logged.
                let _ = panic::catch_unwind(AssertUnwindSafe(|| job.work()));
            }
        };
        if let Err(error) = thread::Builder::new().name("metrics".to_owned()).spawn(work) {
            tracing::error!(%error, "failed to start the metrics thread; scrapes will get 503");
        }
        Self { metrics, jobs }
    }

    fn begin(&self, format: Format) -> oneshot::Receiver<Result<Begun, fmt::Error>> {
        let (to, begun) = oneshot::channel();
        // Without the thread, the sender is dropped immediately.
        drop(self.jobs.send(Job::Begin(Arc::clone(&self.metrics), format, to)));
        begun
    }

    fn go_on(&self, exposition: Exposition) -> oneshot::Receiver<Written> {
        let (to, written) = oneshot::channel();
        drop(self.jobs.send(Job::GoOn(exposition, to)));
        written
    }
}

fn begin(metrics: &Metrics, format: Format) -> Result<Begun, fmt::Error> {
    let mut exposition = metrics.expose(format)?;
    let held = exposition.held_bytes();
    let first = exposition.next().transpose()?.unwrap_or_default();
    Ok((first, exposition, held))
}

pub(super) async fn page(State(writer): State<Writer>, headers: HeaderMap) -> Response {
    let format = Format::negotiate(&headers);
    match writer.begin(format).await {
        Ok(Ok((first, exposition, held))) => {
            let body = if exposition.is_finished() {
                Body::from(first)
            } else {
                let next = Some(writer.go_on(exposition));
                Body::new(Pieces { first: Some(first), next, writer })
            };
            let held = HeldBytes(held + COMPRESSION_BYTES);
            let content_type = HeaderValue::from_static(format.content_type());
            let vary = HeaderValue::from_static("accept");
            (Extension(held), [(header::CONTENT_TYPE, content_type), (header::VARY, vary)], body).into_response()
        }
        Ok(Err(fmt::Error)) => {
            tracing::error!("failed to encode metrics");
            (StatusCode::INTERNAL_SERVER_ERROR, "failed to encode metrics; see the log\n").into_response()
        }
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "failed to write metrics; see the log\n").into_response(),
    }
}

/// A body that is encoded while it is sent, one piece ahead of the client.
struct Pieces {
    first: Option<String>,
    next: Option<oneshot::Receiver<Written>>,
    writer: Writer,
}

/// The metrics are incomplete.
#[derive(Debug, thiserror::Error)]
#[error("the metrics are incomplete")]
struct Unfinished;

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
                self.next = (!exposition.is_finished()).then(|| self.writer.go_on(exposition));
                Some(Ok(Frame::data(piece.into())))
            }
            Ok((Some(Err(fmt::Error)), _)) => {
                tracing::error!("failed to encode metrics; the response is truncated");
                Some(Err(Unfinished))
            }
            Err(_) => Some(Err(Unfinished)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.next.is_none()
    }
}
