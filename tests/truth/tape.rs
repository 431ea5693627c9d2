//! The transport to Clerk, which records requests and decides their outcome.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use clerk_client::transport::{Body, ErrorKind, RequestBody, ResponseFuture, Transport, TransportError};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::world::{Case, Clients, Headers};

/// The caller of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Caller {
    Billing,
    Import,
    /// A list of users of both.
    Both,
    Probe,
}

/// The limit that a request counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Budget {
    Instance,
    User,
    Unlimited,
}

/// The head of a forwarded response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub(crate) at: Duration,
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    /// The remaining quota that it states.
    pub(crate) said: Option<u64>,
}

/// A received request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// The index of the process.
    pub(crate) by: usize,
    pub(crate) caller: Caller,
    pub(crate) budget: Budget,
    pub(crate) at: Duration,
    /// When the limiter counted it, and whether it was allowed.
    pub(crate) counted: Option<(Duration, bool)>,
    pub(crate) head: Option<Head>,
    /// When its head arrived, its connection broke, or its last client disconnected.
    pub(crate) ended: Option<Duration>,
    /// When its body was read or dropped.
    pub(crate) closed: Option<Duration>,
}

impl Sent {
    pub(crate) fn is_allowed(&self) -> bool {
        self.counted.is_some_and(|(_, allowed)| allowed)
    }

    pub(crate) fn is_refused_to_us(&self) -> bool {
        self.head.is_some_and(|head| head.status == 429)
    }
}

/// All recorded requests.
#[derive(Debug)]
pub(crate) struct Tape {
    started: Instant,
    base: Duration,
    sent: Mutex<Vec<Sent>>,
    /// When the limiter counted foreign requests, and whether they were allowed.
    foreign: Mutex<Vec<(Duration, bool)>>,
    /// The owners of the users.
    owners: HashMap<String, Caller>,
    /// Requests on their way to the limiter.
    arrivals: Mutex<JoinSet<()>>,
}

impl Tape {
    pub(crate) fn new(base: Duration, owners: HashMap<String, Caller>) -> Arc<Self> {
        let started = Instant::now();
        Arc::new(Self {
            started,
            base,
            sent: Mutex::default(),
            foreign: Mutex::default(),
            owners,
            arrivals: Mutex::default(),
        })
    }

    pub(crate) fn now(&self) -> Duration {
        self.base + self.started.elapsed()
    }

    pub(crate) fn base(&self) -> Duration {
        self.base
    }

    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.sent.lock().clone()
    }

    pub(crate) fn foreign(&self) -> Vec<(Duration, bool)> {
        self.foreign.lock().clone()
    }

    pub(crate) fn foreigner(&self, allowed: bool) {
        self.foreign.lock().push((self.now(), allowed));
    }

    fn begin(&self, by: usize, request: &Request<RequestBody>) -> usize {
        let path = request.uri().path();
        let target = request.uri().path_and_query().map_or(path, http::uri::PathAndQuery::as_str);
        let budget = match path {
            "/v1/jwks" => Budget::Unlimited,
            _ if path.ends_with("/metadata") => Budget::User,
            _ => Budget::Instance,
        };
        let caller = self.caller(by, target);
        let mut sent = self.sent.lock();
        sent.push(Sent { by, caller, budget, at: self.now(), counted: None, head: None, ended: None, closed: None });
        sent.len() - 1
    }

    /// The caller of this request: users and pages belong to one caller or the other.
    fn caller(&self, by: usize, target: &str) -> Caller {
        if by == crate::world::PROBER {
            return Caller::Probe;
        }
        if let Some((_, offset)) = target.split_once("offset=") {
            let odd = offset.bytes().take_while(u8::is_ascii_digit).last().is_some_and(|digit| digit % 2 == 1);
            return if odd { Caller::Import } else { Caller::Billing };
        }
        let ids = target.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let mut owners = ids.filter_map(|id| self.owners.get(id)).copied();
        let first = owners.next().unwrap_or(Caller::Billing);
        if owners.all(|owner| owner == first) { first } else { Caller::Both }
    }

    fn note(&self, request: usize, note: impl FnOnce(&mut Sent, Duration)) {
        let now = self.now();
        if let Some(sent) = self.sent.lock().get_mut(request) {
            note(sent, now);
        }
    }
}

/// The outcome of a received request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    /// The connection breaks before the response.
    Broken,
    /// The connection breaks within the body.
    BodyBroken,
}

/// The transport of one process to the simulator.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) by: usize,
    pub(crate) case: Case,
    pub(crate) inner: Arc<dyn Transport>,
    pub(crate) tape: Arc<Tape>,
    pub(crate) random: Mutex<fastrand::Rng>,
}

impl Way {
    /// Draws the latency to the limiter, the latency of the response, and the outcome.
    fn draw(&self) -> (Duration, Duration, Fate) {
        let mut random = self.random.lock();
        // Windows of the grid are compared exactly: there, a request is counted when it is sent.
        let there = if self.case.is_grid() { 0 } else { random.u64(0..40) };
        let is_slow = self.case.clients == Clients::Leave && (12..24).contains(&(self.tape.now().as_secs() % 30));
        let back = if is_slow { random.u64(1_200..3_000) } else { random.u64(20..200) };
        let fate = match (self.case.clients, random.u32(..30)) {
            (Clients::Break, 0..3) => Fate::Broken,
            (Clients::Break, 3) => Fate::BodyBroken,
            _ => Fate::Answered,
        };
        (Duration::from_millis(there), Duration::from_millis(back), fate)
    }
}

impl Transport for Way {
    fn send(&self, request: Request<RequestBody>) -> ResponseFuture {
        let is_stripped = match self.case.headers {
            Headers::None => true,
            Headers::XRateLimit => false,
            Headers::Partial => request.uri().path().starts_with("/v1/users/user_"),
        };
        let number = self.tape.begin(self.by, &request);
        let open = Open { tape: Arc::clone(&self.tape), number };
        let (there, back, fate) = self.draw();
        let (inner, tape) = (Arc::clone(&self.inner), Arc::clone(&self.tape));
        let (answer, arrival) = tokio::sync::oneshot::channel();
        // A sent request arrives even if its client disconnects.
        let mut arrivals = self.tape.arrivals.lock();
        while arrivals.try_join_next().is_some() {}
        arrivals.spawn(async move {
            if !there.is_zero() {
                tokio::time::sleep(there).await;
            }
            let response = inner.send(request).await;
            let allowed = response.as_ref().is_ok_and(|response| response.status() != 429);
            tape.note(number, |sent, now| sent.counted = Some((now, allowed)));
            // The client may have disconnected.
            let _ = answer.send(response);
        });
        Box::pin(async move {
            let broken = || TransportError::new(ErrorKind::Broken, "the connection broke".to_owned());
            let mut response = arrival.await.map_err(|_| broken())??;
            let is_refused = response.status() == 429;
            tokio::time::sleep(if is_refused { back.min(Duration::from_millis(200)) } else { back }).await;
            if fate == Fate::Broken {
                return Err(broken());
            }
            if is_stripped {
                for name in ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"] {
                    response.headers_mut().remove(name);
                }
            }
            let number_of = |name: &str| response.headers().get(name)?.to_str().ok()?.parse::<u64>().ok();
            let (status, said) = (response.status().as_u16(), number_of("x-ratelimit-remaining"));
            let retry_after = number_of("retry-after").map(Duration::from_secs);
            open.tape.note(number, |sent, at| {
                sent.head = Some(Head { at, status, retry_after, said });
                sent.ended = Some(at);
            });
            let is_broken = fate == Fate::BodyBroken;
            Ok(response.map(|body| WatchedBody { body, open: Some(open), is_broken }.boxed_unsync()))
        })
    }
}

/// A request in flight.
struct Open {
    tape: Arc<Tape>,
    number: usize,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.tape.note(self.number, |sent, now| {
            sent.ended.get_or_insert(now);
            sent.closed = Some(now);
        });
    }
}

/// A body that records its end.
struct WatchedBody {
    body: Body,
    open: Option<Open>,
    is_broken: bool,
}

impl http_body::Body for WatchedBody {
    type Data = Bytes;
    type Error = TransportError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TransportError>>> {
        if self.is_broken {
            self.open = None;
            return Poll::Ready(Some(Err(TransportError::new(ErrorKind::Broken, "the body broke off".to_owned()))));
        }
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() || self.body.is_end_stream() {
            self.open = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        !self.is_broken && self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// Whether the simulator allowed the request.
pub(crate) fn is_allowed<B>(response: &Response<B>) -> bool {
    response.status() != 429
}
