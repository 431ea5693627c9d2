use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prometheus_web::Drained;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::frames::{FrameClient, GOAWAY};
use crate::support::*;

#[tokio::test]
async fn request_in_flight_finishes_after_shutdown() {
    let gate = Gate::new();
    let server = TestServer::plain(gate.router(), patient()).await;
    let mut client = server.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    gate.entered().await;
    server.shutdown.cancel();
    gate.release(1);
    assert!(read_to_end(&mut client).await.ends_with("ok"));
    assert_eq!(server.drained().await, Drained { cut: 0 });
}

#[tokio::test]
async fn no_client_is_accepted_after_shutdown() {
    let gate = Gate::new();
    let server = TestServer::plain(gate.router(), patient()).await;
    let mut client = server.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    gate.entered().await;
    let address = server.address;
    server.shutdown.cancel();
    // The socket is closed a moment later: until then the kernel queues a client and then resets it.
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    gate.release(1);
    assert_eq!(server.drained().await.cut, 0);
}

#[tokio::test]
async fn endless_request_is_cut_and_counted() {
    let gate = Gate::new();
    let server = TestServer::plain(gate.router(), patient().drain(SOON)).await;
    let mut client = server.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    gate.entered().await;
    assert_eq!(server.stop().await, Drained { cut: 1 });
    assert_eq!(read_to_end(&mut client).await, "");
}

#[tokio::test]
async fn endless_http2_stream_is_cut_with_its_connection() {
    let gate = Gate::new();
    let server = TestServer::plain(gate.router(), patient().drain(SOON)).await;
    let io = TokioIo::new(server.connect().await);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), io).await.unwrap();
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let request = http::Request::get(format!("http://{}/", server.address)).body(Empty::new()).unwrap();
    let mut requests = JoinSet::new();
    requests.spawn(async move { client.send_request(request).await });
    gate.entered().await;
    assert_eq!(server.stop().await, Drained { cut: 1 });
    assert!(within(requests.join_next()).await.unwrap().unwrap().is_err());
    // The handler is dropped too, not only its client: its clone of the gate was the last but one.
    assert_eq!(gate.clones(), 1);
}

#[tokio::test]
async fn client_with_half_a_head_does_not_outlast_the_drain() {
    let server = TestServer::plain(ok_router(), patient().drain(SOON)).await;
    let mut half_open = server.connect().await;
    half_open.write_all(b"GET / HTTP/1.1\r\nHost: local").await.unwrap();
    // Served after it, which shows that the other one is accepted, too.
    assert_eq!(status(&server.get("/", "").await), 200);
    server.stop().await;
    assert_eq!(read_to_end(&mut half_open).await, "");
}

#[tokio::test]
async fn half_a_head_does_not_use_up_the_drain() {
    let server = TestServer::plain(ok_router(), patient()).await;
    let mut half_open = server.connect().await;
    half_open.write_all(b"GET / HTTP/1.1\r\nHost: local").await.unwrap();
    assert_eq!(status(&server.get("/", "").await), 200);
    assert_eq!(server.stop().await, Drained { cut: 0 });
    assert_eq!(read_to_end(&mut half_open).await, "");
}

#[tokio::test]
async fn idle_connections_are_closed_at_shutdown() {
    let server = TestServer::plain(ok_router(), patient()).await;
    let mut kept = server.connect().await;
    keep_alive_request(&mut kept).await;
    let mut silent = server.connect().await;
    assert_eq!(status(&server.get("/", "").await), 200);
    assert_eq!(server.stop().await.cut, 0);
    assert_eq!(read_to_end(&mut kept).await, "");
    assert_eq!(read_to_end(&mut silent).await, "");
}

#[tokio::test]
async fn tls_handshake_does_not_delay_the_shutdown() {
    let folder = ConfigFolder::new("tls_server_config: {cert_file: server.pem, key_file: server.key}\n");
    let server = TestServer::start(ok_router(), patient(), folder.source()).await;
    let mut client = server.connect().await;
    client.write_all(&[22, 3, 1]).await.unwrap();
    assert_eq!(server.stop().await.cut, 0);
    assert_eq!(read_to_end(&mut client).await, "");
}

#[tokio::test]
async fn dropped_server_closes_its_connections() {
    let gate = Gate::new();
    let server = TestServer::plain(gate.router(), patient()).await;
    let mut client = server.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    gate.entered().await;
    drop(server);
    assert_eq!(read_to_end(&mut client).await, "");
}

#[tokio::test]
async fn leaving_server_serves_and_asks_clients_to_go() {
    let server = TestServer::plain(ok_router(), patient()).await;
    let mut kept = server.connect().await;
    assert!(!keep_alive_request(&mut kept).await.contains("connection: close"));
    let mut idle = server.connect().await;
    keep_alive_request(&mut idle).await;
    server.leaving.cancel();
    // An idle connection is still there, and serves one more request.
    assert!(keep_alive_request(&mut kept).await.contains("connection: close"));
    assert_eq!(read_to_end(&mut kept).await, "");
    // So are new ones.
    let mut late = server.connect().await;
    assert!(keep_alive_request(&mut late).await.contains("connection: close"));
    // One that is idle all the time is closed at the end.
    assert_eq!(server.stop().await.cut, 0);
    assert_eq!(read_to_end(&mut idle).await, "");
}

#[tokio::test]
async fn leaving_server_sends_goaway_and_finishes_streams() {
    let gate = Gate::new();
    let server = TestServer::plain(gate.router(), patient()).await;
    let mut client = FrameClient::start(server.connect().await, 65_535).await;
    client.get(1, "/").await;
    gate.entered().await;
    server.leaving.cancel();
    // The client learns of it while its request is in flight.
    let goaway = within(client.next_of(GOAWAY, 0)).await.unwrap();
    assert_eq!(goaway.content[4..8], [0; 4], "no error");
    gate.release(1);
    assert_eq!(within(client.body(1)).await.unwrap(), b"ok");
    within(client.ended()).await;
    // Another connection is served meanwhile.
    gate.release(1);
    assert_eq!(status(&server.get("/", "").await), 200);
    assert_eq!(server.stop().await.cut, 0);
}
