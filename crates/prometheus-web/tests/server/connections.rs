use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::routing::{get, post};
use http_body::Frame;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prometheus_web::ListenAddress;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::support::*;

const HALF_A_HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: local";

#[tokio::test]
async fn client_with_half_a_head_is_closed() {
    let server = TestServer::plain(ok_router(), patient().header_read_timeout(SOON)).await;
    let mut client = server.connect().await;
    client.write_all(HALF_A_HEAD).await.unwrap();
    assert_eq!(read_to_end(&mut client).await, "");
    assert_eq!(server.stop().await.cut, 0);
}

#[tokio::test]
async fn broken_response_body_sends_the_head_without_an_end() {
    let broken = async || {
        let frames = [Err::<Bytes, _>(std::io::Error::other("broken"))];
        Body::from_stream(futures_util::stream::iter(frames))
    };
    let server = TestServer::plain(Router::new().route("/", get(broken)), patient()).await;
    let answer = server.get("/", "").await;
    assert_eq!(status(&answer), 200);
    assert!(answer.contains("transfer-encoding: chunked") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
}

/// Sends a request for `/` with a body of 8 MB, of which it sends this many bytes.
async fn upload(client: &mut TcpStream, bytes: usize) -> std::io::Result<()> {
    client.write_all(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8000000\r\n\r\n").await?;
    client.write_all(&vec![b'x'; bytes]).await
}

#[tokio::test]
async fn client_with_an_unread_body_gets_the_response() {
    let server = TestServer::plain(Router::new().route("/", post(async || "no")), patient()).await;
    for _ in 0..5 {
        let mut client = server.connect().await;
        within(upload(&mut client, 8_000_000)).await.unwrap();
        let answer = read_to_end(&mut client).await;
        assert!(status(&answer) == 200 && answer.ends_with("no"), "{answer}");
        assert!(answer.contains("connection: close"), "no further request is accepted on this connection: {answer}");
    }
}

#[tokio::test]
async fn client_that_never_sends_an_unread_body_is_closed() {
    let server = TestServer::plain(Router::new().route("/", post(async || "no")), patient()).await;
    let mut client = server.connect().await;
    upload(&mut client, 10).await.unwrap();
    assert!(read_to_end(&mut client).await.ends_with("no"));
    // It could still be sending when the server stops.
    assert_eq!(within(server.stop()).await.cut, 0);
}

#[tokio::test]
async fn silent_client_is_closed() {
    let server = TestServer::plain(ok_router(), patient().header_read_timeout(SOON)).await;
    let mut client = server.connect().await;
    assert_eq!(read_to_end(&mut client).await, "");
}

#[tokio::test]
async fn client_with_half_an_http2_preface_is_closed() {
    let server = TestServer::plain(ok_router(), patient().header_read_timeout(SOON)).await;
    let mut client = server.connect().await;
    client.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    assert_eq!(read_to_end(&mut client).await, "");
}

#[tokio::test]
async fn half_a_head_on_a_kept_connection_times_out() {
    let server = TestServer::plain(ok_router(), patient().header_read_timeout(LATER)).await;
    let mut client = server.connect().await;
    keep_alive_request(&mut client).await;
    client.write_all(HALF_A_HEAD).await.unwrap();
    assert_eq!(read_to_end(&mut client).await, "");
}

#[tokio::test]
async fn idle_connection_is_closed_after_the_idle_timeout() {
    let server = TestServer::plain(ok_router(), patient().idle_timeout(SOON)).await;
    let mut client = server.connect().await;
    keep_alive_request(&mut client).await;
    assert_eq!(read_to_end(&mut client).await, "");
}

#[tokio::test]
async fn kept_connection_outlives_the_head_timeout() {
    // hyper's header timeout would close it; between requests the idle timeout applies.
    let server = TestServer::plain(ok_router(), patient().header_read_timeout(LATER)).await;
    let mut kept = server.connect().await;
    keep_alive_request(&mut kept).await;
    let mut silent = server.connect().await;
    // The silent client connected later and is closed by the head timeout, which has passed for both.
    assert_eq!(read_to_end(&mut silent).await, "");
    keep_alive_request(&mut kept).await;
}

#[tokio::test]
async fn half_open_clients_do_not_block_others() {
    for max_connections in [512, 64] {
        let server = TestServer::plain(ok_router(), patient().max_connections(max_connections)).await;
        let mut half_open = Vec::new();
        for _ in 0..200 {
            let mut client = server.connect().await;
            client.write_all(HALF_A_HEAD).await.unwrap();
            half_open.push(client);
        }
        for _ in 0..10 {
            assert_eq!(status(&server.get("/", "").await), 200);
        }
        drop(half_open);
        assert_eq!(server.stop().await.cut, 0);
    }
}

#[tokio::test]
async fn connection_limit_bounds_requests_and_all_are_served() {
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let router = Router::new().route(
        "/",
        get({
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            async move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                running.fetch_sub(1, Ordering::SeqCst);
                "ok"
            }
        }),
    );
    let server = TestServer::plain(router, patient().max_connections(3)).await;
    let mut clients = JoinSet::new();
    for _ in 0..30 {
        let address = server.address;
        clients.spawn(async move {
            // A client whose connection was evicted before its request arrived retries.
            loop {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
                if stream.write_all(request).await.is_ok() && read_to_end(&mut stream).await.ends_with("ok") {
                    break;
                }
            }
        });
    }
    within(clients.join_all()).await;
    assert!(most.load(Ordering::SeqCst) <= 3, "{most:?}");
}

#[tokio::test]
async fn longest_idle_connection_is_evicted_for_a_new_client() {
    let server = TestServer::plain(ok_router(), patient().max_connections(2)).await;
    let mut first = server.connect().await;
    keep_alive_request(&mut first).await;
    let mut second = server.connect().await;
    keep_alive_request(&mut second).await;
    keep_alive_request(&mut first).await;

    let mut third = server.connect().await;
    keep_alive_request(&mut third).await;
    assert_eq!(read_to_end(&mut second).await, "");
    keep_alive_request(&mut first).await;
}

#[tokio::test]
async fn request_in_flight_is_not_evicted() {
    let gate = Gate::new();
    let server = TestServer::plain(gate.router(), patient().max_connections(1)).await;
    let mut first = server.connect().await;
    first.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    gate.entered().await;
    let mut second = server.connect().await;
    second.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    gate.release(2);
    // The first got no `Connection: close`: it was evicted as soon as it was idle.
    assert!(read_to_end(&mut first).await.ends_with("ok"));
    assert!(read_to_end(&mut second).await.ends_with("ok"));
}

#[tokio::test]
async fn missing_request_body_is_an_error() {
    let router = Router::new().route("/", post(async |_body: Bytes| "ok"));
    let server = TestServer::plain(router, patient().body_read_timeout(SOON)).await;
    let mut client = server.connect().await;
    let request = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc";
    client.write_all(request).await.unwrap();
    assert_eq!(status(&read_to_end(&mut client).await), 400);
}

#[tokio::test]
async fn client_that_does_not_read_is_closed() {
    let (dropped, is_dropped) = oneshot::channel::<()>();
    let body = Arc::new(parking_lot::Mutex::new(Some(Endless { _dropped: dropped })));
    let router = Router::new().route("/", get(async move || Body::new(body.lock().take().unwrap())));
    let server = TestServer::plain(router, patient().write_timeout(SOON)).await;
    let mut client = server.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert!(within(is_dropped).await.is_err());
}

/// An endless body; its drop shows that the connection is closed.
struct Endless {
    _dropped: oneshot::Sender<()>,
}

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 65536])))))
    }
}

#[tokio::test]
async fn endless_head_is_rejected() {
    let server = TestServer::plain(ok_router(), patient()).await;
    let mut client = server.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nX: ").await.unwrap();
    let sent = client.write_all(&vec![b'x'; 1 << 20]).await;
    let answer = read_to_end(&mut client).await;
    assert!(sent.is_err() || answer.is_empty() || status(&answer) == 431, "{answer}");
}

#[tokio::test]
async fn handler_panic_is_a_500_and_the_server_continues() {
    let router = ok_router().route("/panic", get(async || -> &str { panic!("on purpose") }));
    let server = TestServer::plain(router, patient()).await;
    assert_eq!(status(&server.get("/panic", "").await), 500);
    assert_eq!(status(&server.get("/", "").await), 200);
}

#[tokio::test]
async fn http2_without_tls_is_served_and_survives_a_panic() {
    let router = ok_router().route("/panic", get(async || -> &str { panic!("on purpose") }));
    let server = TestServer::plain(router, patient()).await;
    let io = TokioIo::new(server.connect().await);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), io).await.unwrap();
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    for (path, expected) in [("/", 200), ("/panic", 500), ("/", 200)] {
        let request = http::Request::get(format!("http://localhost{path}")).body(Empty::new()).unwrap();
        let response = within(client.send_request(request)).await.unwrap();
        assert_eq!(response.status(), expected);
        within(response.into_body().collect()).await.unwrap();
    }
    // The connection is idle now and is closed on its own.
    assert_eq!(server.stop().await.cut, 0);
}

#[tokio::test]
async fn handlers_get_the_client_address() {
    let router =
        Router::new().route("/", get(async |ConnectInfo(peer): ConnectInfo<std::net::SocketAddr>| peer.to_string()));
    let server = TestServer::plain(router, patient()).await;
    let client = server.connect().await;
    let address = client.local_addr().unwrap().to_string();
    assert!(exchange(client, "/", "").await.ends_with(&address));
}

#[tokio::test]
async fn address_in_use_error_names_a_remedy() {
    let first = prometheus_web::bind(&["127.0.0.1:0".parse().unwrap()]).await.unwrap();
    let address = first[0].local_addr();
    let error = prometheus_web::bind(&[ListenAddress::Socket(address)]).await.unwrap_err().to_string();
    assert!(error.contains(&address.to_string()), "{error}");
    assert!(error.contains("already in use") && error.contains("another port"), "{error}");
}

#[tokio::test]
async fn names_are_resolved_and_all_listeners_are_served() {
    let addresses = ["localhost:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()];
    let listeners = prometheus_web::bind(&addresses).await.unwrap();
    let bound: Vec<_> = listeners.iter().map(prometheus_web::Listener::local_addr).collect();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let mut running = JoinSet::new();
    running.spawn(prometheus_web::serve(
        listeners,
        ok_router(),
        patient(),
        prometheus_web::WebConfigSource::none(),
        shutdown.clone(),
    ));
    for address in bound {
        let stream = TcpStream::connect(address).await.unwrap();
        assert_eq!(status(&exchange(stream, "/", "").await), 200);
    }
    shutdown.cancel();
    within(running.join_all()).await;
}

#[tokio::test]
async fn missing_systemd_socket_error_names_a_remedy() {
    let error = prometheus_web::from_systemd().unwrap_err().to_string();
    assert!(error.contains(".socket unit"), "{error}");
}
