//! Configuration reloads: an invalid configuration changes nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use file_fingerprint::{Look, WatchedFiles};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use super::gateway::GatewayRunner;
use super::instances::{Instances, all_settings};
use super::months::{MonthKeeper, set_plans};
use super::telemetry::TelemetryRunner;
use super::upstreams::content;
use crate::admin::{ReloadError, ReloadRequest};
use crate::config::{Config, ConfigError, RedisConfig};
use crate::metrics::{ConfigStatus, ReloadKind, Reloads};
use crate::probe::Probes;
use clerk_client::secret::process_env;
use clerk_quota::ledger::Ledger;

/// Source of the configuration.
#[derive(Debug, Clone)]
pub enum ConfigSource {
    /// A YAML file.
    File(PathBuf),
    /// `CLERK_SECRET_KEY` and related variables.
    Environment,
    /// This configuration, which never changes.
    Fixed(Box<Config>),
}

impl ConfigSource {
    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// Returns an error with all problems of the configuration.
    pub fn load(&self) -> Result<Config, ConfigError> {
        match self {
            Self::File(path) => Config::load(path, &process_env),
            Self::Environment => Config::from_environment(&process_env),
            Self::Fixed(config) => Ok(Config::clone(config)),
        }
    }

    /// The configuration's files: its own, and those that it names.
    fn files(&self, config: &Config) -> Vec<PathBuf> {
        let own = match self {
            Self::File(path) => Some(path.clone()),
            Self::Environment | Self::Fixed(_) => None,
        };
        own.into_iter().chain(config.files.iter().cloned()).collect()
    }
}

/// The files of the current configuration: its own, and those that it names.
#[derive(Debug)]
pub(super) struct WatchedConfig {
    paths: Vec<PathBuf>,
    /// Content hashes of the files.
    content: Vec<Option<u64>>,
    watched: WatchedFiles,
}

/// A loaded configuration, with the state of its files before loading.
struct LoadedConfig {
    config: Config,
    paths: Vec<PathBuf>,
    content: Vec<Option<u64>>,
    look: Look,
}

/// Maximum number of attempts while the configuration keeps naming other files.
const MAX_LOOKS: usize = 3;

impl WatchedConfig {
    /// Watches the files of a configuration that was just loaded. If they have changed since, a reload is due
    /// immediately.
    pub(super) fn new(source: &ConfigSource, config: &Config, reloads: &Reloads) -> Self {
        let watched = WatchedFiles::new(reloads.stats(ReloadKind::Config));
        let mut files = Self { paths: source.files(config), content: Vec::new(), watched };
        if files.paths.is_empty() {
            files.watched.forget();
            return files;
        }
        if let Ok(LoadedConfig { config: now, paths, content, look }) = files.load(source)
            && now == *config
        {
            files.taken(paths, content, look);
        }
        files
    }

    /// Reads the configuration. The state of its files is taken before.
    fn load(&self, source: &ConfigSource) -> Result<LoadedConfig, ConfigError> {
        let mut paths = self.paths.clone();
        let mut looks = 1;
        loop {
            let look = Look::at(paths.iter().cloned());
            let content = paths.iter().map(|path| content(Some(path))).collect();
            let config = source.load()?;
            let named = source.files(&config);
            if named == paths {
                return Ok(LoadedConfig { config, paths, content, look });
            }
            if looks == MAX_LOOKS {
                // Empty hashes never match, so that the next check loads it again.
                return Ok(LoadedConfig { config, paths: named, content: Vec::new(), look: Look::default() });
            }
            paths = named;
            looks += 1;
        }
    }

    /// Whether to load the configuration: the last attempt failed, or the content of a file changed. A changed
    /// modification time alone is not enough.
    fn is_due(&mut self) -> bool {
        if !self.watched.is_outdated() && self.content.len() == self.paths.len() {
            return false;
        }
        if self.watched.is_failing() {
            return true;
        }
        let look = Look::at(self.paths.iter().cloned());
        let content: Vec<_> = self.paths.iter().map(|path| content(Some(path))).collect();
        let is_same = content == self.content;
        if is_same {
            self.watched.unchanged(look);
        }
        !is_same
    }

    /// Records that the loaded configuration was applied.
    fn taken(&mut self, paths: Vec<PathBuf>, content: Vec<Option<u64>>, look: Look) {
        (self.paths, self.content) = (paths, content);
        self.watched.succeeded(look);
        self.watched.is_recovery();
    }
}

/// Time between checks of the files of certificate authorities and of the gateway's keys, tokens and secrets: the
/// maximum time that a revoked one is still accepted.
const LOOK_AT_SECRETS: Duration = Duration::from_secs(2);

/// Applies new configurations.
pub(super) struct Reload {
    /// The current configuration.
    pub config: Config,
    /// The Redis at start.
    pub started_redis: Option<RedisConfig>,
    pub watched: WatchedConfig,
    pub source: ConfigSource,
    pub instances: Instances,
    pub ledger: Arc<Ledger>,
    pub probes: Arc<Probes>,
    pub gateway: Option<GatewayRunner>,
    pub telemetry: Option<TelemetryRunner>,
    pub months: Option<Arc<MonthKeeper>>,
    pub status: Arc<ConfigStatus>,
    pub config_text: Arc<ArcSwap<String>>,
    pub auto_reload: Option<Duration>,
}

impl Reload {
    /// Loads the configuration on request, and on file changes if enabled, until `stop`.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<ReloadRequest>, stop: CancellationToken) {
        let period = self.auto_reload.unwrap_or(Duration::MAX / 4);
        let mut looks = interval_at(tokio::time::Instant::now() + period.min(Duration::from_secs(86400)), period);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut secrets = interval_at(tokio::time::Instant::now() + LOOK_AT_SECRETS, LOOK_AT_SECRETS);
        secrets.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(answer) = requests.recv() => {
                    // The requester may have disconnected.
                    let _ = answer.send(self.reload(true));
                }
                _ = secrets.tick() => self.refresh(),
                _ = looks.tick(), if self.auto_reload.is_some() => {
                    if self.watched.is_due() {
                        let _ = self.reload(false);
                    }
                }
            }
        }
    }

    /// Reloads changed files other than the configuration's own.
    fn refresh(&mut self) {
        self.instances.refresh();
        if let Some(gateway) = &mut self.gateway {
            gateway.refresh(&self.config, &mut self.instances, &self.ledger);
        }
        // Updates the times of successful reads.
        self.status.reloads.look(self.instances.now()).for_each(drop);
    }

    /// Loads the configuration. A rejection is logged always if the reload was `asked` for, else once per reason.
    fn reload(&mut self, asked: bool) -> Result<(), ReloadError> {
        let loaded = self.watched.load(&self.source).map_err(anyhow::Error::from);
        let taken = loaded.and_then(|loaded| Ok((self.take(&loaded.config)?, loaded)));
        match taken {
            Ok((instances, LoadedConfig { paths, content, look, .. })) => {
                self.watched.taken(paths, content, look);
                tracing::info!(instances, "configuration loaded");
                Ok(())
            }
            Err(error) => {
                self.status.failed();
                let message = format!("{error:#}");
                self.watched.watched.failed(&message);
                if self.watched.watched.is_new_failure() || asked {
                    let again = if self.auto_reload.is_some() { "; retrying" } else { "" };
                    tracing::error!(error = %message, "configuration rejected; using the previous one{again}");
                }
                Err(ReloadError(message))
            }
        }
    }

    /// Applies a configuration: first the steps that may fail, then the others.
    fn take(&mut self, loaded: &Config) -> anyhow::Result<usize> {
        let owned = Config { redis: self.started_redis.clone(), ..loaded.clone() };
        let config = &owned;
        self.instances.check(config)?;
        if self.gateway.is_some() {
            GatewayRunner::check(config)?;
        }
        self.ledger.configure(all_settings(config));
        set_plans(config, &self.ledger, self.instances.now());
        if let Some(months) = &self.months {
            months.adopt();
        }
        self.probes.configure(self.instances.probes(config, &self.ledger)?);
        match &mut self.gateway {
            Some(gateway) => gateway.configure(config, &mut self.instances, &self.ledger)?,
            None if config.gateway.is_some() => {
                tracing::warn!("the section `gateway` was added; the gateway starts with a restart");
            }
            None => {}
        }
        match &self.telemetry {
            Some(telemetry) => telemetry.configure(config, &self.ledger)?,
            None if config.telemetry.is_some() => {
                tracing::warn!("the section `telemetry` was added; traces are received after a restart");
            }
            None => {}
        }
        if loaded.redis != self.started_redis {
            tracing::warn!("redis_url_file, redis_prefix and where the password is change only on restart");
        }
        self.config_text.store(Arc::new(config.masked_yaml()));
        self.status.succeeded(self.instances.now(), config.low_threshold);
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        self.config = owned;
        Ok(self.config.instances.len())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::SystemTime;

    use super::*;

    const KEYS: [&str; 2] = ["sk_test_4bMbJyWZ2vnLx0aQ", "sk_test_7hGfDsAqWeRtYuIo"];

    fn write(path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
        touch(path, 3600);
    }

    /// Sets a file's modification time to the past, so that a further write is detectable.
    fn touch(path: &Path, age: u64) {
        let time = SystemTime::now() - Duration::from_secs(age);
        std::fs::File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
    }

    fn config(key_file: &str) -> String {
        format!("instances: [{{ name: a, secret_key_file: {key_file} }}]")
    }

    /// One check, as on a tick of the automatic reload: `None` if nothing was loaded, else whether it was valid.
    fn look(watched: &mut WatchedConfig, source: &ConfigSource) -> Option<bool> {
        if !watched.is_due() {
            return None;
        }
        match watched.load(source) {
            Ok(LoadedConfig { paths, content, look, .. }) => {
                watched.taken(paths, content, look);
                Some(true)
            }
            Err(error) => {
                watched.watched.failed(error);
                Some(false)
            }
        }
    }

    #[test]
    fn rejected_config_is_retried_and_named_files_are_watched() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write(&at("first"), KEYS[0]);
        write(&at("config.yml"), &config("first"));
        let (source, reloads) = (ConfigSource::File(at("config.yml")), Reloads::default());
        let mut watched = WatchedConfig::new(&source, &source.load().unwrap(), &reloads);
        assert_eq!(look(&mut watched, &source), None);
        touch(&at("config.yml"), 1800);
        assert_eq!(look(&mut watched, &source), None, "only the modification time changed");
        // It names a file that is created later.
        write(&at("config.yml"), &config("second"));
        assert_eq!([(); 3].map(|()| look(&mut watched, &source)), [Some(false); 3]);
        write(&at("second"), KEYS[1]);
        assert_eq!(look(&mut watched, &source), Some(true));
        assert_eq!(look(&mut watched, &source), None);
        // Same size and same modification time.
        let before = std::fs::metadata(at("second")).unwrap().modified().unwrap();
        std::fs::write(at("second"), KEYS[0]).unwrap();
        std::fs::File::options().append(true).open(at("second")).unwrap().set_modified(before).unwrap();
        assert_eq!(look(&mut watched, &source), Some(true), "a file that it names changed");
        // A file that is no longer named is no longer watched.
        write(&at("first"), "nonsense");
        assert_eq!(look(&mut watched, &source), None);
        let failures = reloads.stats(ReloadKind::Config).failures();
        assert_eq!(failures, 3);
    }

    #[test]
    fn restored_configuration_is_loaded_after_a_rejection() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write(&at("key"), KEYS[0]);
        write(&at("config.yml"), &config("key"));
        let (source, reloads) = (ConfigSource::File(at("config.yml")), Reloads::default());
        let mut watched = WatchedConfig::new(&source, &source.load().unwrap(), &reloads);
        write(&at("config.yml"), "{");
        assert_eq!(look(&mut watched, &source), Some(false));
        write(&at("config.yml"), &config("key"));
        assert_eq!((look(&mut watched, &source), look(&mut watched, &source)), (Some(true), None));
    }

    #[cfg(unix)]
    #[test]
    fn swapped_symlink_folder_is_detected_for_all_files() {
        use std::os::unix::fs::symlink;
        // The kubelet's volume layout: config.yml -> ..data/config.yml, ..data -> ..v1, swapped by a rename.
        let volume = tempfile::tempdir().unwrap();
        let at = |name: &str| volume.path().join(name);
        for (version, key) in [("..v1", KEYS[0]), ("..v2", KEYS[1])] {
            std::fs::create_dir(at(version)).unwrap();
            write(&at(version).join("key"), key);
            write(&at(version).join("config.yml"), &config("key"));
        }
        symlink("..v1", at("..data")).unwrap();
        symlink("..data/key", at("key")).unwrap();
        symlink("..data/config.yml", at("config.yml")).unwrap();
        let (source, reloads) = (ConfigSource::File(at("config.yml")), Reloads::default());
        let mut watched = WatchedConfig::new(&source, &source.load().unwrap(), &reloads);
        assert_eq!(look(&mut watched, &source), None);
        symlink("..v2", at("..new")).unwrap();
        std::fs::rename(at("..new"), at("..data")).unwrap();
        assert_eq!((look(&mut watched, &source), look(&mut watched, &source)), (Some(true), None));
    }

    #[test]
    fn change_between_start_and_first_check_is_due() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write(&at("key"), KEYS[0]);
        write(&at("config.yml"), &config("key"));
        let (source, reloads) = (ConfigSource::File(at("config.yml")), Reloads::default());
        let started_with = source.load().unwrap();
        write(&at("config.yml"), &format!("low_threshold: 0.2\n{}", config("key")));
        let mut watched = WatchedConfig::new(&source, &started_with, &reloads);
        assert_eq!((look(&mut watched, &source), look(&mut watched, &source)), (Some(true), None));
    }
}
