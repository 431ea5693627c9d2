//! HTTP/2 on both sides, and TLS to Clerk.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse;
use clerk_client::transport::HyperOptions;
use clerk_exporter::gateway::{InstancePolicies, RoutePolicies};
use http::{HeaderMap, Version};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::reads::OFF;
use crate::support::{OK, Running, Setup, Stub, read_head, read_message, request, within};
use clerk_test_support::KEY;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/prometheus-web/tests/data/tls").join(name)
}

async fn over_http2(gateway: &Running, path: &str, fields: &[(&str, &str)]) -> http::Response<bytes::Bytes> {
    let mut request =
        http::Request::get(format!("http://gateway.test{path}")).header("authorization", format!("Bearer {KEY}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    send_over_http2(gateway, request).await
}

async fn head_over_http2(gateway: &Running) -> http::Response<bytes::Bytes> {
    let request = http::Request::head("http://gateway.test/v1/users");
    send_over_http2(gateway, request.header("authorization", format!("Bearer {KEY}"))).await
}

/// Sends one request over HTTP/2 without TLS.
async fn send_over_http2(gateway: &Running, request: http::request::Builder) -> http::Response<bytes::Bytes> {
    let stream = within(TcpStream::connect(gateway.address)).await.unwrap();
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let _ = connection.await;
    });
    let answer = within(sender.send_request(request.body(Empty::<bytes::Bytes>::new()).unwrap())).await.unwrap();
    let (head, body) = answer.into_parts();
    http::Response::from_parts(head, within(body.collect()).await.unwrap().to_bytes())
}

#[tokio::test]
async fn http2_client_is_forwarded_over_http1() {
    let stub = Stub::answering(OK).await;
    let gateway = Running::before(&stub).await;
    let fields = [("cookie", "a=1"), ("cookie", "b=2"), ("x-a", "1"), ("x-a", "2")];
    let answer = over_http2(&gateway, "/v1/users/a%2Fb?x=%41", &fields).await;
    assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (200, &b"{}"[..]));
    assert_eq!(answer.headers().get("connection"), None);
    let sent = stub.request();
    assert_eq!(sent.first_line(), "GET /v1/users/a%2Fb?x=%41 HTTP/1.1");
    assert_eq!(sent.fields("host"), [format!("host: {}", stub.address)]);
    assert_eq!(sent.fields("cookie"), ["cookie: a=1; b=2"]);
    assert_eq!(sent.fields("x-a"), ["x-a: 1", "x-a: 2"]);
}

/// A request that arrived at a TLS server.
#[derive(Debug, Clone, PartialEq)]
struct Arrived {
    version: Version,
    authority: Option<String>,
    headers: HeaderMap,
}

fn acceptor(protocols: &[&str]) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = vec![CertificateDer::from_pem_file(data("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(data("server.key")).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// Serves HTTP/1.1 and HTTP/2 over TLS, and records what arrives.
async fn tls_server() -> (SocketAddr, Arc<Mutex<Vec<Arrived>>>, JoinSet<()>) {
    let acceptor = acceptor(&["h2", "http/1.1"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let arrived = Arc::<Mutex<Vec<Arrived>>>::default();
    let kept = Arc::clone(&arrived);
    let router = Router::new().fallback(async move |request: Request| {
        kept.lock().push(Arrived {
            version: request.version(),
            authority: request.uri().authority().map(ToString::to_string),
            headers: request.headers().clone(),
        });
        let body = request.into_body().collect().await.unwrap().to_bytes();
        axum::body::Body::new(Full::new(body)).into_response()
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut serving = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(router.clone()));
            serving.spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let _ =
                        auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                }
            });
        }
    });
    (address, arrived, tasks)
}

async fn through_tls(http2: bool, ca_file: Option<PathBuf>) -> (u16, Vec<Arrived>) {
    let (address, arrived, _tasks) = tls_server().await;
    let client = HyperOptions::default().ca_file(ca_file).http2(http2);
    let setup = Setup { client, ..Setup::default() };
    let gateway = Running::to(&format!("https://localhost:{}", address.port()), setup).await;
    let fields = "TE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n";
    let answer = gateway.send(request("POST", "/v1/users", fields, "2\r\nhi\r\n0\r\n\r\n")).await;
    let arrived = arrived.lock().clone();
    if answer.status() == 200 {
        assert_eq!(answer.body, b"hi");
    }
    (answer.status(), arrived)
}

#[tokio::test]
async fn clerk_is_reached_over_tls_with_http1_by_default() {
    let (status, arrived) = through_tls(false, Some(data("ca.pem"))).await;
    assert_eq!((status, arrived.len(), arrived[0].version), (200, 1, Version::HTTP_11));
    assert!(arrived[0].headers["host"].to_str().unwrap().starts_with("localhost:"));
}

#[tokio::test]
async fn http2_requests_have_authority_and_no_host() {
    let (status, arrived) = through_tls(true, Some(data("ca.pem"))).await;
    assert_eq!((status, arrived.len(), arrived[0].version), (200, 1, Version::HTTP_2));
    assert!(arrived[0].authority.as_ref().unwrap().starts_with("localhost:"));
    for name in ["host", "connection", "transfer-encoding"] {
        assert_eq!(arrived[0].headers.get(name), None, "{name}");
    }
}

#[tokio::test]
async fn untrusted_server_receives_nothing() {
    for http2 in [false, true] {
        let (status, arrived) = through_tls(http2, None).await;
        assert_eq!((status, arrived), (502, Vec::new()));
    }
}

/// A frame of HTTP/2 (RFC 9113, section 4.1) for stream 1, or for the connection.
fn frame(kind: u8, flags: u8, is_of_stream: bool, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, u8::from(is_of_stream)], payload].concat()
}

/// Responds with half of the announced body, and then resets the stream with `NO_ERROR`.
async fn answer_half(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), head: &[u8]) -> Option<()> {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RESET: u8 = 3;
    const SETTINGS: u8 = 4;
    const ACK: u8 = 1;
    const END_HEADERS: u8 = 4;
    stream.read_exact(&mut [0; b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len()]).await.ok()?;
    stream.write_all(&frame(SETTINGS, 0, false, &[])).await.ok()?;
    loop {
        let mut begin = [0; 9];
        stream.read_exact(&mut begin).await.ok()?;
        let length = u32::from_be_bytes([0, begin[0], begin[1], begin[2]]);
        stream.read_exact(&mut vec![0; length as usize]).await.ok()?;
        match (begin[3], begin[4]) {
            (SETTINGS, 0) => stream.write_all(&frame(SETTINGS, ACK, false, &[])).await.ok()?,
            (HEADERS, _) => break,
            _ => {}
        }
    }
    stream.write_all(&frame(HEADERS, END_HEADERS, true, head)).await.ok()?;
    stream.write_all(&frame(DATA, 0, true, &[b'x'; 400])).await.ok()?;
    stream.write_all(&frame(RESET, 0, true, &[0; 4])).await.ok()?;
    stream.flush().await.ok()?;
    // Until the other side closes.
    let _ = tokio::io::copy(stream, &mut tokio::io::sink()).await;
    Some(())
}

#[tokio::test]
async fn stream_reset_with_no_error_is_incomplete() {
    // `:status` from the static table of HPACK (RFC 7541, appendix A), and a literal `content-length: 1000`.
    let length = [&[0x0f, 0x0d, 4][..], b"1000"].concat();
    for (status, length) in [(0x88, vec![]), (0x88, length.clone()), (0x8d, vec![]), (0x8d, length)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let head = [&[status], &length[..]].concat();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let acceptor = acceptor(&["h2"]);
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                answer_half(&mut stream, &head).await;
            }
        });
        let client = HyperOptions::default().ca_file(Some(data("ca.pem"))).http2(true);
        let gateway = Running::to(&url, Setup { client, ..Setup::default() }).await;
        let mut stream = gateway.connect().await;
        stream.write_all(request("GET", "/v1/users", "", "").as_bytes()).await.unwrap();
        let answer = within(read_head(&mut stream)).await.unwrap();
        assert_eq!(answer.status(), if status == 0x88 { 200 } else { 404 });
        let mut rest = Vec::new();
        within(stream.read_to_end(&mut rest)).await.unwrap();
        // The connection ended, and neither a length nor a last chunk marks the body as complete.
        assert!(rest.windows(400).any(|part| part == [b'x'; 400]), "received bytes are forwarded");
        let is_whole = match answer.value("content-length") {
            Some(length) => length == "400",
            None => rest.ends_with(b"0\r\n\r\n"),
        };
        assert!(!is_whole, "{}", answer.head);
    }
}

#[tokio::test]
async fn own_response_to_http2_head_has_no_body() {
    let gateway = Running::to("http://127.0.0.1:1", Setup::default()).await;
    let answer = head_over_http2(&gateway).await;
    assert_eq!((answer.status().as_u16(), answer.body().len()), (502, 0));
    assert_ne!(answer.headers()["content-length"], "0");
}

/// A response without a length ends with its connection. TLS shows whether the server closed it (RFC 8446, section
/// 6.1), or an attacker truncated it.
#[tokio::test]
async fn close_delimited_response_requires_tls_close_notify() {
    for is_orderly in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let mut server = JoinSet::new();
        server.spawn(async move {
            let acceptor = acceptor(&["http/1.1"]);
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                read_message(&mut stream, true).await;
                let answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n[1,2";
                stream.write_all(answer).await.unwrap();
                stream.flush().await.unwrap();
                if is_orderly {
                    stream.shutdown().await.unwrap();
                }
            }
        });
        for policies in [OFF, RoutePolicies::default()] {
            let client = HyperOptions::default().ca_file(Some(data("ca.pem")));
            let plan = InstancePolicies { policies, ..InstancePolicies::default() };
            let gateway = Running::to(&url, Setup { client, plan, ..Setup::default() }).await;
            let mut stream = gateway.connect().await;
            stream.write_all(request("GET", "/v1/users", "", "").as_bytes()).await.unwrap();
            let answer = within(read_message(&mut stream, true)).await;
            let answer = answer.filter(|answer| answer.status() == 200).map(|answer| answer.body);
            assert_eq!(answer.as_deref(), is_orderly.then_some(&b"[1,2"[..]), "{policies:?}");
        }
    }
}

#[tokio::test]
async fn unix_socket_is_removed_at_exit_and_stale_one_replaced() {
    use prometheus_web::{ListenAddress, WebConfigSource};

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.sock");
    // The leftover of a process that could not clean up.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let address: ListenAddress = format!("unix:{}", path.display()).parse().unwrap();
    let listeners = prometheus_web::bind(std::slice::from_ref(&address)).await.unwrap();
    assert_eq!(listeners[0].to_string(), address.to_string());
    let error = prometheus_web::bind(&[address]).await.unwrap_err().to_string();
    assert!(error.contains("already in use"), "{error}");

    let shutdown = tokio_util::sync::CancellationToken::new();
    let router = Router::new().fallback(async || "ok");
    let mut server = JoinSet::new();
    server.spawn(prometheus_web::serve(
        listeners,
        router,
        prometheus_web::Options::default(),
        WebConfigSource::none(),
        shutdown.clone(),
    ));
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
    shutdown.cancel();
    within(server.join_next()).await.unwrap().unwrap();
    assert!(!path.exists());

    std::fs::write(&path, "a foreign file").unwrap();
    let address: ListenAddress = format!("unix:{}", path.display()).parse().unwrap();
    assert!(prometheus_web::bind(&[address]).await.is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a foreign file");
}
