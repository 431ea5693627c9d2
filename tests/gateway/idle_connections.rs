//! The server closes an idle connection while a request is in flight.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{OK, Running, Stub, read_message, request};

/// Answers the first request of each connection, and closes it on the second.
async fn impatient() -> Stub {
    Stub::with(|number, mut stream, requests| async move {
        let Some(first) = read_message(&mut stream, true).await else { return };
        requests.lock().push(crate::support::Message { connection: number, ..first });
        stream.write_all(OK.as_bytes()).await.unwrap();
        if let Some(second) = read_message(&mut stream, true).await {
            requests.lock().push(crate::support::Message { connection: number, ..second });
        }
    })
    .await
}

#[tokio::test]
async fn reads_are_resent_on_a_new_connection() {
    for method in ["GET", "HEAD", "OPTIONS"] {
        let stub = impatient().await;
        let gateway = Running::before(&stub).await;
        for _ in 0..10 {
            let answer = gateway.send(request(method, "/v1/users", "", "")).await;
            assert_eq!((answer.status(), answer.value("x-clerk-exporter-decision")), (200, None));
        }
    }
}

#[tokio::test]
async fn writes_are_not_resent_on_a_new_connection() {
    for (method, fields, body) in
        [("POST", "Content-Length: 2\r\n", "{}"), ("PATCH", "", ""), ("DELETE", "", ""), ("PUT", "", "")]
    {
        let stub = impatient().await;
        let gateway = Running::before(&stub).await;
        let mut failed = 0;
        for number in 0..10 {
            let answer = gateway.send(request(method, &format!("/v1/users/{number}"), fields, body)).await;
            if answer.status() != 200 {
                assert_eq!((answer.status(), &*answer.code()), (502, "gateway_upstream_broken"), "{method}");
                failed += 1;
            }
        }
        assert!(failed > 0, "{method}: some were sent on a closed connection");
        let mut seen: Vec<String> = stub.requests().iter().map(|request| request.first_line().to_owned()).collect();
        seen.sort_unstable();
        let expected: Vec<String> = (0..10).map(|number| format!("{method} /v1/users/{number} HTTP/1.1")).collect();
        assert_eq!(seen, expected, "each was sent exactly once");
    }
}

#[tokio::test]
async fn closed_new_connection_is_not_an_idle_one() {
    let stub = Stub::with(|number, mut stream, requests| async move {
        if let Some(message) = read_message(&mut stream, true).await {
            requests.lock().push(crate::support::Message { connection: number, ..message });
        }
    })
    .await;
    let gateway = Running::before(&stub).await;
    let answer = gateway.get("/v1/users").await;
    assert_eq!((answer.status(), &*answer.code()), (502, "gateway_upstream_broken"));
    assert_eq!(stub.requests().len(), 1, "sent once");
}

#[tokio::test]
async fn properly_closed_connections_cause_no_errors() {
    // Closes after each response, like a server with a short idle timeout.
    let stub = Stub::with(|_, mut stream, requests| async move {
        let request = read_message(&mut stream, true).await;
        requests.lock().extend(request);
        stream.write_all(OK.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = stream.read(&mut [0]).await;
    })
    .await;
    let gateway = Running::before(&stub).await;
    for _ in 0..200 {
        assert_eq!(gateway.get("/v1/users").await.status(), 200);
    }
    assert_eq!(stub.requests().len(), 200);
}

/// On an HTTP/1.0 connection, requests use HTTP/1.0, which has no chunked encoding.
#[tokio::test]
async fn no_body_is_lost_after_an_http_1_0_response() {
    let stub = Stub::answering("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}").await;
    let gateway = Running::before(&stub).await;
    for round in 0..5 {
        assert_eq!(gateway.get("/v1/users").await.status(), 200);
        let fields = "Transfer-Encoding: chunked\r\n";
        let answer = gateway.send(request("POST", "/v1/users", fields, "5\r\nhello\r\n0\r\n\r\n")).await;
        assert_eq!(answer.status(), 200);
        let sent = stub.requests().pop().unwrap();
        assert_eq!((sent.first_line(), &*sent.body), ("POST /v1/users HTTP/1.1", &b"hello"[..]), "{round}");
    }
}
