//! HTTP/2 clients that do not read their responses, while pings pass and a stream's window is closed.

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::frames::*;
use crate::support::*;

const LARGE: usize = 300_000;

fn router() -> Router {
    let large = get(async || vec![b'x'; LARGE]);
    ok_router().route("/large", large).route("/upload", post(async |body: Bytes| body.len().to_string()))
}

async fn client(server: &TestServer, window: u32) -> FrameClient<TcpStream> {
    FrameClient::start(server.connect().await, window).await
}

#[tokio::test]
async fn stalled_stream_is_reset_and_its_connection_closed() {
    for (path, window) in [("/", 0), ("/", 1), ("/large", 0), ("/large", 1), ("/large", 100), ("/large", 65_535)] {
        let server = TestServer::plain(router(), patient().write_timeout(LATER)).await;
        let mut client = client(&server, window).await;
        client.get(1, path).await;
        assert!(within(client.next_of(RST_STREAM, 1)).await.is_some(), "{path} with a window of {window}");
        within(client.ended()).await;
    }
}

#[tokio::test]
async fn stalled_unauthorized_response_is_reset_too() {
    let folder = ConfigFolder::new(&alice("open sesame"));
    let options = patient().write_timeout(LATER);
    let server = TestServer::start(router(), options, folder.source()).await;
    let mut client = client(&server, 0).await;
    client.get(1, "/").await;
    assert!(within(client.next_of(RST_STREAM, 1)).await.is_some());
    within(client.ended()).await;
}

#[tokio::test]
async fn stalled_stream_is_reset_while_others_continue() {
    let server = TestServer::plain(router(), patient().write_timeout(LATER)).await;
    let mut client = client(&server, 0).await;
    client.get(1, "/large").await;
    client.get(3, "/large").await;
    client.allow(0, 10_000_000).await;
    // The other stream reads a little for as long as the first exists.
    loop {
        client.allow(3, 1).await;
        let frame = within(client.next()).await.expect("the connection stays open");
        match (frame.kind, frame.stream) {
            (RST_STREAM, 1) => break,
            (RST_STREAM, 3) => panic!("it has been reading all the time"),
            _ => {}
        }
    }
    client.allow(3, 1_000_000).await;
    assert!(within(client.body(3)).await.is_some(), "it gets the rest of the body");
    client.get(5, "/").await;
    client.allow(5, 100).await;
    assert_eq!(within(client.body(5)).await.unwrap(), b"ok", "and the connection can be used");
}

#[tokio::test]
async fn every_byte_arrives_with_any_window() {
    for window in [1, 2, 16_383, 16_384, 16_385, 65_535, 299_999, 300_000, 1_000_000] {
        let server = TestServer::plain(router(), patient()).await;
        let mut client = client(&server, window).await;
        client.allow(0, 10_000_000).await;
        client.get(1, "/large").await;
        if (window as usize) < LARGE {
            client.allow(1, u32::try_from(LARGE).unwrap() - window).await;
        }
        // The window fits the whole body and not a byte more.
        assert_eq!(within(client.body(1)).await.unwrap(), vec![b'x'; LARGE], "{window}");
        // Without this, the server would wait a second for the acknowledgement of its end.
        drop(client);
        assert_eq!(server.stop().await.cut, 0);
    }
}

#[tokio::test]
async fn shrunk_window_does_not_keep_a_response() {
    let server = TestServer::plain(router(), patient().write_timeout(LATER)).await;
    let mut client = client(&server, 1_000).await;
    client.get(1, "/large").await;
    assert!(within(client.next_of(DATA, 1)).await.is_some());
    client.set_window(0).await;
    assert!(within(client.next_of(RST_STREAM, 1)).await.is_some());
    within(client.ended()).await;
}

/// Opens this many connections, each with requests whose responses are not read and with pings acknowledged.
async fn attack(server: &TestServer, connections: usize, path: &'static str, window: u32) -> JoinSet<()> {
    let mut attackers = JoinSet::new();
    let clients = join_all((0..connections).map(|_| client(server, window))).await;
    for mut client in clients {
        client.get(1, path).await;
        // Its head arrived: the request is in flight.
        assert!(within(client.next_of(HEADERS, 1)).await.is_some());
        attackers.spawn(async move { client.ended().await });
    }
    attackers
}

#[tokio::test]
async fn scrape_succeeds_while_stalled_streams_use_all_connections() {
    for (path, window) in [("/", 0), ("/large", 0), ("/large", 1), ("/large", 65_535)] {
        let options = patient().max_connections(100);
        let server = TestServer::plain(router(), options).await;
        let mut attackers = attack(&server, 100, path, window).await;
        for _ in 0..3 {
            assert_eq!(status(&server.get("/", "").await), 200, "{path} with a window of {window}");
        }
        attackers.shutdown().await;
        assert_eq!(server.stop().await.cut, 0);
    }
}

#[tokio::test]
async fn scrape_succeeds_while_unauthorized_streams_stall() {
    let folder = ConfigFolder::new(&alice("open sesame"));
    let options = patient().max_connections(100).write_timeout(LATER);
    let server = TestServer::start(router(), options, folder.source()).await;
    let mut attackers = attack(&server, 100, "/", 0).await;
    let password = "Authorization: Basic YWxpY2U6b3BlbiBzZXNhbWU=\r\n";
    assert_eq!(status(&server.get("/", password).await), 200);
    // All of them are closed.
    while within(attackers.join_next()).await.is_some() {}
}

#[tokio::test]
async fn scrape_succeeds_while_stalled_uploads_use_all_connections() {
    let server = TestServer::plain(router(), patient().max_connections(50)).await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        let mut client = client(&server, 65_535).await;
        client.post(1, "/upload").await;
        client.send(DATA, 0, 1, b"x").await;
        clients.push(client);
    }
    assert_eq!(status(&server.get("/", "").await), 200);
}

#[tokio::test]
async fn unread_responses_are_ended_for_a_scrape() {
    let options = patient().max_unsent_bytes(10 * LARGE);
    let server = TestServer::plain(router(), options).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = client(&server, 0).await;
        for stream in 0..10 {
            client.get(stream * 2 + 1, "/large").await;
        }
        clients.push(client);
    }
    for _ in 0..3 {
        assert!(server.get("/large", "").await.len() > LARGE);
    }
}

#[tokio::test]
async fn unfinished_http2_head_times_out() {
    let part = &head(0x82, "/")[..5];
    for (first, further) in [(part, &b""[..]), (&b""[..], &b""[..]), (part, &[0x40, 1, b'x', 1, b'y'][..])] {
        let server = TestServer::plain(router(), patient().header_read_timeout(LATER)).await;
        let mut client = client(&server, 100).await;
        client.get(1, "/").await;
        assert_eq!(within(client.body(1)).await.unwrap(), b"ok");
        client.send(HEADERS, END_STREAM, 3, first).await;
        if !further.is_empty() {
            client.send(CONTINUATION, 0, 3, further).await;
        }
        within(client.ended()).await;
    }
}

#[tokio::test]
async fn continuation_flood_closes_the_connection() {
    let server = TestServer::plain(router(), patient()).await;
    let mut flood = client(&server, 100).await;
    flood.send(HEADERS, END_STREAM, 1, &head(0x82, "/")).await;
    for _ in 0..10_000 {
        flood.send(CONTINUATION, 0, 1, &[0x40, 1, b'x', 1, b'y']).await;
    }
    within(flood.ended()).await;
    assert_eq!(status(&server.get("/", "").await), 200);
}

#[tokio::test]
async fn rapid_resets_close_the_connection_or_cost_nothing() {
    let server = TestServer::plain(router(), patient()).await;
    let mut flood = client(&server, 0).await;
    let mut burst = Vec::new();
    for stream in 0..2_000_u32 {
        burst.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream * 2 + 1, &head(0x82, "/large")));
        burst.extend(frame(RST_STREAM, 0, stream * 2 + 1, &8_u32.to_be_bytes()));
    }
    flood.send_bytes(&burst).await;
    assert_eq!(status(&server.get("/", "").await), 200);
    drop(flood);
    assert_eq!(server.stop().await.cut, 0);
}
