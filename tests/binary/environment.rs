//! Environment variables: empty ones count as unset, and errors name the variable.

use clerk_exporter::cli;

use crate::exporter::{Clerk, Ended, Exporter, Folder, KEY, command, run};

/// The variables of all flags of all commands.
fn variables() -> Vec<String> {
    fn collect(command: &clap::Command, names: &mut Vec<String>) {
        names.extend(command.get_arguments().filter_map(|flag| flag.get_env()?.to_str().map(str::to_owned)));
        command.get_subcommands().for_each(|command| collect(command, names));
    }
    let mut names = Vec::new();
    collect(&cli::command(), &mut names);
    names
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
    assert!(names.len() > 40, "{names:?}");
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
        ("CLERK_EXPORTER_CHECK_FORMAT", "xml", Some(2)),
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
    for (name, value) in [
        ("CLERK_EXPORTER_WEB_MAX_CONNECTIONS", "many"),
        ("CLERK_EXPORTER_CONFIG_AUTO_RELOAD_INTERVAL", "0s"),
        ("CLERK_EXPORTER_WEB_ENABLE_LIFECYCLE", "maybe"),
    ] {
        let mut exporter = command(&["--config.check"]);
        exporter.env("CLERK_SECRET_KEY", KEY).env(name, value);
        let ended = run(exporter).await;
        assert!(ended.status == Some(2) && ended.stderr.contains(name), "{name}={value}: {}", ended.stderr);
        // It does not act on `check`.
        let ended = check(&clerk, &[(name, value)]).await;
        assert_eq!(ended.status, Some(0), "{name}={value}: {}", ended.stderr);
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
async fn variables_act_like_their_flags() {
    let clerk = Clerk::start().await;
    let ended = check(&clerk, &[("CLERK_EXPORTER_CHECK_FORMAT", "json"), ("CLERK_EXPORTER_LOG_FORMAT", "json")]).await;
    assert!(ended.stdout.starts_with('['), "{}{}", ended.stdout, ended.stderr);
    let off = [("CLERK_EXPORTER_USERS_GET_FORCE", "false"), ("CLERK_SECRET_KEY", KEY)];
    let mut get = command(&["users", "get", "user_x"]);
    get.envs(off).env("CLERK_API_URL", clerk.url());
    let ended = run(get).await;
    assert_eq!(ended.status, Some(3), "{}", ended.stderr);
    let seconds = [
        ("CLERK_EXPORTER_CONFIG_AUTO_RELOAD_INTERVAL", "1h 30m"),
        ("CLERK_EXPORTER_CONFIG_ENABLE_AUTO_RELOAD", "true"),
    ];
    let mut valid = command(&["--config.check"]);
    valid.envs(seconds).env("CLERK_SECRET_KEY", KEY);
    assert_eq!(run(valid).await.stdout, "Configuration is valid.\n");
}

#[tokio::test]
async fn an_empty_variable_beside_one_that_is_set_does_not_contradict_it() {
    let clerk = Clerk::start().await;
    let folder = Folder::new();
    let key = folder.write("key", KEY);
    let mut by_file = command(&["check"]);
    by_file.env("CLERK_SECRET_KEY", "").env("CLERK_SECRET_KEY_FILE", key).env("CLERK_API_URL", clerk.url());
    let ended = run(by_file).await;
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
}
