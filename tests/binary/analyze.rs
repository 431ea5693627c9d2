//! `analyze`: recorded logs.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;

use crate::exporter::{Ended, Folder, command, run};

const FORMATS: [&str; 7] =
    ["nginx.log", "nginx-local.log", "own-names.log", "envoy.log", "caddy.log", "browser.har", "collector.jsonl"];

/// What names the members of `own-names.log`.
const FIELDS: &str =
    "--field=time=when,duration_ms=took_ms,method=verb,path=target,status=code,caller=who,retry_after=wait";

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/analyze/data").join(name)
}

async fn analyze(arguments: &[&str], logs: &[PathBuf]) -> Ended {
    let mut command = command(&["analyze"]);
    command.args(arguments).args(logs);
    run(command).await
}

async fn json(arguments: &[&str], logs: &[PathBuf]) -> serde_json::Value {
    let arguments = [&["--format=json"], arguments].concat();
    let ended = analyze(&arguments, logs).await;
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    serde_json::from_str(&ended.stdout).unwrap()
}

fn routes(report: &serde_json::Value) -> Vec<(String, u64, u64)> {
    let of = |route: &serde_json::Value| {
        let name = format!("{} {}", route["method"].as_str().unwrap(), route["route"].as_str().unwrap());
        (name, route["requests"].as_u64().unwrap(), route["throttled"].as_u64().unwrap())
    };
    let mut routes: Vec<_> = report["routes"].as_array().unwrap().iter().map(of).collect();
    routes.sort();
    routes
}

fn saved(report: &serde_json::Value) -> Vec<u64> {
    report["savings"].as_array().unwrap().iter().map(|saving| saving["requests"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn every_format_gives_the_same_result() {
    let expected = [
        ("GET /v1/jwks", 1, 0),
        ("GET /v1/organizations", 1, 0),
        ("GET /v1/users/count", 1, 1),
        ("GET /v1/users/{user_id}", 5, 0),
        ("PATCH /v1/users/{user_id}/metadata", 1, 0),
    ];
    let expected = expected.map(|(name, requests, throttled)| (name.to_owned(), requests, throttled));
    for name in FORMATS {
        let report = json(&[FIELDS], &[data(name)]).await;
        assert_eq!(routes(&report), expected, "{name}");
        let logs = &report["logs"];
        assert_eq!((logs["requests"].as_u64(), logs["unlimited_requests"].as_u64()), (Some(9), Some(1)), "{name}");
        assert_eq!((logs["without_host"].as_u64(), logs["without_duration"].as_u64()), (Some(0), Some(0)), "{name}");
        assert_eq!(logs["skipped"][0]["kind"], "other_host", "{name}");
        // Two reads at once, and one between a change and the next: `$time_local` has whole seconds.
        if name != "nginx-local.log" {
            assert_eq!(logs["first"], "2026-11-29T23:04:13.000Z", "{name}");
            assert_eq!(saved(&report), [1, 2, 2, 2, 1], "{name}");
        }
        let callers: Vec<_> =
            report["callers"].as_array().unwrap().iter().map(|it| it["caller"].as_str().unwrap()).collect();
        assert_eq!(callers, ["@clerk/backend", "worker"], "{name}");
        let instance = &report["buckets"][0];
        assert_eq!(
            (instance["windows"].as_u64(), instance["exhausted_windows"].as_u64()),
            (Some(1), Some(1)),
            "{name}"
        );
    }
}

#[tokio::test]
async fn access_log_of_the_gateway_gives_the_same_result() {
    let report = json(&[], &[data("gateway.log")]).await;
    assert_eq!(report["logs"]["requests"], 9);
    assert_eq!(report["logs"]["without_host"], 0);
    assert_eq!(saved(&report), [1, 2, 2, 2, 1]);
}

#[tokio::test]
async fn any_mix_of_logs_is_read_compressed_or_from_standard_input() {
    let folder = Folder::new();
    let nginx = std::fs::read(data("nginx.log")).unwrap();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, bytes).unwrap();
        encoder.finish().unwrap()
    };
    // Two members in one file, as `cat a.gz b.gz` makes them.
    let (half, rest) = nginx.split_at(nginx.len() / 2);
    let packed = folder.path("nginx.log");
    std::fs::write(&packed, [gzip(half), gzip(rest)].concat()).unwrap();
    let mixed = folder.path("mixed");
    let texts = ["envoy.log", "caddy.log", "collector.jsonl"].map(|name| std::fs::read(data(name)).unwrap());
    std::fs::write(&mixed, texts.concat()).unwrap();
    let mut command = command(&["analyze", "--format=json"]);
    command.args([&packed, &mixed, &data("browser.har")]).arg("-");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&nginx).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["logs"]["requests"], 6 * 9);
    assert_eq!(report["logs"]["files"], 4);
}

#[tokio::test]
async fn damaged_logs_are_read_as_far_as_possible() {
    let folder = Folder::new();
    let nginx = String::from_utf8(std::fs::read(data("nginx.log")).unwrap()).unwrap();
    let lines: Vec<&str> = nginx.lines().collect();
    let path = folder.path("access.log");
    let secret = "sk_live_secret";
    let bad = [
        lines[0].to_owned(),
        lines[1][..lines[1].len() / 2].to_owned(),
        format!("1.2.3.4 - - [29/Nov/2026:23:04:13 +0000] \"GET /v1/users/{secret} HTTP/1.1\" 200 5"),
        lines[2].replace("1795993453", "0"),
        lines[3].replace("\"200\"", "\"2x0\""),
        "\u{0}\u{1}\u{2}".to_owned(),
        "{\"level\":\"info\",\"msg\":\"hello\"}".to_owned(),
        String::new(),
        lines[4].to_owned(),
    ];
    std::fs::write(&path, bad.join("\n")).unwrap();
    let ended = analyze(&["--format=json"], std::slice::from_ref(&path)).await;
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["logs"]["requests"], 2);
    let skipped: Vec<_> = report["logs"]["skipped"].as_array().unwrap().iter().collect();
    let of = |kind: &str| {
        let found = skipped.iter().find(|skipped| skipped["kind"] == kind).unwrap_or_else(|| panic!("{kind}"));
        (found["lines"].as_u64().unwrap(), found["examples"][0]["line"].as_u64())
    };
    assert_eq!(of("malformed"), (3, Some(2)));
    assert_eq!((of("bad_time"), of("bad_request"), of("other_kind")), ((1, Some(4)), (1, Some(5)), (1, None)));
    assert!(!ended.stdout.contains(secret) && !ended.stdout.contains("user_1"));
    // A damaged gzip file is read up to the damage.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, nginx.repeat(200).as_bytes()).unwrap();
    let packed = encoder.finish().unwrap();
    std::fs::write(&path, &packed[..packed.len() - 12]).unwrap();
    let report = json(&[], &[path]).await;
    assert!(report["logs"]["requests"].as_u64().unwrap() > 0);
    assert_eq!(report["logs"]["incomplete"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn logs_without_requests_fail_with_the_reason() {
    let folder = Folder::new();
    let empty = folder.path("empty");
    std::fs::write(&empty, "").unwrap();
    for (arguments, log, expected) in [
        (&[][..], empty.clone(), "the logs are empty"),
        (
            &["--host=clerk.internal"],
            data("nginx.log"),
            "10 lines skipped: requests to other hosts; add theirs with --host",
        ),
        (&[], data("own-names.log"), "10 lines skipped"),
        (&[], data("README.md"), "not JSON"),
        (&[], folder.path("missing"), "missing: cannot be read"),
    ] {
        let ended = analyze(arguments, &[log]).await;
        assert_eq!((ended.status, ended.stdout.as_str()), (Some(1), ""), "{expected}");
        assert!(ended.stderr.contains(expected), "{expected}: {}", ended.stderr);
    }
    let ended = analyze(&["--plan=free", "--limit=1/10s"], &[empty]).await;
    assert_eq!(ended.status, Some(2), "{}", ended.stderr);
}

#[tokio::test]
async fn limit_of_flags_decides_the_windows() {
    for (flag, limit, source) in [
        ("--plan=development", 100, "--plan development"),
        ("--plan=free", 20, "--plan free"),
        ("--limit=5/10s", 5, "--limit"),
    ] {
        let report = json(&[flag], &[data("nginx.log")]).await;
        assert_eq!((&report["limit"]["requests"], &report["limit"]["source"]), (&limit.into(), &source.into()));
        assert!(!report["notes"].to_string().contains("assumption"));
    }
    let report = json(&[], &[data("nginx.log")]).await;
    assert!(report["limit"]["source"].as_str().unwrap().contains("production"));
    assert!(report["notes"][0].as_str().unwrap().contains("The limit is an assumption"));
}

#[tokio::test]
async fn table_fits_its_width_and_has_every_part() {
    for columns in ["60", "80", "200"] {
        let mut command = command(&["analyze"]);
        command.arg(data("nginx.log")).env("COLUMNS", columns);
        let ended = run(command).await;
        assert_eq!(ended.status, Some(0), "{}", ended.stderr);
        let (tables, rest) = ended.stdout.split_once("\nConfiguration\n").unwrap();
        for line in tables.lines().chain(rest.split_once("\nNotes\n").unwrap().1.lines()) {
            assert!(line.chars().count() <= columns.parse().unwrap(), "{columns}: {line}");
        }
        for part in ["Windows", "Callers", "Routes", "Busiest windows", "Savings, at most", "Pacing would have"] {
            assert!(tables.contains(part), "{part}: {tables}");
        }
    }
}

#[tokio::test]
async fn page_is_one_file_without_scripts() {
    let ended = analyze(&["--format=html"], &[data("nginx.log")]).await;
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    let page = ended.stdout;
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("<svg"), "{page}");
    for absent in ["<script", "http://", "https://", "javascript:", "url(", "@import", "user_1"] {
        assert!(!page.contains(absent), "{absent}");
    }
    assert!(page.contains("prefers-color-scheme:dark") && page.contains("width=device-width"));
}

#[tokio::test]
async fn configuration_of_the_result_is_valid() {
    let folder = Folder::new();
    let key = folder.path("key");
    std::fs::write(&key, "sk_live_abcdefghijklmnopqrstuvwxyz").unwrap();
    for flags in [&[][..], &["--plan=free"], &["--limit=5/10s", "--max-wait=20s"]] {
        let report = json(flags, &[data("nginx.log")]).await;
        let text = report["configuration"].as_str().unwrap();
        let text = text.replace("/run/secrets/clerk_prod", key.to_str().unwrap());
        let path = folder.path("clerk-exporter.yml");
        std::fs::write(&path, &text).unwrap();
        let mut command = command(&["--config.check"]);
        command.arg("--config.file").arg(&path);
        let ended = run(command).await;
        assert_eq!(ended.status, Some(0), "{text}\n{}", ended.stderr);
    }
}
