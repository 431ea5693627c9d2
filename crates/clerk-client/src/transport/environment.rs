//! Checks the environment variables that the HTTP libraries read: an unusable one must not be ignored silently.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::Proxies;
use crate::secret::{EnvLookup, io_reason, process_env};

const CERT_FILE: &str = "SSL_CERT_FILE";
const CERT_DIR: &str = "SSL_CERT_DIR";

/// Returns warnings about the environment variables for proxies and certificate authorities.
///
/// Each warning names the variable and the remedy. Blocks to read the files.
#[must_use]
pub fn environment_warnings() -> Vec<String> {
    warnings(&process_env)
}

/// The warnings for the given environment.
fn warnings(env: EnvLookup<'_>) -> Vec<String> {
    Proxies::from_variables(env).warnings().chain(authorities(env)).collect()
}

/// Warnings about the variables that name certificate authorities.
pub(super) fn authorities(env: EnvLookup<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(value) = env(CERT_FILE) {
        if is_blank(&value) {
            let what = "is set but empty, so no certificate authority is trusted";
            warnings.push(format!("{CERT_FILE} {what}; name a PEM file, or unset it"));
        } else if let Err(what) = holds_certificates(Path::new(&value)) {
            warnings.push(warning(CERT_FILE, &format!("{}: {what}", Path::new(&value).display()), "a PEM file"));
        }
    }
    let folders: Vec<PathBuf> = env(CERT_DIR)
        .map(|value| std::env::split_paths(&value).filter(|path| !path.as_os_str().is_empty()).collect())
        .unwrap_or_default();
    for folder in folders {
        let what = match std::fs::read_dir(&folder) {
            Err(error) => cannot_read(&error),
            Ok(entries) => {
                let mut files = entries.filter_map(|entry| Some(entry.ok()?.path()));
                if files.any(|file| holds_certificates(&file).is_ok()) {
                    continue;
                }
                "contains no file with a certificate".to_owned()
            }
        };
        warnings.push(warning(CERT_DIR, &format!("{}: {what}", folder.display()), "folders with PEM files"));
    }
    warnings
}

/// The variables that replace the system's certificate authorities.
pub(super) fn authority_variables(env: EnvLookup<'_>) -> Vec<&'static str> {
    [CERT_FILE, CERT_DIR].into_iter().filter(|name| env(name).is_some_and(|value| !value.is_empty())).collect()
}

fn warning(variable: &str, what: &str, remedy: &str) -> String {
    format!("{variable}: {what}; the system's authorities are not used instead; name {remedy}, or unset it")
}

fn cannot_read(error: &io::Error) -> String {
    format!("cannot be read ({})", io_reason(error.kind()))
}

fn is_blank(value: &OsString) -> bool {
    value.as_encoded_bytes().trim_ascii().is_empty()
}

fn holds_certificates(file: &Path) -> Result<(), String> {
    let pem = std::fs::read(file).map_err(|error| cannot_read(&error))?;
    let has_one = CertificateDer::pem_slice_iter(&pem).any(|certificate| certificate.is_ok());
    if has_one { Ok(()) } else { Err("contains no certificate".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings_of(variables: &[(&str, &str)]) -> Vec<String> {
        warnings(&|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value)))
    }

    #[test]
    fn missing_authorities_are_reported_with_the_variable() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir(at("empty")).unwrap();
        std::fs::create_dir(at("full")).unwrap();
        std::fs::write(at("text.pem"), "no certificate").unwrap();
        let good = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/ca.pem");
        std::fs::copy(good, at("full/ca.pem")).unwrap();
        for (name, value, is_good) in [
            (CERT_FILE, good.to_owned(), true),
            (CERT_FILE, String::new(), false),
            (CERT_FILE, format!("{good}\n"), false),
            (CERT_FILE, at("missing.pem"), false),
            (CERT_FILE, at("text.pem"), false),
            (CERT_DIR, String::new(), true),
            (CERT_DIR, at("full"), true),
            (CERT_DIR, at("empty"), false),
            (CERT_DIR, at("missing"), false),
            (CERT_DIR, format!("{}:{}", at("full"), at("missing")), false),
        ] {
            let warnings = warnings_of(&[(name, &value)]);
            assert_eq!(warnings.is_empty(), is_good, "{name}={value:?}: {warnings:?}");
            assert!(warnings.iter().all(|text| text.starts_with(name) && text.contains("unset it")), "{warnings:?}");
        }
    }

    #[test]
    fn warnings_cover_proxies_and_authorities() {
        let warnings =
            warnings_of(&[("HTTPS_PROXY", "socks5://u:CANARY@x"), ("NO_PROXY", "*x"), (CERT_FILE, "/nonexistent")]);
        let names: Vec<_> = warnings.iter().map(|text| text.split([' ', ':']).next().unwrap()).collect();
        assert_eq!(names, ["HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE"]);
        assert!(!warnings.concat().contains("CANARY"));
    }
}
