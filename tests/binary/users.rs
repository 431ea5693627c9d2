//! `users export` and `users get`, compared with the simulator's own list of users.

mod finished;
mod get;

use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use clerk_simulator::{Fault, FaultBody, Simulator};
use http_body_util::BodyExt;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tower::ServiceExt;

use crate::exporter::{Ended, Folder, KEY, OTHER_KEY, Web, command, run, within};

const USERS: u32 = 2300;
const MISSING_USER: &str = "user_000000000000000000000000000";

/// A simulated Clerk that passes only a limited number of user lists.
struct World {
    simulator: Simulator,
    web: Web,
    gate: Arc<Gate>,
}

struct Gate {
    /// Lists that may still pass.
    left: watch::Sender<u32>,
    /// Lists that are waiting.
    waiting: watch::Sender<u32>,
}

impl World {
    async fn start() -> Self {
        Self::with(USERS).await
    }

    async fn with(users: u32) -> Self {
        Self::limited("100000/10s", crate::exporter::Clerk::options().users(users)).await
    }

    async fn limited(limit: &str, options: clerk_simulator::Options) -> Self {
        let limits = vec![format!("instance={limit}").parse().unwrap()];
        let simulator = Simulator::new(options.limits(limits));
        let gate = Arc::new(Gate { left: watch::Sender::new(u32::MAX), waiting: watch::Sender::new(0) });
        let guard = Arc::clone(&gate);
        let router = simulator.router().layer(from_fn(move |request: Request, next: Next| {
            let gate = Arc::clone(&guard);
            async move {
                if request.uri().path() == "/v1/users" {
                    gate.pass().await;
                }
                next.run(request).await
            }
        }));
        Self { simulator, web: Web::start(router).await, gate }
    }

    fn export(&self, arguments: &[&str]) -> Command {
        self.users("export", arguments)
    }

    fn users(&self, what: &str, arguments: &[&str]) -> Command {
        let mut command = command(&["users", what]);
        command.args(arguments).env("CLERK_SECRET_KEY", KEY).env("CLERK_API_URL", self.web.url());
        command
    }

    /// All users as the simulator writes them, oldest first; not fetched the way the export does.
    async fn truth(&self) -> Vec<String> {
        let mut all = Vec::new();
        for offset in (0..).step_by(300) {
            let uri = format!("/v1/users?limit=300&offset={offset}&order_by=created_at");
            let request =
                Request::get(uri).header("authorization", format!("Bearer {KEY}")).body(Body::empty()).unwrap();
            let answer = self.simulator.router().oneshot(request).await.unwrap();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let page: Vec<Box<RawValue>> = serde_json::from_slice(&body).unwrap();
            if page.is_empty() {
                return all;
            }
            all.extend(page.iter().map(|user| user.get().to_owned()));
        }
        unreachable!()
    }

    /// Starts an export, and waits until it has written this many pages and requests the next one.
    async fn begin(&self, arguments: &[&str], pages: u32) -> Child {
        self.until_waiting(|waiting| waiting == 0).await;
        self.gate.left.send_replace(pages);
        let child = self.export(arguments).spawn().unwrap();
        self.until_waiting(|waiting| waiting > 0).await;
        child
    }

    /// Waits for a number of requests at the gate. Requests of disconnected clients leave it with a delay.
    async fn until_waiting(&self, is_right: impl Fn(u32) -> bool) {
        let mut waiting = self.gate.waiting.subscribe();
        within("requests at the gate", waiting.wait_for(|waiting| is_right(*waiting))).await.unwrap();
    }

    fn open(&self) {
        self.gate.left.send_replace(u32::MAX);
    }

    fn refused(&self) -> u64 {
        self.simulator.truth().requests.by_status.get(&429).copied().unwrap_or_default()
    }
}

impl Gate {
    async fn pass(&self) {
        struct Waiting<'a>(&'a watch::Sender<u32>);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.send_modify(|waiting| *waiting -= 1);
            }
        }
        let enter = |left: &mut u32| {
            let may = *left > 0;
            *left = left.saturating_sub(u32::from(may));
            may
        };
        let mut left = self.left.subscribe();
        let mut waiting = None;
        while !self.left.send_if_modified(enter) {
            waiting.get_or_insert_with(|| {
                self.waiting.send_modify(|waiting| *waiting += 1);
                Waiting(&self.waiting)
            });
            left.changed().await.unwrap();
        }
    }
}

async fn signal(child: &Child, name: &str) {
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-s", name, &pid]).status().await.unwrap().success());
}

async fn output(child: Child) -> Ended {
    let output = within("the end", child.wait_with_output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn journal(folder: &Folder, name: &str) -> Value {
    serde_json::from_str(&read(&folder.path(&format!("{name}.resume")))).unwrap()
}

/// The columns of CSV that are fields of the user.
const FIELDS: [&str; 10] = [
    "id",
    "external_id",
    "username",
    "first_name",
    "last_name",
    "created_at",
    "updated_at",
    "last_active_at",
    "banned",
    "public_metadata",
];

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn assert_csv_is(text: &str, truth: &[String]) {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let columns = reader.headers().unwrap().clone();
    let rows: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().unwrap();
    assert_eq!(rows.len(), truth.len());
    let place = |name: &str| columns.iter().position(|column| column == name).unwrap();
    for (row, user) in rows.iter().zip(truth) {
        let user: Value = serde_json::from_str(user).unwrap();
        for field in FIELDS {
            assert_eq!(row[place(field)], cell(&user[field]), "{field}");
        }
        assert_eq!(row[place("primary_email_address")], cell(&user["email_addresses"][0]["email_address"]));
    }
}

#[tokio::test]
async fn export_to_a_pipe_is_correct_in_both_formats() {
    let world = World::start().await;
    let truth = world.truth().await;
    let ended = run(world.export(&[])).await;
    assert_eq!((ended.status, &*ended.stderr), (Some(0), "2300 users\n"));
    assert!(ended.stdout.lines().eq(&truth), "every user as Clerk returns it, in order");
    let ended = run(world.export(&["--format=csv"])).await;
    assert_eq!((ended.status, &*ended.stderr), (Some(0), "2300 users\n"));
    assert_csv_is(&ended.stdout, &truth);
    assert_eq!(world.refused(), 0);
}

#[tokio::test]
async fn exported_file_is_private_without_leftovers() {
    let (world, folder) = (World::start().await, Folder::new());
    let path = folder.path("users.jsonl");
    let ended = run(world.export(&["--output", path.to_str().unwrap()])).await;
    assert_eq!((ended.status, &*ended.stdout), (Some(0), ""), "{}", ended.stderr);
    assert!(read(&path).lines().eq(&world.truth().await));
    let names: Vec<_> = std::fs::read_dir(folder.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["users.jsonl"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[tokio::test]
async fn instance_without_users_is_exported() {
    let world = World::with(0).await;
    let jsonl = run(world.export(&[])).await;
    assert_eq!((jsonl.status, &*jsonl.stdout), (Some(0), ""));
    let csv = run(world.export(&["--format=csv"])).await;
    assert_eq!((csv.status, csv.stdout.lines().count()), (Some(0), 1), "the header");
}

#[tokio::test]
async fn interrupted_export_resumes_to_the_same_file() {
    let (world, folder) = (World::start().await, Folder::new());
    for (format, name) in [("jsonl", "whole.jsonl"), ("csv", "whole.csv")] {
        let path = folder.path(name);
        let ended = run(world.export(&["--format", format, "--output", path.to_str().unwrap()])).await;
        assert_eq!(ended.status, Some(0), "{}", ended.stderr);
        let whole = read(&path);
        for (signal_name, pages) in [("INT", 0), ("INT", 2), ("TERM", 4), ("KILL", 0), ("KILL", 3)] {
            let name = format!("{signal_name}-{pages}.{format}");
            let path = folder.path(&name);
            let arguments = ["--format", format, "--output", path.to_str().unwrap()];
            let child = world.begin(&arguments, pages).await;
            signal(&child, signal_name).await;
            let ended = output(child).await;
            let users = u64::from(pages) * 500;
            if signal_name == "KILL" {
                assert_eq!(ended.status, None);
                // The remains of a crash in the middle of a page.
                let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
                std::io::Write::write_all(&mut file, b"{\"id\":\"user_half").unwrap();
            } else {
                assert_eq!(ended.status, Some(1), "{}", ended.stderr);
                assert!(ended.stderr.contains(&format!("after {users} users")), "{}", ended.stderr);
                assert!(ended.stderr.contains("continue with --output"), "{}", ended.stderr);
                assert!(whole.starts_with(&read(&path)));
            }
            assert_eq!(journal(&folder, &name)["users"], users);
            world.open();
            // Without --resume the file is not changed.
            let refused = run(world.export(&arguments)).await;
            assert_eq!(refused.status, Some(1));
            if pages > 0 {
                assert!(
                    refused.stderr.contains("continue with --resume, or overwrite it with --force"),
                    "{}",
                    refused.stderr
                );
            }
            let ended = run(world.export(&[&arguments[..], &["--resume"]].concat())).await;
            assert_eq!((ended.status, &*ended.stderr), (Some(0), "2300 users\n"));
            assert!(read(&path) == whole, "{name} differs from an uninterrupted export");
            assert!(!folder.path(&format!("{name}.resume")).exists());
            // Again, as a loop around the command does: nothing is left to do, and one request confirms it.
            let before = world.simulator.truth().requests.total;
            let ended = run(world.export(&[&arguments[..], &["--resume"]].concat())).await;
            assert!(ended.status == Some(0) && ended.stderr.contains("the export is complete"), "{}", ended.stderr);
            assert_eq!((read(&path) == whole, world.simulator.truth().requests.total - before), (true, 1));
        }
    }
    assert_eq!(world.refused(), 0);
}

#[tokio::test]
async fn resumed_export_gets_no_429_without_quota_headers() {
    let (headers, limiter) = (clerk_simulator::HeaderProfile::None, clerk_simulator::LimiterKind::SlidingWindow);
    let options = clerk_simulator::Options::default().users(6000).headers(headers).limiter(limiter);
    let (world, folder) = (World::limited("10/2s", options).await, Folder::new());
    folder.write("key", KEY);
    let config = folder.write(
        "config.yml",
        &format!(
            "instances:\n- {{ name: a, secret_key_file: key, api_url: '{}', limit: {{ requests: 10, window: 2s }} }}\n",
            world.web.url()
        ),
    );
    let path = folder.path("users.jsonl");
    let arguments = ["--config.file", config.to_str().unwrap(), "--output", path.to_str().unwrap(), "--resume"];
    // Most of a window's limit; the rest is for the request that identifies the instance.
    let child = world.begin(&arguments, 7).await;
    signal(&child, "INT").await;
    assert_eq!(output(child).await.status, Some(1));
    world.until_waiting(|waiting| waiting == 0).await;
    world.open();
    let ended = run(world.export(&arguments)).await;
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    assert_eq!((read(&path).lines().count(), world.refused()), (6000, 0));
}

#[tokio::test]
async fn failed_page_ends_the_export_resumably() {
    let (world, folder) = (World::start().await, Folder::new());
    let path = folder.path("users.jsonl");
    let arguments = ["--output", path.to_str().unwrap()];
    let child = world.begin(&arguments, 2).await;
    let fault = Fault::Status { status: 403, body: FaultBody::Clerk };
    world.simulator.set_faults(fault.always().into()).unwrap();
    world.open();
    let ended = output(child).await;
    assert_eq!(ended.status, Some(1));
    assert!(ended.stderr.contains("stopped after 1000 users") && ended.stderr.contains("403"), "{}", ended.stderr);
    world.simulator.set_faults(clerk_simulator::Faults::default()).unwrap();
    let ended = run(world.export(&[&arguments[..], &["--resume"]].concat())).await;
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    assert!(read(&path).lines().eq(&world.truth().await));
}

#[tokio::test]
async fn export_that_would_damage_a_file_is_rejected() {
    let (world, folder) = (World::start().await, Folder::new());
    let path = folder.path("users.jsonl");
    let begun = ["--output", path.to_str().unwrap()];
    let child = world.begin(&begun, 1).await;
    let refuse = async |arguments: &[&str], key: &str, expected: &str| {
        let before = (read(&path), journal(&folder, "users.jsonl"));
        let mut command = world.export(&[&begun[..], arguments].concat());
        let ended = run({
            command.env("CLERK_SECRET_KEY", key);
            command
        })
        .await;
        assert_eq!((ended.status, &*ended.stdout), (Some(1), ""), "{}", ended.stderr);
        assert!(ended.stderr.contains(expected) && !ended.stderr.contains("CANARY"), "{}", ended.stderr);
        assert_eq!((read(&path), journal(&folder, "users.jsonl")), before);
    };
    refuse(&["--resume"], KEY, "another export is writing to this file").await;
    signal(&child, "KILL").await;
    output(child).await;
    world.open();
    refuse(&[], KEY, "continue with --resume").await;
    refuse(&["--resume", "--format=csv"], KEY, "another format").await;
    refuse(&["--resume"], OTHER_KEY, "use a key of the same instance").await;
    let whole = read(&path);
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    refuse(&["--resume"], KEY, "shorter than the export left it").await;
    std::fs::write(&path, &whole).unwrap();
    folder.write("users.jsonl.resume", "{\"version\": 7}");
    refuse(&["--resume"], KEY, "start again with --force").await;
    std::fs::remove_file(folder.path("users.jsonl.resume")).unwrap();
    let ended = run(world.export(&[&begun[..], &["--resume"]].concat())).await;
    assert!(
        ended.status == Some(1) && ended.stderr.contains("neither a complete export nor one that can be resumed"),
        "{}",
        ended.stderr
    );
    let ended = run(world.export(&[&begun[..], &["--force"]].concat())).await;
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    assert!(read(&path).lines().eq(&world.truth().await));
    let folder_itself = folder.path("");
    let ended = run(world.export(&["--force", "--output", folder_itself.to_str().unwrap()])).await;
    assert!(ended.status == Some(1) && ended.stderr.contains("not a regular file"), "{}", ended.stderr);
    for wrong in [&["--resume"][..], &["--force"], &["--output=x", "--resume", "--force"], &["--format=xml"]] {
        assert_eq!(run(world.export(wrong)).await.status, Some(2), "{wrong:?}");
    }
}

#[tokio::test]
async fn closed_pipe_ends_the_export_quietly() {
    let world = World::start().await;
    let mut child = world.export(&[]).spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    within("a line", reader.read_line(&mut line)).await.unwrap();
    drop(reader);
    let ended = output(child).await;
    assert_eq!((ended.status, &*ended.stderr), (Some(0), ""));
    assert_eq!(line.trim_end(), world.truth().await[0]);
}

#[tokio::test]
async fn export_output_contains_no_key_on_any_failure() {
    let (world, folder) = (World::with(3).await, Folder::new());
    let ids = folder.write("ids", MISSING_USER);
    for fault in [
        Fault::Status { status: 401, body: FaultBody::Clerk },
        Fault::Status { status: 200, body: FaultBody::Html },
        Fault::Redirect { location: format!("http://127.0.0.1:1/?key={KEY}") },
        Fault::QuotaExceeded { code: "user_quota_exceeded".into() },
    ] {
        world.simulator.set_faults(fault.always().into()).unwrap();
        for arguments in [vec!["export"], vec!["get", "--ids-file", ids.to_str().unwrap()]] {
            let ended = run(world.users(arguments[0], &[&arguments[1..], &["--log.level=trace"]].concat())).await;
            assert_eq!((ended.status, &*ended.stdout), (Some(1), ""), "{}", ended.stderr);
            assert!(!ended.stderr.contains("CANARY") && !ended.stderr.contains("4bMbJy"), "{}", ended.stderr);
        }
    }
}

#[tokio::test]
async fn progress_is_not_written_into_a_pipe() {
    let world = World::start().await;
    let mut child = world.export(&[]).spawn().unwrap();
    let (mut data, mut log) = (Vec::new(), Vec::new());
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let both = async { tokio::join!(stdout.read_to_end(&mut data), stderr.read_to_end(&mut log)) };
    within("the output", both).await.0.unwrap();
    assert!(within("the end", child.wait()).await.unwrap().success());
    assert!(!data.contains(&0x1b) && !log.contains(&0x1b) && !log.contains(&b'\r'));
    // Nothing is requested from Clerk only for a progress display.
    assert_eq!(world.simulator.truth().requests.total, 6);
}
