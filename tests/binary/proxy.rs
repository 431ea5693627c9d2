//! Proxies from environment variables.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::exporter::{Clerk, Exporter, Folder, KEY, command, eventually, request, run};

/// A proxy that records the first line of each request, and rejects it or responds like Clerk.
struct Proxy {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
    /// The bytes sent through allowed tunnels.
    tunnelled: Arc<Mutex<Vec<u8>>>,
    _tasks: JoinSet<()>,
}

const REFUSED: &str = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n";
const ALLOWED: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

impl Proxy {
    async fn start() -> Self {
        Self::answering(REFUSED).await
    }

    /// Responds to `CONNECT` with this.
    async fn answering(connect: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://proxyuser:proxypassCANARY@{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let tunnelled = Arc::<Mutex<Vec<u8>>>::default();
        let (heads, bytes) = (Arc::clone(&seen), Arc::clone(&tunnelled));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { break };
                    head.push(byte);
                }
                let head = String::from_utf8(head).unwrap();
                let answer = if head.starts_with("CONNECT") {
                    connect
                } else {
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"
                };
                heads.lock().push(head);
                let _ = stream.write_all(answer.as_bytes()).await;
                if answer == ALLOWED {
                    let mut first = vec![0; 1024];
                    let length = stream.read(&mut first).await.unwrap_or(0);
                    bytes.lock().extend_from_slice(&first[..length]);
                }
            }
        });
        Self { url, seen, tunnelled, _tasks: tasks }
    }

    /// Checks an instance at `api_url`; returns the exit status, the output, and the heads that the proxy received.
    async fn check(&self, api_url: &str, environment: &[(&str, &str)]) -> (Option<i32>, String, Vec<String>) {
        let mut command = command(&["check", "--log.level=trace"]);
        command.env("CLERK_SECRET_KEY", KEY).env("CLERK_API_URL", api_url).envs(environment.iter().copied());
        let ended = run(command).await;
        let seen = std::mem::take(&mut *self.seen.lock());
        (ended.status, format!("{}{}", ended.stdout, ended.stderr), seen)
    }
}

#[tokio::test]
async fn clerk_is_reached_through_the_environment_proxy() {
    let proxy = Proxy::start().await;
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"] {
        let (status, text, seen) = proxy.check("https://api.clerk.test", &[(name, &proxy.url)]).await;
        assert_eq!(status, Some(2), "{text}");
        assert!(seen[0].starts_with("CONNECT api.clerk.test:443 HTTP/1.1\r\n"), "{name}: {seen:?}");
        assert!(!seen[0].contains("sk_test"), "the key is for Clerk, not for the proxy");
        assert!(!text.contains("CANARY"), "{name}: neither key nor the proxy's password: {text}");
    }
    let (status, text, seen) = proxy.check("http://api.clerk.test", &[("HTTP_PROXY", &proxy.url)]).await;
    assert!(text.contains("key valid"), "{status:?}: {text}");
    assert!(seen[0].starts_with("GET http://api.clerk.test/v1/users/count HTTP/1.1\r\n"), "{seen:?}");
    assert!(!text.contains("CANARY"), "{text}");
}

#[tokio::test]
async fn proxy_variable_is_accepted_in_every_spelling() {
    let proxy = Proxy::start().await;
    let bare = proxy.url.strip_prefix("http://").unwrap().to_owned();
    for value in [format!("{}\n", proxy.url), format!(" {}\r\n", proxy.url), bare, format!("{}/", proxy.url)] {
        // An empty variable, as compose files pass it, counts as unset.
        for environment in [
            vec![("HTTPS_PROXY", &*value)],
            vec![("HTTPS_PROXY", ""), ("https_proxy", &value)],
            vec![("https_proxy", " "), ("ALL_PROXY", &value), ("NO_PROXY", "")],
            vec![("HTTPS_PROXY", &value), ("REQUEST_METHOD", "GET")],
        ] {
            let (_, text, seen) = proxy.check("https://api.clerk.test", &environment).await;
            assert!(
                seen.first().is_some_and(|head| head.starts_with("CONNECT api.clerk.test:443 ")),
                "{value:?}: {text}"
            );
            assert!(!text.contains("CANARY"), "{text}");
        }
    }
}

#[tokio::test]
async fn unusable_proxy_is_reported_and_never_bypassed() {
    let proxy = Proxy::start().await;
    for value in
        ["socks5://u:passCANARY@127.0.0.1:1", "http://u:pass CANARY@127.0.0.1:1", "ftp://127.0.0.1:1", "http://"]
    {
        for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
            let (status, text, _) = proxy.check("https://api.clerk.test", &[(name, value)]).await;
            // Lines are wrapped at the width of the terminal.
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let told = format!("set {name} to http://HOST:PORT");
            assert!(status == Some(2) && text.matches(&told).count() >= 2, "at the start and for the request: {text}");
            assert!(!text.contains("CANARY") && !text.contains("failed to lookup"), "{text}");
        }
    }
    let environment = [("HTTPS_PROXY", proxy.url.as_str()), ("NO_PROXY", "other.test,*clerk.test")];
    let (_, text, seen) = proxy.check("https://api.clerk.test", &environment).await;
    assert!(text.contains("NO_PROXY: entry 2 is invalid") && seen.len() == 1, "{text}");
    let mut command = command(&["--config.check"]);
    command.env("CLERK_SECRET_KEY", KEY).env("HTTPS_PROXY", "socks5://u:passCANARY@x");
    let checked = run(command).await;
    assert!(checked.stdout.contains("HTTPS_PROXY") && !checked.stdout.contains("CANARY"), "{}", checked.stdout);
}

#[tokio::test]
async fn no_proxy_exceptions_are_honoured() {
    let proxy = Proxy::start().await;
    for exception in ["api.clerk.test", ".clerk.test", "*", "other.test,clerk.test"] {
        let environment = [("HTTPS_PROXY", proxy.url.as_str()), ("NO_PROXY", exception)];
        let (status, text, seen) = proxy.check("https://api.clerk.test", &environment).await;
        assert_eq!((status, seen.len()), (Some(2), 0), "{exception}: {text}");
    }
}

#[tokio::test]
async fn local_addresses_bypass_the_proxy() {
    let clerk = Clerk::start().await;
    let proxy = Proxy::start().await;
    let environment =
        [("HTTP_PROXY", proxy.url.as_str()), ("HTTPS_PROXY", proxy.url.as_str()), ("ALL_PROXY", proxy.url.as_str())];
    let localhost = clerk.url().replace("127.0.0.1", "localhost");
    for url in [clerk.url(), localhost] {
        let (status, text, seen) = proxy.check(&url, &environment).await;
        assert_eq!((status, seen.len()), (Some(0), 0), "{url}: {text}");
    }
    let (_, _, seen) = proxy.check("http://[::1]:1", &environment).await;
    assert_eq!(seen.len(), 0);
}

/// A gateway for an instance at `api_url`, with this environment.
async fn gateway(folder: &Folder, api_url: &str, environment: &[(&str, &str)]) -> Exporter {
    let config = format!(
        "probe: {{ interval: 1h }}\ninstances: [{{ name: prod, secret_key: {KEY}, api_url: '{api_url}' }}]\n\
         gateway: {{ listen_address: 127.0.0.1:0, policies: {{ retry: off }} }}\n"
    );
    let path = folder.write("config.yml", &config);
    Exporter::start(&["--config.file", path.to_str().unwrap(), "--log.level=debug"], environment).await
}

/// Sends a request to the gateway and returns the status.
async fn ask(exporter: &Exporter) -> u16 {
    let authorization = format!("Authorization: Bearer {KEY}\r\n");
    request(exporter.gateway().await, "GET", "/v1/users/count", &authorization).await.status
}

#[tokio::test]
async fn gateway_tunnels_tls_through_the_proxy() {
    for (connect, name) in [(REFUSED, "HTTPS_PROXY"), (ALLOWED, "https_proxy"), (ALLOWED, "ALL_PROXY")] {
        let (proxy, folder) = (Proxy::answering(connect).await, Folder::new());
        let exporter = gateway(&folder, "https://api.clerk.test", &[(name, &proxy.url)]).await;
        // The probe uses the same proxy.
        eventually("the probe", async || (!proxy.seen.lock().is_empty()).then_some(())).await;
        proxy.seen.lock().clear();
        proxy.tunnelled.lock().clear();
        assert_eq!(ask(&exporter).await, 502);
        let seen = proxy.seen.lock().clone();
        assert!(seen[0].starts_with("CONNECT api.clerk.test:443 HTTP/1.1\r\n"), "{name}: {seen:?}");
        assert!(seen[0].to_lowercase().contains("proxy-authorization: basic "), "{seen:?}");
        assert!(!seen[0].contains("sk_test"), "the key is for Clerk, not for the proxy");
        if connect == ALLOWED {
            let tunnelled = proxy.tunnelled.lock().clone();
            // A TLS handshake that names the host; the key is only sent encrypted.
            assert_eq!(tunnelled.first(), Some(&0x16), "{name}");
            assert!(tunnelled.windows(14).any(|bytes| bytes == b"api.clerk.test"), "{name}");
        }
        let (_, log) = exporter.stopped().await;
        assert!(!log.contains("CANARY"), "{name}: {log}");
    }
}

#[tokio::test]
async fn gateway_honours_exceptions_and_reports_unusable_proxies() {
    let proxy = Proxy::start().await;
    let folder = Folder::new();
    let environment = [("HTTPS_PROXY", proxy.url.as_str()), ("NO_PROXY", ".clerk.test")];
    let exporter = gateway(&folder, "https://api.clerk.test", &environment).await;
    assert_eq!((ask(&exporter).await, proxy.seen.lock().len()), (502, 0));

    let clerk = Clerk::start().await;
    let exporter = gateway(&folder, &clerk.url(), &[("HTTPS_PROXY", &proxy.url), ("HTTP_PROXY", &proxy.url)]).await;
    assert_eq!((ask(&exporter).await, proxy.seen.lock().len()), (200, 0));

    let environment = [("HTTPS_PROXY", "socks5://user:passwordCANARY@127.0.0.1:1")];
    let exporter = gateway(&folder, "https://api.clerk.test", &environment).await;
    assert_eq!(ask(&exporter).await, 502);
    let (_, log) = exporter.stopped().await;
    assert!(log.contains("set HTTPS_PROXY to http://HOST:PORT") && !log.contains("CANARY"), "{log}");
}
