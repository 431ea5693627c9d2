use crate::support::*;

/// `alice` with the password `open sesame`, as `htpasswd -B` writes it (cost 4, to be quick).
fn alice(password: &str) -> String {
    let hash = bcrypt::hash_with_result(password, 4).unwrap().format_for_version(bcrypt::Version::TwoY);
    format!("basic_auth_users:\n  alice: {hash}\n")
}

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
async fn only_the_right_password_of_a_known_user_comes_in() {
    let (server, _folder) = serve(&alice("open sesame")).await;
    // Twice: verified, then remembered.
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
async fn every_path_asks_for_the_password_also_those_that_do_not_exist() {
    let (server, _folder) = serve(&alice("open sesame")).await;
    for path in ["/-/healthy", "/nowhere", "*"] {
        assert_eq!(status(&server.get(path, "").await), 401, "{path}");
    }
    assert_eq!(status(&server.get("/nowhere", RIGHT).await), 404);
}

#[tokio::test]
async fn a_changed_password_counts_at_once() {
    let (server, folder) = serve(&alice("open sesame")).await;
    assert_eq!(status(&server.get("/", RIGHT).await), 200);
    folder.write(&alice("another"));
    assert_eq!(status(&server.get("/", RIGHT).await), 401);
    folder.write("");
    assert_eq!(status(&server.get("/", "").await), 200);
}

#[tokio::test]
async fn an_unusable_file_is_a_500_until_it_is_corrected() {
    let (server, folder) = serve(&alice("open sesame")).await;
    for unusable in ["basic_auth_users:\n  alice: CANARY\n", "nonsense: 1\n", "\"CANARY"] {
        folder.write(unusable);
        for headers in ["", RIGHT] {
            let answer = server.get("/", headers).await;
            assert_eq!(status(&answer), 500);
            assert!(!answer.contains("CANARY") && !answer.contains("web.yml"), "{answer}");
        }
    }
    std::fs::remove_file(folder.path()).unwrap();
    assert_eq!(status(&server.get("/", RIGHT).await), 500);
    folder.write(&alice("open sesame"));
    assert_eq!(status(&server.get("/", RIGHT).await), 200);
}

#[tokio::test]
async fn configured_headers_are_on_every_answer() {
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
async fn requests_over_the_rate_limit_are_told_when_to_come_again() {
    let (server, folder) = serve("rate_limit: {interval: 1h, burst: 2}\n").await;
    for expected in [200, 200, 429, 429] {
        let answer = server.get("/", "").await;
        assert_eq!(status(&answer), expected);
        assert_eq!(answer.contains("\r\nretry-after: 3600\r\n"), expected == 429, "{answer}");
    }
    // Another change of the file does not refill the bucket, a new limit does.
    folder.write("# the same\nrate_limit: {interval: 1h, burst: 2}\n");
    assert_eq!(status(&server.get("/", "").await), 429);
    folder.write("rate_limit: {interval: 1h, burst: 3}\n");
    assert_eq!(status(&server.get("/", "").await), 200);
}
