//! A probe step by step: `/probe` and `check --verbose`.

use std::path::PathBuf;

use clerk_simulator::{Fault, FaultBody, HeaderProfile, Simulator};
use prometheus_web::WebConfigSource;

use crate::exporter::{Clerk, Exporter, Folder, KEY, Page, Web, command, eventually, run};

const FLAG: &str = "--web.enable-probe-debug";
const PAGE: &str = "/probe?instance=a&debug=true";

/// Checks one instance step by step; the output has no secret.
async fn verbose(url: &str, environment: &[(&str, &str)]) -> String {
    let mut command = command(&["check", "--verbose"]);
    command.env("CLERK_SECRET_KEY", KEY).env("CLERK_API_URL", url).envs(environment.iter().copied());
    let ended = run(command).await;
    assert!(!ended.stdout.contains("CANARY") && !ended.stderr.contains("CANARY"), "{}", ended.stdout);
    ended.stdout
}

fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part}: {text}");
    }
}

async fn exporter(clerk: &Clerk, folder: &Folder, probe: &str, flags: &[&str]) -> Exporter {
    let text = format!("probe: {probe}\ninstances: [{{ name: a, secret_key: {KEY}, api_url: '{}' }}]\n", clerk.url());
    Exporter::with_config(&folder.write("config.yml", &text), flags).await
}

/// The page, once it has a probe.
async fn story(exporter: &Exporter) -> Page {
    eventually("a probe", async || {
        let page = exporter.get(PAGE).await;
        page.text().contains("Last probe: ended").then_some(page)
    })
    .await
}

#[tokio::test]
async fn page_shows_the_last_probe_and_sends_nothing() {
    let (clerk, folder) = (Clerk::start().await, Folder::new());
    let exporter = exporter(&clerk, &folder, "{ interval: 1h, when: always }", &[FLAG]).await;
    let page = story(&exporter).await;
    assert_eq!((page.status, page.header("content-type")), (200, vec!["text/plain; charset=utf-8"]));
    let text = page.text();
    let sent = format!("request      GET {}/v1/users/count", clerk.url());
    let expected =
        ["Next probe: every 1h", &sent, "authorization: <secret>", "proxy        none", "ready        a new"];
    assert_has(&text, &expected);
    assert_has(&text, &["response     200 OK, HTTP/1.1", "x-ratelimit-limit: 100", "x-ratelimit headers: limit 100"]);
    assert_has(
        &text,
        &["key          accepted", "limit 100 per 10 s, remaining 99; Clerk's headers", "probe succeeded"],
    );
    assert!(!text.contains("CANARY"), "{text}");
    for _ in 0..10 {
        assert_eq!(exporter.get(PAGE).await.status, 200);
    }
    assert_eq!(clerk.requests(), 1);
    for (path, status, part) in [
        ("/probe", 400, "write /probe?instance=NAME&debug=true"),
        ("/probe?debug=true", 400, "Instances:\n  a\n"),
        ("/probe?instance=a", 400, "Add debug=true"),
        ("/probe?instance=b&debug=true", 404, "Instances:\n  a\n"),
    ] {
        let page = exporter.get(path).await;
        assert!(page.status == status && page.text().contains(part), "{path}: {page:?}");
    }
    assert_eq!(exporter.request("POST", PAGE, "").await.status, 405);
}

#[tokio::test]
async fn page_is_off_by_default() {
    let (clerk, folder) = (Clerk::start().await, Folder::new());
    let exporter = exporter(&clerk, &folder, "{ interval: 1h }", &[]).await;
    let page = exporter.get(PAGE).await;
    assert!(page.status == 403 && page.text().contains(FLAG), "{page:?}");
}

#[tokio::test]
async fn page_needs_the_password_of_the_port() {
    let (clerk, folder) = (Clerk::start().await, Folder::new());
    // The hash is of another word than this request's.
    let hash = "$2b$04$abcdefghijklmnopqrstuuTVBV9XaWQpKBmDaMZoqeyWHQlWLhJzK";
    let web = folder.write("web.yml", &format!("basic_auth_users: {{ admin: '{hash}' }}\n"));
    let web = format!("--web.config.file={}", web.display());
    let exporter = exporter(&clerk, &folder, "{ interval: 1h }", &[FLAG, &web]).await;
    let page = exporter.get(PAGE).await;
    assert!(page.status == 401 && !page.text().contains("Instance"), "{page:?}");
}

#[tokio::test]
async fn page_says_why_there_is_no_next_probe() {
    let (clerk, folder) = (Clerk::start().await, Folder::new());
    let rule = Fault::Throttled { retry_after: Some("200".into()), body: FaultBody::Clerk }.always();
    clerk.simulator.set_faults(rule.into()).unwrap();
    let on = exporter(&clerk, &folder, "{ interval: 1s, when: always }", &[FLAG]).await;
    let text = story(&on).await.text();
    assert_has(
        &text,
        &[
            "Next probe: none for another",
            "s after a 429",
            "retry-after: 200",
            "429 responses counted since the start: 1",
        ],
    );
    // With the gateway, probes may be off.
    let text = format!(
        "probe: {{ when: never }}\ngateway: {{ listen_address: 127.0.0.1:0 }}\n\
         instances: [{{ name: a, secret_key: {KEY}, api_url: '{}' }}]\n",
        clerk.url()
    );
    let off = Exporter::with_config(&folder.write("never.yml", &text), &[FLAG]).await;
    let text = off.get(PAGE).await.text();
    assert_has(&text, &["when: never", "No probe has ended"]);
    assert_eq!(clerk.requests(), 1);
}

#[tokio::test]
async fn headers_of_each_dialect_are_explained() {
    for (profile, expected) in [
        (HeaderProfile::None, "the response has no quota header"),
        (HeaderProfile::XRateLimit, "x-ratelimit headers: limit 100, remaining 99, reset in"),
        (HeaderProfile::Ietf, "ietf headers: limit 100, remaining 99, reset in"),
    ] {
        let clerk = Clerk::with(clerk_simulator::Options::default().headers(profile)).await;
        assert_has(&verbose(&clerk.url(), &[]).await, &[expected, "probes counted since the start: 1"]);
    }
    let clerk = Clerk::start().await;
    clerk.simulator.set_faults(Fault::MalformedQuotaHeaders {}.always().into()).unwrap();
    assert_has(&verbose(&clerk.url(), &[]).await, &["not understood ("]);
    let rule = Fault::Status { status: 401, body: FaultBody::Clerk }.always();
    clerk.simulator.set_faults(rule.into()).unwrap();
    let text = verbose(&clerk.url(), &[]).await;
    assert_has(&text, &["response     401", "error codes:", "key          refused", "Clerk rejects the secret key"]);
}

#[tokio::test]
async fn steps_are_in_json_only_with_verbose() {
    let clerk = Clerk::start().await;
    for (flags, has_steps) in
        [(vec!["check", "--format=json"], false), (vec!["check", "--format=json", "--verbose"], true)]
    {
        let mut command = command(&flags);
        command.env("CLERK_SECRET_KEY", KEY).env("CLERK_API_URL", clerk.url());
        let ended = run(command).await;
        let rows: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(rows[0]["steps"].as_array().is_some_and(|steps| !steps.is_empty()), has_steps, "{rows}");
        assert!(!ended.stdout.contains("CANARY"), "{rows}");
    }
}

#[tokio::test]
async fn failures_to_connect_name_the_step_and_the_way_out() {
    let text = verbose("http://127.0.0.1:1", &[]).await;
    assert_has(&text, &["no connection", "the probe failed (connect)", "check api_url, the network, and HTTPS_PROXY"]);
    let text = verbose("http://no-such-host.invalid", &[]).await;
    assert_has(&text, &["resolving    no-such-host.invalid", "not resolved", "the probe failed (dns)", "name servers"]);
    let proxy = [("HTTPS_PROXY", "http://proxyuser:proxypassCANARY@127.0.0.1:1")];
    let text = verbose("https://api.clerk.test", &proxy).await;
    assert_has(&text, &["proxy        http://127.0.0.1:1/ by HTTPS_PROXY", "no connection"]);
}

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("crates/prometheus-web/tests/data/tls").join(name)
}

#[tokio::test]
async fn certificates_are_judged_in_sight() {
    let folder = Folder::new();
    let (cert, key) = (data("server.pem"), data("server.key"));
    let web = format!("tls_server_config: {{ cert_file: {}, key_file: {} }}\n", cert.display(), key.display());
    let web = WebConfigSource::open(folder.write("web.yml", &web)).unwrap();
    let clerk = Web::start_with(Simulator::new(Clerk::options()).router(), web).await;
    let url = format!("https://{}", clerk.address);
    let ca = data("ca.pem");
    let text = verbose(&url, &[("SSL_CERT_FILE", ca.to_str().unwrap())]).await;
    assert_has(&text, &["authorities  by SSL_CERT_FILE", "the TLS handshake with 127.0.0.1 begins", "accepted"]);
    assert_has(&text, &["tls          TLS 1.3", "response     200"]);
    let stranger = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/clerk-client/tests/data/tls/stranger.pem");
    let text = verbose(&url, &[("SSL_CERT_FILE", stranger)]).await;
    assert_has(&text, &["refused: invalid peer certificate", "the probe failed (tls)", "tls_config.ca_file"]);
}
