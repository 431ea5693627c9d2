use axum::routing::any;
use axum::{Extension, Router};
use prometheus_web::{AuthenticatedClient, WebConfigFile};

use crate::support::*;

/// base64 of `alice:open sesame`, `alice:wrong` and `bob:open sesame`.
const RIGHT: &str = "Authorization: Basic YWxpY2U6b3BlbiBzZXNhbWU=\r\n";
const WRONG: &str = "Authorization: Basic YWxpY2U6d3Jvbmc=\r\n";
const UNKNOWN: &str = "Authorization: Basic Ym9iOm9wZW4gc2VzYW1l\r\n";

async fn serve(web_config: &str) -> (TestServer, ConfigFolder) {
    let folder = ConfigFolder::new(web_config);
    let server = TestServer::start(ok_router(), patient(), folder.source()).await;
    (server, folder)
}

#[tokio::test]
async fn only_a_valid_password_is_accepted() {
    let (server, _folder) = serve(&alice("open sesame")).await;
    // Twice: verified, then from the cache.
    for _ in 0..2 {
        assert_eq!(status(&server.get("/", RIGHT).await), 200);
        for refused in [WRONG, UNKNOWN, "", "Authorization: Bearer x\r\n", "Authorization: Basic ???\r\n"] {
            let answer = server.get("/", refused).await;
            assert_eq!(status(&answer), 401, "{refused:?}");
            assert!(answer.to_ascii_lowercase().contains("\r\nwww-authenticate: basic\r\n"), "{answer}");
        }
    }
}

#[tokio::test]
async fn unknown_paths_require_a_password_too() {
    let (server, _folder) = serve(&alice("open sesame")).await;
    for path in ["/-/healthy", "/nowhere", "*"] {
        assert_eq!(status(&server.get(path, "").await), 401, "{path}");
    }
    assert_eq!(status(&server.get("/nowhere", RIGHT).await), 404);
}

#[tokio::test]
async fn changed_password_takes_effect_at_once() {
    let (server, folder) = serve(&alice("open sesame")).await;
    assert_eq!(status(&server.get("/", RIGHT).await), 200);
    folder.write(&alice("another"));
    assert_eq!(status(&server.get("/", RIGHT).await), 401);
    folder.write("");
    assert_eq!(status(&server.get("/", "").await), 200);
}

#[tokio::test]
async fn invalid_file_keeps_the_previous_configuration() {
    let (server, folder) = serve(&alice("open sesame")).await;
    let still = async || {
        assert_eq!(status(&server.get("/", RIGHT).await), 200);
        assert_eq!(status(&server.get("/", WRONG).await), 401);
        assert_eq!(status(&server.get("/", "").await), 401);
    };
    for unusable in
        ["basic_auth_users:\n  alice: CANARY\n", "nonsense: 1\n", "\"CANARY", "tls_server_config: {cert: x}\n"]
    {
        folder.write(unusable);
        still().await;
    }
    std::fs::remove_file(folder.path()).unwrap();
    still().await;
    folder.write("");
    assert_eq!(status(&server.get("/", "").await), 200);
}

#[tokio::test]
async fn reloads_are_counted_by_kind_and_result() {
    let folder = ConfigFolder::new(&alice("open sesame"));
    let source = folder.source();
    let [config, certificate, authorities] = WebConfigFile::ALL.map(|kind| source.reloads(kind));
    assert!(config.successes >= 1 && config.failures == 0);
    assert_eq!((certificate.successes, authorities.successes), (0, 0));
    std::fs::remove_file(folder.path()).unwrap();
    let gone = source.reloads(WebConfigFile::WebConfig);
    assert!(gone.failures >= 1);
    folder.write("");
    let again = source.reloads(WebConfigFile::WebConfig);
    assert!(again.failures == gone.failures && again.successes > gone.successes);
}

#[tokio::test]
async fn only_exact_open_paths_need_no_password() {
    let folder = ConfigFolder::new(&format!("rate_limit: {{interval: 1h, burst: 1}}\n{}", alice("open sesame")));
    let options = patient().open_paths(vec!["/x/-/healthy".to_owned()]);
    let router = Router::new().fallback(any(async || "inside"));
    let server = TestServer::start(router, options, folder.source()).await;
    // They also skip the rate limit.
    for path in ["/x/-/healthy", "/x/-/healthy?verbose", "/x/-/healthy?"] {
        assert_eq!(status(&server.get(path, "").await), 200, "{path}");
        assert_eq!(status(&server.send("HEAD", path, "").await), 200, "{path}");
    }
    let folder = ConfigFolder::new(&alice("open sesame"));
    let options = patient().open_paths(vec!["/x/-/healthy".to_owned()]);
    let router = Router::new().fallback(any(async || "inside"));
    let server = TestServer::start(router, options, folder.source()).await;
    for path in [
        "/-/healthy",
        "/x/-/healthy/",
        "//x/-/healthy",
        "/x//-/healthy",
        "/x/./-/healthy",
        "/x/-/../-/healthy",
        "/x/-/healthy/../../metrics",
        "/x/-/healthy/..%2f..%2fmetrics",
        "/x/-/%68ealthy",
        "/x/%2d/healthy",
        "/x/-/healthy;a=b",
        "/x/-/healthy%00",
        "/x/-/healthy%3f",
        "/X/-/healthy",
        "/x/-/Healthy",
        "/metrics?/x/-/healthy",
        "/x/-/healthyy",
        "/x/-/health",
    ] {
        assert_eq!(status(&server.get(path, "").await), 401, "{path}");
    }
    for method in ["POST", "PUT", "OPTIONS", "DELETE", "PATCH", "TRACE", "get"] {
        assert_eq!(status(&server.send(method, "/x/-/healthy", "").await), 401, "{method}");
    }
}

#[tokio::test]
async fn configured_headers_are_on_every_response() {
    let headers =
        "http_server_config:\n  headers:\n    X-Frame-Options: deny\n    Content-Security-Policy: default-src 'self'\n";
    let (server, _folder) = serve(&format!("{headers}{}", alice("open sesame"))).await;
    for (path, headers, expected) in [("/", RIGHT, 200), ("/nowhere", RIGHT, 404), ("/", "", 401)] {
        let answer = server.get(path, headers).await;
        assert_eq!(status(&answer), expected);
        assert!(answer.contains("\r\nx-frame-options: deny\r\n"), "{answer}");
        assert!(answer.contains("\r\ncontent-security-policy: default-src 'self'\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn requests_over_the_rate_limit_get_a_retry_after() {
    let (server, folder) = serve("rate_limit: {interval: 1h, burst: 2}\n").await;
    for expected in [200, 200, 429, 429] {
        let answer = server.get("/", "").await;
        assert_eq!(status(&answer), expected);
        assert_eq!(answer.contains("\r\nretry-after: 3600\r\n"), expected == 429, "{answer}");
    }
    // Other changes of the file do not refill the bucket; a new limit does.
    folder.write("# the same\nrate_limit: {interval: 1h, burst: 2}\n");
    assert_eq!(status(&server.get("/", "").await), 429);
    folder.write("rate_limit: {interval: 1h, burst: 3}\n");
    assert_eq!(status(&server.get("/", "").await), 200);
}

#[tokio::test]
async fn handlers_learn_who_has_authenticated() {
    let folder = ConfigFolder::new(&alice("open sesame"));
    let who =
        async |client: Option<Extension<AuthenticatedClient>>| format!("{:?}", client.map(|client| client.0.user));
    let router = Router::new().route("/", any(who)).route("/open", any(who));
    let options = patient().open_paths(vec!["/open".to_owned()]);
    let server = TestServer::start(router, options, folder.source()).await;
    let answer = server.get("/", RIGHT).await;
    assert!(answer.ends_with("Some(Some(\"alice\"))"), "{answer}");
    // An open path needs no password, so that a name proves nothing.
    for headers in [RIGHT, WRONG, ""] {
        let answer = server.get("/open", headers).await;
        assert!(answer.ends_with("\r\n\r\nNone"), "{answer}");
    }
    folder.write("");
    let answer = server.get("/", RIGHT).await;
    assert!(answer.ends_with("\r\n\r\nNone"), "nothing was verified: {answer}");
}
