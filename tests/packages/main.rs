//! What is installed and released: the packages, the systemd unit, the release's scripts and workflow, and the names of
//! repository and image. Builds packages of a stand-in program; `scripts/prove-packages` installs real ones.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod contents;
mod names;
mod release;
mod rpm;
mod unit;
mod workflows;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A command's exit status, output and errors.
fn run(command: &mut Command) -> (bool, String, String) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// The output of a command that has to succeed.
fn output(command: &mut Command) -> String {
    let (succeeded, output, errors) = run(command);
    assert!(succeeded, "{command:?}: {output}{errors}");
    output
}

/// The program that the tests are built with.
fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_clerk-exporter"))
}

/// Packages of a stand-in program, in `folder`.
fn packages(folder: &Path) -> Vec<PathBuf> {
    let stand_in = folder.join("stand-in");
    fs::write(&stand_in, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&stand_in, PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = Command::new(root().join("scripts/package"));
    // The time of any commit: a tree without git has none.
    command.env("SOURCE_DATE_EPOCH", "1750000000").env_remove("PACKAGE_VERSION");
    command.arg("--binary").arg(&stand_in).args(["--arch", "amd64"]);
    command.args(["--generator", env!("CARGO_BIN_EXE_clerk-exporter")]);
    command.arg("--output").arg(folder);
    output(&mut command).lines().map(PathBuf::from).collect()
}

/// The package of this kind, by the end of its name.
fn package(folder: &Path, kind: &str) -> PathBuf {
    let found = packages(folder);
    found.into_iter().find(|path| path.to_str().unwrap().ends_with(kind)).unwrap_or_else(|| panic!("no {kind}"))
}

/// Regular files below a folder, relative to it.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path.strip_prefix(folder).unwrap().to_owned()) }
        }
    }
    found.sort();
    found
}
