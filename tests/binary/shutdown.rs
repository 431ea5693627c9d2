//! Signals: the process shuts down gracefully, whatever clients and Clerk do.

use clerk_simulator::Fault;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::exporter::{Clerk, Exporter, KEY, command, eventually};

async fn exporter(clerk: &Clerk) -> Exporter {
    Exporter::start(&[], &[("CLERK_SECRET_KEY", KEY), ("CLERK_API_URL", &clerk.url())]).await
}

#[tokio::test]
async fn sigterm_and_sigint_exit_with_success() {
    let clerk = Clerk::start().await;
    for signal in ["TERM", "INT"] {
        let exporter = exporter(&clerk).await;
        exporter.until("clerk_up", &[], |up| up == 1.0).await;
        exporter.signal(signal).await;
        let (status, output) = exporter.ended().await;
        assert!(status.success(), "{signal}: {status} {output}");
        assert!(output.contains("stopping") && output.contains("stopped"), "{output}");
    }
}

#[tokio::test]
async fn signal_right_after_the_start_is_handled() {
    let clerk = Clerk::start().await;
    for _ in 0..5 {
        let (status, output) = exporter(&clerk).await.stopped().await;
        assert!(status.success(), "{status} {output}");
    }
}

#[tokio::test]
async fn unfinished_clients_do_not_delay_shutdown() {
    let clerk = Clerk::start().await;
    let exporter = exporter(&clerk).await;
    let mut clients = Vec::new();
    for beginning in
        ["", "GET", "GET /metrics HTTP/1.1\r\nHost: x\r\n", "POST /-/reload HTTP/1.1\r\nContent-Length: 9\r\n\r\n"]
    {
        let mut stream = TcpStream::connect(exporter.address).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        clients.push(stream);
    }
    exporter.get("/-/healthy").await;
    let (status, output) = exporter.stopped().await;
    assert!(status.success(), "{status} {output}");
    drop(clients);
}

#[tokio::test]
async fn probe_in_flight_does_not_delay_shutdown() {
    let clerk = Clerk::start().await;
    clerk.simulator.set_faults(Fault::Latency { millis: 600_000 }.always().into()).unwrap();
    let folder = crate::exporter::Folder::new();
    let config = folder.write(
        "config.yml",
        &format!(
            "instances: [{{ name: a, secret_key: {KEY}, api_url: '{}', probe: {{ interval: 60s, timeout: 50s }} }}]",
            clerk.url()
        ),
    );
    let exporter = Exporter::with_config(&config, &[]).await;
    exporter.get("/-/healthy").await;
    let started = tokio::time::Instant::now();
    let (status, output) = exporter.stopped().await;
    assert!(status.success(), "{status} {output}");
    assert!(started.elapsed().as_secs() < 40, "it waited for the probe's own deadline");
}

#[tokio::test]
async fn standalone_simulator_exits_on_a_signal() {
    let mut child = command(&["simulate", "--listen-address=127.0.0.1:0"]).spawn().unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stdout.take().unwrap()));
    let line = lines.next_line().await.unwrap().unwrap();
    assert!(line.starts_with("Simulated Clerk: http://127.0.0.1:"), "{line}");
    // Immediately: a reader of the line may already send signals.
    let pid = child.id().unwrap().to_string();
    std::process::Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap();
    let status = eventually("the end", async || child.try_wait().unwrap()).await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn demo_serves_the_printed_addresses() {
    let exporter = Exporter::demo(&["--probe.interval=1"]).await;
    exporter.until("clerk_up", &[("clerk_instance", "production")], |up| up == 1.0).await;
    exporter.until("clerk_users", &[("clerk_instance", "production")], |users| users > 0.0).await;
    let (status, output) = exporter.stopped().await;
    assert!(status.success(), "{status} {output}");
    assert!(output.contains("Landing page:") && output.contains("/metrics"), "{output}");
}
