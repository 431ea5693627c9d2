//! The configuration: checked values from a YAML file, or from environment variables for a single instance.
//!
//! A [`Config`] is always fully checked. All problems of a file are reported at once, with position and remedy.
//! Messages never repeat a value, because a value in the wrong line may be a key. `docs/configuration.md` is the user
//! reference.
//!
//! | file | content |
//! |---|---|
//! | `tree` | YAML to a tree with places; the only file that knows the YAML library |
//! | `reader` | known and unknown keys, the problem report |
//! | `file`, `instance` | from the tree to the model: the meaning of each key |
//! | `gateway`, `telemetry`, `metered`, `redis` | the keys of these sections |
//! | `validate`, `cron`, `duration`, `budget` | what a value must look like |
//! | `environment` | the configuration without a file |
//! | `model` | the result |
//! | `redacted` | the result as text, without secrets |

mod budget;
mod cron;
pub(crate) mod duration;
mod environment;
mod error;
mod file;
mod gateway;
mod instance;
mod metered;
mod model;
mod reader;
mod redacted;
mod redis;
mod telemetry;
mod tree;
mod validate;

pub use error::{ConfigError, ConfigProblem, Position};
pub use gateway::{
    CachePolicyConfig, CacheStoreConfig, CallerConfig, DEFAULT_LISTEN_ADDRESS, GatewayConfig, PacePolicyConfig,
    PolicyConfig, UnknownKeyMode, VerifyPolicyConfig, WebhooksConfig,
};
pub use model::{
    Config, InstanceConfig, LimitSetting, Plan, ProbeConfig, ProbeWhen, RedisConfig, RedisPasswordConfig,
    ScheduleConfig, UsersConfig,
};
pub use telemetry::{DEFAULT_LISTEN_ADDRESS as DEFAULT_TELEMETRY_ADDRESS, TelemetryConfig};

pub use clerk_client::transport::{ApiUrl, ApiUrlError};

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use secrecy::zeroize::Zeroizing;

use clerk_client::secret::{EnvLookup, SecretSource, io_reason};
use reader::Report;

/// Maximum interval between probes: older numbers would not describe the present.
const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(3600);

/// A larger file is not a configuration.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

impl Config {
    /// Reads and checks a file and the keys it names. Relative file names are relative to its directory.
    ///
    /// `env` is only called for the variables that the file names.
    ///
    /// # Errors
    ///
    /// Returns an error with every problem of the file.
    pub fn load(path: &Path, env: EnvLookup<'_>) -> Result<Self, ConfigError> {
        let (text, others_may_read) = read_file(path).map_err(|message| ConfigError {
            problems: vec![ConfigProblem { file: Some(path.to_owned()), place: None, key: String::new(), message }],
        })?;
        let mut config = Self::parse(&text, path, env)?;
        if others_may_read && config.has_inline_key() {
            config.warnings.push(format!(
                "{}: every user of this machine can read the keys in this file; run `chmod o-r` on it or use \
                 secret_key_file",
                path.display()
            ));
        }
        Ok(config)
    }

    /// Like [`load`](Self::load), for text in memory. `path` is the name used in messages; relative names are relative
    /// to its directory.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn parse(text: &str, path: &Path, env: EnvLookup<'_>) -> Result<Self, ConfigError> {
        let mut report = Report::new(Some(path));
        let directory = path.parent().unwrap_or(Path::new(""));
        let config = file::read(text, &file::Context::new(directory, env), &mut report);
        Self::finish(config, report)
    }

    /// Reads one instance called `default` from `CLERK_SECRET_KEY` or `CLERK_SECRET_KEY_FILE`, and `CLERK_API_URL`.
    ///
    /// # Errors
    ///
    /// Returns an error if the key is missing or unusable, or if both variables are set.
    pub fn from_environment(env: EnvLookup<'_>) -> Result<Self, ConfigError> {
        let mut report = Report::new(None);
        let config = environment::read(env, &mut report);
        Self::finish(config, report)
    }

    /// Every key that a file may contain, by section. The name of the top-level section is empty.
    pub fn schema() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
        file::SCHEMA.iter().map(|keys| (keys.section, keys.known))
    }

    fn finish(config: Option<Self>, report: Report) -> Result<Self, ConfigError> {
        let (config, warnings) = report.finish(config)?;
        Ok(Self { warnings, ..config })
    }

    fn has_inline_key(&self) -> bool {
        self.instances.iter().any(|instance| matches!(instance.key, SecretSource::Inline(_)))
    }
}

/// The file's text, and whether every user can read the file.
fn read_file(path: &Path) -> Result<(Zeroizing<String>, bool), String> {
    let unreadable = |error: std::io::Error| {
        format!("the file cannot be read: {}; check the path given with --config.file", io_reason(error.kind()))
    };
    let file = File::open(path).map_err(unreadable)?;
    let others_may_read = others_may_read(&file.metadata().map_err(unreadable)?);
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err("the file is larger than 1 MiB; check the path given with --config.file".to_owned());
    }
    Ok((text, others_may_read))
}

#[cfg(unix)]
fn others_may_read(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o004 != 0
}

#[cfg(not(unix))]
fn others_may_read(_: &std::fs::Metadata) -> bool {
    false
}
