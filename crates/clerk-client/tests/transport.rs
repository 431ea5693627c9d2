//! The reqwest transport over real sockets: failures, their classification, and no key for other servers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clerk_client::transport::{ErrorKind, RequestBody, ReqwestOptions, ReqwestTransport, Transport, TransportError};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const KEY: &str = "Bearer sk_test_4bMbJyWZ2vnLx0aQCANARY";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls").join(name)
}

/// A server that sends raw bytes. It ends with the test.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    /// Heads of the requests.
    requests: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Responds to every request with these bytes, then closes the connection unless they are [`OK`].
    async fn responding(response: impl Into<String>) -> Self {
        let response: Arc<str> = response.into().into();
        let keep_alive = *response == *OK;
        Self::start(move |stream, requests| serve(stream, Arc::clone(&response), keep_alive, requests)).await
    }

    /// Responds over TLS, with the certificate for 127.0.0.1.
    async fn with_tls(chain: &str, key: &str) -> Self {
        let certificates = CertificateDer::pem_file_iter(data(chain)).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(data(key)).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        Self::start(move |stream, requests| {
            let acceptor = acceptor.clone();
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(stream, OK.into(), true, requests).await;
                }
            }
        })
        .await
    }

    async fn start<F: Future<Output = ()> + Send + 'static>(
        serve: impl Fn(TcpStream, Arc<Mutex<Vec<String>>>) -> F + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::default()));
        let (counter, heads) = (Arc::clone(&connections), Arc::clone(&requests));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut running = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                running.spawn(serve(stream, Arc::clone(&heads)));
            }
        });
        Self { address, connections, requests, _tasks: tasks }
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/v1/users/count", self.address)
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    response: Arc<str>,
    keep_alive: bool,
    requests: Arc<Mutex<Vec<String>>>,
) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        requests.lock().push(String::from_utf8(head).unwrap());
        let _ = stream.write_all(response.as_bytes()).await;
        let _ = stream.flush().await;
        if !keep_alive {
            return;
        }
    }
}

fn upstream(options: ReqwestOptions) -> Arc<ReqwestTransport> {
    ReqwestTransport::new(options).unwrap()
}

/// Sends a request and reads the whole response: the status or the error.
async fn get(upstream: &ReqwestTransport, url: &str) -> Result<u16, TransportError> {
    let request = http::Request::get(url).header("authorization", KEY).body(RequestBody::empty()).unwrap();
    let exchange = async {
        let response = upstream.send(request).await?;
        let status = response.status().as_u16();
        response.into_body().collect().await?;
        Ok(status)
    };
    tokio::time::timeout(Duration::from_secs(60), exchange).await.expect("the request should complete")
}

async fn error(url: &str) -> TransportError {
    get(&upstream(ReqwestOptions::default()), url).await.unwrap_err()
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let other = Server::responding(OK).await;
    for status in [301, 302, 303, 307, 308] {
        for location in [other.url("http"), format!("//{}/x", other.address), other.url("https")] {
            let first = Server::responding(format!(
                "HTTP/1.1 {status} Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
            ))
            .await;
            assert_eq!(get(&upstream(ReqwestOptions::default()), &first.url("http")).await.unwrap(), status);
            assert!(
                first.requests.lock()[0]
                    .to_ascii_lowercase()
                    .contains(&format!("authorization: {}", KEY.to_ascii_lowercase()))
            );
        }
    }
    assert_eq!(other.connections.load(Ordering::SeqCst), 0, "no redirect was followed");
}

#[tokio::test]
async fn unknown_host_is_a_dns_failure() {
    let error = error("http://no-such-host.invalid/v1/users/count").await;
    assert_eq!(error.kind(), ErrorKind::Dns, "{error}");
}

#[tokio::test]
async fn closed_port_is_a_connect_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for scheme in ["http", "https"] {
        let error = error(&format!("{scheme}://{address}/")).await;
        assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
        assert!(error.to_string().contains("refused"), "{error}");
    }
}

#[tokio::test]
async fn broken_and_invalid_responses_are_distinguished() {
    let json = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let cases = [
        (String::new(), ErrorKind::Broken),
        ("HTTP/1.1 200".to_owned(), ErrorKind::Broken),
        (format!("{json}content-length: 100\r\n\r\n{{"), ErrorKind::Broken),
        (format!("{json}transfer-encoding: chunked\r\n\r\n5\r\n{{"), ErrorKind::Broken),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n".to_owned(), ErrorKind::Decode),
        ("HTTP/1.1 abc\r\n\r\n".to_owned(), ErrorKind::Decode),
        ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n".to_owned(), ErrorKind::Decode),
        (format!("{json}content-length: x\r\n\r\n"), ErrorKind::Decode),
        (format!("{json}transfer-encoding: chunked\r\n\r\nnot hex\r\n"), ErrorKind::Decode),
        (format!("{json}content-encoding: gzip\r\ncontent-length: 8\r\n\r\nnot gzip"), ErrorKind::Decode),
    ];
    for (response, kind) in cases {
        let server = Server::responding(response.clone()).await;
        let error = error(&server.url("http")).await;
        assert_eq!(error.kind(), kind, "{response:?}: {error}");
        assert!(!error.to_string().contains("CANARY") && !error.to_string().contains("users/count"), "{error}");
    }
}

#[tokio::test]
async fn untrusted_certificate_is_a_tls_failure_with_its_cause() {
    let server = Server::with_tls("server.pem", "server.key").await;
    let error = error(&server.url("https")).await;
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    assert!(error.to_string().contains("certificate"), "the message has the cause: {error}");
    assert!(server.requests.lock().is_empty());
}

#[tokio::test]
async fn ca_file_is_trusted_in_addition_to_the_system() {
    let server = Server::with_tls("server.pem", "server.key").await;
    let options = ReqwestOptions::default().ca_file(Some(data("ca.pem")));
    assert_eq!(get(&upstream(options), &server.url("https")).await.unwrap(), 200);
    // But not for other names.
    let wrong_name = format!("https://localhost.localhost:{}/", server.address.port());
    let options = ReqwestOptions::default().ca_file(Some(data("ca.pem")));
    assert!(get(&upstream(options), &wrong_name).await.is_err());
}

#[tokio::test]
async fn server_without_tls_is_a_tls_or_connect_failure() {
    let server = Server::responding("HTTP/1.1 400 Bad Request\r\n\r\n\r\n\r\n\r\n").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let error = error(&format!("https://{address}/")).await;
    assert!(matches!(error.kind(), ErrorKind::Tls | ErrorKind::Connect), "{error}");
    drop(server);
}

#[test]
fn invalid_ca_file_is_rejected_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    for path in [empty, folder.path().join("missing.pem"), data("server.key"), folder.path().to_owned()] {
        let options = ReqwestOptions::default().ca_file(Some(path.clone()));
        let error = ReqwestTransport::new(options).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains("PEM"), "{error}");
    }
}

#[tokio::test]
async fn connections_are_reused_until_max_age() {
    let server = Server::responding(OK).await;
    let pooled = upstream(ReqwestOptions::default());
    for _ in 0..20 {
        get(&pooled, &server.url("http")).await.unwrap();
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    // With `max_age` 0, each request uses a new connection, so that DNS changes take effect at once.
    let unpooled = upstream(ReqwestOptions::default().max_age(Duration::ZERO));
    for _ in 0..5 {
        get(&unpooled, &server.url("http")).await.unwrap();
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 6);
}

#[tokio::test]
async fn idle_connection_closed_by_the_server_is_replaced() {
    let response = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n[]";
    let server = Server::responding(response).await;
    let upstream = upstream(ReqwestOptions::default());
    for _ in 0..20 {
        // The server closes each connection after its response, without announcing it.
        let result = get(&upstream, &server.url("http")).await;
        assert!(result.as_ref().is_ok_and(|status| *status == 200), "{result:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn requests_have_a_user_agent() {
    let server = Server::responding(OK).await;
    get(&upstream(ReqwestOptions::default()), &server.url("http")).await.unwrap();
    let head = server.requests.lock()[0].to_ascii_lowercase();
    assert!(head.starts_with("get /v1/users/count http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("user-agent: clerk_exporter/{}\r\n", env!("CARGO_PKG_VERSION"))), "{head}");
    assert_eq!(head.matches("authorization:").count(), 1);
}
