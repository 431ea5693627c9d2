//! What the rpm contains, as rpm itself lists it.

use std::process::Command;

use crate::{output, package};

#[test]
fn rpm_contains_the_service_and_its_closed_folders() {
    let folder = tempfile::tempdir().unwrap();
    let path = package(folder.path(), ".rpm");
    let query = |format: &str| {
        // A database of its own, which rpm otherwise warns about on Debian.
        let mut command = Command::new("rpm");
        output(command.arg("--dbpath").arg(folder.path()).args(["-qp", "--nosignature", "--qf", format]).arg(&path))
    };
    assert_eq!(
        query("%{NAME} %{VERSION} %{ARCH} %{LICENSE} %{URL}"),
        format!("clerk-exporter {} x86_64 Apache-2.0 {}", env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_REPOSITORY"),)
    );
    let files = query("[%{FILENAMES} %{FILEMODES:octal} %{FILEGROUPNAME} %{FILEFLAGS:fflags}|]");
    // Versions of rpm print the kind of a folder differently.
    let files = files.replace(" 040", " 40");
    let files: Vec<_> = files.split('|').map(str::trim).collect();
    for expected in [
        "/usr/bin/clerk-exporter 100755 root",
        "/etc/clerk-exporter 40750 clerk-exporter",
        "/etc/clerk-exporter/keys 40750 clerk-exporter",
        "/usr/lib/systemd/system/clerk-exporter.service 100644 root",
        "/usr/lib/systemd/system/clerk-exporter.socket 100644 root",
        "/usr/share/man/man1/clerk-exporter-users-export.1.gz 100644 root",
        "/usr/share/zsh/site-functions/_clerk-exporter 100644 root",
    ] {
        assert!(files.contains(&expected), "{expected}: {files:#?}");
    }
    // Configuration that an upgrade does not replace.
    assert!(files.contains(&"/etc/default/clerk-exporter 100640 root cn"), "{files:#?}");
    // The user is there before the files that belong to its group.
    assert!(query("%{PREIN}").contains("systemd-sysusers"));
}
