//! Misplaced and unknown credentials, and machine keys.

use std::sync::Arc;

use clerk_client::cache::{self, Cache};
use clerk_client::outbound::Outbound;
use clerk_client::secret::{KeySource, Secret, SecretSource};
use clerk_client::transport::MemoryTransport;
use clerk_exporter::gateway::{
    CredentialShape, FurtherKey, Gateway, GatewayOptions, InstanceOptions, InstancePolicies, Mode, RoutePolicies,
    UnknownKeyPolicy,
};
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use http::Request;
use http_body_util::{BodyExt, Empty};
use parking_lot::Mutex;

use crate::reads::OFF;
use crate::support::{BULK_TOKEN, OK, Running, Setup, Stub, TOKEN};
use clerk_test_support::{KEY, log, settings};

const MACHINE_KEY: &str = "ak_machineCANARY0123456789";

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn base64(text: &str) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in text.as_bytes().chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let letter = char::from(LETTERS[(bits >> (18 - 6 * place)) as usize & 63]);
            out.push(if place <= group.len() { letter } else { '=' });
        }
    }
    out
}

/// A token in forms other than `Bearer <token>`.
fn spellings(token: &str) -> Vec<String> {
    let basic = |text: String| {
        let encoded = base64(&text);
        [encoded.trim_end_matches('=').replace('+', "-").replace('/', "_"), encoded]
    };
    let mut spellings = vec![token.to_owned(), percent(token), percent(token).to_lowercase(), percent(&percent(token))];
    for text in
        [format!(":{token}"), format!("{token}:"), format!("user:{token}"), format!("{token}:x"), token.to_owned()]
    {
        spellings.extend(basic(text));
    }
    spellings.push(percent(&base64(&format!("u:{token}"))));
    spellings.push(format!("\"{token}\""));
    spellings.push(format!("x{token}x"));
    spellings
}

#[tokio::test]
async fn token_is_never_forwarded_from_anywhere() {
    let stub = Stub::answering(OK).await;
    let gateway = Running::before(&stub).await;
    let key = format!("Authorization: Bearer {KEY}\r\n");
    for token in [TOKEN, BULK_TOKEN] {
        for text in spellings(token) {
            let mut heads = vec![format!("Authorization: {text}\r\n")];
            for scheme in ["Basic", "basic", "BASIC ", "Token", "ApiKey", "Digest", "Bearer:", "Bearer Bearer"] {
                heads.push(format!("Authorization: {scheme} {text}\r\n"));
            }
            for who in [&*key, &format!("Authorization: Bearer {TOKEN}\r\n"), ""] {
                heads.push(format!("{who}Cookie: __session={text}\r\n"));
                heads.push(format!("{who}X-Api-Key: {text}\r\n"));
                heads.push(format!("{who}Proxy-Authorization: Bearer {text}\r\n"));
                heads.push(format!("{who}Authorization: Bearer {text}\r\nAuthorization: Bearer {KEY}\r\n"));
            }
            for fields in heads {
                let raw = format!("GET /v1/users HTTP/1.1\r\nHost: gateway\r\n{fields}\r\n");
                let answer = gateway.send(&raw).await;
                assert_eq!((answer.status(), &*answer.code()), (400, "gateway_request_invalid"), "{raw}");
                assert!(!String::from_utf8_lossy(&answer.body).contains(token));
            }
            if text.contains(['"', '+', '/']) {
                continue;
            }
            for path in [
                format!("/v1/users?token={text}"),
                format!("/v1/users?a=1&access_token={text}&b=2"),
                format!("/v1/{text}"),
            ] {
                let raw = format!("GET {path} HTTP/1.1\r\nHost: gateway\r\n{key}\r\n");
                assert_eq!(gateway.send(&raw).await.status(), 400, "{raw}");
            }
        }
    }
    assert_eq!(stub.requests(), []);
    // Values that are not tokens pass.
    for fields in ["Cookie: __session=billing-token-CANARX\r\n", "X-Api-Key: YmlsbGluZy10b2tlbi1DQU5BUlg=\r\n"] {
        let raw = format!("GET /v1/users HTTP/1.1\r\nHost: gateway\r\n{key}{fields}\r\n");
        assert_eq!(gateway.send(&raw).await.status(), 200, "{raw}");
    }
}

#[tokio::test]
async fn unknown_credentials_are_counted_by_shape_and_never_shown() {
    log::listen();
    let shapes = [
        ("Bearer sk_live_somebodysCANARY", CredentialShape::SecretKeyLive, "(sk_live_)"),
        ("bearer  sk_test_somebodysCANARY", CredentialShape::SecretKeyTest, "(sk_test_)"),
        ("Bearer ak_somebodysCANARY", CredentialShape::MachineKey, "machine_secret_key_files"),
        ("Bearer pk_test_somebodysCANARY", CredentialShape::PublishableKey, "publishable key"),
        ("Bearer eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJDQU5BUlkifQ.CANARY", CredentialShape::Jwt, "JSON Web Token"),
        ("Bearer withdrawn-token-CANARY", CredentialShape::Other, "revoked"),
        ("Basic c2tfbGl2ZV9DQU5BUlk6", CredentialShape::SecretKeyLive, "(sk_live_)"),
        ("sk_test_somebodysCANARY", CredentialShape::SecretKeyTest, "(sk_test_)"),
        ("", CredentialShape::None, "Bearer <key or token>"),
    ];
    for rejects_strangers in [true, false] {
        let stub = Stub::answering(OK).await;
        let gateway = Running::with(stub.address, Setup { rejects_strangers, ..Setup::default() }).await;
        for (authorization, _, text) in shapes {
            let fields =
                if authorization.is_empty() { String::new() } else { format!("Authorization: {authorization}\r\n") };
            for _ in 0..2 {
                let answer = gateway.send(format!("GET /v1/users HTTP/1.1\r\nHost: gateway\r\n{fields}\r\n")).await;
                assert_eq!(answer.status(), if rejects_strangers { 401 } else { 200 });
                let body = String::from_utf8_lossy(&answer.body).into_owned();
                assert!(!rejects_strangers || (body.contains(text) && body.contains("gateway_key_unknown")), "{body}");
                assert!(!body.contains("CANARY"), "{body}");
            }
        }
        let sent = if rejects_strangers { 0 } else { shapes.len() * 2 };
        assert_eq!(stub.requests().len(), sent);
        for count in gateway.world.gateway.stats().unknown_credentials {
            let expected = shapes.iter().filter(|(_, shape, _)| *shape == count.shape).count() as u64 * 2;
            let (seen, other) =
                if rejects_strangers { (count.rejected, count.forwarded) } else { (count.forwarded, count.rejected) };
            assert_eq!((seen, other), (expected, 0), "{count:?}");
        }
    }
    let logged = log::everything();
    assert!(!logged.contains("CANARY"), "{logged}");
    let warnings =
        logged.lines().filter(|line| line.contains("WARN") && line.contains("rejected a request with 401")).count();
    assert_eq!(warnings, CredentialShape::ALL.len(), "once for each shape: {logged}");
}

#[tokio::test]
async fn keyless_routes_pass_with_unknown_keys_rejected() {
    let stub = Stub::answering(OK).await;
    let gateway = Running::with(stub.address, Setup { rejects_strangers: true, ..Setup::default() }).await;
    let post = |path: &str, fields: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: gateway\r\n{fields}Content-Length: 2\r\n\r\n{{}}")
    };
    for path in
        ["/v1/accountless_applications", "/v1/accountless_applications/complete", "/v1/accountless_applications?a=1"]
    {
        assert_eq!(gateway.send(post(path, "")).await.status(), 200, "{path}");
        assert_eq!(gateway.send(post(path, "Authorization: Bearer sk_test_unknown\r\n")).await.status(), 401, "{path}");
    }
    assert_eq!(stub.requests().len(), 3);
    for path in ["/v1/users", "/v1/accountless_applications/../users", "/v1/accountless_applicationsx"] {
        assert_eq!(gateway.send(post(path, "")).await.status(), 401, "{path}");
    }
    assert_eq!(stub.requests().len(), 3);
}

/// A gateway whose instance has a machine key in a file, and the requests that its Clerk received: target and
/// credential.
struct Machines {
    gateway: Gateway,
    folder: tempfile::TempDir,
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl Machines {
    fn new(policies: RoutePolicies) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("machine");
        std::fs::write(&file, format!("{MACHINE_KEY}\n")).unwrap();
        let asked = Arc::<Mutex<Vec<(String, String)>>>::default();
        let kept = Arc::clone(&asked);
        let router = axum::Router::new().fallback(async move |request: axum::extract::Request| {
            let authorization = request.headers()["authorization"].to_str().unwrap().to_owned();
            kept.lock().push((request.uri().to_string(), authorization));
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            let id = request.uri().path().rsplit('/').next().unwrap_or_default();
            format!(r#"{{"id":"{id}"}}"#)
        });
        let ledger = Ledger::new([settings("a")]);
        let clock = Arc::new(Clock::simulated(clerk_test_support::start()));
        let key = Arc::new(KeySource::new(SecretSource::Inline(Secret::new(KEY.to_owned()))));
        let (handle, base) = (ledger.instance("a").unwrap(), "http://clerk.test".to_owned());
        let outbound = Outbound::new(MemoryTransport::new(router), base, key, handle, Arc::clone(&clock));
        let instance = InstanceOptions {
            name: "a".into(),
            outbound: Arc::new(outbound),
            further_keys: vec![FurtherKey {
                source: Arc::new(KeySource::of_machine(SecretSource::File(file))),
                caller: Some("worker".into()),
            }],
            caller: None,
            policies: InstancePolicies { policies, ..InstancePolicies::default() },
            cache: Cache::new(cache::CacheOptions::new("a"), Arc::clone(&clock)),
            verifications: None,
        };
        let options = GatewayOptions {
            instances: vec![instance],
            unknown_keys: UnknownKeyPolicy::Reject,
            tokens: Vec::new(),
            max_callers: 5,
            access_log: None,
            forwards_trace_context: false,
            tracer: None,
        };
        Self { gateway: Gateway::new(options).unwrap(), folder, asked }
    }

    async fn ask(&self, path: &str, key: &str) -> u16 {
        let request = Request::get(path).header("host", "g").header("authorization", format!("Bearer {key}"));
        let answer = self.gateway.handle(request.body(Empty::<bytes::Bytes>::new()).unwrap()).await;
        let status = answer.status().as_u16();
        answer.into_body().collect().await.unwrap();
        status
    }
}

#[tokio::test(start_paused = true)]
async fn machine_key_identifies_its_instance_and_is_reloaded() {
    let machines = Machines::new(OFF);
    assert_eq!(machines.ask("/m2m_tokens", MACHINE_KEY).await, 200);
    assert_eq!(machines.asked.lock().pop().unwrap(), ("/m2m_tokens".to_owned(), format!("Bearer {MACHINE_KEY}")));
    let stats = machines.gateway.stats();
    let requests: Vec<_> = stats.instances[0].1.requests.iter().map(|it| (&*it.caller, it.route)).collect();
    assert_eq!(requests, [("worker", "/v1/m2m_tokens")]);
    assert!(!format!("{:?} {stats:?}", machines.gateway).contains("CANARY"));
    // Replaced by another key.
    let file = machines.folder.path().join("new");
    std::fs::write(&file, "ak_rotatedCANARY9876543210").unwrap();
    std::fs::rename(&file, machines.folder.path().join("machine")).unwrap();
    machines.gateway.refresh_keys();
    assert_eq!(machines.ask("/m2m_tokens", MACHINE_KEY).await, 401);
    assert_eq!(machines.ask("/m2m_tokens", "ak_rotatedCANARY9876543210").await, 200);
    // An invalid machine key leaves the previous one in use.
    std::fs::write(machines.folder.path().join("machine"), "sk_test_0123456789abcdef").unwrap();
    machines.gateway.refresh_keys();
    assert_eq!(machines.ask("/m2m_tokens", "ak_rotatedCANARY9876543210").await, 200);
    assert_eq!(machines.ask("/m2m_tokens", "sk_test_0123456789abcdef").await, 401);
}

#[tokio::test(start_paused = true)]
async fn response_to_a_machine_key_is_not_shared() {
    let all = RoutePolicies { coalesce: Mode::On, cache: Mode::On, batch: Mode::On, ..OFF };
    let machines = Machines::new(all);
    for path in ["/v1/machines", "/v1/users/user_2NNEqL2nrIRdJ194ndJqAHwEfxC", "/v1/m2m_tokens"] {
        machines.asked.lock().clear();
        let asked = [MACHINE_KEY, KEY, MACHINE_KEY, KEY].map(|key| machines.ask(path, key));
        assert_eq!(futures_util::future::join_all(asked).await, [200; 4]);
        let mut keys: Vec<_> = machines.asked.lock().iter().map(|(_, key)| key.clone()).collect();
        keys.sort();
        let [machine, own] = [MACHINE_KEY, KEY].map(|key| format!("Bearer {key}"));
        assert_eq!(keys, [machine.clone(), machine, own], "{path}");
    }
}
