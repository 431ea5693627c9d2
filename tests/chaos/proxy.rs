//! The fault-injecting proxy works as documented; other tests rely on it.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::chaos::{Chaos, ChaosProxy, Down};

const ANSWER: &[u8] = b"0123456789";
/// Longer than anything takes on a busy machine; only failing tests wait for it.
const DEADLINE: Duration = Duration::from_secs(60);

/// Responds to each line with [`ANSWER`], until the client closes the connection.
struct Server {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    while let Ok(byte) = stream.read_u8().await {
                        if byte == b'\n' && stream.write_all(ANSWER).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self { address, _tasks: tasks }
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.expect("timed out")
}

/// Sends this many lines; returns what was received and how the connection ended. `ends`: close the connection from
/// this side, if no other side does.
async fn talk(address: SocketAddr, lines: usize, ends: bool) -> (Vec<u8>, Result<(), ErrorKind>) {
    let exchange = async {
        let mut answers = Vec::new();
        let mut stream = match TcpStream::connect(address).await {
            Ok(stream) => stream,
            Err(error) => return (answers, Err(error.kind())),
        };
        let sent = stream.write_all("\n".repeat(lines).as_bytes()).await;
        if let Err(error) = sent {
            return (answers, Err(error.kind()));
        }
        if ends {
            let _ = stream.shutdown().await;
        }
        loop {
            let mut piece = [0; 64];
            match stream.read(&mut piece).await {
                Ok(0) => return (answers, Ok(())),
                Ok(length) => answers.extend_from_slice(&piece[..length]),
                Err(error) => return (answers, Err(error.kind())),
            }
        }
    };
    within(exchange).await
}

#[tokio::test]
async fn everything_passes_without_faults() {
    let server = Server::start().await;
    let proxy = ChaosProxy::start(server.address, Chaos::Pass);
    assert_eq!(proxy.url(), format!("http://{}", proxy.address()));
    assert_eq!(talk(proxy.address(), 3, true).await, (ANSWER.repeat(3), Ok(())));
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test]
async fn response_is_cut_after_the_given_bytes() {
    let server = Server::start().await;
    let proxy = ChaosProxy::start(server.address, Chaos::CutAfter(13));
    assert_eq!(talk(proxy.address(), 2, false).await, (b"0123456789012".to_vec(), Ok(())));
}

#[tokio::test]
async fn reset_connection_ends_after_the_given_bytes() {
    let server = Server::start().await;
    let proxy = ChaosProxy::start(server.address, Chaos::ResetAfter(4));
    let (answer, end) = talk(proxy.address(), 1, false).await;
    // A reset discards bytes that arrived and were not read yet.
    assert!(b"0123".starts_with(&answer), "{answer:?}");
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn refused_connection_returns_nothing() {
    let server = Server::start().await;
    let proxy = ChaosProxy::start(server.address, Chaos::Refuse);
    let (answer, end) = talk(proxy.address(), 1, false).await;
    assert_eq!(answer, b"");
    // Depends on whether the line was sent before the reset.
    let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    assert!(end.is_err_and(|kind| kinds.contains(&kind)), "{end:?}");
}

#[tokio::test]
async fn stalled_response_ends_only_on_disconnect() {
    let server = Server::start().await;
    let proxy = ChaosProxy::start(server.address, Chaos::StallAfter(4));
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    stream.write_all(b"\n").await.unwrap();
    let mut answer = [0; 4];
    within(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"0123");
    // The rest of the response has been at the proxy for long when a second exchange has ended.
    proxy.next([Chaos::Pass]);
    assert_eq!(talk(proxy.address(), 1, true).await, (ANSWER.to_vec(), Ok(())));
    let error = stream.try_read(&mut answer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    proxy.hang_up();
    let end = within(stream.read(&mut answer)).await;
    assert!(!matches!(end, Ok(1..)), "{end:?}");
}

#[tokio::test]
async fn dripping_response_arrives_whole() {
    let server = Server::start().await;
    let drip = Chaos::Drip { bytes: 3, every: Duration::from_millis(1) };
    let proxy = ChaosProxy::start(server.address, drip);
    assert_eq!(talk(proxy.address(), 2, true).await, (ANSWER.repeat(2), Ok(())));
}

#[tokio::test]
async fn faults_apply_to_single_or_all_later_connections() {
    let server = Server::start().await;
    let proxy = ChaosProxy::start(server.address, Chaos::Pass);
    proxy.next([Chaos::CutAfter(1), Chaos::CutAfter(2)]);
    let mut lengths = Vec::new();
    for _ in 0..3 {
        lengths.push(talk(proxy.address(), 1, true).await.0.len());
    }
    assert_eq!(lengths, [1, 2, ANSWER.len()]);
    proxy.set(Chaos::CutAfter(5));
    assert_eq!(talk(proxy.address(), 1, true).await.0.len(), 5);
    assert_eq!(proxy.accepted(), 4);
}

#[tokio::test]
async fn proxy_that_is_down_refuses_and_restarts_on_the_same_port() {
    let server = Server::start().await;
    let down = Down::before(server.address);
    let address = down.address();
    assert_eq!(talk(address, 1, true).await, (Vec::new(), Err(ErrorKind::ConnectionRefused)));
    let proxy = down.up(Chaos::Pass);
    assert_eq!(proxy.address(), address);
    assert_eq!(talk(address, 1, true).await, (ANSWER.to_vec(), Ok(())));
}
