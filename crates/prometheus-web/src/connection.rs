//! One connection, from its first byte to its last.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::future::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept::Server;
use super::connection_limit::ConnectionPermit;
use super::connection_state::ConnectionState;
use super::framing_guard::FramingGuard;
use super::handler::Handler;
use super::service;
use super::socket::Stream;
use super::timeout_stream::TimeoutStream;

/// Greatest size of a request head in bytes. Far above what a browser or an SDK sends, far below hyper's 400 KiB.
const MAX_HEAD: usize = 64 * 1024;

/// Greatest number of requests in flight on one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;

/// How often a silent HTTP/2 client is asked whether it is still there, and how long it may take to answer.
const HTTP2_PING_EVERY: Duration = Duration::from_secs(20);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection without a request in flight may stay after the order to stop: enough for the rest of a head
/// that is on its way, too little for a half-open client to hold up the end of the program.
const IDLE_WHILE_STOPPING: Duration = Duration::from_secs(1);

pub(super) type HttpBuilder = auto::Builder<TrackedExecutor>;

/// Runs the tasks of HTTP/2 streams where the shutdown sees and ends them.
#[derive(Clone)]
pub(super) struct TrackedExecutor {
    tasks: TaskTracker,
    cut: CancellationToken,
}

impl<F> Executor<F> for TrackedExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let cut = self.cut.clone();
        self.tasks.spawn(task.with_cancellation_token_owned(cut));
    }
}

/// The HTTP settings of a server.
pub(super) fn http_builder(tasks: TaskTracker, cut: CancellationToken, preserve_header_case: bool) -> HttpBuilder {
    let mut builder = auto::Builder::new(TrackedExecutor { tasks, cut });
    builder
        .http1()
        .timer(TokioTimer::new())
        // `Activity` is in charge of it, and says why.
        .header_read_timeout(None)
        .preserve_header_case(preserve_header_case)
        .max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HTTP2_PING_EVERY)
        .keep_alive_timeout(HTTP2_PING_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX));
    builder
}

/// Why a connection ended other than by a proper close. For the debug log: clients do all of this every day.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionEnd {
    #[error("the TLS handshake failed: {0}")]
    Handshake(io::Error),
    #[error("the TLS handshake took too long")]
    HandshakeTimeout,
    #[error("no request came in time")]
    RequestTimeout,
    #[error("a new client needed the place")]
    Dismissed,
    #[error("{0}")]
    Http(Box<dyn std::error::Error + Send + Sync>),
}

/// Serves one client until it leaves, has to leave, or the server stops.
pub(super) async fn serve_client<H: Handler>(
    server: &Arc<Server<H>>,
    stream: Stream,
    peer: SocketAddr,
    place: ConnectionPermit,
) -> Result<(), ConnectionEnd> {
    let options = &server.options;
    let activity = ConnectionState::new(place, options.header_read_timeout, options.idle_timeout);
    let stream = TimeoutStream::new(stream, Arc::clone(&activity), options.write_timeout);
    let Some(config) = server.web_config.watched().map(|watched| watched.for_handshake()) else {
        return serve_http(server, stream, peer, activity, true).await;
    };
    let Some(tls) = config.tls.clone() else {
        return serve_http(server, stream, peer, activity, config.http2).await;
    };
    let handshake = timeout(options.tls_handshake_timeout, TlsAcceptor::from(tls).accept(stream));
    let handshake = tokio::select! {
        handshake = handshake => handshake,
        () = activity.place().dismissed() => return Err(ConnectionEnd::Dismissed),
        () = server.shutdown.cancelled() => return Ok(()),
    };
    let stream = handshake.map_err(|_| ConnectionEnd::HandshakeTimeout)?.map_err(ConnectionEnd::Handshake)?;
    activity.handshake_done();
    // In a box, so that a connection without TLS does not take the room of one with it.
    Box::pin(serve_http(server, stream, peer, activity, config.http2)).await
}

async fn serve_http<S, H>(
    server: &Arc<Server<H>>,
    stream: S,
    peer: SocketAddr,
    activity: Arc<ConnectionState>,
    http2: bool,
) -> Result<(), ConnectionEnd>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Handler,
{
    let service = service_fn(|request| service::answer(Arc::clone(server), Arc::clone(&activity), peer, request));
    let http1_only;
    let builder = if http2 {
        &server.http
    } else {
        http1_only = server.http.clone().http1_only();
        &http1_only
    };
    let stream = FramingGuard::new(stream, server.options.mark_ambiguous_heads.then(|| Arc::clone(&activity)));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut stopping = pin!(server.shutdown.cancelled());
    let mut stop_deadline = None;
    let mut dismissal = pin!(activity.place().dismissed());
    let mut is_dismissed = false;
    // Runs out when the client has to be closed; meaningless while a request is in flight.
    let mut alarm = pin!(sleep_until(Instant::now()));

    poll_fn(|cx| {
        // The connection always comes first: what has arrived counts before it is judged to be idle or late.
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended.map_err(ConnectionEnd::Http));
            }
            if stop_deadline.is_none() && stopping.as_mut().poll(cx).is_ready() {
                stop_deadline = Some(Instant::now() + IDLE_WHILE_STOPPING);
            } else if !is_dismissed && dismissal.as_mut().poll(cx).is_ready() {
                is_dismissed = true;
                if activity.is_idle() {
                    return Poll::Ready(Err(ConnectionEnd::Dismissed));
                }
                // A request has come in the meantime: it is answered, and then the connection is closed.
            } else {
                break;
            }
            connection.as_mut().graceful_shutdown();
        }
        let Some(deadline) = activity.deadline() else {
            return Poll::Pending;
        };
        let deadline = stop_deadline.map_or(deadline, |stop| deadline.min(stop));
        // The deadline moves with each request. An alarm that comes too early costs less than one that moves along.
        if alarm.deadline() > deadline {
            alarm.as_mut().reset(deadline);
        }
        while alarm.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(Err(ConnectionEnd::RequestTimeout));
            }
            alarm.as_mut().reset(deadline);
        }
        Poll::Pending
    })
    .await
}
