//! The gateway from a user's view: in one process with the exporter, from a configuration file.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::exporter::{Clerk, Exporter, Folder, KEY, Page, Web, command, eventually, request, run};

const TOKEN: &str = "web-token-CANARY-0123456789";
const NEW_TOKEN: &str = "import-token-CANARY-0123456789";
const WEBHOOK_SECRET: &str = "whsec_CANARYf7SKAZopvozCjHEFxTrktz+dM+";
const SEALING_KEY: &str = "9f8e7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c5b4a39281706f5e4d3c2b1a0";
const PATH: &str = "/v1/users/count";

/// Writes a configuration with this section `gateway`, and the files it names.
pub(crate) fn write(folder: &Folder, url: &str, gateway: &str) -> std::path::PathBuf {
    folder.write("key", KEY);
    folder.write("token", TOKEN);
    folder.write("new-token", NEW_TOKEN);
    folder.write("webhook", WEBHOOK_SECRET);
    folder.write("seal", SEALING_KEY);
    let probe = "probe: { interval: 1m }\n";
    let instance = format!("instances: [{{ name: prod, secret_key_file: key, api_url: '{url}' }}]\n");
    folder.write("config.yml", &format!("{probe}{instance}gateway:\n  listen_address: 127.0.0.1:0\n{gateway}"))
}

const PLAIN: &str = "  unknown_keys: reject
  callers: [{ name: web, token_file: token, instance: prod }]
  policies: { cache: off, batch: off, pace: off }
";

async fn ask(address: SocketAddr, path: &str, token: &str) -> Page {
    request(address, "GET", path, &format!("Authorization: Bearer {token}\r\n")).await
}

#[tokio::test]
async fn gateway_serves_applications_and_exporter_reports_it() {
    let (clerk, folder) = (Clerk::start().await, Folder::new());
    let exporter = Exporter::with_config(&write(&folder, &clerk.url(), PLAIN), &[]).await;
    let gateway = exporter.gateway().await;
    assert_ne!(gateway, exporter.address);
    let page = ask(gateway, PATH, TOKEN).await;
    assert!(page.status == 200 && page.text().contains("total_count"), "{page:?}");
    assert_eq!(ask(gateway, PATH, KEY).await.status, 200);
    assert_eq!(ask(gateway, PATH, "sk_test_unknown").await.status, 401);
    let labels = [("clerk_instance", "prod"), ("caller", "web"), ("code", "200"), ("method", "GET")];
    exporter.until("clerk_gateway_requests_total", &labels, |requests| requests == 1.0).await;
    // The gateway does not serve the exporter's pages.
    for path in ["/metrics", "/config", "/", "/-/healthy", "/-/reload", "/api/v1/status"] {
        assert_eq!(request(gateway, "GET", path, "").await.status, 401, "{path}");
        let page = ask(gateway, path, TOKEN).await;
        assert!(page.status == 404 && page.text().contains("resource_not_found"), "{path}: {page:?}");
    }
    assert!(exporter.metrics().await.value("clerk_gateway_requests_total", &labels).is_some());
}

#[tokio::test]
async fn sighup_changes_policies_and_callers_without_losses() {
    let (clerk, folder) = (Clerk::start().await, Folder::new());
    let exporter = Exporter::with_config(&write(&folder, &clerk.url(), PLAIN), &[]).await;
    let gateway = exporter.gateway().await;
    assert_eq!(ask(gateway, PATH, NEW_TOKEN).await.status, 401);
    let stop = Arc::new(Notify::new());
    let mut asking = JoinSet::new();
    for _ in 0..3 {
        let stop = Arc::clone(&stop);
        asking.spawn(async move {
            let mut answers = Vec::new();
            let mut stopped = std::pin::pin!(stop.notified());
            stopped.as_mut().enable();
            // Below Clerk's limit, which is not under test.
            for _ in 0..25 {
                answers.push(ask(gateway, PATH, TOKEN).await.status);
            }
            stopped.await;
            answers.push(ask(gateway, PATH, TOKEN).await.status);
            answers
        });
    }
    let changed = "  unknown_keys: reject
  callers:
    - { name: web, token_file: token, instance: prod }
    - { name: import, token_file: new-token, instance: prod, priority: low }
  policies: { cache: { mode: on, ttl: 1h }, batch: off, pace: off }
";
    write(&folder, &clerk.url(), changed);
    exporter.signal("HUP").await;
    eventually("the new caller", async || (ask(gateway, PATH, NEW_TOKEN).await.status == 200).then_some(())).await;
    // The first one may be coalesced with an earlier request.
    eventually("a cached response", async || {
        let page = ask(gateway, PATH, NEW_TOKEN).await;
        (page.header("x-clerk-exporter-decision") == ["cache_hit"]).then_some(())
    })
    .await;
    stop.notify_waiters();
    for answers in asking.join_all().await {
        assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
    }
    exporter.until("clerk_gateway_requests_total", &[("caller", "import")], |requests| requests >= 1.0).await;
    // A removed token is rejected, and the counters stay.
    write(&folder, &clerk.url(), PLAIN);
    exporter.signal("HUP").await;
    eventually("the caller is removed", async || (ask(gateway, PATH, NEW_TOKEN).await.status == 401).then_some(()))
        .await;
    let web = exporter.metrics().await.value("clerk_gateway_requests_total", &[("caller", "web"), ("code", "200")]);
    assert!(web.unwrap() >= 78.0, "{web:?}");
}

#[tokio::test]
async fn changed_key_and_token_files_replace_the_old_ones() {
    const FURTHER: &str = "sk_test_furtherCANARY0123456789";
    const OTHER: &str = "sk_test_otherCANARY0123456789ab";
    let (clerk, folder) = (Clerk::start().await, Folder::new());
    let config = write(&folder, &clerk.url(), PLAIN);
    folder.write("further", FURTHER);
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("secret_key_file: key,", "secret_key_file: key, further_secret_key_files: [further],");
    std::fs::write(&config, text).unwrap();
    let exporter = Exporter::with_config(&config, &[]).await;
    let gateway = exporter.gateway().await;
    let is_stranger =
        async |credential: &str| ask(gateway, PATH, credential).await.text().contains("gateway_key_unknown");
    assert!(!is_stranger(TOKEN).await && !is_stranger(FURTHER).await, "both are known");
    assert!(is_stranger(NEW_TOKEN).await && is_stranger(OTHER).await, "neither is known");
    folder.write("token", NEW_TOKEN);
    folder.write("further", OTHER);
    eventually("the new ones are known, and the old ones are not", async || {
        let are_new = !is_stranger(NEW_TOKEN).await && !is_stranger(OTHER).await;
        (are_new && is_stranger(TOKEN).await && is_stranger(FURTHER).await).then_some(())
    })
    .await;
    // Invalid files change nothing.
    folder.write("token", "short");
    folder.write("further", "nothing");
    eventually("both are logged", async || {
        let log = exporter.output();
        (log.contains("failed to reload caller tokens") && log.contains("failed to reload key;")).then_some(())
    })
    .await;
    assert!(!is_stranger(NEW_TOKEN).await && !is_stranger(OTHER).await);
    assert!(!exporter.output().contains("CANARY"));
}

#[tokio::test]
async fn invalid_gateway_config_is_rejected_with_its_position() {
    let (clerk, folder) = (Clerk::start().await, Folder::new());
    let caller = "  callers: [{ name: web, token_file: FILE, instance: prod }]\n";
    folder.write("short", "short-CANARY");
    for (gateway, expected) in [
        ("  policies: { cache: sometimes }\n".to_owned(), vec!["gateway.policies.cache", "config.yml", "shadow"]),
        (
            "  callers: [{ name: web, token_file: token, instance: dev }]\n".to_owned(),
            vec!["config.yml:5", "gateway.callers[0].instance"],
        ),
        (caller.replace("FILE", "missing"), vec!["gateway.callers", "missing"]),
        (caller.replace("FILE", "short"), vec!["gateway.callers[0].token_file", "16"]),
        (
            "  policies: { routes: { \"GET /v2/nothing\": { cache: on } } }\n".to_owned(),
            vec!["config.yml:5", "gateway.policies.routes"],
        ),
    ] {
        let path = write(&folder, &clerk.url(), &gateway);
        let ended = run(command(&["--config.file", path.to_str().unwrap(), "--web.listen-address=127.0.0.1:0"])).await;
        assert_ne!(ended.status, Some(0), "{gateway}");
        for word in expected {
            assert!(ended.stderr.contains(word), "{word}: {}", ended.stderr);
        }
        assert!(!ended.stderr.contains("CANARY") && !ended.stderr.contains("panicked"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn rejected_reload_changes_nothing() {
    let (clerk, folder) = (Clerk::start().await, Folder::new());
    let path = write(&folder, &clerk.url(), PLAIN);
    let exporter = Exporter::with_config(&path, &["--web.enable-lifecycle"]).await;
    let gateway = exporter.gateway().await;
    let before = exporter.get("/config").await.text();
    let twice = "  callers:
    - { name: web, token_file: token, instance: prod }
    - { name: import, token_file: token, instance: prod }
";
    for wrong in [twice, "  policies: { cache: often }\n"] {
        let text = std::fs::read_to_string(write(&folder, &clerk.url(), wrong)).unwrap();
        folder.write("config.yml", &text.replace("name: prod,", "name: prod, limit: { requests: 7, window: 1s },"));
        let page = exporter.request("POST", "/-/reload", "Content-Length: 0\r\n").await;
        assert!(page.status == 500 && page.text().contains("gateway."), "{page:?}");
        assert_eq!(ask(gateway, PATH, TOKEN).await.status, 200);
        assert_eq!(exporter.get("/config").await.text(), before);
        let limit = exporter.metrics().await.value("clerk_ratelimit_limit", &[("bucket", "instance")]);
        assert_ne!(limit, Some(7.0), "no part of it is applied");
    }
}

#[tokio::test]
async fn request_in_flight_is_answered_before_shutdown() {
    let (reached, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (arrived, go) = (Arc::clone(&reached), Arc::clone(&release));
    let slow = get(move || async move {
        arrived.notify_one();
        go.notified().await;
        "{}"
    });
    let clerk = Web::start(Router::new().route("/v1/jwks", slow)).await;
    let folder = Folder::new();
    let exporter = Exporter::with_config(&write(&folder, &clerk.url(), PLAIN), &[]).await;
    let gateway = exporter.gateway().await;
    let mut asking = JoinSet::new();
    asking.spawn(ask(gateway, "/v1/jwks", TOKEN));
    crate::exporter::within("the request", reached.notified()).await;
    exporter.signal("TERM").await;
    eventually("the stop signal", async || exporter.output().contains("stopping").then_some(())).await;
    release.notify_one();
    let page = asking.join_next().await.unwrap().unwrap();
    assert_eq!((page.status, page.text()), (200, "{}".to_owned()));
    let (status, output) = exporter.ended().await;
    assert!(status.success(), "{status} {output}");
}

#[tokio::test]
async fn keys_and_tokens_never_appear_in_output() {
    let (clerk, folder) = (Clerk::start().await, Folder::new());
    let all = "  callers: [{ name: web, token_file: token, instance: prod }]
  policies: { cache: on, batch: on, pace: on }
  cache: { encryption_key_file: seal }
  webhooks: { signing_secret_files: [webhook] }
";
    let path = write(&folder, &clerk.url(), all);
    for format in ["--log.format=logfmt", "--log.format=json"] {
        let exporter = Exporter::with_config(&path, &["--log.level=debug", format, "--web.enable-lifecycle"]).await;
        let find = |log: &str| {
            let line =
                log.lines().find(|line| line.contains("listening for HTTP clients") && line.contains("gateway"))?;
            let value = line.split_once("address\":\"").or_else(|| line.split_once("address="))?.1;
            value[..value.find(['"', ' '])?].parse::<SocketAddr>().ok()
        };
        let gateway = eventually("the address", async || find(&exporter.output())).await;
        for token in [TOKEN, KEY, NEW_TOKEN] {
            ask(gateway, PATH, token).await;
            ask(gateway, "/v1/users/user_2NNEqL2nrIRdJ194ndJqAHwEfxC?secret=jane-CANARY", token).await;
        }
        let twice = format!("Authorization: Bearer {TOKEN}\r\nAuthorization: Bearer {KEY}\r\n");
        let mut texts = vec![request(gateway, "GET", PATH, &twice).await.text()];
        let agent = format!("User-Agent: {KEY}\r\nAuthorization: Bearer {KEY}\r\n");
        request(gateway, "GET", PATH, &agent).await;
        request(gateway, "POST", "/webhooks/clerk", "Content-Length: 0\r\nsvix-signature: v1,CANARY\r\n").await;
        exporter.request("POST", "/-/reload", "Content-Length: 0\r\n").await;
        for page in ["/metrics", "/config", "/", "/api/v1/status"] {
            texts.push(exporter.get(page).await.text());
        }
        let (status, output) = exporter.stopped().await;
        assert!(status.success(), "{output}");
        texts.push(output);
        for text in texts {
            let line = text.lines().find(|line| line.contains("CANARY") || line.contains(&SEALING_KEY[..8]));
            assert_eq!(line, None);
        }
    }
}

#[tokio::test]
async fn access_log_has_every_attempt_and_nothing_personal() {
    let (clerk, folder) = (Clerk::start().await, Folder::new());
    let user = clerk.simulator.user_id(3).unwrap();
    let section = format!("{PLAIN}  access_log: access.log\n");
    let exporter = Exporter::with_config(&write(&folder, &clerk.url(), &section), &[]).await;
    let gateway = exporter.gateway().await;
    for path in [&format!("/v1/users/{user}"), "/v1/users?query=ada%40example.com", "/v1/users/user_gone", PATH, PATH] {
        ask(gateway, path, TOKEN).await;
    }
    assert_eq!(ask(gateway, PATH, "sk_test_unknown").await.status, 401);
    exporter.until("clerk_gateway_access_log_lines_total", &[("result", "written")], |lines| lines == 5.0).await;
    exporter.until("clerk_gateway_access_log_lines_total", &[("result", "lost")], |lines| lines == 0.0).await;
    exporter.signal("TERM").await;
    exporter.ended().await;
    let path = folder.path("access.log");
    let log = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |line: &serde_json::Value| (line["route"].as_str().unwrap().to_owned(), line["status"].as_u64().unwrap());
    let expected = [("{user_id}", 200), ("", 200), ("{user_id}", 404), ("count", 200), ("count", 200)];
    let expected = expected.map(|(end, status)| (format!("/v1/users/{end}").trim_end_matches('/').to_owned(), status));
    assert_eq!(lines.iter().map(of).collect::<Vec<_>>(), expected);
    assert!(lines.iter().all(|line| line["caller"] == "web" && line["decision"] == "forwarded"), "{log}");
    assert!(lines[3]["resource"].is_string() && lines[3]["resource"] == lines[4]["resource"], "{log}");
    assert!(lines[2]["changes"].is_array() && lines[0]["changes"].is_null(), "{log}");
    for secret in [&*user, "user_gone", "example", KEY, TOKEN] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
    let mut analyze = command(&["analyze", "--format=json"]);
    analyze.arg(&path);
    let report: serde_json::Value = serde_json::from_str(&run(analyze).await.stdout).unwrap();
    assert_eq!((&report["logs"]["requests"], &report["reads"]["repeated"]), (&5.into(), &1.into()), "{report}");
}
