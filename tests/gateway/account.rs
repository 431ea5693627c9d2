//! Every request is counted: random interleavings of reads, writes, invalidations, disconnecting clients, all kinds of
//! failures and timeouts, under every set of policies, compared with what a fake Clerk received.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use clerk_client::limiter::LimiterOptions;
use clerk_client::outbound::retry::RetryPolicy;
use clerk_client::transport::{ErrorKind, RequestBody, ResponseFuture, Transport, TransportError};
use clerk_exporter::gateway::{InstancePolicies, Mode, RoutePolicies};
use clerk_quota::{Bucket, Limit, Source, Span};
use http::{Request, Response};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tokio::task::{AbortHandle, JoinSet};

use crate::support::{Setup, World};
use clerk_test_support::KEY;

/// The outcome of a request.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// No connection: nothing is received.
    Unreachable,
    /// Received, then the connection breaks.
    Broken,
    /// Received, and never answered.
    Silent,
    /// Received, and answered with this status.
    Answered(u16),
    /// Received, and the response body breaks off.
    BodyBroken,
}

#[derive(Debug, Clone)]
enum Step {
    Read {
        user: usize,
    },
    List,
    Write {
        user: usize,
    },
    Keys,
    /// A client disconnects.
    Leave {
        client: usize,
    },
    Wait {
        millis: u64,
    },
    /// The outcome of the next requests.
    Fate(Fate, u64),
}

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Answered(200)),
        1 => Just(Fate::Answered(404)),
        1 => Just(Fate::Answered(401)),
        2 => Just(Fate::Answered(429)),
        2 => Just(Fate::Answered(503)),
        2 => Just(Fate::Unreachable),
        2 => Just(Fate::Broken),
        1 => Just(Fate::Silent),
        1 => Just(Fate::BodyBroken),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..4_usize).prop_map(|user| Step::Read { user }),
        2 => Just(Step::List),
        3 => (0..4_usize).prop_map(|user| Step::Write { user }),
        1 => Just(Step::Keys),
        4 => any::<usize>().prop_map(|client| Step::Leave { client }),
        4 => (0..4000_u64).prop_map(|millis| Step::Wait { millis }),
        4 => (fates(), 0..3000_u64).prop_map(|(fate, millis)| Step::Fate(fate, millis)),
    ];
    prop::collection::vec(step, 1..80)
}

fn modes() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Off), Just(Mode::Shadow), Just(Mode::On)]
}

fn policies() -> impl Strategy<Value = RoutePolicies> {
    (modes(), modes(), modes(), modes(), modes(), any::<bool>()).prop_map(
        |(retry, coalesce, cache, batch, pace, is_explicit)| RoutePolicies {
            retry,
            coalesce,
            cache,
            batch,
            pace,
            is_explicit,
            verify: Mode::Off,
            ttl: Duration::from_secs(5),
            verify_ttl: Duration::from_secs(5),
        },
    )
}

/// A fake Clerk that counts what it received.
#[derive(Debug)]
struct Mock {
    /// Received requests, with those on unlimited routes separate.
    read: Mutex<[u64; 2]>,
    /// Requests that wait for a connection, or were cancelled while waiting: it is unknown whether those were sent.
    connecting: Arc<Mutex<[u64; 2]>>,
    fate: Mutex<(Fate, Duration)>,
}

impl Transport for Mock {
    fn send(&self, request: Request<RequestBody>) -> ResponseFuture {
        let (fate, delay) = *self.fate.lock();
        let kind = usize::from(request.uri().path() == "/v1/jwks");
        let connecting = Arc::clone(&self.connecting);
        match fate {
            Fate::Unreachable => connecting.lock()[kind] += 1,
            _ => self.read.lock()[kind] += 1,
        }
        let is_list = request.uri().path() == "/v1/users";
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            let error = |kind| Err(TransportError::new(kind, "as the test wants it".to_owned()));
            match fate {
                Fate::Unreachable => {
                    connecting.lock()[kind] -= 1;
                    error(ErrorKind::Connect)
                }
                Fate::Broken => error(ErrorKind::Broken),
                Fate::Silent => std::future::pending().await,
                Fate::Answered(status) => Ok(answer(status, is_list)),
                Fate::BodyBroken => {
                    let broken = TransportError::new(ErrorKind::Broken, "the body broke off".to_owned());
                    let body = http_body_util::StreamBody::new(futures_util::stream::iter([Err(broken)]));
                    Ok(Response::builder()
                        .header("content-type", "application/json")
                        .body(body.boxed_unsync())
                        .unwrap())
                }
            }
        })
    }
}

fn answer(status: u16, is_list: bool) -> Response<clerk_client::transport::Body> {
    let body = match (status, is_list) {
        (200, true) => "[]".to_owned(),
        (200, false) => r#"{"id":"user_1"}"#.to_owned(),
        _ => r#"{"errors":[{"code":"too_many_requests","message":"m"}]}"#.to_owned(),
    };
    let body = http_body_util::Full::from(body).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
}

struct Play {
    world: World,
    mock: Arc<Mock>,
    clients: JoinSet<()>,
    handles: Vec<AbortHandle>,
}

impl Play {
    fn new(policies: RoutePolicies) -> Self {
        let mock = Arc::new(Mock {
            read: Mutex::default(),
            connecting: Arc::default(),
            fate: Mutex::new((Fate::Answered(200), Duration::from_millis(50))),
        });
        let plan = InstancePolicies {
            policies,
            retry: RetryPolicy::default().max_retries(2).max_wait(Duration::from_secs(5)),
            max_queue_wait: Duration::from_secs(3),
            attempt_timeout: Duration::from_secs(2),
            deadline: Duration::from_secs(20),
            ..InstancePolicies::default()
        };
        let limit = Some(Limit { requests: 20, window: Duration::from_secs(10) });
        let pace = Some(LimiterOptions::default().limit(limit));
        let transport: Arc<dyn Transport> = Arc::<Mock>::clone(&mock);
        let world = World::new(&transport, "http://clerk.test", Setup { plan, pace, ..Setup::default() });
        Self { world, mock, clients: JoinSet::new(), handles: Vec::new() }
    }

    fn send(&mut self, method: &str, path: &str) {
        let request = Request::builder().method(method).uri(path).header("host", "gateway");
        let request = request.header("authorization", format!("Bearer {KEY}")).body(Body::empty()).unwrap();
        let gateway = Arc::clone(&self.world.gateway);
        self.handles.push(self.clients.spawn(async move {
            let response = gateway.handle(request).await;
            // Complete or not.
            let _ = response.into_body().collect().await;
        }));
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Read { user } => self.send("GET", &format!("/v1/users/user_{user}")),
            Step::List => self.send("GET", "/v1/users?limit=10"),
            Step::Write { user } => self.send("PATCH", &format!("/v1/users/user_{user}")),
            Step::Keys => self.send("GET", "/v1/jwks"),
            Step::Leave { client } if !self.handles.is_empty() => {
                self.handles.swap_remove(client % self.handles.len()).abort();
            }
            Step::Leave { .. } => {}
            Step::Wait { millis } => tokio::time::sleep(Duration::from_millis(millis)).await,
            Step::Fate(fate, millis) => *self.mock.fate.lock() = (fate, Duration::from_millis(millis)),
        }
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    /// Compares the counts with what was received.
    fn check(&self) {
        // Requests cancelled while waiting for a connection count, too: overcounting is safer.
        let read = self.mock.read.lock()[0] + self.mock.connecting.lock()[0];
        let now = self.world.clock.now();
        let ledger = self.world.ledger.instance("test").unwrap();
        let top: u64 = ledger.lock().top(now, Span::Hour).iter().map(|share| share.requests).sum();
        let snapshot = ledger.lock().snapshot(now);
        let spent: u64 = snapshot.spent.iter().map(|(_, count)| count).sum();
        assert_eq!((spent, top), (read, read), "counted, in the top view, and received");
        assert!(snapshot.spent.iter().all(|(key, _)| key.spender.source == Source::Gateway));
        let limiter = self.world.numbers().outbound.unwrap().pace;
        assert_eq!((limiter.in_flight, limiter.waiting), (0, 0));
        let limited = snapshot.buckets.iter().filter(|bucket| bucket.bucket.is_limited());
        let throttled: u64 = limited.map(|bucket| bucket.throttled.iter().sum::<u64>()).sum();
        let refused = snapshot.spent.iter().filter(|(key, _)| key.result.as_str() == "refused");
        assert_eq!(refused.map(|(_, count)| count).sum::<u64>(), throttled);
    }
}

fn in_paused_time(play: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(play);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 192,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_received_request_is_counted_once(policies in policies(), steps in steps()) {
        in_paused_time(async {
            let mut play = Play::new(policies);
            for step in &steps {
                play.step(step).await;
            }
            while play.clients.join_next().await.is_some() {}
            play.check();
        });
    }
}

/// Requests to a slow Clerk whose clients all disconnected count as used, everywhere.
#[test]
fn cancelled_reads_count_as_used() {
    in_paused_time(async {
        let mut play = Play::new(RoutePolicies::default());
        let ledger = play.world.ledger.instance("test").unwrap();
        ledger.lock().count_since(play.world.clock.now().before(Duration::from_secs(60)));
        play.step(&Step::Fate(Fate::Silent, 0)).await;
        for user in 0..38 {
            play.step(&Step::Read { user }).await;
        }
        tokio::time::sleep(Duration::from_millis(800)).await;
        play.clients.abort_all();
        while play.clients.join_next().await.is_some() {}
        play.check();
        let snapshot = ledger.lock().snapshot(play.world.clock.now());
        assert_eq!(snapshot.bucket(Bucket::Instance).unwrap().remaining, Some(62));
        assert!(snapshot.spent.iter().all(|(key, _)| key.result.as_str() == "unknown"));
        let top = &play.world.top()[Span::Window as usize];
        assert_eq!(top.iter().map(|share| share.requests).sum::<u64>(), 38);
    });
}
