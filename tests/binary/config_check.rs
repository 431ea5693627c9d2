//! `--config.check` finds every error that a start finds.

use crate::exporter::{Ended, Folder, KEY, command, run};

const TOKEN: &str = "web-token-CANARY-0123456789";

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("key", KEY);
    folder.write("token", TOKEN);
    folder.write("short", "0123456789");
    folder.write("machine", "ak_CANARY0123456789");
    folder.write("no-certificate.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    folder.write("empty-certificate.pem", "-----BEGIN CERTIFICATE-----\n");
    folder.write("web.yml", "tls_server_config: { cert_file: none.pem, key_file: none.key }\n");
    folder.write("bad-redis", "redis://:x@");
    folder.write("webhook", "whsec_x");
    folder
}

const INSTANCE: &str = "instances: [{ name: prod, secret_key_file: key, api_url: 'http://127.0.0.1:9' }]\n";

/// Invalid configurations and flags.
fn mistakes() -> Vec<(String, &'static [&'static str])> {
    let gateway = |lines: &str| (format!("{INSTANCE}gateway: {{ listen_address: '127.0.0.1:0', {lines} }}\n"), &[][..]);
    let other = INSTANCE.replace("name: prod", "name: other");
    let ca_file = |name: &str| (format!("tls_config: {{ ca_file: {name} }}\n{INSTANCE}"), &[][..]);
    vec![
        (format!("{other}gateway: {{ listen_address: '127.0.0.1:0' }}\n"), &[]),
        (String::new(), &[]),
        ("instances: []\n".to_owned(), &[]),
        (INSTANCE.replace("name: prod", "name: ''"), &[]),
        (INSTANCE.replace("key,", "none,"), &[]),
        (INSTANCE.replace("key,", "token,"), &[]),
        (INSTANCE.replace("key,", "machine,"), &[]),
        (INSTANCE.replace("http:", "ftp:"), &[]),
        (INSTANCE.replace(" }]", " }, { name: prod, secret_key_file: key }]"), &[]),
        ca_file("none.pem"),
        ca_file("key"),
        ca_file("no-certificate.pem"),
        ca_file("empty-certificate.pem"),
        gateway("callers: [{ name: web, token_file: short, instance: prod }]"),
        gateway("callers: [{ name: web, token_file: token, instance: b }]"),
        gateway(
            "callers: [{ name: a, token_file: token, instance: prod }, { name: b, token_file: token, instance: prod }]",
        ),
        gateway("web_config_file: web.yml"),
        gateway("web_config_file: none.yml"),
        gateway("cache: { redis_url_file: bad-redis }"),
        gateway("cache: { encryption_key_file: key }"),
        gateway("webhooks: { signing_secret_files: [webhook] }"),
        gateway("webhooks: { signing_secret_files: [none] }"),
        gateway("policies: { routes: { 'GET /v1/nothing': { cache: on } } }"),
        (INSTANCE.to_owned(), &["--web.config.file=web.yml"]),
        (INSTANCE.to_owned(), &["--web.config.file=none.yml"]),
        (INSTANCE.to_owned(), &["--web.route-prefix=/a b"]),
        (INSTANCE.to_owned(), &["--web.external-url=example.org"]),
    ]
}

async fn exits(folder: &Folder, flags: &[&str], check: bool) -> Ended {
    let config = folder.path("config.yml");
    let mut arguments = vec!["--config.file", config.to_str().unwrap(), "--web.listen-address=127.0.0.1:0"];
    arguments.extend(check.then_some("--config.check"));
    let mut command = command(&arguments);
    command.args(flags).current_dir(folder.path(""));
    run(command).await
}

#[tokio::test]
async fn config_check_rejects_whatever_the_start_rejects() {
    let folder = folder();
    for (text, flags) in mistakes() {
        folder.write("config.yml", &text);
        // If a start unexpectedly succeeds, it does not exit and the test fails.
        let (checked, started) = tokio::join!(exits(&folder, flags, true), exits(&folder, flags, false));
        for (ended, how) in [(&checked, "check"), (&started, "start")] {
            assert_eq!(ended.status, Some(1), "{how}: {text}{flags:?}\n{}{}", ended.stdout, ended.stderr);
        }
        let said = |ended: &Ended| ended.stderr.lines().last().unwrap_or_default().to_owned();
        assert_eq!(said(&checked), said(&started), "{text}{flags:?}");
        assert!(!checked.stdout.contains("valid") && !checked.stderr.contains("CANARY"), "{text}");
    }
}

#[tokio::test]
async fn config_check_opens_no_connections() {
    let folder = folder();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    folder.write("redis", &format!("redis://{address}"));
    folder.write("seal", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
    folder.write("webhook", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let instance = format!(
        "instances: [{{ name: prod, secret_key_file: key, machine_secret_key_files: [machine], api_url: 'http://{address}' }}]\n"
    );
    let gateway = "gateway:\n  listen_address: 127.0.0.1:0\n  callers: [{ name: web, token_file: token, instance: prod }]\n  \
                   cache: { redis_url_file: redis, encryption_key_file: seal }\n  webhooks: { signing_secret_files: [webhook] }\n";
    folder.write("config.yml", &format!("{instance}{gateway}"));
    let ended = exits(&folder, &[], true).await;
    assert_eq!((ended.status, ended.stdout.as_str()), (Some(0), "Configuration is valid.\n"), "{}", ended.stderr);
    // A connection would be in the queue of the listener.
    let connected = listener.accept().map_err(|error| error.kind());
    assert_eq!(connected.err(), Some(std::io::ErrorKind::WouldBlock));
}
