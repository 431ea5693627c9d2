//! Bodies are streamed, and end when either side ends.

use std::sync::Arc;

use clerk_exporter::gateway::CLIENT_GONE;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::support::{OK, Running, Stub, read_chunk, read_head, read_message, request, within};

const PIECE: &[u8] = &[b'x'; 64 * 1024];

#[tokio::test]
async fn responses_are_streamed() {
    let go_on = Arc::new(Notify::new());
    let wait = Arc::clone(&go_on);
    let stub = Stub::with(move |_, mut stream, _| {
        let wait = Arc::clone(&wait);
        async move {
            read_message(&mut stream, true).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await.unwrap();
            wait.notified().await;
            stream.write_all(b"4\r\nlast\r\n0\r\n\r\n").await.unwrap();
            // Whether the other side gets a reset depends on the order of closing.
            let _ = stream.read(&mut [0]).await;
        }
    })
    .await;
    let gateway = Running::before(&stub).await;
    let mut stream = gateway.connect().await;
    stream.write_all(request("GET", "/v1/users", "", "").as_bytes()).await.unwrap();
    within(read_head(&mut stream)).await.unwrap();
    assert_eq!(within(read_chunk(&mut stream)).await.unwrap(), b"first");
    go_on.notify_one();
    assert_eq!(within(read_chunk(&mut stream)).await.unwrap(), b"last");
    assert_eq!(within(read_chunk(&mut stream)).await.unwrap(), b"");
}

#[tokio::test]
async fn requests_are_streamed() {
    let arrived = Arc::new(Notify::new());
    let tell = Arc::clone(&arrived);
    let stub = Stub::with(move |_, mut stream, requests| {
        let tell = Arc::clone(&tell);
        async move {
            let mut message = read_head(&mut stream).await.unwrap();
            let mut first = [0; 5];
            stream.read_exact(&mut first).await.unwrap();
            tell.notify_one();
            let mut last = [0; 4];
            stream.read_exact(&mut last).await.unwrap();
            message.body = [&first[..], &last].concat();
            requests.lock().push(message);
            stream.write_all(OK.as_bytes()).await.unwrap();
            let _ = stream.read(&mut [0]).await;
        }
    })
    .await;
    let gateway = Running::before(&stub).await;
    let mut stream = gateway.connect().await;
    stream.write_all(request("POST", "/v1/users", "Content-Length: 9\r\n", "first").as_bytes()).await.unwrap();
    within(arrived.notified()).await;
    stream.write_all(b"last").await.unwrap();
    assert_eq!(within(read_message(&mut stream, true)).await.unwrap().status(), 200);
    assert_eq!(stub.request().body, b"firstlast");
}

#[tokio::test]
async fn large_bodies_pass_in_both_directions() {
    let pieces = 320;
    let stub = Stub::with(move |_, mut stream, requests| async move {
        while let Some(message) = read_message(&mut stream, true).await {
            requests.lock().push(message);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", pieces * PIECE.len());
            stream.write_all(head.as_bytes()).await.unwrap();
            for _ in 0..pieces {
                stream.write_all(PIECE).await.unwrap();
            }
        }
    })
    .await;
    let gateway = Running::before(&stub).await;
    let mut stream = gateway.connect().await;
    let length = format!("Content-Length: {}\r\n", pieces * PIECE.len());
    stream.write_all(request("POST", "/v1/users", &length, "").as_bytes()).await.unwrap();
    for _ in 0..pieces {
        within(stream.write_all(PIECE)).await.unwrap();
    }
    let answer = within(read_message(&mut stream, true)).await.unwrap();
    assert_eq!(answer.body.len(), pieces * PIECE.len());
    assert_eq!(stub.request().body.len(), pieces * PIECE.len());
}

#[tokio::test]
async fn slow_client_applies_backpressure() {
    let written = Arc::new(Mutex::new(0_usize));
    let count = Arc::clone(&written);
    let total = 4096 * PIECE.len();
    let stub = Stub::with(move |_, mut stream, _| {
        let count = Arc::clone(&count);
        async move {
            read_message(&mut stream, true).await;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            while stream.write_all(PIECE).await.is_ok() {
                *count.lock() += PIECE.len();
            }
        }
    })
    .await;
    let gateway = Running::before(&stub).await;
    let mut stream = gateway.connect().await;
    stream.write_all(request("GET", "/v1/users", "", "").as_bytes()).await.unwrap();
    within(read_head(&mut stream)).await.unwrap();
    // Nothing more is read. The written amount must settle far below the total; otherwise the gateway would buffer a
    // quarter of a gigabyte.
    let mut last = usize::MAX;
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let now = *written.lock();
        if now == last {
            break;
        }
        last = now;
    }
    assert!(last < total / 2, "{last} of {total} bytes were taken from Clerk");
}

#[tokio::test]
async fn disconnect_before_the_response_cancels_the_request() {
    let (arrived, closed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell_arrived, tell_closed) = (Arc::clone(&arrived), Arc::clone(&closed));
    let stub = Stub::with(move |_, mut stream, _| {
        let (arrived, closed) = (Arc::clone(&tell_arrived), Arc::clone(&tell_closed));
        async move {
            read_message(&mut stream, true).await;
            arrived.notify_one();
            // No response: the other side must close.
            let _ = stream.read(&mut [0]).await;
            closed.notify_one();
        }
    })
    .await;
    let gateway = Running::before(&stub).await;
    let mut stream = gateway.connect().await;
    stream.write_all(request("GET", "/v1/users/user_1", "", "").as_bytes()).await.unwrap();
    within(arrived.notified()).await;
    drop(stream);
    within(closed.notified()).await;
    let numbers = gateway.stopped().await.numbers();
    let codes: Vec<_> = numbers.requests.iter().map(|request| (request.route, request.code, request.count)).collect();
    assert_eq!(codes, [("/v1/users/{user_id}", CLIENT_GONE, 1)]);
}

#[tokio::test]
async fn disconnect_within_the_response_ends_it() {
    let closed = Arc::new(Notify::new());
    let tell_closed = Arc::clone(&closed);
    let stub = Stub::with(move |_, mut stream, _| {
        let closed = Arc::clone(&tell_closed);
        async move {
            read_message(&mut stream, true).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").await.unwrap();
            let _ = stream.read(&mut [0]).await;
            closed.notify_one();
        }
    })
    .await;
    let gateway = Running::before(&stub).await;
    let mut stream = gateway.connect().await;
    stream.write_all(request("GET", "/v1/users", "", "").as_bytes()).await.unwrap();
    within(read_head(&mut stream)).await.unwrap();
    drop(stream);
    within(closed.notified()).await;
}

#[tokio::test]
async fn truncated_response_stays_truncated() {
    for head in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let stub = Stub::with(move |_, mut stream, _| async move {
            read_message(&mut stream, true).await;
            stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}").as_bytes()).await.unwrap();
        })
        .await;
        let gateway = Running::before(&stub).await;
        let mut stream = gateway.connect().await;
        stream.write_all(request("GET", "/v1/users", "", "").as_bytes()).await.unwrap();
        assert_eq!(within(read_message(&mut stream, true)).await, None, "{head:?}");
    }
}

/// Otherwise a client takes it for a closed idle connection and retries, or takes it for complete.
#[tokio::test]
async fn truncated_response_is_forwarded_as_received() {
    for (head, came) in [
        ("Content-Length: 10\r\n\r\n", ""),
        ("Content-Length: 10\r\n\r\nabc", "abc"),
        ("Transfer-Encoding: chunked\r\n\r\n", ""),
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "3\r\nabc\r\n"),
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx", "3\r\nabc\r\n"),
    ] {
        for status in [200, 404, 429, 500] {
            let stub = Stub::with(move |_, mut stream, _| async move {
                read_message(&mut stream, true).await;
                stream.write_all(format!("HTTP/1.1 {status} X\r\n{head}").as_bytes()).await.unwrap();
            })
            .await;
            for method in ["GET", "POST"] {
                let gateway = Running::before(&stub).await;
                let mut stream = gateway.connect().await;
                stream.write_all(request(method, "/v1/users", "", "").as_bytes()).await.unwrap();
                let answer =
                    within(read_head(&mut stream)).await.unwrap_or_else(|| panic!("no head: {status} {head:?}"));
                let length = head.contains("Content-Length").then_some("10");
                assert_eq!((answer.status(), answer.value("content-length")), (status, length), "{head:?}");
                let mut rest = Vec::new();
                let _ = within(stream.read_to_end(&mut rest)).await;
                assert_eq!(String::from_utf8_lossy(&rest), came, "{status} {head:?}");
            }
        }
    }
}

#[tokio::test]
async fn early_response_is_forwarded_before_the_request_ends() {
    let stub = Stub::with(|_, mut stream, _| async move {
        read_head(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig").await.unwrap();
        // Reads on, to avoid a reset, until the other side closes.
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    let gateway = Running::before(&stub).await;
    let mut stream = gateway.connect().await;
    stream.write_all(request("POST", "/v1/users", "Content-Length: 1000000\r\n", "some").as_bytes()).await.unwrap();
    let answer = within(read_message(&mut stream, true)).await.unwrap();
    assert_eq!((answer.status(), &*answer.body), (413, &b"big"[..]));
}
