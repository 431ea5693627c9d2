//! HTTP/2 against a server that sends raw frames: what is resent, what is not, and what counts as spent.
//!
//! Runs in simulated time over in-memory pipes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::{Future, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use clerk_client::outbound::retry::{Idempotency, RetryPolicy};
use clerk_client::outbound::{
    ApiRequest, Credentials, ExecuteOptions, ForwardRequest, Outbound, Phase, RequestOptions, SendError,
};
use clerk_client::transport::{BodyError, HyperOptions, HyperTransport, RequestBody};
use clerk_quota::ledger::Ledger;
use clerk_quota::{CallerId, Source, route};
use clerk_test_support::settings;
use futures_util::future::join_all;
use http::{Method, Request, Uri};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::Service;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// `:status 200` in HPACK's static table.
const OK: [u8; 1] = [0x88];

/// The server's behaviour on a connection.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// Responds to each request.
    Respond,
    /// Resets each stream after its head.
    Reset(u32),
    /// Sends GOAWAY with `last` and `code` at the head of stream `first`, then closes the connection or responds to
    /// the streams up to `last`.
    GoAway { first: u32, last: u32, code: u32, closes: bool },
    /// Closes the connection after a head.
    Close,
    /// Accepts no body frames: the window is 0.
    NoWindow,
    /// Sends a head and a part of the body.
    HalfBody,
    /// Reads nothing after the first head and does not respond.
    BlackHole,
    /// Sends the whole response before the request's body arrives.
    Early,
    /// Accepts this many concurrent streams and responds after a second.
    Limited(u32),
}

/// Counters of the server.
#[derive(Debug, Default)]
struct Seen {
    connections: usize,
    /// Request heads.
    heads: u64,
    responses: u64,
}

#[derive(Clone)]
struct Server {
    /// Behaviour of the first connections; `then` is for all others.
    acts: Arc<[Act]>,
    then: Act,
    seen: Arc<Mutex<Seen>>,
    serving: Arc<Mutex<JoinSet<()>>>,
}

async fn write(stream: &mut DuplexStream, kind: u8, flags: u8, id: u32, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(id.to_be_bytes());
    frame.extend(payload);
    stream.write_all(&frame).await
}

impl Server {
    async fn serve(self, mut stream: DuplexStream, act: Act) -> io::Result<()> {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await?;
        let settings: &[u8] = match act {
            Act::NoWindow => &[0, 4, 0, 0, 0, 0],
            Act::Limited(streams) => &[0, 3, 0, 0, 0, u8::try_from(streams).unwrap()],
            _ => &[],
        };
        write(&mut stream, SETTINGS, 0, 0, settings).await?;
        let mut goaway_sent = false;
        loop {
            let mut header = [0; 9];
            stream.read_exact(&mut header).await?;
            let mut payload = vec![0; u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize];
            stream.read_exact(&mut payload).await?;
            let (kind, flags) = (header[3], header[4]);
            let id = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
            let is_end = flags & END_STREAM != 0;
            match kind {
                SETTINGS if flags & ACK == 0 => write(&mut stream, SETTINGS, ACK, 0, &[]).await?,
                PING if flags & ACK == 0 => write(&mut stream, PING, ACK, 0, &payload).await?,
                HEADERS => {
                    self.seen.lock().heads += 1;
                    match act {
                        Act::Reset(code) => write(&mut stream, RST_STREAM, 0, id, &code.to_be_bytes()).await?,
                        Act::GoAway { first, last, code, closes } => {
                            if id >= first && !std::mem::replace(&mut goaway_sent, true) {
                                let goaway = [last.to_be_bytes(), code.to_be_bytes()].concat();
                                write(&mut stream, GOAWAY, 0, 0, &goaway).await?;
                                if closes {
                                    return Ok(());
                                }
                            }
                            if id <= last && is_end {
                                self.respond(&mut stream, id).await?;
                            }
                        }
                        Act::Close => return Ok(()),
                        Act::HalfBody => {
                            write(&mut stream, HEADERS, END_HEADERS, id, &OK).await?;
                            write(&mut stream, DATA, 0, id, b"{").await?;
                        }
                        Act::BlackHole => {
                            std::future::pending::<()>().await;
                        }
                        Act::Early => self.respond(&mut stream, id).await?,
                        Act::Limited(0) => write(&mut stream, RST_STREAM, 0, id, &REFUSED_STREAM.to_be_bytes()).await?,
                        Act::Limited(_) => {
                            tokio::time::sleep(Duration::from_secs(1)).await;
                            self.respond(&mut stream, id).await?;
                        }
                        Act::Respond | Act::NoWindow if is_end => self.respond(&mut stream, id).await?,
                        Act::Respond | Act::NoWindow => {}
                    }
                }
                DATA => {
                    if !payload.is_empty() && !matches!(act, Act::NoWindow) {
                        let more = u32::try_from(payload.len()).unwrap().to_be_bytes();
                        write(&mut stream, WINDOW_UPDATE, 0, 0, &more).await?;
                        if !is_end {
                            write(&mut stream, WINDOW_UPDATE, 0, id, &more).await?;
                        }
                    }
                    if is_end && matches!(act, Act::Respond) {
                        self.respond(&mut stream, id).await?;
                    }
                }
                _ => {}
            }
        }
    }

    async fn respond(&self, stream: &mut DuplexStream, id: u32) -> io::Result<()> {
        self.seen.lock().responses += 1;
        write(stream, HEADERS, END_HEADERS, id, &OK).await?;
        write(stream, DATA, END_STREAM, id, b"{}").await
    }
}

impl Service<Uri> for Server {
    type Response = Pipe;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Pipe>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let number = {
            let mut seen = self.seen.lock();
            seen.connections += 1;
            seen.connections - 1
        };
        let act = self.acts.get(number).copied().unwrap_or(self.then);
        let serving = self.clone().serve(theirs, act);
        // An error means that the pipe was closed.
        self.serving.lock().spawn(async move { serving.await.unwrap_or_default() });
        Box::pin(ready(Ok(Pipe(TokioIo::new(ours)))))
    }
}

/// The client's end of a connection with negotiated HTTP/2.
struct Pipe(TokioIo<DuplexStream>);

impl Connection for Pipe {
    fn connected(&self) -> Connected {
        Connected::new().negotiated_h2()
    }
}

impl hyper::rt::Read for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl hyper::rt::Write for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        hyper::rt::Write::poll_flush(Pin::new(&mut self.0), context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        hyper::rt::Write::poll_shutdown(Pin::new(&mut self.0), context)
    }
}

struct World {
    outbound: Outbound,
    ledger: Ledger,
    server: Server,
}

impl World {
    fn new(acts: &[Act], then: Act) -> Self {
        let server = Server { acts: acts.into(), then, seen: Arc::default(), serving: Arc::default() };
        let transport = Arc::new(HyperTransport::with_connector(server.clone(), &HyperOptions::default()));
        let ledger = Ledger::new([settings("test")]);
        let outbound = clerk_test_support::outbound(transport, &ledger);
        Self { outbound, ledger, server }
    }

    /// Sends a request without retries: the status or the error.
    async fn send(&self, method: Method) -> Result<u16, SendError> {
        let call = ApiRequest::new(method, "/v1/users/user_1", Source::Client);
        let policy = RequestOptions::default().retry(RetryPolicy::default().max_retries(0));
        self.outbound.send(&call, &policy).await.map(|response| response.status.as_u16())
    }

    /// Sends a write with a streamed body.
    async fn upload(&self, pieces: usize) -> Result<u16, SendError> {
        let data = (0..pieces).map(|_| Ok::<_, BodyError>(Frame::data(Bytes::from(vec![b'x'; 16 * 1024]))));
        let body = RequestBody::stream(StreamBody::new(futures_util::stream::iter(data)));
        let (head, ()) = Request::patch("http://clerk.test/v1/users/user_1").body(()).unwrap().into_parts();
        let forward = ForwardRequest {
            head: Arc::new(head),
            omitted: &[],
            body,
            route: route::find("PATCH", b"/v1/users/user_1"),
            idempotency: Idempotency::NonIdempotent,
            credentials: Credentials::Instance,
            caller: CallerId::UNNAMED,
        };
        let options = ExecuteOptions::from(&RequestOptions::default()).retry(None);
        let forwarded = self.outbound.forward(forward, &options).await?;
        let status = forwarded.response.head.status.as_u16();
        let error =
            |error: clerk_client::transport::TransportError| SendError::Request { error: error.into(), attempts: 1 };
        forwarded.response.body.collect().await.map_err(error)?;
        Ok(status)
    }

    /// Requests counted as spent. Checks that none is in flight.
    fn spent(&self) -> u64 {
        let ledger = self.ledger.instance("test").unwrap();
        let snapshot = ledger.lock().snapshot(self.outbound.clock.now());
        assert_eq!(self.outbound.limits.stats().pace.in_flight, 0);
        snapshot.spent.iter().map(|(_, count)| count).sum()
    }

    fn heads(&self) -> u64 {
        self.server.seen.lock().heads
    }
}

fn phase(error: &SendError) -> Phase {
    let SendError::Request { error, .. } = error else { panic!("{error}") };
    error.phase()
}

#[tokio::test(start_paused = true)]
async fn unprocessed_requests_are_resent_even_writes() {
    let beyond = |closes| Act::GoAway { first: 1, last: 0, code: NO_ERROR, closes };
    for act in [Act::Reset(REFUSED_STREAM), beyond(false), beyond(true)] {
        for method in [Method::GET, Method::POST, Method::PATCH, Method::DELETE] {
            let world = World::new(&[act], Act::Respond);
            let status = world.send(method.clone()).await;
            assert_eq!(status.unwrap(), 200, "{act:?} {method}");
            assert_eq!((world.heads(), world.spent()), (2, 1), "{act:?} {method}: the first was not processed");
        }
        let world = World::new(&[act], Act::Respond);
        assert_eq!(world.upload(8).await.unwrap(), 200, "{act:?}: a streamed body is replayed from its start");
        assert_eq!(world.spent(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn unprocessed_request_is_resent_once() {
    for act in [Act::Reset(REFUSED_STREAM), Act::GoAway { first: 1, last: 0, code: NO_ERROR, closes: true }] {
        for method in [Method::GET, Method::PATCH] {
            let world = World::new(&[], act);
            let error = world.send(method).await.unwrap_err();
            assert_eq!((phase(&error), world.heads(), world.spent()), (Phase::Connect, 2, 0), "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn goaway_distinguishes_accepted_and_unaccepted_streams() {
    // Twelve concurrent requests on one reused connection, of which the server accepts the first two.
    for (closes, method) in [(false, Method::PATCH), (true, Method::PATCH), (false, Method::GET), (true, Method::GET)] {
        let world = World::new(&[Act::GoAway { first: 3, last: 5, code: NO_ERROR, closes }], Act::Respond);
        assert_eq!(world.send(Method::GET).await.unwrap(), 200);
        let results = join_all((0..12).map(|_| world.send(method.clone()))).await;
        let failed: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
        // Writes that the server may have executed are not resent, but reads are.
        let may_fail = closes && method == Method::PATCH;
        assert!(failed.len() <= 2 && (may_fail || failed.is_empty()), "{failed:?}");
        assert!(failed.iter().all(|error| phase(error) == Phase::Sent), "{failed:?}");
        assert!(world.spent() >= world.server.seen.lock().responses);
    }
}

#[tokio::test(start_paused = true)]
async fn possibly_executed_requests_count_and_are_not_resent() {
    let go_away = |code| Act::GoAway { first: 1, last: 1, code, closes: true };
    for act in [
        Act::Reset(NO_ERROR),
        Act::Reset(INTERNAL_ERROR),
        Act::Reset(CANCEL),
        Act::Reset(ENHANCE_YOUR_CALM),
        go_away(INTERNAL_ERROR),
        go_away(ENHANCE_YOUR_CALM),
        Act::Close,
        Act::HalfBody,
        Act::BlackHole,
    ] {
        for method in [Method::GET, Method::PATCH] {
            let world = World::new(&[act], Act::Respond);
            let from = Instant::now();
            let result = world.send(method.clone()).await;
            // A read is resent only on a reused connection or after a GOAWAY without an error. Neither applies.
            let error = result.unwrap_err();
            assert_eq!((phase(&error), world.heads(), world.spent()), (Phase::Sent, 1, 1), "{act:?} {method}: {error}");
            assert!(from.elapsed() <= Duration::from_secs(90), "{act:?} ends");
            if !matches!(act, Act::HalfBody | Act::Reset(_)) {
                assert!(world.send(method).await.is_ok(), "{act:?}: the next request uses a new connection");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn accepted_write_is_not_resent_after_goaway() {
    let world = World::new(&[Act::GoAway { first: 1, last: 1, code: NO_ERROR, closes: true }], Act::Respond);
    let error = world.send(Method::PATCH).await.unwrap_err();
    assert_eq!((phase(&error), world.heads(), world.spent()), (Phase::Sent, 1, 1), "{error}");
    // A read is resent, and both attempts count.
    let world = World::new(&[Act::GoAway { first: 1, last: 1, code: NO_ERROR, closes: true }], Act::Respond);
    assert_eq!((world.send(Method::GET).await.unwrap(), world.heads(), world.spent()), (200, 2, 2));
}

#[tokio::test(start_paused = true)]
async fn dead_connection_is_detected_within_eight_seconds() {
    let world = World::new(&[Act::BlackHole], Act::Respond);
    let from = Instant::now();
    let error = world.send(Method::PATCH).await.unwrap_err();
    assert!(from.elapsed() <= Duration::from_secs(9), "{:?}: {error}", from.elapsed());
    assert_eq!(world.send(Method::PATCH).await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn stalled_uploads_time_out_and_early_responses_are_valid() {
    let world = World::new(&[], Act::NoWindow);
    let from = Instant::now();
    let error = world.upload(4).await.unwrap_err();
    assert!(from.elapsed() <= Duration::from_secs(30), "{:?}: {error}", from.elapsed());
    assert_eq!((phase(&error), world.spent()), (Phase::Sent, 1));
    let world = World::new(&[], Act::Early);
    assert_eq!(world.upload(4).await.unwrap(), 200);
    assert_eq!(world.spent(), 1);
}

#[tokio::test(start_paused = true)]
async fn stream_limits_are_respected_and_stream_waits_time_out() {
    let world = World::new(&[], Act::Limited(1));
    let results = join_all((0..5).map(|_| world.send(Method::PATCH))).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!((world.heads(), world.spent()), (5, 5));
    let world = World::new(&[], Act::Limited(0));
    let from = Instant::now();
    let results = join_all((0..5).map(|_| world.send(Method::PATCH))).await;
    assert!(results.iter().all(Result::is_err) && from.elapsed() <= Duration::from_secs(30), "{results:?}");
    assert!(world.spent() <= 5 && world.heads() <= 5);
}
