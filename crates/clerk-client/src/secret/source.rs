//! Sources of secrets: reading, validation and errors.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use file_fingerprint::FileFingerprint;
use secrecy::zeroize::Zeroizing;

use super::clerk_key::illegal_byte;
use super::{ClerkKey, REDACTED, Secret, looks_like_secret, looks_like_secret_path, may_be_secret};

/// Looks up an environment variable: [`process_env`], or a substitute in tests.
pub type EnvLookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Looks up a variable of this process's environment.
pub fn process_env(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Largest file in bytes. A larger one is a wrong file or an endless device.
const MAX_BYTES: usize = 4096;

/// Where a secret is stored.
///
/// `Debug` and `Display` show the source, never the value.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file that contains only the secret. Surrounding white space is ignored.
    File(PathBuf),
    /// An environment variable, by name.
    Env(String),
    /// A value in the configuration.
    Inline(Secret),
}

impl SecretSource {
    /// Returns the file's fingerprint; `None` if its metadata cannot be read.
    ///
    /// Always `None` for other sources, which cannot change at runtime. Take it before reading the file, so that a
    /// replacement in between causes one more read and is never missed. Blocks for one `stat`.
    pub fn fingerprint(&self) -> Option<FileFingerprint> {
        match self {
            Self::File(path) => FileFingerprint::of(path),
            Self::Env(_) | Self::Inline(_) => None,
        }
    }

    /// Returns the path of a file source.
    pub fn file(&self) -> Option<PathBuf> {
        match self {
            Self::File(path) => Some(path.clone()),
            Self::Env(_) | Self::Inline(_) => None,
        }
    }

    /// Reads the secret, trims white space, and checks that it can be sent in a header.
    ///
    /// For secrets of any kind; use [`read_key`](Self::read_key) for Clerk keys. Blocks to read one small file.
    ///
    /// # Errors
    ///
    /// Returns an error if the secret cannot be read or is invalid. It names the source, never the value.
    pub fn read(&self) -> Result<Secret, SecretError> {
        self.read_with(&process_env)
    }

    /// [`read`](Self::read) with the given environment.
    ///
    /// # Errors
    ///
    /// Same as [`read`](Self::read).
    pub fn read_with(&self, env: EnvLookup<'_>) -> Result<Secret, SecretError> {
        self.read_raw(env).and_then(|raw| to_secret(&raw)).map_err(|fault| self.error(fault))
    }

    /// Reads a Clerk secret key.
    ///
    /// # Errors
    ///
    /// Same as [`read`](Self::read), and if the text is not a valid Clerk secret key.
    pub fn read_key(&self) -> Result<ClerkKey, SecretError> {
        self.read_key_with(&process_env)
    }

    /// [`read_key`](Self::read_key) with the given environment.
    ///
    /// # Errors
    ///
    /// Same as [`read_key`](Self::read_key).
    pub fn read_key_with(&self, env: EnvLookup<'_>) -> Result<ClerkKey, SecretError> {
        self.read_raw(env).and_then(|raw| to_key(&raw)).map_err(|fault| self.error(fault))
    }

    /// Reads a machine secret key (`ak_`) with the given environment.
    ///
    /// # Errors
    ///
    /// Same as [`read`](Self::read), and if the text is not a valid machine secret key.
    pub fn read_machine_key_with(&self, env: EnvLookup<'_>) -> Result<ClerkKey, SecretError> {
        let key = self.read_raw(env).and_then(|raw| to_secret(&raw)).and_then(ClerkKey::parse_machine);
        key.map_err(|fault| self.error(fault))
    }

    fn error(&self, fault: SecretFault) -> SecretError {
        SecretError { origin: self.to_string(), fault }
    }

    fn read_raw(&self, env: EnvLookup<'_>) -> Result<Zeroizing<Vec<u8>>, SecretFault> {
        match self {
            Self::File(path) => read_file(path),
            Self::Env(name) => {
                let value = env(name).ok_or(SecretFault::NotSet)?;
                Ok(Zeroizing::new(value.into_encoded_bytes()))
            }
            Self::Inline(secret) => Ok(Zeroizing::new(secret.expose().as_bytes().to_vec())),
        }
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", shown(&path.display().to_string(), looks_like_secret_path)),
            Self::Env(name) => write!(f, "environment variable {}", shown(name, looks_like_secret)),
            Self::Inline(_) => f.write_str("key in the configuration"),
        }
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({:?})", shown(&path.display().to_string(), looks_like_secret_path)),
            Self::Env(name) => write!(f, "Env({:?})", shown(name, looks_like_secret)),
            Self::Inline(_) => write!(f, "Inline({REDACTED})"),
        }
    }
}

/// Returns the name, redacted if it may be the secret itself.
fn shown(name: &str, is_secret: impl Fn(&str) -> bool) -> &str {
    if is_secret(name) || may_be_secret(name) { REDACTED } else { name }
}

fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretFault> {
    let unreadable = |error: io::Error| SecretFault::Unreadable(error.kind());
    let file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.is_dir() {
        return Err(SecretFault::Unreadable(io::ErrorKind::IsADirectory));
    }
    // Allocated at full size, because a growing vector leaves copies of the key in freed memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 1));
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > MAX_BYTES {
        return Err(SecretFault::TooLong);
    }
    Ok(bytes)
}

/// Describes an I/O error: the standard library says "entity not found" for a missing file.
#[must_use]
pub fn io_reason(kind: io::ErrorKind) -> String {
    if kind == io::ErrorKind::NotFound { "no such file".to_owned() } else { kind.to_string() }
}

fn to_secret(raw: &[u8]) -> Result<Secret, SecretFault> {
    let (text, skipped) = trimmed(raw)?;
    if text.is_empty() {
        return Err(SecretFault::Blank);
    }
    match illegal_byte(text.as_bytes()) {
        Some((position, what)) => Err(SecretFault::IllegalByte { position: position + skipped, what }),
        None => Ok(Secret::new(text.to_owned())),
    }
}

fn to_key(raw: &[u8]) -> Result<ClerkKey, SecretFault> {
    let (text, skipped) = trimmed(raw)?;
    ClerkKey::parse(Secret::new(text.to_owned())).map_err(|fault| match fault {
        // Report the position within the source, as an editor shows it.
        SecretFault::IllegalByte { position, what } => SecretFault::IllegalByte { position: position + skipped, what },
        other => other,
    })
}

/// Returns the trimmed text and the number of bytes removed at the front.
fn trimmed(raw: &[u8]) -> Result<(&str, usize), SecretFault> {
    let start = raw.trim_ascii_start();
    let skipped = raw.len() - start.len();
    match std::str::from_utf8(start.trim_ascii_end()) {
        Ok(text) => Ok((text, skipped)),
        Err(error) => Err(SecretFault::IllegalByte {
            position: skipped + error.valid_up_to() + 1,
            what: "a character outside ASCII",
        }),
    }
}

/// An invalid or unreadable secret, with its source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {fault}")]
pub struct SecretError {
    /// The [`SecretSource`] as text.
    pub origin: String,
    /// The cause.
    pub fault: SecretFault,
}

/// Why a secret cannot be used. No variant contains the secret or a part of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretFault {
    /// The file does not exist or cannot be read.
    #[error("cannot be read: {}; check that the file exists and that this user may read it", io_reason(*.0))]
    Unreadable(io::ErrorKind),
    /// The environment variable is not set.
    #[error("is not set; set it to the key")]
    NotSet,
    /// A Clerk key that is empty or only white space.
    #[error("is set but empty; put the secret key there (Clerk dashboard, API keys)")]
    Empty,
    /// Another secret that is empty or only white space.
    #[error("is empty; write the secret into it")]
    Blank,
    /// The file is larger than 4096 bytes.
    #[error("is larger than {MAX_BYTES} bytes, so it is not a key; name the file that contains only the key")]
    TooLong,
    /// A byte that is not allowed in a header or a key.
    #[error("has {what} at byte {position}; write only the key, on one line")]
    IllegalByte {
        /// 1-based position within the source.
        position: usize,
        /// The kind of byte.
        what: &'static str,
    },
    /// Quotes are part of the value.
    #[error("is wrapped in quotes; remove the quotes")]
    Quoted,
    /// A header value instead of a key.
    #[error("starts with `Bearer`; write only the key")]
    BearerPrefix,
    /// An example value.
    #[error("is a placeholder; replace it with the secret key (Clerk dashboard, API keys)")]
    Placeholder,
    /// `pk_...`, the key for browsers.
    #[error(
        "is a publishable key (pk_), but the secret key is needed; use the one that begins with sk_live_ or sk_test_"
    )]
    Publishable,
    /// `ak_...`, where the key of an instance is expected.
    #[error(
        "is a machine secret key (ak_), but the secret key of the instance is needed, which begins with sk_live_ or \
        sk_test_; list machine keys in machine_secret_key_files"
    )]
    MachineKey,
    /// Anything else, where the key of a machine is expected.
    #[error("is not a machine secret key; those begin with ak_ (Clerk dashboard, Machines)")]
    NotAMachineKey,
    /// Anything else.
    #[error("is not a Clerk secret key; those begin with sk_live_ or sk_test_")]
    NotASecretKey,
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sk_test_CANARYabc123";

    fn env_with(value: &'static str) -> impl Fn(&str) -> Option<OsString> {
        move |name| (name == "THE_KEY").then(|| OsString::from(value))
    }

    fn read_env(value: &'static str) -> Result<ClerkKey, SecretError> {
        SecretSource::Env("THE_KEY".to_owned()).read_key_with(&env_with(value))
    }

    fn read_file_with(content: &[u8]) -> Result<ClerkKey, SecretError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, content).unwrap();
        SecretSource::File(path).read_key()
    }

    #[test]
    fn white_space_is_trimmed_in_every_source() {
        let padded = " \n\tsk_test_CANARYabc123\r\n\n";
        assert_eq!(read_env(padded).unwrap().secret().expose(), KEY);
        assert_eq!(read_file_with(padded.as_bytes()).unwrap().secret().expose(), KEY);
        let inline = SecretSource::Inline(Secret::new(padded.to_owned()));
        assert_eq!(inline.read_key().unwrap().secret().expose(), KEY);
        assert_eq!(inline.read().unwrap().expose(), KEY);
    }

    #[test]
    fn errors_name_the_source_and_the_remedy() {
        assert_eq!(
            read_env("").unwrap_err().to_string(),
            "environment variable THE_KEY: is set but empty; put the secret key there (Clerk dashboard, API keys)"
        );
        assert_eq!(
            SecretSource::Env("OTHER".to_owned()).read_with(&env_with("x")).unwrap_err().to_string(),
            "environment variable OTHER: is not set; set it to the key"
        );
        assert_eq!(
            SecretSource::File("/nonexistent/key".into()).read().unwrap_err().to_string(),
            "file /nonexistent/key: cannot be read: no such file; \
             check that the file exists and that this user may read it"
        );
        assert_eq!(
            SecretSource::File("/".into()).read().unwrap_err().fault,
            SecretFault::Unreadable(io::ErrorKind::IsADirectory)
        );
    }

    #[test]
    fn illegal_byte_has_its_position_within_the_file() {
        let two_lines = read_file_with(b"\n\nsk_test_CANARY\nsk_test_CANARY2\n").unwrap_err();
        assert_eq!(two_lines.fault, SecretFault::IllegalByte { position: 17, what: "a line break" });
        let not_utf8 = read_file_with(b" sk_test_CANARY\xff").unwrap_err();
        assert_eq!(not_utf8.fault, SecretFault::IllegalByte { position: 16, what: "a character outside ASCII" });
        for error in [two_lines, not_utf8] {
            assert!(!format!("{error} {error:?}").contains("CANARY"));
        }
    }

    #[test]
    fn large_file_is_rejected_without_reading_all_of_it() {
        assert_eq!(read_file_with(&[b'a'; 5000]).unwrap_err().fault, SecretFault::TooLong);
        assert_eq!(SecretSource::File("/dev/zero".into()).read().unwrap_err().fault, SecretFault::TooLong);
    }

    #[test]
    fn secrets_other_than_keys_need_no_prefix() {
        let source = SecretSource::Env("THE_KEY".to_owned());
        assert_eq!(source.read_with(&env_with("whsec_abc=\n")).unwrap().expose(), "whsec_abc=");
        assert_eq!(source.read_with(&env_with(" \n")).unwrap_err().fault, SecretFault::Blank);
    }

    #[test]
    fn source_is_printed_without_its_key() {
        let file = SecretSource::File("/run/secrets/clerk".into());
        assert_eq!(format!("{file} {file:?}"), "file /run/secrets/clerk File(\"/run/secrets/clerk\")");
        let keys = [
            SecretSource::Inline(Secret::new(KEY.to_owned())),
            SecretSource::File(KEY.into()),
            SecretSource::Env(KEY.to_owned()),
        ];
        for source in keys {
            assert!(!format!("{source} {source:?}").contains("CANARY"), "{source}");
        }
    }
}
