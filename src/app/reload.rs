//! Loading the configuration again: a bad one changes nothing.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use file_fingerprint::FileFingerprint;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use super::gateway::GatewayRunner;
use super::instances::{Instances, all_settings};
use crate::admin::{ReloadError, ReloadRequest};
use crate::config::{Config, ConfigError};
use crate::metrics::ConfigStatus;
use crate::probe::Probes;
use clerk_client::secret::process_env;
use clerk_quota::ledger::Ledger;

/// Where the configuration comes from.
#[derive(Debug, Clone)]
pub enum ConfigSource {
    /// A YAML file.
    File(PathBuf),
    /// `CLERK_SECRET_KEY` and the like.
    Environment,
    /// It is what it is.
    Fixed(Box<Config>),
}

impl ConfigSource {
    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load(&self) -> Result<Config, ConfigError> {
        match self {
            Self::File(path) => Config::load(path, &process_env),
            Self::Environment => Config::from_environment(&process_env),
            Self::Fixed(config) => Ok(Config::clone(config)),
        }
    }
}

/// The configuration's file as it was last looked at.
#[derive(Debug, Default)]
struct WatchedConfig {
    fingerprint: Option<FileFingerprint>,
    /// Tells one content from another; none where it could not be read.
    content: Option<u64>,
}

impl WatchedConfig {
    fn of(source: &ConfigSource) -> Self {
        let ConfigSource::File(path) = source else { return Self::default() };
        let fingerprint = FileFingerprint::of(path);
        let content = std::fs::read(path).ok().map(|bytes| {
            let mut hasher = DefaultHasher::new();
            bytes.hash(&mut hasher);
            hasher.finish()
        });
        Self { fingerprint, content }
    }

    /// Looks again. Whether the content is another one: a file that was only touched is not loaded again.
    fn has_changed(&mut self, source: &ConfigSource) -> bool {
        let ConfigSource::File(path) = source else { return false };
        // A failure to read may pass without a trace in the fingerprint: too many open files, a disk that was away.
        if self.content.is_some() && FileFingerprint::is_current(self.fingerprint.as_ref(), path) {
            return false;
        }
        let now = Self::of(source);
        let before = std::mem::replace(self, now);
        before.content != self.content
    }
}

/// Time between looks at the files of the gateway's keys and tokens: one that was withdrawn is of use for no longer.
const LOOK_AT_SECRETS: Duration = Duration::from_secs(2);

/// Takes over new configurations.
pub(super) struct Reload {
    /// The one in force.
    pub config: Config,
    pub source: ConfigSource,
    pub instances: Instances,
    pub ledger: Arc<Ledger>,
    pub probes: Arc<Probes>,
    pub gateway: Option<GatewayRunner>,
    pub status: Arc<ConfigStatus>,
    pub config_text: Arc<ArcSwap<String>>,
    pub auto_reload: Option<Duration>,
}

impl Reload {
    /// Loads the configuration on request, and when the file has changed if that is wanted, until `stop`.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<ReloadRequest>, stop: CancellationToken) {
        let mut watched = WatchedConfig::of(&self.source);
        let period = self.auto_reload.unwrap_or(Duration::MAX / 4);
        let mut looks = interval_at(tokio::time::Instant::now() + period.min(Duration::from_secs(86400)), period);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut secrets = interval_at(tokio::time::Instant::now() + LOOK_AT_SECRETS, LOOK_AT_SECRETS);
        secrets.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(answer) = requests.recv() => {
                    watched = WatchedConfig::of(&self.source);
                    // Whoever asked may be gone.
                    let _ = answer.send(self.reload());
                }
                _ = secrets.tick(), if self.gateway.is_some() => {
                    if let Some(gateway) = &mut self.gateway {
                        gateway.refresh(&self.config, &mut self.instances, &self.ledger);
                    }
                }
                _ = looks.tick(), if self.auto_reload.is_some() => {
                    if watched.has_changed(&self.source) {
                        let _ = self.reload();
                    }
                }
            }
        }
    }

    fn reload(&mut self) -> Result<(), ReloadError> {
        let taken = self.source.load().map_err(anyhow::Error::from).and_then(|config| self.take(&config));
        match taken {
            Ok(instances) => {
                tracing::info!(instances, "configuration loaded");
                Ok(())
            }
            Err(error) => {
                self.status.failed();
                let message = format!("{error:#}");
                tracing::error!(error = %message, "configuration refused; the one before stays in force");
                Err(ReloadError(message))
            }
        }
    }

    /// Puts a configuration in force: first what may fail, then what may not.
    fn take(&mut self, config: &Config) -> anyhow::Result<usize> {
        self.instances.check(config)?;
        if self.gateway.is_some() {
            GatewayRunner::check(config)?;
        }
        self.ledger.configure(all_settings(config));
        self.probes.configure(self.instances.probes(config, &self.ledger)?);
        match &mut self.gateway {
            Some(gateway) => gateway.configure(config, &mut self.instances, &self.ledger)?,
            None if config.gateway.is_some() => {
                tracing::warn!("there is a section `gateway` now; the gateway starts with a restart");
            }
            None => {}
        }
        self.config_text.store(Arc::new(config.masked_yaml()));
        self.status.succeeded(self.instances.now(), config.low_threshold);
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        self.config = config.clone();
        Ok(config.instances.len())
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_configuration_that_could_not_be_read_is_read_again_and_a_touched_one_has_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yml");
        std::fs::write(&path, "instances: []").unwrap();
        let touch = |age: u64| {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_608_000 - age);
            std::fs::File::options().append(true).open(&path).unwrap().set_modified(time).unwrap();
        };
        touch(3600);
        let source = ConfigSource::File(path.clone());
        let mut watched = WatchedConfig::of(&source);
        assert!(!watched.has_changed(&source));
        touch(1800);
        assert!(!watched.has_changed(&source), "the content is the same");
        std::fs::write(&path, "instances: [{}]").unwrap();
        assert!(watched.has_changed(&source));
        touch(900);
        // As after a read that failed: the file looks as it did, and its content is not known.
        let mut unread = WatchedConfig { content: None, ..WatchedConfig::of(&source) };
        assert!(unread.has_changed(&source));
        assert!(!unread.has_changed(&source));
    }
}
