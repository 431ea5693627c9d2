//! `check`: the status of each instance.

use clerk_simulator::{Fault, FaultBody, HeaderProfile};

use crate::exporter::{Clerk, Ended, Folder, KEY, OTHER_KEY, command, run};

/// Checks one instance, from the environment.
async fn check(clerk: &Clerk, arguments: &[&str]) -> Ended {
    check_at(&clerk.url(), arguments).await
}

async fn check_at(url: &str, arguments: &[&str]) -> Ended {
    let mut command = command(&["check"]);
    command.args(arguments).env("CLERK_SECRET_KEY", KEY).env("CLERK_API_URL", url);
    run(command).await
}

async fn json(clerk: &Clerk) -> (Option<i32>, serde_json::Value) {
    let ended = check(clerk, &["--format=json"]).await;
    let rows: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    (ended.status, rows[0].clone())
}

fn hint(row: &serde_json::Value) -> String {
    row["hints"].as_array().unwrap().iter().map(|hint| hint.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_healthy_instance_is_fine() {
    let clerk = Clerk::start().await;
    let (status, row) = json(&clerk).await;
    assert_eq!((status, row["verdict"].as_str()), (Some(0), Some("fine")));
    assert_eq!((row["key_valid"].as_bool(), row["environment"].as_str()), (Some(true), Some("development")));
    assert_eq!((row["limit"].as_u64(), row["remaining"].as_u64()), (Some(100), Some(99)));
    assert_eq!(row["limit_source"], "Clerk's headers");
    assert!(row["reset_seconds"].as_f64().unwrap() <= 10.0 && row["latency_seconds"].as_f64().unwrap() < 5.0);
    assert!(row["clock_offset_seconds"].as_f64().unwrap().abs() < 2.0);
    assert_eq!(hint(&row), "");
    assert_eq!(clerk.requests(), 1);
}

#[tokio::test]
async fn table_in_a_pipe_has_no_colours_and_the_same_content() {
    let clerk = Clerk::start().await;
    for colour in [None, Some(("NO_COLOR", "1")), Some(("CLICOLOR", "1"))] {
        let mut command = command(&["check"]);
        command.env("CLERK_SECRET_KEY", KEY).env("CLERK_API_URL", clerk.url()).envs(colour);
        let ended = run(command).await;
        assert_eq!(ended.status, Some(0), "{}", ended.stderr);
        assert!(!ended.stdout.contains('\u{1b}'), "{}", ended.stdout);
        let lines: Vec<_> = ended.stdout.lines().collect();
        assert!(lines[0].starts_with("INSTANCE  VERDICT"), "{}", ended.stdout);
        for word in ["default", "fine", "development", "valid", "100"] {
            assert!(lines[1].contains(word), "{word}: {}", lines[1]);
        }
        assert_eq!(lines.len(), 2);
    }
}

#[tokio::test]
async fn without_quota_headers_the_use_is_unknown() {
    let options = clerk_simulator::Options::default().headers(HeaderProfile::None);
    let clerk = Clerk::with(options).await;
    let (status, row) = json(&clerk).await;
    let found = (status, row["verdict"].as_str(), row["quota_headers"].as_str(), row["key_valid"].as_bool());
    assert_eq!(found, (Some(2), Some("use_unknown"), Some("none"), Some(true)));
    assert!(row["remaining"].is_null());
    let hint = hint(&row);
    assert!(hint.contains("key valid, use unknown") && hint.contains("gateway"), "{hint}");
    assert!(hint.contains("documentation"), "{hint}");
}

#[tokio::test]
async fn below_the_threshold_and_throttled_exit_with_one() {
    let low = Clerk::options().limits(vec!["instance=1/60s".parse().unwrap()]);
    let clerk = Clerk::with(low).await;
    let (status, row) = json(&clerk).await;
    assert_eq!((status, row["verdict"].as_str(), row["remaining"].as_u64()), (Some(1), Some("low"), Some(0)));
    assert!(hint(&row).contains("less than 10 % of the limit is left"), "{}", hint(&row));
    let (status, row) = json(&clerk).await;
    assert_eq!((status, row["verdict"].as_str(), row["status"].as_u64()), (Some(1), Some("throttled"), Some(429)));
    assert!(row["retry_after_seconds"].as_f64().unwrap() > 0.0);
    assert!(hint(&row).contains("over its rate limit"), "{}", hint(&row));
}

#[tokio::test]
async fn unknown_status_exits_with_two_and_a_hint() {
    let cases = [
        (Fault::Status { status: 401, body: FaultBody::Clerk }, "key", "Clerk rejects the secret key"),
        (Fault::Status { status: 503, body: FaultBody::Html }, "status", "status.clerk.com"),
        (Fault::Status { status: 404, body: FaultBody::Html }, "status", "check api_url and the probe's path"),
        (Fault::Status { status: 200, body: FaultBody::Html }, "unexpected_content", "a proxy or a login page"),
        (Fault::Redirect { location: "https://login.example/".into() }, "redirect", "redirects are not followed"),
        (Fault::Reset { after_bytes: 0 }, "connect", "the connection broke"),
        (Fault::HugeBody { bytes: 1 << 24 }, "body_too_large", "check the probe's path"),
        (Fault::GzipBomb { bytes: 1 << 28 }, "body_too_large", "check the probe's path"),
    ];
    for (fault, failure, expected) in cases {
        let clerk = Clerk::start().await;
        clerk.simulator.set_faults(fault.clone().always().into()).unwrap();
        let (status, row) = json(&clerk).await;
        assert_eq!((status, row["failure"].as_str()), (Some(2), Some(failure)), "{fault:?}: {row}");
        assert_eq!(row["verdict"], "unknown");
        assert!(hint(&row).contains(expected), "{fault:?}: {}", hint(&row));
    }
    for (url, failure, expected) in [
        ("http://127.0.0.1:1", "connect", "check api_url, the network, and HTTPS_PROXY"),
        ("http://no-such-host.invalid", "dns", "name servers"),
    ] {
        let ended = check_at(url, &["--format=json"]).await;
        let rows: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!((ended.status, rows[0]["failure"].as_str()), (Some(2), Some(failure)), "{rows}");
        assert!(hint(&rows[0]).contains(expected), "{rows}");
    }
}

#[tokio::test]
async fn clock_offset_and_malformed_headers_have_hints() {
    let clerk = Clerk::start().await;
    let mut faults: clerk_simulator::Faults = Fault::MalformedQuotaHeaders {}.always().into();
    faults.clock_skew_seconds = 90;
    clerk.simulator.set_faults(faults).unwrap();
    let (_, row) = json(&clerk).await;
    assert!(hint(&row).contains("this machine's clock is off by -90 s"), "{}", hint(&row));
    assert!(hint(&row).contains("malformed quota headers"), "{}", hint(&row));
    assert!(!row["header_errors"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn unreadable_configuration_exits_with_two() {
    for arguments in [vec!["--config.file=/nonexistent.yml"], vec![]] {
        let mut command = command(&["check"]);
        command.args(&arguments);
        let ended = run(command).await;
        assert_eq!(ended.status, Some(2), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stdout.is_empty() && !ended.stderr.is_empty());
    }
}

#[tokio::test]
async fn instances_are_listed_in_file_order_and_the_worst_decides() {
    let clerk = Clerk::start().await;
    let folder = Folder::new();
    let (url, config) = (clerk.url(), |third: &str| {
        let url = clerk.url();
        format!(
            "instances:\n  - {{ name: z, secret_key: {KEY}, api_url: '{url}' }}\n  \
             - {{ name: b, secret_key: {OTHER_KEY}, api_url: 'http://127.0.0.1:1' }}\n{third}"
        )
    });
    let path = folder.write("config.yml", &config(""));
    let file = format!("--config.file={}", path.display());
    let ended = run(command(&["check", &file])).await;
    assert_eq!(ended.status, Some(2), "{}", ended.stderr);
    let lines: Vec<_> = ended.stdout.lines().collect();
    assert!(lines[1].starts_with('z') && lines[2].starts_with('b') && lines[3].starts_with("b: "), "{}", ended.stdout);
    // Throttled is worse than unknown.
    let rule = Fault::Throttled { retry_after: Some("9".into()), body: FaultBody::Clerk }.always();
    clerk.simulator.set_faults(rule.into()).unwrap();
    let third = format!("  - {{ name: c, secret_key: sk_live_0aQ4bMbJyWZ2vnLxCANARY, api_url: '{url}' }}\n");
    folder.write("config.yml", &config(&third));
    let ended = run(command(&["check", &file, "--format=json"])).await;
    let rows: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((ended.status, rows.as_array().unwrap().len()), (Some(1), 3));
    assert_eq!(rows[2]["environment"], "production");
}

#[tokio::test]
async fn the_table_fits_the_terminal() {
    let without = clerk_simulator::Options::default().headers(HeaderProfile::None);
    let (clerk, without, failing) = (Clerk::start().await, Clerk::with(without).await, Clerk::start().await);
    failing.simulator.set_faults(Fault::Status { status: 503, body: FaultBody::Html }.always().into()).unwrap();
    let mut skewed: clerk_simulator::Faults = Fault::MalformedQuotaHeaders {}.always().into();
    skewed.clock_skew_seconds = 90;
    clerk.simulator.set_faults(skewed).unwrap();
    let folder = Folder::new();
    let text = format!(
        "instances:\n  - {{ name: production-of-the-shop-in-europe, secret_key: {KEY}, api_url: '{}' }}\n  \
         - {{ name: default, secret_key: {OTHER_KEY}, api_url: '{}' }}\n  \
         - {{ name: failing, secret_key: sk_live_0aQ4bMbJyWZ2vnLxCANARY, api_url: '{}' }}\n",
        clerk.url(),
        without.url(),
        failing.url()
    );
    let file = format!("--config.file={}", folder.write("config.yml", &text).display());
    for (columns, width) in [(None, 80), (Some("80"), 80), (Some("60"), 60), (Some("none"), 80)] {
        let mut command = command(&["check", &file]);
        command.envs(columns.map(|columns| ("COLUMNS", columns)));
        let ended = run(command).await;
        for line in ended.stdout.lines() {
            assert!(line.chars().count() <= width, "{width}: {line}\n{}", ended.stdout);
        }
        let headings: Vec<&str> = ended.stdout.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(headings[..2], ["INSTANCE", "VERDICT"]);
        assert!(headings.contains(&"LEFT"), "{headings:?}");
    }
}
