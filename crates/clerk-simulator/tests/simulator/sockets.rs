//! Tests over a real socket, where a broken body is a broken connection.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Sends one request over its own connection and returns every byte received until it closed.
async fn exchange(simulator: &Simulator, head: &str) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut received = Vec::new();
        // A reset is an ordinary end here; what arrived before it counts.
        let _ = stream.read_to_end(&mut received).await;
        received
    };
    tokio::select! {
        received = client => received,
        result = axum::serve(listener, simulator.router()) => panic!("the server ended: {result:?}"),
    }
}

fn head() -> String {
    format!(
        "GET /v1/users/count HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n\r\n"
    )
}

#[tokio::test]
async fn successful_response_is_complete_with_one_date() {
    let simulator = Simulator::new(options());
    let answer = String::from_utf8(exchange(&simulator, &head()).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(answer.ends_with(r#"{"object":"total_count","total_count":1000}"#));
    assert_eq!(answer.matches("\r\ndate: ").count(), 1);
    assert!(answer.contains("date: Wed, 25 Nov 2026 12:00:"));
}

#[tokio::test]
async fn reset_sends_nothing_at_once_and_a_part_later() {
    let simulator = Simulator::new(options());
    let rules = vec![Fault::Reset { after_bytes: 0 }.times(1), Fault::Reset { after_bytes: 5 }.times(1)];
    simulator.set_faults(Faults { rules, ..Faults::default() }).unwrap();
    assert!(exchange(&simulator, &head()).await.is_empty());
    let part = String::from_utf8(exchange(&simulator, &head()).await).unwrap();
    assert!(part.contains("content-length: 6\r\n"), "{part}");
    assert!(part.ends_with("\r\n\r\n     "), "{part}");
}
