//! What the gateway's error responses report about attempts: how many, and whether any was sent.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use clerk_client::transport::{ErrorKind, RequestBody, ResponseFuture, Transport, TransportError};
use clerk_exporter::gateway::{InstancePolicies, Mode, RoutePolicies};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::reads::{BATCH, CACHE, COALESCE, OFF, USER};
use crate::support::{OK, Running, Setup, World, read_message, within};
use clerk_test_support::KEY;

/// The outcomes of consecutive attempts; the last one repeats.
#[derive(Debug)]
struct Scripted(Mutex<VecDeque<End>>);

#[derive(Debug, Clone, Copy)]
enum End {
    Fails(ErrorKind),
    Answers(u16),
    Never,
}

impl Transport for Scripted {
    fn send(&self, _: Request<RequestBody>) -> ResponseFuture {
        let mut script = self.0.lock();
        let end = if script.len() > 1 { script.pop_front().unwrap() } else { script[0] };
        Box::pin(async move {
            match end {
                End::Fails(kind) => Err(TransportError::new(kind, "why".to_owned())),
                End::Answers(status) => {
                    let body = Full::new(Bytes::from_static(b"{}")).map_err(|never| match never {}).boxed_unsync();
                    Ok(Response::builder().status(status).body(body).unwrap())
                }
                End::Never => std::future::pending().await,
            }
        })
    }
}

/// The status, the code, the attempts and the text in the response.
async fn told(policies: RoutePolicies, method: &str, script: &[End]) -> (u16, String, Option<String>, String) {
    let upstream: Arc<dyn Transport> = Arc::new(Scripted(Mutex::new(script.iter().copied().collect())));
    let routes = [(("DELETE", USER.1), RoutePolicies { retry: Mode::On, ..OFF })].into();
    let plan = InstancePolicies { policies, routes, ..InstancePolicies::default() };
    let world = World::new(&upstream, "http://clerk.test", Setup { plan, ..Setup::default() });
    let request = Request::builder().method(method).uri("/v1/users/user_2NNEqL2nrIRdJ194ndJqAHwEfxC");
    let request = request.header("host", "gateway").header("authorization", format!("Bearer {KEY}"));
    let answer = world.gateway.handle(request.body(Empty::<Bytes>::new()).unwrap()).await;
    let attempts = answer.headers().get("x-clerk-exporter-attempts").map(|value| value.to_str().unwrap().to_owned());
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let text = |name: &str| json["errors"][0][name].as_str().unwrap_or_default().to_owned();
    (status, text("code"), attempts, text("long_message"))
}

const REFUSED: End = End::Fails(ErrorKind::Connect);
const CUT: End = End::Fails(ErrorKind::Broken);

#[tokio::test(start_paused = true)]
async fn nothing_sent_is_reported_only_if_no_attempt_was() {
    let retry = RoutePolicies { retry: Mode::On, ..OFF };
    let (unreachable, broken) = ("gateway_upstream_unreachable", "gateway_upstream_broken");
    for (script, code, attempts) in [
        (&[CUT, REFUSED][..], broken, "4"),
        (&[REFUSED, CUT, REFUSED], broken, "4"),
        (&[REFUSED, REFUSED, REFUSED, CUT], broken, "4"),
        (&[End::Answers(429), REFUSED], broken, "4"),
        (&[End::Answers(503), End::Fails(ErrorKind::Dns)], broken, "4"),
        (&[CUT, End::Fails(ErrorKind::Tls)], broken, "4"),
        (&[End::Never, REFUSED], broken, "4"),
        (&[End::Fails(ErrorKind::Timeout), REFUSED], broken, "4"),
        (&[REFUSED], unreachable, "4"),
        (&[REFUSED, End::Fails(ErrorKind::Dns), End::Fails(ErrorKind::Tls)], unreachable, "4"),
    ] {
        for (policies, method) in
            [(OFF, "DELETE"), (retry, "GET"), (RoutePolicies { retry: Mode::On, ..COALESCE }, "GET")]
        {
            let (status, found, made, text) = told(policies, method, script).await;
            assert_eq!((status, &*found, made.as_deref()), (502, code, Some(attempts)), "{method} {script:?}");
            assert_eq!(text.contains("Nothing was sent"), code == unreachable, "{text}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_are_reported_under_all_policies() {
    for policies in [OFF, COALESCE, CACHE, BATCH] {
        for (script, status) in [(REFUSED, 502), (CUT, 502), (End::Never, 504), (End::Fails(ErrorKind::Decode), 502)] {
            let (found, _, attempts, _) = told(policies, "GET", &[script]).await;
            assert_eq!((found, attempts), (status, None), "one needs no word: {policies:?} {script:?}");
        }
        let policies = RoutePolicies { retry: Mode::On, ..policies };
        for (script, status) in [(REFUSED, 502), (CUT, 502), (End::Never, 504)] {
            let (found, _, attempts, _) = told(policies, "GET", &[script]).await;
            assert_eq!((found, attempts.as_deref()), (status, Some("4")), "{policies:?} {script:?}");
        }
    }
}

#[tokio::test]
async fn request_on_a_closed_idle_connection_counts_as_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Running::with(listener.local_addr().unwrap(), Setup::default()).await;
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_message(&mut stream, true).await.unwrap();
        stream.write_all(OK.as_bytes()).await.unwrap();
        // The next request is received, then the server disconnects.
        read_message(&mut stream, true).await.unwrap();
        drop(listener);
    });
    assert_eq!(gateway.get("/v1/users").await.status(), 200);
    let answer = gateway.get("/v1/users").await;
    assert_eq!((answer.status(), &*answer.code()), (502, "gateway_upstream_broken"));
    assert_eq!(answer.value("x-clerk-exporter-attempts"), None, "no retry was made");
    within(serving.join_next()).await.unwrap().unwrap();
}
