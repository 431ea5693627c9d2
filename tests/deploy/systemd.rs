//! The systemd units.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::read;

/// Runs systemd-analyze where it is installed.
#[expect(clippy::print_stderr, reason = "a skipped check reports it")]
fn analyze(arguments: &[&str], directory: &Path) -> Option<(bool, String)> {
    let mut command = Command::new("systemd-analyze");
    let output = command.args(arguments).current_dir(directory).stdin(Stdio::null()).output();
    let output = output.inspect_err(|error| eprintln!("not tested: systemd-analyze: {error}")).ok()?;
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    Some((output.status.success(), String::from_utf8(said).unwrap()))
}

#[test]
fn systemd_units_are_valid_and_hardened() {
    let place = tempfile::tempdir().unwrap();
    let unit = read("deploy/systemd/clerk-exporter.service");
    let unit = unit.replace("/usr/bin/clerk-exporter", env!("CARGO_BIN_EXE_clerk-exporter"));
    fs::write(place.path().join("clerk-exporter.service"), unit).unwrap();
    fs::write(place.path().join("clerk-exporter.socket"), read("deploy/systemd/clerk-exporter.socket")).unwrap();
    let units = ["verify", "--man=no", "./clerk-exporter.service", "./clerk-exporter.socket"];
    let Some((valid, text)) = analyze(&units, place.path()) else { return };
    assert!(valid && !text.contains("clerk-exporter"), "{text}");
    // Exposure times ten, from 0 to 100. A plain service has 96.
    let security = ["security", "--offline=yes", "--threshold=20", "./clerk-exporter.service"];
    let Some((safe, text)) = analyze(&security, place.path()) else { return };
    assert!(safe, "{text}");
}
