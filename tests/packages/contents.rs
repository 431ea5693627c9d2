//! What the deb contains, unpacked.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{files_below, output, package, packages, program, read, root};

/// A deb, and its files below `root`.
struct Deb {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Deb {
    fn unpacked() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = package(folder.path(), ".deb");
        output(Command::new("dpkg-deb").arg("--raw-extract").arg(&path).arg(folder.path().join("root")));
        Self { folder, path }
    }

    fn file(&self, path: &str) -> PathBuf {
        self.folder.path().join("root").join(path.trim_start_matches('/'))
    }

    fn field(&self, name: &str) -> String {
        output(Command::new("dpkg-deb").arg("--field").arg(&self.path).arg(name)).trim().to_owned()
    }

    fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.file(path)).unwrap_or_else(|error| panic!("{path}: {error}")).permissions().mode() & 0o7777
    }
}

#[test]
fn control_fields_are_those_of_the_manifest() {
    let deb = Deb::unpacked();
    assert_eq!(deb.field("Version"), format!("{}-1", env!("CARGO_PKG_VERSION")));
    assert_eq!(deb.field("Homepage"), env!("CARGO_PKG_REPOSITORY"));
    assert_eq!(deb.field("Architecture"), "amd64");
    let history =
        output(Command::new("gzip").arg("-dc").arg(deb.file("usr/share/doc/clerk-exporter/changelog.Debian.gz")));
    assert!(history.starts_with(&format!("clerk-exporter ({}-1) ", env!("CARGO_PKG_VERSION"))), "{history}");
    assert!(history.contains(&deb.field("Maintainer")), "{history}");
}

/// Files of the repository, and where they are installed.
const SHIPPED: &[(&str, &str)] = &[
    ("deploy/systemd/clerk-exporter.service", "/usr/lib/systemd/system/clerk-exporter.service"),
    ("deploy/systemd/clerk-exporter.socket", "/usr/lib/systemd/system/clerk-exporter.socket"),
    ("deploy/packages/sysusers.conf", "/usr/lib/sysusers.d/clerk-exporter.conf"),
    ("deploy/packages/default", "/etc/default/clerk-exporter"),
    ("alerts/clerk.rules.yml", "/usr/share/clerk-exporter/alerts/clerk.rules.yml"),
    ("alerts/grafana/clerk.rules.yml", "/usr/share/clerk-exporter/alerts/grafana.rules.yml"),
    ("deploy/packages/clerk-exporter.yml", "/usr/share/doc/clerk-exporter/examples/clerk-exporter.yml"),
    ("deploy/packages/copyright", "/usr/share/doc/clerk-exporter/copyright"),
];

/// Folders of the repository that are installed whole, with the end of their files' names.
const FOLDERS: &[(&str, &str, &str)] = &[
    ("dashboards", ".json", "/usr/share/clerk-exporter/dashboards"),
    ("examples/config", ".yml", "/usr/share/doc/clerk-exporter/examples/config"),
];

#[test]
fn files_are_those_of_the_repository() {
    let deb = Deb::unpacked();
    let same = |source: &Path, installed: &str| {
        let packed = fs::read(deb.file(installed)).unwrap_or_else(|error| panic!("{installed}: {error}"));
        assert!(fs::read(source).unwrap() == packed, "{installed} differs from {}", source.display());
    };
    for (source, installed) in SHIPPED {
        same(&root().join(source), installed);
    }
    for (folder, end, installed) in FOLDERS {
        let mut found = 0;
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.ends_with(end) {
                same(&path, &format!("{installed}/{name}"));
                found += 1;
            }
        }
        assert!(found >= 3, "{folder}");
    }
}

#[test]
fn manual_pages_and_completions_are_those_of_the_program() {
    let deb = Deb::unpacked();
    let written = tempfile::tempdir().unwrap();
    output(program().args(["man", "--output"]).arg(written.path()));
    let pages = files_below(written.path());
    assert!(pages.iter().any(|page| page == Path::new("clerk-exporter-users-export.1")), "{pages:?}");
    let packed: BTreeSet<_> = files_below(&deb.file("usr/share/man/man1")).into_iter().collect();
    assert_eq!(packed, pages.iter().map(|page| page.with_extension("1.gz")).collect());
    for page in &pages {
        let packed = deb.file("usr/share/man/man1").join(page.with_extension("1.gz"));
        let text = output(Command::new("gzip").arg("-dc").arg(packed));
        assert_eq!(text, fs::read_to_string(written.path().join(page)).unwrap());
    }
    let places = [
        ("bash", "usr/share/bash-completion/completions/clerk-exporter"),
        ("fish", "usr/share/fish/vendor_completions.d/clerk-exporter.fish"),
        ("zsh", "usr/share/zsh/vendor-completions/_clerk-exporter"),
    ];
    for (shell, place) in places {
        let completions = output(program().args(["completions", shell]));
        assert_eq!(fs::read_to_string(deb.file(place)).unwrap(), completions, "{shell}");
    }
}

#[test]
fn others_can_read_no_configuration() {
    let deb = Deb::unpacked();
    assert_eq!(deb.mode("/etc/clerk-exporter"), 0o750);
    assert_eq!(deb.mode("/etc/clerk-exporter/keys"), 0o750);
    assert_eq!(deb.mode("/etc/default/clerk-exporter"), 0o640);
    assert_eq!(deb.mode("/usr/bin/clerk-exporter"), 0o755);
    assert_eq!(fs::read_to_string(deb.file("DEBIAN/conffiles")).unwrap().trim(), "/etc/default/clerk-exporter");
    // No key, not even an example's: the service would probe with it.
    assert_eq!(files_below(&deb.file("etc")), [Path::new("default/clerk-exporter")]);
    let settings = read("deploy/packages/default");
    assert!(settings.lines().all(|line| line.is_empty() || line.starts_with('#')), "{settings}");
}

#[test]
fn installation_enables_and_starts_nothing() {
    for script in ["deb/postinst", "rpm/pre", "rpm/post", "rpm/postun"] {
        let text = read(&format!("deploy/packages/{script}"));
        for line in text.lines().filter(|line| line.contains("systemctl ") && !line.trim().starts_with('#')) {
            let is_harmless = line.contains("daemon-reload") || line.contains("try-restart");
            assert!(is_harmless, "{script}: {line}");
        }
    }
}

#[test]
fn packages_are_the_same_bytes_twice() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (first, second) = (packages(folders[0].path()), packages(folders[1].path()));
    assert_eq!(first.len(), 3, "{first:?}");
    for (one, other) in first.iter().zip(&second) {
        assert_eq!(one.file_name(), other.file_name());
        assert!(fs::read(one).unwrap() == fs::read(other).unwrap(), "{} differs", one.display());
    }
}

#[test]
fn archive_contains_program_units_and_manual() {
    let folder = tempfile::tempdir().unwrap();
    let path = package(folder.path(), ".tar.gz");
    let name = format!("clerk-exporter-{}-linux-amd64", env!("CARGO_PKG_VERSION"));
    assert_eq!(path.file_name().unwrap().to_str().unwrap(), format!("{name}.tar.gz"));
    let listed = output(Command::new("tar").arg("-tzf").arg(&path));
    for file in [
        "clerk-exporter",
        "LICENSE",
        "man/man1/clerk-exporter.1.gz",
        "completions/bash",
        "systemd/clerk-exporter.service",
    ] {
        assert!(listed.lines().any(|line| line == format!("{name}/{file}")), "{file}: {listed}");
    }
}
