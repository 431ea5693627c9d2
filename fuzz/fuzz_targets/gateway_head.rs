//! Any bytes as requests to the gateway: it forwards at most one request for each, to Clerk only, without hop-by-hop
//! fields, and never with a caller's token.

#![no_main]

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use clerk_client::cache::{Cache, CacheOptions};
use clerk_client::limiter::Priority;
use clerk_client::outbound::Outbound;
use clerk_client::secret::{KeySource, Secret, SecretSource};
use clerk_client::transport::{RequestBody, ResponseFuture, Transport};
use clerk_exporter::gateway::{
    CallerToken, Gateway, GatewayOptions, InstanceOptions, InstancePolicies, Mode, RoutePolicies, UnknownKeyPolicy,
};
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const KEY: &str = "sk_test_4bMbJyWZ2vnLx0aQCANARY";
const TOKEN: &str = "billing-token-CANARY";

/// A Clerk that records request heads.
#[derive(Debug, Default)]
struct Keeping(Mutex<Vec<Parts>>);

impl Transport for Keeping {
    fn send(&self, request: Request<RequestBody>) -> ResponseFuture {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(request.into_parts().0);
        Box::pin(async {
            let body = Full::new(Bytes::from_static(b"{}")).map_err(|never| match never {}).boxed_unsync();
            Ok(Response::builder().header("content-type", "application/json").body(body).expect("a response"))
        })
    }
}

fuzz_target!(|data: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let clerk = Arc::new(Keeping::default());
    let taken = runtime.block_on(requests(Arc::clone(&clerk), data));
    let sent = std::mem::take(&mut *clerk.0.lock().unwrap_or_else(PoisonError::into_inner));
    assert!(sent.len() <= taken, "{} requests received, {} sent", taken, sent.len());
    for head in sent {
        assert_eq!(head.uri.authority().map(|it| it.as_str()), Some("clerk.test"), "{head:?}");
        let values: Vec<_> = head.headers.values().map(|value| value.as_bytes()).collect();
        let names_token = |value: &&[u8]| value.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes());
        assert!(!values.iter().any(names_token), "{head:?}");
        assert!(head.headers.get_all("host").iter().all(|host| host == "clerk.test"), "{head:?}");
        for name in ["connection", "keep-alive", "proxy-authorization", "proxy-connection", "upgrade", "trailer"] {
            assert!(!head.headers.contains_key(name), "{name}: {head:?}");
        }
    }
});

/// Serves these bytes; returns how many requests hyper parsed.
async fn requests(clerk: Arc<Keeping>, bytes: &[u8]) -> usize {
    let gateway = gateway(clerk);
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let taken = std::cell::Cell::new(0);
    let service = service_fn(async |request: Request<Incoming>| {
        taken.set(taken.get() + 1);
        let (parts, body) = gateway.handle(request).await.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Ok::<_, Infallible>(Response::from_parts(parts, Full::new(body)))
    });
    let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service);
    let sending = async {
        let _ = client.write_all(bytes).await;
        let _ = client.shutdown().await;
        let _ = client.read_to_end(&mut Vec::new()).await;
    };
    let _ = tokio::join!(serving, sending);
    taken.get()
}

fn gateway(clerk: Arc<Keeping>) -> Gateway {
    let clock = Arc::new(Clock::new());
    let secret = |text: &str| SecretSource::Inline(Secret::new(text.to_owned()));
    let ledger = Ledger::new([clerk_test_support::settings("prod")]);
    let instance = ledger.instance("prod").expect("it was just made");
    let (key, url) = (Arc::new(KeySource::new(secret(KEY))), "http://clerk.test".to_owned());
    let outbound = Outbound::new(Arc::<Keeping>::clone(&clerk), url.clone(), key, instance, Arc::clone(&clock));
    let others = Ledger::new([clerk_test_support::settings("other")]);
    let others = others.instance("other").expect("it was just made");
    let key = Arc::new(KeySource::new(secret(KEY)));
    let strangers = Outbound::new(clerk, url, key, others, Arc::clone(&clock));
    let on = Mode::On;
    let policies = RoutePolicies { cache: on, coalesce: on, retry: Mode::Off, ..RoutePolicies::default() };
    let token = CallerToken {
        caller: "billing".into(),
        instance: "prod".into(),
        token: Secret::new(TOKEN.to_owned()),
        priority: Priority::High,
        min_share: 0.0,
        max_share: 1.0,
        max_wait: None,
    };
    let options = GatewayOptions {
        instances: vec![InstanceOptions {
            name: "prod".into(),
            outbound: Arc::new(outbound),
            further_keys: Vec::new(),
            caller: None,
            policies: InstancePolicies { policies, ..InstancePolicies::default() },
            cache: Cache::new(CacheOptions::new("prod"), Arc::clone(&clock)),
            verifications: None,
        }],
        unknown_keys: UnknownKeyPolicy::Forward(Arc::new(strangers)),
        tokens: vec![token],
        max_callers: 5,
    };
    Gateway::new(options).expect("a gateway")
}
