//! A gateway on a socket, and a fake Clerk that records every byte.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clerk_client::cache::{self, Cache, CacheContent, Encryption};
use clerk_client::limiter::{self, DistributedLimiter, Priority};
use clerk_client::outbound::{InstanceLimits, Outbound};
use clerk_client::redis::RedisClient;
use clerk_client::secret::{KeySource, Secret, SecretSource};
use clerk_client::transport::{HyperOptions, NetworkTransport, Transport};
use clerk_client::webhook;
use clerk_exporter::gateway::{
    CallerToken, FurtherKey, Gateway, GatewayOptions, InstanceOptions, InstancePolicies, InstanceStats, RequestTracer,
    UNKNOWN_KEYS, UnknownKeyPolicy, passthrough,
};
use clerk_exporter::sources::{Share, Sources};
use clerk_quota::Span;
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use parking_lot::Mutex;
use prometheus_web::{ListenAddress, WebConfigSource};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use clerk_test_support::{KEY, settings};

/// A token that is replaced by [`KEY`].
pub(crate) const TOKEN: &str = "billing-token-CANARY";

/// A low-priority token of `import` that is replaced by [`KEY`].
pub(crate) const BULK_TOKEN: &str = "import-token-CANARY";

/// The key of the instance `second`.
pub(crate) const SECOND_KEY: &str = "sk_test_secondCANARY0123456789";

/// Fails a test that hangs.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("the test hangs")
}

/// A received message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// Index of the connection, from 0.
    pub(crate) connection: usize,
    /// First line and fields, without the empty line.
    pub(crate) head: String,
    /// The body without its framing.
    pub(crate) body: Vec<u8>,
    /// Fields after a chunked body.
    pub(crate) trailers: String,
}

impl Message {
    pub(crate) fn first_line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    pub(crate) fn status(&self) -> u16 {
        self.first_line().split(' ').nth(1).unwrap_or_default().parse().unwrap()
    }

    /// All fields of this name, case-insensitive, as received.
    pub(crate) fn fields(&self, name: &str) -> Vec<&str> {
        let is_it = |line: &&str| line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name));
        self.head.lines().skip(1).filter(is_it).collect()
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.fields(name).first().and_then(|field| Some(field.split_once(':')?.1.trim()))
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap().to_owned()
    }
}

async fn read_line(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        line.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned())
}

async fn read_fields(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut lines = Vec::new();
    loop {
        let line = read_line(stream).await?;
        if line.is_empty() {
            return Some(lines.join("\n"));
        }
        lines.push(line);
    }
}

pub(crate) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<Message> {
    Some(Message { head: read_fields(stream).await?, ..Message::default() })
}

pub(crate) async fn read_chunk(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let size = usize::from_str_radix(&read_line(stream).await?, 16).unwrap();
    let mut chunk = vec![0; size];
    if size > 0 {
        stream.read_exact(&mut chunk).await.ok()?;
        read_line(stream).await?;
    }
    Some(chunk)
}

/// Reads a request or a response; a response without a length ends with its connection.
pub(crate) async fn read_message(stream: &mut (impl AsyncRead + Unpin), has_body: bool) -> Option<Message> {
    let mut message = read_head(stream).await?;
    let is_answer = message.head.starts_with("HTTP/");
    if !has_body || (is_answer && matches!(message.status(), 100..=199 | 204 | 304)) {
        return Some(message);
    }
    if message.value("transfer-encoding").is_some() {
        loop {
            let chunk = read_chunk(stream).await?;
            if chunk.is_empty() {
                message.trailers = read_fields(stream).await?;
                return Some(message);
            }
            message.body.extend(chunk);
        }
    }
    match message.value("content-length") {
        Some(length) => {
            message.body = vec![0; length.parse().unwrap()];
            stream.read_exact(&mut message.body).await.ok()?;
        }
        None if is_answer => {
            stream.read_to_end(&mut message.body).await.ok()?;
        }
        None => {}
    }
    Some(message)
}

/// A fake Clerk.
pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
    pub(crate) requests: Arc<Mutex<Vec<Message>>>,
    pub(crate) connections: Arc<Mutex<usize>>,
    _tasks: JoinSet<()>,
}

impl Stub {
    /// Handles each connection with `serve`; the number is its index, from 0.
    pub(crate) async fn with<F, S>(serve: S) -> Self
    where
        S: Fn(usize, TcpStream, Arc<Mutex<Vec<Message>>>) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, connections) = (Arc::<Mutex<Vec<Message>>>::default(), Arc::<Mutex<usize>>::default());
        let mut tasks = JoinSet::new();
        let (kept, counted) = (Arc::clone(&requests), Arc::clone(&connections));
        tasks.spawn(async move {
            let mut serving = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let number = {
                    let mut count = counted.lock();
                    *count += 1;
                    *count - 1
                };
                serving.spawn(serve(number, stream, Arc::clone(&kept)));
            }
        });
        Self { address, requests, connections, _tasks: tasks }
    }

    /// Responds to every request with this.
    pub(crate) async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::with(move |number, mut stream, requests| {
            let answer = Arc::clone(&answer);
            async move {
                while let Some(request) = read_message(&mut stream, true).await {
                    requests.lock().push(Message { connection: number, ..request });
                    if stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await
    }

    pub(crate) fn requests(&self) -> Vec<Message> {
        self.requests.lock().clone()
    }

    /// The only request so far.
    pub(crate) fn request(&self) -> Message {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.into_iter().next().unwrap()
    }
}

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

/// The setup of a gateway.
pub(crate) struct Setup {
    pub(crate) plan: InstancePolicies,
    pub(crate) rejects_strangers: bool,
    pub(crate) max_callers: usize,
    pub(crate) pace: Option<limiter::LimiterOptions>,
    /// Timeout for request bodies.
    pub(crate) body_read_timeout: Duration,
    /// Whether there is an instance `second` besides `test`.
    pub(crate) has_second: bool,
    /// Webhook secrets, if there is an endpoint at `/webhooks/clerk`.
    pub(crate) webhooks: Option<webhook::WebhookOptions>,
    /// The Redis cache, and its encryption.
    pub(crate) store: Option<RedisClient>,
    pub(crate) seal: Option<Encryption>,
    /// Machine keys of the instance.
    pub(crate) machine_keys: Vec<&'static str>,
    /// The shared limiter of gateways.
    pub(crate) budget: Option<Arc<dyn DistributedLimiter>>,
    /// Shares and waits of `billing` and `import`.
    pub(crate) shares: [TokenShare; 2],
    /// Certificate authorities that the gateway trusts, and whether it uses HTTP/2 to Clerk.
    pub(crate) client: HyperOptions,
    pub(crate) forwards_trace_context: bool,
    pub(crate) tracer: Option<RequestTracer>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            plan: InstancePolicies::default(),
            rejects_strangers: false,
            max_callers: GatewayOptions::MAX_CALLERS,
            pace: None,
            body_read_timeout: Duration::from_secs(60),
            has_second: false,
            webhooks: None,
            store: None,
            seal: None,
            machine_keys: Vec::new(),
            budget: None,
            shares: [TokenShare::NONE; 2],
            client: HyperOptions::default(),
            forwards_trace_context: false,
            tracer: None,
        }
    }
}

/// The share of a token's caller, and its wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenShare {
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) max_wait: Option<Duration>,
}

impl TokenShare {
    pub(crate) const NONE: Self = Self { min: 0.0, max: 1.0, max_wait: None };
}

/// A gateway for the instance `test`, with the key [`KEY`] and the token [`TOKEN`] of `billing`.
pub(crate) struct World {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) clock: Arc<Clock>,
}

impl World {
    pub(crate) fn new(upstream: &Arc<dyn Transport>, base: &str, setup: Setup) -> Self {
        let Setup { plan, rejects_strangers, max_callers, pace, has_second, webhooks, store, seal, .. } = setup;
        let (forwards_trace_context, tracer) = (setup.forwards_trace_context, setup.tracer);
        let (budget, machine_keys, [billing, import]) = (setup.budget, setup.machine_keys, setup.shares);
        let clock = Arc::new(Clock::simulated(clerk_test_support::start()));
        let names = if has_second { &["test", "second"][..] } else { &["test"] };
        let ledger = Arc::new(Ledger::new(names.iter().map(|name| settings(name))));
        let mut seal = seal;
        let mut instance = |name: &str, key: &str| {
            let key = Arc::new(KeySource::new(SecretSource::Inline(Secret::new(key.to_owned()))));
            let handle = ledger.instance(name).unwrap();
            let mut outbound = Outbound::new(Arc::clone(upstream), base.to_owned(), key, handle, Arc::clone(&clock));
            if let Some(options) = pace {
                outbound.limits.limiter.reconfigure(options);
                if let Some(budget) = &budget {
                    outbound.limits =
                        Arc::new(InstanceLimits::sharing(options, Arc::clone(&clock), Arc::clone(budget)));
                }
            }
            let verifications = store.clone().map(|store| {
                let options = cache::CacheOptions::new(name).content(CacheContent::Verifications);
                Cache::new(options.redis(store).encryption(seal.clone()), Arc::clone(&clock))
            });
            let options = cache::CacheOptions::new(name).encryption(seal.take());
            let inline =
                |key: &&str| Arc::new(KeySource::of_machine(SecretSource::Inline(Secret::new((*key).to_owned()))));
            let further = machine_keys.iter().map(inline).map(|source| FurtherKey { source, caller: None });
            InstanceOptions {
                name: name.into(),
                outbound: Arc::new(outbound),
                further_keys: further.collect(),
                caller: None,
                policies: plan.clone(),
                cache: Cache::new(options.redis(store.clone()), Arc::clone(&clock)),
                verifications,
            }
        };
        let mut instances = vec![instance("test", KEY)];
        if has_second {
            instances.push(instance("second", SECOND_KEY));
        }
        let unknown_keys = if rejects_strangers {
            UnknownKeyPolicy::Reject
        } else {
            UnknownKeyPolicy::Forward(Arc::new(passthrough(Arc::clone(upstream), base.to_owned(), Arc::clone(&clock))))
        };
        let token = |caller: &str, token: &str, priority, share: TokenShare| CallerToken {
            caller: caller.into(),
            instance: "test".into(),
            token: Secret::new(token.to_owned()),
            priority,
            min_share: share.min,
            max_share: share.max,
            max_wait: share.max_wait,
        };
        let tokens =
            vec![token("billing", TOKEN, Priority::High, billing), token("import", BULK_TOKEN, Priority::Low, import)];
        let options = GatewayOptions {
            instances,
            unknown_keys,
            tokens,
            max_callers,
            access_log: None,
            forwards_trace_context,
            tracer,
        };
        let mut gateway = Gateway::new(options).unwrap();
        if let Some(options) = webhooks {
            gateway = gateway.with_webhooks("/webhooks/clerk".to_owned(), options).unwrap();
        }
        Self { gateway: Arc::new(gateway), ledger, clock }
    }

    pub(crate) fn numbers(&self) -> InstanceStats {
        self.numbers_of("test")
    }

    /// The largest consumers of the configured instance, by time span.
    pub(crate) fn top(&self) -> [Vec<Share>; Span::ALL.len()] {
        let sources = Sources { gateway: Some(Arc::clone(&self.gateway)), ..Sources::default() };
        let ledger = self.ledger.instance("test").unwrap();
        Span::ALL.map(|span| sources.shares(&ledger, self.clock.now(), span))
    }

    pub(crate) fn strangers(&self) -> InstanceStats {
        self.numbers_of(UNKNOWN_KEYS)
    }

    fn numbers_of(&self, name: &str) -> InstanceStats {
        let numbers = self.gateway.stats();
        numbers.instances.into_iter().find(|(found, _)| **found == *name).unwrap().1
    }
}

/// A listening gateway in front of a stub.
pub(crate) struct Running {
    pub(crate) world: World,
    pub(crate) address: SocketAddr,
    shutdown: CancellationToken,
    server: JoinSet<()>,
}

impl Running {
    pub(crate) async fn before(stub: &Stub) -> Self {
        Self::with(stub.address, Setup::default()).await
    }

    pub(crate) async fn with(upstream: SocketAddr, setup: Setup) -> Self {
        Self::to(&format!("http://{upstream}"), setup).await
    }

    pub(crate) async fn to(base: &str, setup: Setup) -> Self {
        let client: Arc<dyn Transport> = NetworkTransport::new(&setup.client).unwrap();
        let body_read_timeout = setup.body_read_timeout;
        let world = World::new(&client, base, setup);
        let listeners = prometheus_web::bind(&[ListenAddress::Socket(([127, 0, 0, 1], 0).into())]).await.unwrap();
        let address = listeners[0].local_addr();
        let shutdown = CancellationToken::new();
        let options = prometheus_web::Options::default()
            .preserve_header_case(true)
            .mark_ambiguous_heads(true)
            .body_read_timeout(body_read_timeout)
            .drain(Duration::from_millis(1));
        let serving = prometheus_web::serve(
            listeners,
            Arc::clone(&world.gateway),
            options,
            WebConfigSource::none(),
            shutdown.clone(),
        );
        let mut server = JoinSet::new();
        server.spawn(async move {
            serving.await;
        });
        Self { world, address, shutdown, server }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        within(TcpStream::connect(self.address)).await.unwrap()
    }

    /// Sends these bytes on a new connection, and reads one response.
    pub(crate) async fn send(&self, request: impl AsRef<[u8]>) -> Message {
        let mut stream = self.connect().await;
        let request = request.as_ref();
        stream.write_all(request).await.unwrap();
        within(read_message(&mut stream, !request.starts_with(b"HEAD"))).await.expect("an answer")
    }

    /// A GET request with the known key.
    pub(crate) async fn get(&self, path: &str) -> Message {
        self.send(request("GET", path, "", "")).await
    }

    /// Stops, and waits until every request has ended and was counted.
    pub(crate) async fn stopped(mut self) -> World {
        self.shutdown.cancel();
        within(self.server.join_next()).await.unwrap().unwrap();
        self.world
    }
}

/// A request with the known key, further fields and a body.
pub(crate) fn request(method: &str, path: &str, fields: &str, body: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {KEY}\r\n{fields}\r\n{body}")
}
