//! What clients can consume: connections, open files, memory; and who can reach the health checks.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Command;

use crate::exporter::{Clerk, Exporter, Folder, KEY, bound_address, command, eventually, request, within};

/// The start of an HTTP/2 connection that forbids sending any data, with a request for a path and one with a key. Raw
/// frames, since no library does that.
fn stalled_request(path: &str) -> Vec<u8> {
    let frame = |kind: u8, flags: u8, stream: u8, content: &[u8]| {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[0, length[0], length[1], kind, flags, 0, 0, 0, stream], content].concat()
    };
    let literal = |index: &[u8], text: &str| [index, &[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    // GET, http, path, authority and authorization, the last with indices of the static table.
    let key = format!("Bearer {KEY}");
    let head = [vec![0x82, 0x86], literal(&[4], path), literal(&[1], "localhost"), literal(&[0x0f, 8], &key)].concat();
    let window_of_nothing = [0, 4, 0, 0, 0, 0];
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &window_of_nothing), frame(1, 5, 1, &head)].concat()
}

/// Opens connections whose responses are never read, and answers pings as long as they stay open.
async fn stall(address: SocketAddr, path: &str, count: usize) -> tokio::task::JoinSet<()> {
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..count {
        let mut stream = within("a connection", TcpStream::connect(address)).await.unwrap();
        let _ = stream.write_all(&stalled_request(path)).await;
        clients.spawn(async move {
            let mut start = [0; 9];
            while stream.read_exact(&mut start).await.is_ok() {
                let length = usize::from(start[0]) << 16 | usize::from(start[1]) << 8 | usize::from(start[2]);
                let mut content = vec![0; length];
                if stream.read_exact(&mut content).await.is_err() {
                    return;
                }
                // Settings and pings are acknowledged.
                if (start[3] == 4 || start[3] == 6) && start[4] & 1 == 0 {
                    let length = if start[3] == 6 { 8 } else { 0 };
                    let answer = [&[0, 0, length, start[3], 1, 0, 0, 0, 0], &content[..usize::from(length)]].concat();
                    if stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
    clients
}

/// The binary with this limit of open files.
async fn start_with_files(files: u32, arguments: &[&str]) -> Exporter {
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_clerk-exporter")]);
    limited.args(arguments).arg("--web.listen-address=127.0.0.1:0").env_clear().kill_on_drop(true);
    limited.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    Exporter::spawn(limited, bound_address).await
}

#[tokio::test]
async fn few_open_files_and_stalled_clients_do_not_block_others() {
    let (clerk, folder) = (Clerk::start().await, Folder::new());
    folder.write("key", KEY);
    let text = format!(
        "instances: [{{ name: prod, secret_key_file: key, api_url: '{}' }}]\ngateway: {{ listen_address: '127.0.0.1:0' }}\n",
        clerk.url()
    );
    let config = folder.write("config.yml", &text);
    // 64 are reserved, a quarter of the rest is for the pages, and half of the remainder for the gateway's clients.
    let exporter = start_with_files(224, &["--config.file", config.to_str().unwrap()]).await;
    let gateway = exporter.gateway().await;
    let log = exporter.output();
    assert!(log.contains("max_connections=40") && log.contains("gateway_max_connections=60"), "{log}");
    let mut stalled = Vec::new();
    for _ in 0..2 {
        stalled.push(stall(exporter.address, "/metrics", 150).await);
        stalled.push(stall(gateway, "/v1/users/count", 150).await);
        for _ in 0..3 {
            assert_eq!(exporter.get("/metrics").await.status, 200);
            let page = request(gateway, "GET", "/v1/users/count", &format!("Authorization: Bearer {KEY}\r\n")).await;
            assert_eq!(page.status, 200, "{page:?}");
        }
    }
    let files = exporter.metrics().await.value("process_open_fds", &[]).unwrap();
    assert!(files < 224.0, "{files}");
    assert!(!exporter.output().contains("cannot be accepted"), "{}", exporter.output());
}

#[tokio::test]
async fn health_needs_no_password_and_everything_else_does() {
    let (clerk, folder) = (Clerk::start().await, Folder::new());
    // `htpasswd -nbBC 4 alice "open sesame"`.
    let users = "basic_auth_users: { alice: $2y$04$abcdefghijklmnopqrstuu9QM6hRM6BtwU1H5BHvcRJHCGQa6Jq3S }\n";
    let file = folder.write("web.yml", users);
    let web_config = format!("--web.config.file={}", file.display());
    for (prefix, argument) in [("", "--web.route-prefix=/"), ("/in", "--web.route-prefix=/in")] {
        let environment = [("CLERK_SECRET_KEY", KEY), ("CLERK_API_URL", &*clerk.url())];
        let exporter = Exporter::start(&[&web_config, argument], &environment).await;
        assert_eq!(exporter.get(&format!("{prefix}/-/healthy")).await.text(), "Healthy\n");
        eventually("readiness", async || {
            (exporter.get(&format!("{prefix}/-/ready")).await.status == 200).then_some(())
        })
        .await;
        for path in ["/-/healthy", "/-/ready"] {
            assert_eq!(exporter.request("HEAD", &format!("{prefix}{path}"), "").await.status, 200, "{path}");
        }
        for path in [
            "/",
            "/metrics",
            "/config",
            "/api/v1/status",
            "/api/v1/top",
            "/-/reload",
            "/-/",
            "/-/healthy/",
            "/-/healthy/../../metrics",
            "/-/healthy%2f..%2f..%2fmetrics",
            "/-/../-/healthy",
            "/-/%72eady",
        ] {
            for method in ["GET", "HEAD", "POST"] {
                let page = exporter.request(method, &format!("{prefix}{path}"), "").await;
                assert_eq!(page.status, 401, "{method} {prefix}{path}");
            }
        }
        assert_eq!(exporter.request("POST", &format!("{prefix}/-/healthy"), "").await.status, 401);
        if !prefix.is_empty() {
            assert_eq!(exporter.get("/-/healthy").await.status, 401);
        }
    }
}

#[tokio::test]
async fn broken_web_config_is_counted_and_changes_nothing() {
    let (clerk, folder) = (Clerk::start().await, Folder::new());
    let file = folder.write("web.yml", "");
    let environment = [("CLERK_SECRET_KEY", KEY), ("CLERK_API_URL", &*clerk.url())];
    let exporter = Exporter::start(&["--web.config.file", file.to_str().unwrap()], &environment).await;
    const FAILURES: &str = "clerk_exporter_file_reload_failures_total";
    const SUCCESS: &str = "clerk_exporter_file_reload_success_timestamp_seconds";
    let before = exporter.metrics().await;
    for kind in ["web_config", "tls_certificate", "client_ca"] {
        assert_eq!(before.value(FAILURES, &[("kind", kind)]), Some(0.0), "{kind}");
    }
    assert!(before.value(SUCCESS, &[("kind", "web_config")]).is_some_and(|at| at > 1e9));
    assert_eq!(before.value(SUCCESS, &[("kind", "client_ca")]), None);
    folder.write("web.yml", "nonsense: 1\n");
    exporter.until(FAILURES, &[("kind", "web_config")], |failures| failures > 0.0).await;
    std::fs::remove_file(&file).unwrap();
    let failures = exporter.metrics().await.value(FAILURES, &[("kind", "web_config")]).unwrap();
    exporter.until(FAILURES, &[("kind", "web_config")], |now| now > failures).await;
    assert!(exporter.output().contains("the previous one stays in force"), "{}", exporter.output());
}

#[tokio::test]
async fn systemd_unix_socket_is_served_and_not_removed() {
    let (clerk, folder) = (Clerk::start().await, Folder::new());
    let path = folder.path("exporter.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut passed = command(&["--web.systemd-socket"]);
    passed.stdin(std::process::Stdio::from(OwnedFd::from(listener)));
    // The protocol of sd_listen_fds(3), with a file descriptor that a test can pass.
    passed.envs([("LISTEN_FDS", "1"), ("LISTEN_FDS_FIRST_FD", "0")]);
    passed.envs([("CLERK_SECRET_KEY", KEY), ("CLERK_API_URL", &*clerk.url())]);
    let name = format!("unix:{}", path.display());
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let exporter = Exporter::spawn(passed, |log| log.contains(&name).then_some(nowhere)).await;
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("Healthy\n"), "{answer}");
    exporter.stopped().await;
    assert!(path.exists(), "the file belongs to systemd");
}
