//! What of the environment our libraries go by, checked: a variable that they cannot use must not count as unset.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::Proxies;
use crate::secret::{EnvLookup, process_env};

const CERT_FILE: &str = "SSL_CERT_FILE";
const CERT_DIR: &str = "SSL_CERT_DIR";

/// What is wrong with the variables that say how Clerk is reached: proxies, and where certificate authorities are. Each
/// warning names the variable, and what to do. Blocks for a look at the files.
#[must_use]
pub fn environment_warnings() -> Vec<String> {
    warnings(&process_env)
}

/// The same for this environment.
fn warnings(env: EnvLookup<'_>) -> Vec<String> {
    Proxies::from_variables(env).warnings().chain(authorities(env)).collect()
}

/// What is wrong with the variables that name certificate authorities.
pub(super) fn authorities(env: EnvLookup<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(value) = env(CERT_FILE) {
        if is_blank(&value) {
            let what = "is set but empty, which is read as a file without authorities";
            warnings.push(format!("{CERT_FILE} {what}: unset it, or name a PEM file"));
        } else if let Err(what) = holds_certificates(Path::new(&value)) {
            warnings.push(instead(CERT_FILE, &format!("{}: {what}", Path::new(&value).display()), "a PEM file"));
        }
    }
    let folders: Vec<PathBuf> = env(CERT_DIR)
        .map(|value| std::env::split_paths(&value).filter(|path| !path.as_os_str().is_empty()).collect())
        .unwrap_or_default();
    for folder in folders {
        let what = match std::fs::read_dir(&folder) {
            Err(error) => format!("cannot be read ({})", error.kind()),
            Ok(entries) => {
                let mut files = entries.filter_map(|entry| Some(entry.ok()?.path()));
                if files.any(|file| holds_certificates(&file).is_ok()) {
                    continue;
                }
                "has no file with a certificate".to_owned()
            }
        };
        warnings.push(instead(CERT_DIR, &format!("{}: {what}", folder.display()), "folders with PEM files"));
    }
    warnings
}

fn instead(variable: &str, what: &str, remedy: &str) -> String {
    format!("{variable}: {what}, and the authorities of the system are not used instead: name {remedy}, or unset it")
}

fn is_blank(value: &OsString) -> bool {
    value.as_encoded_bytes().trim_ascii().is_empty()
}

fn holds_certificates(file: &Path) -> Result<(), String> {
    let pem = std::fs::read(file).map_err(|error| format!("cannot be read ({})", error.kind()))?;
    let has_one = CertificateDer::pem_slice_iter(&pem).any(|certificate| certificate.is_ok());
    if has_one { Ok(()) } else { Err("holds no certificate".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(variables: &[(&str, &str)]) -> Vec<String> {
        warnings(&|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value)))
    }

    #[test]
    fn authorities_that_are_not_there_are_told_by_the_variable() {
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
            let told = told(&[(name, &value)]);
            assert_eq!(told.is_empty(), is_good, "{name}={value:?}: {told:?}");
            assert!(told.iter().all(|text| text.starts_with(name) && text.contains("unset it")), "{told:?}");
        }
    }

    #[test]
    fn proxies_and_authorities_are_told_together() {
        let told = told(&[("HTTPS_PROXY", "socks5://u:CANARY@x"), ("NO_PROXY", "*x"), (CERT_FILE, "/nonexistent")]);
        let names: Vec<_> = told.iter().map(|text| text.split([' ', ':']).next().unwrap()).collect();
        assert_eq!(names, ["HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE"]);
        assert!(!told.concat().contains("CANARY"));
    }
}
