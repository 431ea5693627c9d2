//! No part of a key appears in any output, whatever fails, at the most verbose level.

use clerk_simulator::{Fault, FaultBody, Simulator};
use tokio::net::TcpListener;

use crate::exporter::{Clerk, Ended, Exporter, Folder, KEY, OTHER_KEY, Web, bound_address, command, eventually, run};

/// Shortest part of a key that must not appear.
const PART: usize = 8;

/// The secret part of a key.
fn secret_of(key: &str) -> &str {
    key.trim_start_matches("sk_test_").trim_start_matches("sk_live_")
}

#[track_caller]
fn assert_silent(what: &str, text: &str) {
    for key in [KEY, OTHER_KEY] {
        for part in secret_of(key).as_bytes().windows(PART) {
            let part = std::str::from_utf8(part).unwrap();
            if let Some(at) = text.find(part) {
                let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
                panic!("{what}: a part of the key in: {}", text[line_start..].lines().next().unwrap());
            }
        }
    }
}

#[track_caller]
fn assert_ended_silently(what: &str, ended: &Ended) {
    assert_silent(what, &ended.stdout);
    assert_silent(what, &ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{what}: {}", ended.stderr);
}

const FORMATS: [&str; 2] = ["--log.format=logfmt", "--log.format=json"];

/// Failing instances of one configuration.
struct Failing {
    folder: Folder,
    _clerks: Vec<Clerk>,
    _tls: Web,
    count: usize,
}

impl Failing {
    async fn start() -> Self {
        let faults = [
            None,
            Some(Fault::Status { status: 401, body: FaultBody::Clerk }),
            Some(Fault::Status { status: 500, body: FaultBody::Clerk }),
            Some(Fault::Status { status: 200, body: FaultBody::Html }),
            Some(Fault::Redirect { location: format!("http://127.0.0.1:1/?key={KEY}") }),
            Some(Fault::Reset { after_bytes: 0 }),
            Some(Fault::QuotaExceeded { code: "user_quota_exceeded".into() }),
            Some(Fault::Throttled { retry_after: Some("1".into()), body: FaultBody::Html }),
            Some(Fault::MalformedQuotaHeaders {}),
        ];
        let mut clerks = Vec::new();
        for fault in faults {
            let clerk = Clerk::start().await;
            if let Some(fault) = fault {
                clerk.simulator.set_faults(fault.always().into()).unwrap();
            }
            clerks.push(clerk);
        }
        // Plain HTTP to a TLS port; a port without a listener; an unknown host.
        let tls = Web::start(Simulator::new(clerk_simulator::Options::default()).router()).await;
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let mut urls: Vec<_> = clerks.iter().map(Clerk::url).collect();
        urls.push(tls.url().replace("http:", "https:"));
        urls.push(format!("http://{closed}"));
        urls.push("https://no-such-host.invalid".to_owned());
        let folder = Folder::new();
        folder.write("key", &format!("{OTHER_KEY}\n"));
        let mut text = "probe: { interval: 1s, timeout: 2s }\nusers: { interval: 1m }\ninstances:\n".to_owned();
        for (index, url) in urls.iter().enumerate() {
            // Each is a separate Clerk instance, with a separate key of the same ending.
            let key = match index {
                0 => "secret_key_file: key".to_owned(),
                1 => "secret_key_env: THE_KEY".to_owned(),
                _ => format!("secret_key: sk_test_n{index}n{}", secret_of(KEY)),
            };
            text.push_str(&format!("  - {{ name: i{index}, {key}, api_url: '{url}' }}\n"));
        }
        folder.write("config.yml", &text);
        Self { folder, _clerks: clerks, _tls: tls, count: urls.len() }
    }

    fn config(&self) -> String {
        format!("--config.file={}", self.folder.path("config.yml").display())
    }
}

#[tokio::test]
async fn exporter_output_contains_no_key_on_any_failure() {
    let failing = Failing::start().await;
    for format in FORMATS {
        let config = failing.config();
        let mut command = command(&[&config, "--log.level=trace", format, "--web.enable-lifecycle"]);
        command.arg("--web.listen-address=127.0.0.1:0").env("THE_KEY", KEY);
        let exporter = Exporter::spawn(command, bound_address).await;
        for index in 0..failing.count {
            let name = format!("i{index}");
            exporter.until("clerk_probes_total", &[("clerk_instance", &name)], |probes| probes >= 1.0).await;
        }
        for path in ["/", "/metrics", "/config", "/api/v1/status", "/-/ready", "/nothing"] {
            let page = exporter.get(path).await;
            assert_silent(path, &page.text());
            assert_silent(path, &page.head);
        }
        // A reload, an invalid reload, and a key replaced by an invalid one.
        failing.folder.write("key", &format!("{KEY}\nsecond line {OTHER_KEY}\n"));
        let page = exporter.request("POST", "/-/reload", "Content-Length: 0\r\n").await;
        assert_eq!(page.status, 500);
        assert_silent("the response to an invalid reload", &page.text());
        failing.folder.write("key", &format!("{OTHER_KEY}\n"));
        assert_eq!(exporter.request("POST", "/-/reload", "Content-Length: 0\r\n").await.status, 200);
        let process = format!("/proc/{}", exporter.pid());
        assert_silent("the arguments", &String::from_utf8_lossy(&std::fs::read(format!("{process}/cmdline")).unwrap()));
        // A request that contains a key by mistake.
        exporter.request("GET", &format!("/x?key={KEY}"), &format!("Authorization: Bearer {KEY}\r\n")).await;
        let (status, output) = exporter.stopped().await;
        assert!(status.success() && output.len() > 10_000, "trace is on: {output}");
        assert_silent(format, &output);
    }
}

#[tokio::test]
async fn check_output_contains_no_key_on_any_failure() {
    let failing = Failing::start().await;
    for arguments in [["check", "--format=table"], ["check", "--format=json"]] {
        for format in FORMATS {
            let config = failing.config();
            let mut command = command(&arguments);
            command.args([&config, "--log.level=trace", format]).env("THE_KEY", KEY);
            let ended = run(command).await;
            assert_eq!(ended.status, Some(1), "one is throttled: {}", ended.stdout);
            assert_ended_silently("check", &ended);
        }
    }
}

#[tokio::test]
async fn key_and_address_errors_do_not_repeat_the_values() {
    let folder = Folder::new();
    let bad_keys = [
        format!("{KEY}\n{OTHER_KEY}"),
        format!("{KEY}\u{7f}{KEY}"),
        format!("pk_test_{}", secret_of(KEY)),
        format!("\"{KEY}\""),
        format!("Bearer {KEY}"),
        secret_of(KEY).to_owned(),
        format!("sk_test_{}é", secret_of(KEY)),
    ];
    let addresses = [
        format!("https://user:{}@api.clerk.com", secret_of(KEY)),
        format!("https://{KEY}@api.clerk.com"),
        format!("https://api.clerk.com/?key={KEY}"),
        format!("https://api.clerk.com/{KEY}"),
        format!("ftp://{KEY}"),
        KEY.to_owned(),
    ];
    let good = folder.write("good", KEY);
    for subcommand in [&["--config.check"][..], &["check"], &["--web.listen-address=127.0.0.1:0"]] {
        for key in &bad_keys {
            let file = folder.write("bad", key);
            for (name, value) in [("CLERK_SECRET_KEY", key.as_str()), ("CLERK_SECRET_KEY_FILE", file.to_str().unwrap())]
            {
                let mut command = command(subcommand);
                command.arg("--log.level=trace").env(name, value);
                let ended = run(command).await;
                assert!(ended.status != Some(0) && !ended.stderr.is_empty(), "{key:?} was accepted");
                assert_ended_silently("a bad key", &ended);
            }
        }
        for address in &addresses {
            let mut command = command(subcommand);
            command.arg("--log.level=trace").env("CLERK_SECRET_KEY_FILE", &good).env("CLERK_API_URL", address);
            let ended = run(command).await;
            assert!(ended.status != Some(0), "{address} was accepted");
            assert_ended_silently("a bad address", &ended);
        }
    }
    // Keys at wrong places of a configuration file.
    for text in [
        format!("instances: [{{ name: {KEY}, secret_key: {OTHER_KEY} }}]"),
        format!("instances: [{{ name: a, secret_key_file: {KEY} }}]"),
        format!("instances: [{{ name: a, secret_key_env: {KEY} }}]"),
        format!("instances: [{{ name: a, secret_key: [{KEY}] }}]"),
        format!("instances: [{{ name: a, secret_key: {KEY}, {OTHER_KEY}: 1 }}]"),
        format!("instances: [{{ name: a, secret_key: {KEY}, probe: {{ path: '/v1/{OTHER_KEY}' }} }}]"),
        format!("instances: [{{ name: a, secret_key: {KEY} }}, {{ name: b, secret_key: {KEY} }}]"),
        KEY.to_owned(),
        format!("instances: {KEY}"),
        format!("instances: [{{ name: a, secret_key: {KEY}"),
        format!("instances: [{{ name: a, secret_key: \"{KEY} }}]"),
    ] {
        let path = folder.write("config.yml", &text);
        let ended =
            run(command(&["--config.check", "--log.level=trace", "--config.file", path.to_str().unwrap()])).await;
        assert_eq!(ended.status, Some(1), "{text} was accepted: {}", ended.stdout);
        assert_ended_silently(&text, &ended);
    }
}

#[tokio::test]
async fn key_in_arguments_is_not_repeated() {
    let folder = Folder::new();
    let keys = folder.write("keys", &format!("a={KEY}\nb=not-a-key-{OTHER_KEY}\n"));
    let argument = |name: &str| format!("--{name}={KEY}");
    let cases: Vec<Vec<String>> = vec![
        vec![KEY.to_owned()],
        vec!["check".to_owned(), KEY.to_owned()],
        vec!["demo".to_owned(), format!("--key={KEY}")],
        vec!["--secret-key".to_owned(), KEY.to_owned()],
        vec![argument("secret-key")],
        vec![argument("log.level")],
        vec![argument("log.format")],
        vec![argument("web.listen-address")],
        vec![argument("web.telemetry-path")],
        vec![argument("web.external-url")],
        vec![argument("web.config.file")],
        vec![argument("config.file")],
        vec![argument("config.auto-reload-interval")],
        vec!["check".to_owned(), argument("config.file")],
        vec!["check".to_owned(), argument("format")],
        vec!["simulate".to_owned(), argument("headers")],
        vec!["simulate".to_owned(), argument("limiter")],
        vec!["simulate".to_owned(), argument("limit")],
        vec!["simulate".to_owned(), argument("keys-file")],
        vec!["simulate".to_owned(), format!("--keys-file={}", keys.display())],
        vec!["simulate".to_owned(), argument("listen-address")],
        vec!["completions".to_owned(), KEY.to_owned()],
    ];
    for arguments in cases {
        let mut command = command(&[]);
        // A valid configuration, so that the argument is the error; and a port that a mistake may bind.
        command.args(&arguments).env("CLERK_SECRET_KEY", OTHER_KEY).env("CLERK_API_URL", "http://127.0.0.1:1");
        command.env("CLERK_EXPORTER_WEB_LISTEN_ADDRESS", "127.0.0.1:0");
        let ended = run(command).await;
        let safe = arguments.join(" ").replace(KEY, "KEY");
        assert!(ended.status.is_some_and(|status| status != 0), "{safe}: accepted");
        assert!(!ended.stderr.is_empty(), "{safe}: no error message");
        assert_ended_silently(&safe, &ended);
    }
}

#[tokio::test]
async fn simulator_output_contains_no_configured_key() {
    let folder = Folder::new();
    let keys = folder.write("keys", &format!("# mine\na={KEY}\n{OTHER_KEY}\n"));
    let keys = format!("--keys-file={}", keys.display());
    for format in FORMATS {
        let arguments = ["simulate", "--listen-address=127.0.0.1:0", &keys, "--log.level=trace", format];
        let simulator = Exporter::spawn(command(&arguments), bound_address).await;
        for key in [KEY, OTHER_KEY, "sk_test_unknown1"] {
            simulator.request("GET", "/v1/users/count", &format!("Authorization: Bearer {key}\r\n")).await;
        }
        for path in ["/_simulator/", "/_simulator/truth", "/_simulator/faults"] {
            assert_silent(path, &simulator.get(path).await.text());
        }
        eventually("a request is logged or not", async || Some(())).await;
        let (status, output) = simulator.stopped().await;
        assert!(status.success(), "{output}");
        assert_silent(format, &output);
    }
}

#[tokio::test]
async fn help_output_contains_no_secret_from_the_environment() {
    for arguments in [
        &["--help"][..],
        &["-h"],
        &["--version"],
        &["demo", "--help"],
        &["check", "--help"],
        &["simulate", "--help"],
        &["man"],
        &["man", "users", "export"],
        &["completions", "bash"],
    ] {
        let mut command = command(arguments);
        command.env("CLERK_SECRET_KEY", KEY);
        let ended = run(command).await;
        assert_eq!(ended.status, Some(0), "{arguments:?}");
        assert!(!ended.stdout.is_empty() && ended.stderr.is_empty(), "{arguments:?}: {}", ended.stderr);
        assert_ended_silently("help", &ended);
    }
}
