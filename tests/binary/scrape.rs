//! `/metrics` over HTTP: formats, compression, many at once.

use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;

use clerk_simulator::Fault;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::exporter::{Clerk, Exporter, KEY, within};
use crate::exposition::Scrape;

const OPENMETRICS: &str = "Accept: application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.4\r\n";

async fn exporter(clerk: &Clerk) -> Exporter {
    let exporter = Exporter::start(&[], &[("CLERK_SECRET_KEY", KEY), ("CLERK_API_URL", &clerk.url())]).await;
    exporter.until("clerk_up", &[], |up| up == 1.0).await;
    exporter
}

/// As any gzip does it.
async fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut child =
        tokio::process::Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let (_, output) = tokio::join!(
        async move {
            stdin.write_all(&bytes).await.unwrap();
            drop(stdin);
        },
        child.wait_with_output()
    );
    output.unwrap().stdout
}

#[tokio::test]
async fn both_formats_have_their_type_compressed_or_not() {
    let clerk = Clerk::start().await;
    let exporter = exporter(&clerk).await;
    for (accept, content_type, eof) in [
        ("", "text/plain; version=0.0.4; charset=utf-8", false),
        ("Accept: text/html,*/*;q=0.8\r\n", "text/plain; version=0.0.4; charset=utf-8", false),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8", true),
    ] {
        for (encoding, compressed) in
            [("", false), ("Accept-Encoding: gzip\r\n", true), ("Accept-Encoding: identity\r\n", false)]
        {
            for method in ["GET", "HEAD"] {
                let page = exporter.request(method, "/metrics", &format!("{accept}{encoding}")).await;
                assert_eq!((page.status, page.header("content-type")), (200, vec![content_type]), "{accept}{encoding}");
                assert_eq!(page.header("content-encoding") == ["gzip"], compressed, "{method} {accept}{encoding}");
                let vary = page.header("vary").join(", ");
                assert!(vary.contains("accept") && vary.contains("accept-encoding"), "{vary}");
                if method == "HEAD" {
                    assert!(page.body.is_empty());
                    continue;
                }
                let body = if compressed { gunzip(&page.body).await } else { page.body };
                let scrape = Scrape::parse(std::str::from_utf8(&body).unwrap());
                assert_eq!(scrape.ends_with_eof, eof);
                assert_eq!(scrape.value("clerk_up", &[]), Some(1.0));
            }
        }
    }
}

#[tokio::test]
async fn hundred_concurrent_scrapes_are_identical() {
    let clerk = Clerk::start().await;
    let exporter = exporter(&clerk).await;
    let exporter = Arc::new(exporter);
    let mut scrapes = JoinSet::new();
    for _ in 0..100 {
        let exporter = Arc::clone(&exporter);
        scrapes.spawn(async move { Scrape::parse(&exporter.get("/metrics").await.text()) });
    }
    let seen = within("the scrapes", scrapes.join_all()).await;
    let series = |scrape: &Scrape| -> Vec<_> {
        let mut names: Vec<_> =
            scrape.samples.iter().map(|sample| (sample.name.clone(), sample.labels.clone())).collect();
        names.sort();
        names
    };
    assert_eq!(seen.len(), 100);
    for scrape in &seen {
        assert_eq!(series(scrape), series(&seen[0]));
        assert_eq!(scrape.value("clerk_ratelimit_limit", &[("bucket", "instance")]), Some(100.0));
    }
}

#[tokio::test]
async fn endless_bodies_take_no_memory_and_probing_recovers() {
    for fault in [Fault::GzipBomb { bytes: 1 << 30 }, Fault::HugeBody { bytes: 1 << 30 }] {
        let clerk = Clerk::start().await;
        clerk.simulator.set_faults(fault.clone().always().into()).unwrap();
        let exporter = Exporter::start(&[], &[("CLERK_SECRET_KEY", KEY), ("CLERK_API_URL", &clerk.url())]).await;
        exporter.until("clerk_probe_failures_total", &[("reason", "body_too_large")], |count| count == 1.0).await;
        let scrape = exporter.metrics().await;
        assert_eq!(scrape.value("clerk_up", &[]), Some(0.0), "{fault:?}");
        let resident = scrape.value("process_resident_memory_bytes", &[]).unwrap();
        assert!(resident < 200e6, "{fault:?}: {resident} bytes");
        let (status, output) = exporter.stopped().await;
        assert!(status.success(), "{output}");
    }
}

#[tokio::test]
async fn promtool_accepts_the_metrics() {
    let Ok(check) = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        println!("promtool is not installed: not checked");
        return;
    };
    let clerk = Clerk::start().await;
    let exporter = exporter(&clerk).await;
    let text = exporter.get("/metrics").await.text();
    let mut check = check;
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
