//! Both HTTP transports use proxies in the same way.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clerk_client::transport::{
    HyperOptions, NetworkTransport, Proxies, RequestBody, ReqwestOptions, ReqwestTransport, Transport,
};
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls").join(name)
}

/// A proxy that records request heads and rejects the requests.
struct Proxy {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let (seen, mut tasks) = (Arc::clone(&heads), JoinSet::new());
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                match &tls {
                    None => reject(stream, &seen).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            reject(stream, &seen).await;
                        }
                    }
                }
            }
        });
        Self { port, heads, _tasks: tasks }
    }
}

async fn reject(mut stream: impl AsyncRead + AsyncWrite + Unpin, seen: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    seen.lock().push(String::from_utf8(head).unwrap());
    let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    let _ = stream.shutdown().await;
}

/// The transports of probes and of the gateway, with these variables.
fn clients(variables: &[(&str, String)]) -> [(&'static str, Arc<dyn Transport>); 2] {
    let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
    let proxies = Some(Proxies::from_variables(&|name| find(name).map(|(_, value)| OsString::from(value))));
    let (ca_file, connect_timeout) = (Some(data("ca.pem")), Duration::from_secs(30));
    let reqwest =
        ReqwestOptions::default().ca_file(ca_file.clone()).connect_timeout(connect_timeout).proxies(proxies.clone());
    let hyper = HyperOptions::default().ca_file(ca_file).connect_timeout(connect_timeout).proxies(proxies);
    [("reqwest", ReqwestTransport::new(reqwest).unwrap()), ("hyper", NetworkTransport::new(&hyper).unwrap())]
}

/// Sends a request: the status or the error message.
async fn send(client: &dyn Transport, url: &str) -> Result<u16, String> {
    let request = http::Request::get(url).body(RequestBody::empty()).unwrap();
    let sent =
        tokio::time::timeout(Duration::from_secs(60), client.send(request)).await.expect("the request should complete");
    sent.map(|response| response.status().as_u16()).map_err(|error| error.to_string())
}

/// The request lines that the proxy gets from each client for a URL.
async fn request_lines(proxy: &Proxy, variables: &[(&str, String)], url: &str) -> [Vec<String>; 2] {
    let [reqwest, hyper] = clients(variables);
    let mut seen = [Vec::new(), Vec::new()];
    for (index, (_, client)) in [reqwest, hyper].into_iter().enumerate() {
        let _ = send(&*client, url).await;
        let heads = std::mem::take(&mut *proxy.heads.lock());
        seen[index] = heads.iter().map(|head| head.lines().next().unwrap().to_owned()).collect();
    }
    seen
}

#[tokio::test]
async fn exceptions_are_the_same_for_both_clients() {
    let proxy = Proxy::start(None).await;
    let (clerk, at_8443) = ("https://api.clerk.test/v1/jwks", "https://api.clerk.test:8443/v1/jwks");
    // Matched by name only: the client does not resolve names for the proxy, and `.test` names do not resolve.
    let cases = [
        ("", clerk, true),
        ("*", clerk, false),
        ("api.clerk.test", clerk, false),
        ("API.CLERK.TEST", clerk, false),
        ("clerk.test", clerk, false),
        (".clerk.test", clerk, false),
        ("*.clerk.test", clerk, false),
        ("other.test, clerk.test", clerk, false),
        ("other.test clerk.test\n", clerk, false),
        ("api.clerk.test:443", clerk, false),
        ("api.clerk.test:443", at_8443, true),
        ("*.clerk.test:8443", at_8443, false),
        ("lerk.test", clerk, true),
        ("x.api.clerk.test", clerk, true),
        ("*clerk.test", clerk, true),
        ("https://api.clerk.test", clerk, true),
        ("10.0.0.0/8,[fd00::1]", "https://11.0.0.1/v1/jwks", true),
        ("10.0.0.0/8,[fd00::1]:8443", "https://[fd00::1]/v1/jwks", true),
        ("fd00::/8", "https://[fe80::1]/v1/jwks", true),
    ];
    for (exceptions, url, is_proxied) in cases {
        let variables =
            [("HTTPS_PROXY", format!("http://127.0.0.1:{}", proxy.port)), ("NO_PROXY", exceptions.to_owned())];
        let [reqwest, hyper] = request_lines(&proxy, &variables, url).await;
        assert_eq!(reqwest, hyper, "{exceptions} {url}");
        assert_eq!(reqwest.len(), usize::from(is_proxied), "{exceptions} {url}: {reqwest:?}");
    }
}

#[tokio::test]
async fn proxy_urls_are_parsed_alike_by_both_clients() {
    let proxy = Proxy::start(None).await;
    let address = format!("127.0.0.1:{}", proxy.port);
    for value in [
        format!("http://{address}"),
        format!("http://{address}/\n"),
        format!(" {address}\r\n"),
        format!("HTTP://user:pass%20word@{address}"),
        format!("user:word@{address}"),
    ] {
        for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
            let [reqwest, hyper] =
                request_lines(&proxy, &[(name, value.clone())], "https://api.clerk.test/v1/jwks").await;
            assert_eq!(reqwest, ["CONNECT api.clerk.test:443 HTTP/1.1"], "{name} {value:?}");
            assert_eq!(reqwest, hyper, "{name} {value:?}");
        }
    }
}

#[tokio::test]
async fn plain_http_is_forwarded_by_the_proxy() {
    let proxy = Proxy::start(None).await;
    let variables = [("HTTP_PROXY", format!("http://user:word@127.0.0.1:{}", proxy.port))];
    for (name, client) in clients(&variables) {
        assert_eq!(send(&*client, "http://api.clerk.test/v1/jwks").await, Ok(403), "{name}");
        let heads = std::mem::take(&mut *proxy.heads.lock());
        assert!(heads[0].starts_with("GET http://api.clerk.test/v1/jwks HTTP/1.1\r\n"), "{name}: {heads:?}");
        assert!(heads[0].to_lowercase().contains("proxy-authorization: basic dxnlcjp3b3jk\r\n"), "{name}: {heads:?}");
    }
}

#[tokio::test]
async fn proxy_is_reachable_over_tls() {
    let certificates = CertificateDer::pem_file_iter(data("server.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(data("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .unwrap();
    let proxy = Proxy::start(Some(TlsAcceptor::from(Arc::new(config)))).await;
    let variables = [("ALL_PROXY", format!("https://127.0.0.1:{}", proxy.port))];
    let [reqwest, hyper] = request_lines(&proxy, &variables, "https://api.clerk.test/v1/jwks").await;
    assert_eq!((reqwest.len(), &reqwest), (1, &hyper));
    let [reqwest, hyper] = request_lines(&proxy, &variables, "http://api.clerk.test/v1/jwks").await;
    assert_eq!((reqwest.len(), &reqwest), (1, &hyper));
}

#[tokio::test]
async fn invalid_proxy_is_never_bypassed() {
    for value in ["socks5://u:CANARY@127.0.0.1:1", "http://u:CAN ARY@127.0.0.1:1", "ftp://127.0.0.1:1", "http://"] {
        for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"] {
            for (client_name, client) in clients(&[(name, value.to_owned())]) {
                let error = send(&*client, "https://api.clerk.test/v1/jwks").await.unwrap_err();
                assert!(error.contains(&format!("set {name} to http://HOST:PORT")), "{client_name}: {error}");
                assert!(!error.contains("CAN"), "{error}");
            }
        }
    }
}
