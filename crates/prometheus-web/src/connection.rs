//! One connection, from its first byte to its last.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

use super::Options;
use super::accept::Server;
use super::connection_limit::{ConnectionPermit, SLOW_AFTER};
use super::connection_state::{ConnectionState, TimeLimits};
use super::framing_guard::FramingGuard;
use super::handler::Handler;
use super::outside::Outside;
use super::service;
use super::socket::Stream;
use super::stream_task::StreamExecutor;
use super::timeout_stream::TimeoutStream;

/// Maximum size of a request head in bytes: far above what browsers and SDKs send, far below hyper's 400 KiB.
const MAX_HEAD: usize = 64 * 1024;

/// Maximum number of requests in flight on one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;

/// Maximum number of streams that a client reset before they were handled, and of streams that this side reset because
/// of errors. A connection above it is closed.
const MAX_RESET_STREAMS: usize = 20;
const MAX_FAULTY_STREAMS: usize = 128;

/// Response bytes buffered for the window of a stream, and at most one piece more.
const STREAM_SEND_BUFFER: usize = 16 * 1024;

/// Request body bytes accepted before they are read, per stream and per connection.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// Interval of pings to a silent HTTP/2 client, and the maximum time for its reply.
const HTTP2_PING_EVERY: Duration = Duration::from_secs(20);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection without a request in flight may stay after shutdown starts: long enough for a head in
/// transit, too short for a half-open client to delay the shutdown.
const IDLE_WHILE_STOPPING: Duration = Duration::from_secs(1);

pub(super) type HttpBuilder = auto::Builder<StreamExecutor>;

/// Returns the HTTP settings of a server.
pub(super) fn http_builder(executor: StreamExecutor, options: &Options) -> HttpBuilder {
    let mut builder = auto::Builder::new(executor);
    builder
        .http1()
        .timer(TokioTimer::new())
        // [`ConnectionState`] enforces it; its module documentation says why.
        .header_read_timeout(None)
        .preserve_header_case(options.preserve_header_case)
        .max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HTTP2_PING_EVERY)
        .keep_alive_timeout(HTTP2_PING_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .max_local_error_reset_streams(MAX_FAULTY_STREAMS)
        .max_send_buf_size(STREAM_SEND_BUFFER)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX));
    builder
}

/// The reason why a connection ended without a proper close. Only for the debug log: clients do this all the time.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionEnd {
    #[error("TLS handshake failed: {0}")]
    Handshake(io::Error),
    #[error("TLS handshake timed out")]
    HandshakeTimeout,
    #[error("no request arrived in time")]
    RequestTimeout,
    #[error("evicted for a new client")]
    Evicted,
    #[error("{0}")]
    Http(Box<dyn std::error::Error + Send + Sync>),
}

/// Serves one client until it leaves, is disconnected, or the server stops.
pub(super) async fn serve_client<H: Handler>(
    server: &Arc<Server<H>>,
    stream: Stream,
    peer: SocketAddr,
    permit: ConnectionPermit,
) -> Result<(), ConnectionEnd> {
    let options = &server.options;
    let local_port = stream.local_port();
    let limits = TimeLimits {
        header_read: options.header_read_timeout,
        idle: options.idle_timeout,
        write: options.write_timeout,
    };
    let activity = ConnectionState::new(permit, limits, Arc::clone(&server.unsent), local_port);
    let stream = TimeoutStream::new(stream, Arc::clone(&activity), options.write_timeout);
    let Some(config) = server.web_config.watched().map(|watched| watched.current()) else {
        return serve_http(server, stream, peer, activity, Agreed { http2: true, is_certified: false }).await;
    };
    let Some(tls) = config.tls.clone() else {
        let agreed = Agreed { http2: config.http2, is_certified: false };
        return serve_http(server, stream, peer, activity, agreed).await;
    };
    let handshake = timeout(options.tls_handshake_timeout, TlsAcceptor::from(tls).accept(stream));
    let handshake = tokio::select! {
        handshake = handshake => handshake,
        () = activity.permit().evicted() => return Err(ConnectionEnd::Evicted),
        () = server.stopping.cancelled() => return Ok(()),
    };
    let stream = handshake.map_err(|_| ConnectionEnd::HandshakeTimeout)?.map_err(ConnectionEnd::Handshake)?;
    activity.handshake_done();
    let agreed = Agreed { http2: config.http2, is_certified: config.requires_client_cert };
    // Boxed, so that a connection without TLS does not need the memory of one with it.
    Box::pin(serve_http(server, stream, peer, activity, agreed)).await
}

/// What was agreed when the connection was opened.
#[derive(Clone, Copy)]
struct Agreed {
    http2: bool,
    /// Whether the client had to show a certificate that was verified.
    is_certified: bool,
}

async fn serve_http<S, H>(
    server: &Arc<Server<H>>,
    stream: S,
    peer: SocketAddr,
    activity: Arc<ConnectionState>,
    Agreed { http2, is_certified }: Agreed,
) -> Result<(), ConnectionEnd>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Handler,
{
    // The connection's requests end with it, however it ends.
    let _ending = EndRequests(&activity);
    let service = service_fn(|request| {
        service::serve_request(Arc::clone(server), Arc::clone(&activity), (peer, is_certified), request)
    });
    let http1_only;
    let builder = if http2 {
        &server.http
    } else {
        http1_only = server.http.clone().http1_only();
        &http1_only
    };
    let stream = FramingGuard::new(stream, Arc::clone(&activity));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut leaving = pin!(server.leaving.cancelled());
    let mut stopping = pin!(server.stopping.cancelled());
    let mut eviction = pin!(activity.permit().evicted());
    const LEAVING: usize = 0;
    const STOPPING: usize = 1;
    const EVICTION: usize = 2;
    let mut outside = Outside::new([leaving.as_mut(), stopping.as_mut(), eviction.as_mut()]);
    let mut has_left = false;
    let mut stop_deadline = None;
    let mut is_evicted = false;
    let mut is_leaving = false;
    // Expires when the client has to be disconnected; unused while a request is in flight.
    let mut timer = pin!(sleep_until(Instant::now()));

    poll_fn(|cx| {
        activity.poll_begins();
        outside.poll(cx);
        if outside.has_completed(LEAVING) {
            activity.server_leaves();
        }
        // Poll the connection first: received data counts before the connection is judged idle or late.
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended.map_err(ConnectionEnd::Http));
            }
            // HTTP/1 would close an idle connection, which its client may be about to use.
            if !has_left && outside.has_completed(LEAVING) && activity.is_http2() {
                has_left = true;
            } else if stop_deadline.is_none() && outside.has_completed(STOPPING) {
                stop_deadline = Some(Instant::now() + IDLE_WHILE_STOPPING);
            } else if !is_evicted && outside.has_completed(EVICTION) {
                is_evicted = true;
                let is_slow = activity.slow_since().is_some_and(|since| since.elapsed() >= SLOW_AFTER);
                if activity.is_idle() || is_slow {
                    return Poll::Ready(Err(ConnectionEnd::Evicted));
                }
                // A request arrived in the meantime: respond to it, then close the connection.
            } else if !is_leaving && activity.is_leaving() {
                is_leaving = true;
            } else {
                break;
            }
            connection.as_mut().graceful_shutdown();
        }
        let Some(deadline) = activity.deadline(cx) else {
            return Poll::Pending;
        };
        let deadline = stop_deadline.map_or(deadline, |stop| deadline.min(stop));
        // The deadline moves with each request. A timer that fires early is cheaper than resetting it each time.
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(Err(ConnectionEnd::RequestTimeout));
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    })
    .await
}

/// Ends the requests of a closed connection. HTTP/2 stream tasks would only notice later.
struct EndRequests<'a>(&'a ConnectionState);

impl Drop for EndRequests<'_> {
    fn drop(&mut self) {
        self.0.end_requests();
    }
}
