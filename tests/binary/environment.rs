//! Environment variables: empty ones count as unset, and errors name the variable.

use clap::CommandFactory;
use clerk_exporter::cli::Cli;

use crate::exporter::{Clerk, Ended, Exporter, Folder, KEY, command, run};

/// The variables of all flags, from the program's own definitions.
fn variables() -> Vec<String> {
    let command = Cli::command();
    let names = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str().map(str::to_owned));
    names.collect()
}

async fn check(clerk: &Clerk, environment: &[(&str, &str)]) -> Ended {
    let mut command = command(&["check"]);
    command.env("CLERK_SECRET_KEY", KEY).env("CLERK_API_URL", clerk.url()).envs(environment.iter().copied());
    run(command).await
}

#[tokio::test]
async fn empty_variables_count_as_unset() {
    let clerk = Clerk::start().await;
    let names = variables();
    assert!(names.len() >= 14, "{names:?}");
    let others = ["CLERK_SECRET_KEY_FILE", "HTTPS_PROXY", "http_proxy", "NO_PROXY", "SSL_CERT_DIR", "TZ", "RUST_LOG"];
    let others = others.into_iter().chain(["TOKIO_WORKER_THREADS", "STATE_DIRECTORY", "NO_COLOR"]);
    let mut all: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    all.extend(others.map(|name| (name, "")));
    let ended = check(&clerk, &all).await;
    assert_eq!(ended.status, Some(0), "{}{}", ended.stdout, ended.stderr);
    // Also when the program keeps running.
    let address = [("CLERK_SECRET_KEY", KEY), ("CLERK_API_URL", "")];
    let flags = ["--web.listen-address=127.0.0.1:0"];
    let all = all.into_iter().chain(address).collect::<Vec<_>>();
    let exporter = Exporter::start(&flags, &all).await;
    let (status, output) = exporter.stopped().await;
    assert!(status.success() && output.contains("level=info"), "{output}");
}

#[tokio::test]
async fn invalid_value_error_names_its_variable() {
    let clerk = Clerk::start().await;
    let missing = "/nonexistent/ca.pem";
    for (name, value, status) in [
        ("CLERK_EXPORTER_LOG_LEVEL", "loud", Some(2)),
        ("CLERK_EXPORTER_LOG_FORMAT", "xml\n", Some(2)),
        ("CLERK_EXPORTER_WEB_MAX_CONNECTIONS", "many", Some(2)),
        ("CLERK_EXPORTER_CONFIG_AUTO_RELOAD_INTERVAL", "30s", Some(2)),
        ("CLERK_EXPORTER_WEB_ENABLE_LIFECYCLE", "maybe", Some(2)),
        ("CLERK_API_URL", "nonsense", Some(2)),
        ("TOKIO_WORKER_THREADS", "lots", Some(1)),
        ("SSL_CERT_FILE", missing, None),
        ("SSL_CERT_FILE", "", None),
        ("SSL_CERT_DIR", "/nonexistent", None),
    ] {
        let ended = check(&clerk, &[(name, value)]).await;
        assert!(ended.stderr.contains(name), "{name}={value}: {}", ended.stderr);
        assert!(status.is_none() || ended.status == status, "{name}={value}: {:?}", ended.status);
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    }
    let mut empty = command(&["check"]);
    empty.env("CLERK_SECRET_KEY", "").env("CLERK_SECRET_KEY_FILE", " ");
    let text = run(empty).await.stderr;
    assert!(
        text.contains("CLERK_SECRET_KEY: is set but empty") && text.contains("CLERK_SECRET_KEY_FILE: is set"),
        "{text}"
    );
}

#[tokio::test]
async fn empty_variable_does_not_conflict_with_a_set_one() {
    let clerk = Clerk::start().await;
    let folder = Folder::new();
    let key = folder.write("key", KEY);
    let mut by_file = command(&["check"]);
    by_file.env("CLERK_SECRET_KEY", "").env("CLERK_SECRET_KEY_FILE", key).env("CLERK_API_URL", clerk.url());
    let ended = run(by_file).await;
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
}
