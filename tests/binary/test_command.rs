//! `test`: a suite runs against the simulated Clerk.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::exporter::{Ended, Folder, command, run, within};

/// A request to the simulator, in a shell.
fn curl(path: &str) -> String {
    format!("curl -s -o /dev/null -A suite/1.0 -H \"Authorization: Bearer $CLERK_SECRET_KEY\" \"$CLERK_API_URL{path}\"")
}

fn test_command(arguments: &[&str]) -> tokio::process::Command {
    let mut command = command(&["test"]);
    command.args(arguments).env("PATH", std::env::var_os("PATH").unwrap());
    command
}

/// Runs `test` with these flags and this script.
async fn suite(flags: &[&str], script: &str) -> Ended {
    run(test_command(&[flags, &["--", "sh", "-c", script]].concat())).await
}

#[tokio::test]
async fn suite_gets_a_simulator_and_its_requests_are_reported() {
    let script = [curl("/v1/users?limit=5"), curl("/v1/users?limit=5"), curl("/v1/jwks"), "echo out".to_owned()];
    let ended = suite(&[], &script.join("; ")).await;
    assert_eq!((ended.status, ended.stdout.as_str()), (Some(0), "out\n"), "{}", ended.stderr);
    let lines: Vec<_> =
        ended.stderr.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "Requests to Clerk: 3, throttled (429): 0",
        "2 0 GET /v1/users suite/1.0",
        "1 0 GET /v1/jwks suite/1.0",
        "2 /v1/users?limit=5",
    ] {
        assert!(lines.contains(&line.to_owned()), "{line}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn suite_finds_the_variables_that_sdks_read() {
    let script = "echo $CLERK_API_URL $CLERK_SECRET_KEY $CLERK_MACHINE_SECRET_KEY $CLERK_PUBLISHABLE_KEY \
                  $NEXT_PUBLIC_CLERK_PUBLISHABLE_KEY $CLERK_SIMULATOR_URL";
    let ended = suite(&[], script).await;
    let values: Vec<_> = ended.stdout.split_whitespace().collect();
    let prefixes = ["http://127.0.0.1:", "sk_test_", "ak_", "pk_test_", "pk_test_", "http://127.0.0.1:"];
    assert_eq!(values.len(), prefixes.len(), "{values:?}");
    assert!(values.iter().zip(prefixes).all(|(value, prefix)| value.starts_with(prefix)), "{values:?}");
}

#[tokio::test]
async fn exit_status_is_that_of_the_command() {
    for (script, status) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)] {
        assert_eq!(suite(&[], script).await.status, Some(status), "{script}");
    }
    let folder = Folder::new();
    let file = folder.write("plain", "text");
    for (program, status, text) in
        [("no-such-command-here", 127, "no such command"), (file.to_str().unwrap(), 126, "not executable")]
    {
        let ended = run(test_command(&["--", program])).await;
        assert_eq!(ended.status, Some(status));
        assert!(ended.stderr.contains(program) && ended.stderr.contains(text), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn more_requests_than_allowed_fail_with_the_bound() {
    let script = [curl("/v1/users/user_a"), curl("/v1/users/user_b"), curl("/v1/users/count")].join("; ");
    let within_bounds = ["--max-requests=3", "--max-per-route=GET /v1/users/{id}=2"];
    let ended = suite(&within_bounds, &script).await;
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    let ended = suite(&["--max-requests=1", "--max-per-route=GET /v1/users/{user_id}=1"], &script).await;
    assert_eq!(ended.status, Some(1));
    for line in [
        "clerk-exporter: 3 requests, 2 more than --max-requests allows (1)",
        "clerk-exporter: 2 requests, 1 more than --max-per-route 'GET /v1/users/{user_id}' allows (1)",
    ] {
        assert!(ended.stderr.lines().any(|known| known == line), "{line}: {}", ended.stderr);
    }
    let ended = suite(&["--max-requests=1"], &format!("{script}; exit 9")).await;
    assert_eq!(ended.status, Some(9), "a failure of the command is more than too many requests");
}

#[tokio::test]
async fn unknown_route_is_rejected_before_the_command_starts() {
    let ended = suite(&["--max-per-route=GET /v1/user/{user_id}=1"], "echo started").await;
    assert_eq!((ended.status, ended.stdout.as_str()), (Some(2), ""));
    assert!(ended.stderr.contains("`GET /v1/users/{user_id}`"), "{}", ended.stderr);
}

#[tokio::test]
async fn throttled_requests_are_reported() {
    let script = [curl("/v1/users/count"), curl("/v1/users/count")].join("; ");
    let ended = suite(&["--limit=instance=1/1h", "--users=5", "--format=json"], &script).await;
    let report: Value = serde_json::from_str(&ended.stderr).unwrap();
    let expected = json!({
        "command_status": 0,
        "requests": 2,
        "throttled": 1,
        "routes": [{"route": "GET /v1/users/count", "caller": "suite/1.0", "requests": 2, "throttled": 1}],
        "repeated_reads": [{"resource": "/v1/users/count", "requests": 2}],
        "exceeded": [],
    });
    assert_eq!(report, expected);
}

#[tokio::test]
async fn report_goes_to_a_file() {
    let folder = Folder::new();
    let path = folder.path("report.json");
    let output = format!("--output={}", path.display());
    let ended = suite(&["--format=json", &output, "--max-requests=0"], &curl("/v1/jwks")).await;
    assert_eq!(ended.status, Some(1));
    assert_eq!(ended.stderr, "clerk-exporter: 1 requests, 1 more than --max-requests allows (0)\n");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(report["exceeded"], json!([{"bound": "--max-requests", "most": 0, "requests": 1}]));
}

#[tokio::test]
async fn standard_input_and_grandchildren_reach_the_suite() {
    let script = format!("cat; sh -c '{}' & wait", curl("/v1/users/count").replace('\'', ""));
    let mut command = test_command(&["--max-requests=1", "--", "sh", "-c", &script]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"from outside\n").await.unwrap();
    let output = within("the suite", child.wait_with_output()).await.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "from outside\n");
    assert!(output.status.success() && stderr.contains("Requests to Clerk: 1,"), "{stderr}");
}

#[tokio::test]
async fn signals_reach_the_command_and_all_that_it_started() {
    for (signal, status) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
        // The inner process is ready before the signal comes: a shell that has nothing to wait for yet may ignore SIGINT.
        let script = "sh -c 'echo ready; exec sleep 600'; true";
        let mut child = test_command(&["--", "sh", "-c", script]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(within("the start", lines.next_line()).await.unwrap().unwrap(), "ready");
        let id = child.id().unwrap().to_string();
        std::process::Command::new("kill").args(["-s", signal, &id]).status().unwrap();
        let ended = within("the end", child.wait()).await.unwrap();
        assert_eq!(ended.code(), Some(status), "{signal}");
        // The end of the stream: nothing holds it any more.
        assert_eq!(within("the end of the output", lines.next_line()).await.unwrap(), None);
    }
    let script = "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = test_command(&["--", "sh", "-c", script]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(within("the start", lines.next_line()).await.unwrap().unwrap(), "ready");
    let id = child.id().unwrap().to_string();
    std::process::Command::new("kill").args(["-s", "TERM", &id]).status().unwrap();
    assert_eq!(within("the trap", lines.next_line()).await.unwrap().unwrap(), "caught");
    assert_eq!(within("the end", child.wait()).await.unwrap().code(), Some(3));
}
