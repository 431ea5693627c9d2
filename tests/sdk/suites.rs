//! The example suites of `examples/tests` under `clerk-exporter test`.

use std::path::Path;

use serde_json::Value;

use crate::exporter::{Folder, command, run};

/// Runs a suite with these bounds. Returns the report, the output of the suite, and the exit status.
async fn suite(bounds: &[&str], folder: &Path, program: &[&str]) -> (Value, String, Option<i32>) {
    let out = Folder::new();
    let report = out.path("report.json");
    let output = format!("--output={}", report.display());
    let mut command = command(&["test", "--format=json", &output]);
    command.args(bounds).arg("--").args(program).current_dir(folder).env("PATH", std::env::var_os("PATH").unwrap());
    command.envs([("PYTHONUTF8", "1"), ("PYTHONDONTWRITEBYTECODE", "1")]);
    let ended = run(command).await;
    let text = format!("{}\n{}", ended.stdout, ended.stderr);
    let report = std::fs::read_to_string(report).unwrap_or_else(|error| panic!("{error}: {text}"));
    (serde_json::from_str(&report).unwrap(), text, ended.status)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Node.js suite with the SDK beside it.
fn node_suite() -> Folder {
    let folder = Folder::new();
    for file in std::fs::read_dir(root().join("examples/tests/node")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path(file.file_name().to_str().unwrap())).unwrap();
    }
    let modules = root().join("target/sdk/node/node_modules");
    std::os::unix::fs::symlink(modules, folder.path("node_modules")).unwrap();
    folder
}

fn requests_of(report: &Value, route: &str) -> u64 {
    let routes = report["routes"].as_array().unwrap();
    routes.iter().filter(|line| line["route"] == route).map(|line| line["requests"].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn node_suite_passes_within_its_bounds() {
    let folder = node_suite();
    let node = root().join("target/sdk/node/node");
    let program = [node.to_str().unwrap(), "--test", "--test-reporter=tap"];
    let bounds = ["--max-requests=20", "--max-per-route=GET /v1/users/{user_id}=1"];
    let (report, text, status) = suite(&bounds, &folder.path("."), &program).await;
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("# pass 4"), "{text}");
    assert_eq!((report["requests"].as_u64(), report["throttled"].as_u64()), (Some(12), Some(0)), "{report}");
    assert_eq!(requests_of(&report, "POST /v1/users"), 4, "{report}");
    let callers: Vec<_> = report["routes"].as_array().unwrap().iter().map(|line| &line["caller"]).collect();
    assert!(callers.iter().all(|caller| *caller == "@clerk/backend@3.25.0"), "{callers:?}");
    let (report, text, status) = suite(&["--max-requests=5"], &folder.path("."), &program).await;
    assert_eq!(status, Some(1), "{text}");
    assert_eq!(report["exceeded"][0]["requests"], 12);
}

#[tokio::test]
async fn python_suite_passes_within_its_bounds() {
    let python = root().join("target/sdk/python/bin/python");
    let program = [python.to_str().unwrap(), "-m", "unittest"];
    let folder = root().join("examples/tests/python");
    let (report, text, status) = suite(&["--max-requests=20"], &folder, &program).await;
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("Ran 3 tests"), "{text}");
    assert_eq!(report["requests"], 8, "{report}");
}
