//! A shared response equals the response to the client's own request: for random heads, and for pairs that differ
//! slightly.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clerk_client::transport::{RequestBody, ResponseFuture, Transport};
use clerk_exporter::gateway::{InstancePolicies, Mode, RoutePolicies};
use http::{HeaderMap, HeaderName, Request, Response, Version};
use http_body_util::{BodyExt, Empty, Full};
use parking_lot::Mutex;

use crate::reads::{COALESCE, OFF};
use crate::support::{Setup, World};
use clerk_test_support::KEY;

const FIRST: &str = "/v1/users/user_2NNEqL2nrIRdJ194ndJqAHwEfxC";
const SECOND: &str = "/v1/users/user_2NNEqL2nrIRdJ194ndJqAHwEfxD";

/// A request as sent: target, and fields in order.
type Sent = (String, Vec<(String, String)>);

/// A Clerk that records requests, and whose responses number them.
#[derive(Debug, Default)]
struct Numbering {
    sent: Mutex<Vec<Sent>>,
    serial: AtomicU64,
}

impl Transport for Numbering {
    fn send(&self, request: Request<RequestBody>) -> ResponseFuture {
        let target = request.uri().path_and_query().unwrap().to_string();
        self.sent.lock().push((target.clone(), fields(request.headers())));
        let serial = self.serial.fetch_add(1, Ordering::SeqCst);
        let ids = || target.split(['?', '&']).filter_map(|part| part.strip_prefix("user_id="));
        let user = |id: &str| format!(r#"{{"id":"{id}","object":"user","serial":{serial}}}"#);
        let body = match target.strip_prefix("/v1/users/").filter(|id| id.starts_with("user_")) {
            Some(id) => user(id),
            None if ids().next().is_some() => format!("[{}]", ids().map(user).collect::<Vec<_>>().join(",")),
            None => format!(r#"{{"serial":{serial}}}"#),
        };
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync();
            Ok(Response::builder().header("content-type", "application/json").body(body).unwrap())
        })
    }
}

fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |(name, value): (&HeaderName, &http::HeaderValue)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let mut fields: Vec<_> = headers.iter().map(text).collect();
    fields.sort();
    fields
}

/// A read as a client sends it.
#[derive(Debug, Clone, PartialEq)]
struct Read {
    target: &'static str,
    version: Version,
    fields: Vec<(&'static str, &'static str)>,
}

const TARGETS: [&str; 9] = [
    FIRST,
    FIRST,
    SECOND,
    "/v1/users?limit=1&offset=0",
    "/v1/users?offset=0&limit=1",
    "/v1/users?limit=1",
    "/v1/users/count",
    "/v1/users/count?",
    "/v1/%75sers/count",
];

const FIELDS: [(&str, &str); 46] = [
    ("clerk-api-version", "2025-11-10"),
    ("clerk-api-version", "2026-05-12"),
    ("Clerk-Api-Version", "2025-11-10"),
    ("connection", "close, Clerk-API-Version"),
    ("connection", "CLERK-api-version"),
    ("connection", "close"),
    ("connection", "keep-alive, accept"),
    ("connection", "x-tenant, te"),
    ("connection", "authorization"),
    ("connection", "traceparent"),
    ("accept", "application/json"),
    ("accept", "*/*"),
    ("accept", "text/html"),
    ("accept-encoding", "gzip"),
    ("accept-encoding", "br"),
    ("accept-language", "*"),
    ("accept-language", "de"),
    ("user-agent", "@clerk/backend@3.25.0"),
    ("user-agent", "curl/8"),
    ("traceparent", "00-a-b-01"),
    ("tracestate", "a=b"),
    ("content-type", "application/json"),
    ("content-length", "0"),
    ("cookie", "a=1"),
    ("cookie", "b=2"),
    ("te", "trailers"),
    ("te", "gzip"),
    ("trailer", "x-checksum"),
    ("range", "bytes=0-1"),
    ("if-none-match", "\"a\""),
    ("if-modified-since", "Tue, 24 Nov 2026 00:00:00 GMT"),
    ("cache-control", "no-cache"),
    ("cache-control", "max-age=0"),
    ("pragma", "no-cache"),
    ("expect", "100-continue"),
    ("keep-alive", "timeout=5"),
    ("proxy-authorization", "Basic eA=="),
    ("upgrade", "h2c"),
    ("x-tenant", "a"),
    ("x-tenant", "b"),
    ("X-Tenant", ""),
    ("x-forwarded-for", "10.0.0.1"),
    ("x-http-method-override", "DELETE"),
    ("x-request-id", "1"),
    ("priority", "u=1"),
    ("host", "elsewhere.example"),
];

impl Read {
    fn random(rng: &mut fastrand::Rng) -> Self {
        let mut read = Self { target: rng.choice(TARGETS).unwrap(), version: Version::HTTP_11, fields: Vec::new() };
        for _ in 0..rng.usize(0..4) {
            read.fields.push(rng.choice(FIELDS).unwrap());
        }
        read
    }

    /// The same read, or a slightly different one.
    fn changed(&self, rng: &mut fastrand::Rng) -> Self {
        let mut read = self.clone();
        if read.target == FIRST && rng.bool() {
            read.target = SECOND;
        }
        for _ in 0..rng.usize(0..3) {
            match rng.u8(0..6) {
                0 => read.version = Version::HTTP_2,
                1 if !read.fields.is_empty() => drop(read.fields.swap_remove(rng.usize(0..read.fields.len()))),
                2 if !read.fields.is_empty() => read.fields.push(read.fields[rng.usize(0..read.fields.len())]),
                3 => read.target = rng.choice(TARGETS).unwrap(),
                4 => rng.shuffle(&mut read.fields),
                _ => read.fields.push(rng.choice(FIELDS).unwrap()),
            }
        }
        read
    }

    fn request(&self) -> Request<Empty<Bytes>> {
        let is_http2 = self.version == Version::HTTP_2;
        let uri = if is_http2 { format!("https://gateway{}", self.target) } else { self.target.to_owned() };
        let mut request = Request::get(uri).version(self.version).header("authorization", format!("Bearer {KEY}"));
        if !is_http2 && !self.fields.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "gateway");
        }
        for (name, value) in &self.fields {
            request = request.header(*name, *value);
        }
        request.body(Empty::new()).unwrap()
    }
}

struct Clerk {
    upstream: Arc<Numbering>,
    world: World,
}

impl Clerk {
    fn new(policies: RoutePolicies) -> Self {
        let upstream = Arc::new(Numbering::default());
        let transport: Arc<dyn Transport> = Arc::<Numbering>::clone(&upstream);
        let plan = InstancePolicies { policies, ..InstancePolicies::default() };
        let world = World::new(&transport, "http://clerk.test", Setup { plan, ..Setup::default() });
        Self { upstream, world }
    }

    /// The number of the request that the response belongs to, and the decision.
    async fn ask(&self, read: &Read) -> (Option<u64>, String) {
        let answer = self.world.gateway.handle(read.request()).await;
        let decision = answer.headers().get("x-clerk-exporter-decision");
        let decision = decision.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        (json["serial"].as_u64(), decision)
    }

    /// The upstream request for a read that is not shared; `None` if it is rejected.
    async fn sends(&self, read: &Read) -> Option<Sent> {
        self.ask(read).await.0?;
        self.upstream.sent.lock().pop()
    }
}

/// Documented fields that may differ in shared requests, with the required value if only one is harmless.
fn documented() -> Vec<(String, Option<String>)> {
    let docs = include_str!("../../docs/gateway.md");
    let (_, list) = docs.split_once("<!-- shared reads: begin -->").unwrap();
    let (list, _) = list.split_once("<!-- shared reads: end -->").unwrap();
    // The first item lists the parts of the cache key.
    let harmless = list.trim().split("\n- ").skip(1).collect::<String>();
    let fields = harmless.split('`').skip(1).step_by(2).map(|field| match field.split_once(": ") {
        Some((name, value)) => (name.to_ascii_lowercase(), Some(value.to_owned())),
        None => (field.to_ascii_lowercase(), None),
    });
    let fields: Vec<_> = fields.collect();
    assert!(fields.len() > 30, "{fields:?}");
    fields
}

/// The fields that may affect a response. `Host` is the instance's in all requests, not the client's.
fn all_but<'a>(sent: &'a Sent, harmless: &[(String, Option<String>)]) -> Vec<&'a (String, String)> {
    let is_own_host = |(name, value): &(String, String)| name == "host" && value == "clerk.test";
    let is_harmless = |(name, value): &(String, String)| {
        harmless.iter().any(|(known, only)| known == name && only.as_ref().is_none_or(|only| only == value))
    };
    sent.1.iter().filter(|field| !is_harmless(field) && !is_own_host(field)).collect()
}

/// A target with its parameters sorted by name.
fn sorted(target: &str) -> (String, Vec<String>) {
    let (path, query) = target.split_once('?').unwrap_or((target, "-"));
    let mut parameters: Vec<_> = query.split('&').map(str::to_owned).collect();
    parameters.sort_by(|a, b| a.split('=').next().cmp(&b.split('=').next()));
    (path.to_owned(), parameters)
}

#[tokio::test(start_paused = true)]
async fn shared_response_belongs_to_an_equal_request() {
    let harmless = documented();
    let by_default = RoutePolicies { retry: Mode::On, cache: Mode::Shadow, batch: Mode::Shadow, ..COALESCE };
    let on = Mode::On;
    let all = RoutePolicies { retry: on, coalesce: on, cache: on, batch: on, pace: on, ..OFF };
    let off = Clerk::new(OFF);
    let mut rng = fastrand::Rng::with_seed(2026);
    let mut shared = [0_u32; 3];
    for _ in 0..400 {
        let one = Read::random(&mut rng);
        let other = one.changed(&mut rng);
        let (Some(sent), Some(other_sent)) = (off.sends(&one).await, off.sends(&other).await) else { continue };
        let case = format!("{one:?}\n{other:?}");
        let [rest, other_rest] = [&sent, &other_sent].map(|sent| all_but(sent, &harmless));
        for policies in [by_default, all] {
            let clerk = Clerk::new(policies);
            let ((first, _), (second, how)) = tokio::join!(clerk.ask(&one), clerk.ask(&other));
            let (third, later) = clerk.ask(&other).await;
            let is_batched = how == "batched" && sent.0 != other_sent.0;
            if first == second || first == third {
                assert_eq!(rest, other_rest, "{case}");
                assert!(is_batched || sorted(&sent.0) == sorted(&other_sent.0), "{case}");
                assert!(first.is_some());
            }
            shared[0] += u32::from(first == second && how == "coalesced");
            shared[1] += u32::from(third == second && later == "cache_hit");
            shared[2] += u32::from(first == second && is_batched);
            // Requests with unknown fields are forwarded unchanged.
            let of_key = |name: &str| ["accept", "clerk-api-version"].contains(&name);
            for (sent, rest) in [(&sent, &rest), (&other_sent, &other_rest)] {
                if rest.iter().any(|(name, _)| !of_key(name)) {
                    assert!(clerk.upstream.sent.lock().contains(sent), "{case}\n{sent:?}");
                }
            }
        }
    }
    assert!(shared.iter().all(|count| *count >= 10), "{shared:?} by coalescing, cache and batch");
}

#[tokio::test(start_paused = true)]
async fn api_version_named_in_connection_is_not_in_the_cache_key() {
    let read = |fields: &[(&'static str, &'static str)]| Read {
        target: "/v1/users/count",
        version: Version::HTTP_11,
        fields: fields.to_vec(),
    };
    let version = ("clerk-api-version", "2025-11-10");
    let without = read(&[("connection", "close, Clerk-API-Version"), version]);
    let (with, none) = (read(&[version]), read(&[]));
    for policies in [COALESCE, RoutePolicies { cache: Mode::On, ..COALESCE }] {
        let clerk = Clerk::new(policies);
        let ((first, _), (second, _), (third, _)) =
            tokio::join!(clerk.ask(&without), clerk.ask(&with), clerk.ask(&none));
        assert_ne!(first, second, "one was sent with a version, and one without");
        assert_eq!(first, third);
    }
}
