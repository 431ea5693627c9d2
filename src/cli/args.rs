//! What may be typed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::users::args::UsersCommand;
use crate::metrics::build;
use clerk_simulator::{HeaderProfile, KeyGrant, LimitOverride, LimiterKind, Plan};
use prometheus_web::ListenAddress;

/// Watch the rate limits of Clerk's Backend API: a Prometheus exporter
///
/// With CLERK_SECRET_KEY (or CLERK_SECRET_KEY_FILE) set, no configuration is needed. `clerk-exporter demo` shows it all
/// without an account. Every flag may also be given as an environment variable: CLERK_EXPORTER_ and the flag's name in
/// capitals, such as CLERK_EXPORTER_WEB_LISTEN_ADDRESS. No flag takes a secret: other users of the machine would see it.
#[derive(Debug, Parser)]
#[command(name = "clerk-exporter", version, long_version = long_version(), max_term_width = 100)]
#[command(after_help = "Documentation: README.md and docs/ of the project.")]
pub struct Cli {
    /// What to do; without one, the exporter runs.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Flags of all commands.
    #[command(flatten)]
    pub common: Common,
}

/// Flags of all commands.
#[derive(Debug, Args)]
pub struct Common {
    /// Configuration file (YAML). Without it, one instance is taken from CLERK_SECRET_KEY and CLERK_API_URL
    #[arg(long = "config.file", global = true, value_name = "PATH", env = "CLERK_EXPORTER_CONFIG_FILE")]
    #[arg(help_heading = "Configuration")]
    pub config_file: Option<PathBuf>,

    /// Check the configuration, say what is wrong, and exit: 0 if it is good, 1 if not
    #[arg(long = "config.check", global = true, help_heading = "Configuration")]
    pub config_check: bool,

    /// Load the configuration again when the file has changed
    #[arg(long = "config.enable-auto-reload", global = true, env = "CLERK_EXPORTER_CONFIG_ENABLE_AUTO_RELOAD")]
    #[arg(help_heading = "Configuration")]
    pub auto_reload: bool,

    /// Seconds between looks at the file
    #[arg(long = "config.auto-reload-interval", global = true, value_name = "SECONDS", default_value = "30")]
    #[arg(value_parser = seconds, env = "CLERK_EXPORTER_CONFIG_AUTO_RELOAD_INTERVAL", help_heading = "Configuration")]
    pub auto_reload_interval: Duration,

    /// Folder in which it is kept when requests were sent, so that a restart does not spend the quota again. Without it, nothing
    /// is kept; systemd names one by StateDirectory=
    #[arg(long = "storage.path", global = true, value_name = "PATH", env = "CLERK_EXPORTER_STORAGE_PATH")]
    #[arg(help_heading = "Configuration")]
    pub storage_path: Option<PathBuf>,

    /// Address to listen on; may be given several times
    #[arg(long = "web.listen-address", global = true, value_name = "ADDRESS", default_value = ":10429")]
    #[arg(env = "CLERK_EXPORTER_WEB_LISTEN_ADDRESS", value_delimiter = ',', help_heading = "Web")]
    pub listen_addresses: Vec<ListenAddress>,

    /// Listen on the sockets that systemd hands over, instead of on addresses
    #[arg(long = "web.systemd-socket", global = true, env = "CLERK_EXPORTER_WEB_SYSTEMD_SOCKET", help_heading = "Web")]
    pub systemd_socket: bool,

    /// TLS and authentication: a web configuration file as of Prometheus' exporter toolkit
    #[arg(long = "web.config.file", global = true, value_name = "PATH", env = "CLERK_EXPORTER_WEB_CONFIG_FILE")]
    #[arg(help_heading = "Web")]
    pub web_config_file: Option<PathBuf>,

    /// Path of the metrics
    #[arg(long = "web.telemetry-path", global = true, value_name = "PATH", default_value = "/metrics")]
    #[arg(value_parser = path, env = "CLERK_EXPORTER_WEB_TELEMETRY_PATH", help_heading = "Web")]
    pub telemetry_path: String,

    /// URL under which browsers reach this, such as https://example.org/clerk; for links
    #[arg(long = "web.external-url", global = true, value_name = "URL", env = "CLERK_EXPORTER_WEB_EXTERNAL_URL")]
    #[arg(help_heading = "Web")]
    pub external_url: Option<String>,

    /// Path before all paths; by default the path of --web.external-url
    #[arg(long = "web.route-prefix", global = true, value_name = "PATH", env = "CLERK_EXPORTER_WEB_ROUTE_PREFIX")]
    #[arg(help_heading = "Web")]
    pub route_prefix: Option<String>,

    /// Allow POST /-/reload. SIGHUP always reloads
    #[arg(long = "web.enable-lifecycle", global = true, env = "CLERK_EXPORTER_WEB_ENABLE_LIFECYCLE")]
    #[arg(help_heading = "Web")]
    pub enable_lifecycle: bool,

    /// Connections at the same time
    #[arg(long = "web.max-connections", global = true, value_name = "N", default_value = "512")]
    #[arg(env = "CLERK_EXPORTER_WEB_MAX_CONNECTIONS", help_heading = "Web")]
    pub max_connections: usize,

    /// What to log
    #[arg(long = "log.level", global = true, value_name = "LEVEL", default_value = "info")]
    #[arg(env = "CLERK_EXPORTER_LOG_LEVEL", help_heading = "Log")]
    pub log_level: LogLevel,

    /// How to write the log, which goes to standard error
    #[arg(long = "log.format", global = true, value_name = "FORMAT", default_value = "logfmt")]
    #[arg(env = "CLERK_EXPORTER_LOG_FORMAT", help_heading = "Log")]
    pub log_format: LogFormat,
}

/// What is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Everything, also of the HTTP libraries.
    Trace,
    /// Every probe.
    Debug,
    /// Changes of state.
    Info,
    /// What is not as it should be.
    Warn,
    /// What does not work.
    Error,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// key=value pairs.
    Logfmt,
    /// One JSON object per line.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show it all without an account: exporter, simulated Clerk, and a load that swings around the threshold
    Demo(DemoArgs),
    /// Probe each instance once and say how its quota stands
    ///
    /// Exits with 0 if all is well, 1 if less than the threshold is left or Clerk answers 429, 2 if that cannot be told.
    Check(CheckArgs),
    /// Run the simulated Clerk alone, for tests of applications
    Simulate(SimulateArgs),
    /// Write users of an instance to a file or a pipe, paced to stay within Clerk's rate limit
    #[command(subcommand)]
    Users(UsersCommand),
    /// Write the shell's completions to standard output
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual page to standard output
    Man,
}

/// Flags of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Address of the simulated Clerk
    #[arg(long = "simulator.listen-address", value_name = "ADDRESS", default_value = "127.0.0.1:10431")]
    pub simulator_address: SocketAddr,

    /// Address of the gateway, through which a part of the load goes
    #[arg(long = "gateway.listen-address", value_name = "ADDRESS", default_value = "127.0.0.1:10430")]
    pub gateway_address: SocketAddr,

    /// Seconds between probes
    #[arg(long = "probe.interval", value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub probe_interval: Duration,
}

/// Flags of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// How to write the result
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub format: CheckFormat,
}

/// How `check` writes its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CheckFormat {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Flags of `simulate`.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// Address to listen on
    #[arg(long = "listen-address", value_name = "ADDRESS", default_value = "127.0.0.1:10431")]
    pub listen_address: SocketAddr,

    /// How requests are counted: fixed, fixed-from-first, sliding, sliding-counter, token-bucket or token-bucket:BURST
    #[arg(long, value_name = "KIND", default_value = "fixed")]
    pub limiter: LimiterKind,

    /// Quota headers of the answers: none (as Clerk's documentation has it), x-ratelimit, x-ratelimit-epoch or ietf
    #[arg(long, value_name = "PROFILE", default_value = "x-ratelimit")]
    pub headers: HeaderProfile,

    /// Limit of the instance: free, pro, development or production; by default by the key's prefix
    #[arg(long, value_name = "PLAN")]
    pub plan: Option<Plan>,

    /// Another limit of a bucket, such as instance=50/10s; may be given several times
    #[arg(long = "limit", value_name = "BUCKET=QUOTA")]
    pub limits: Vec<LimitOverride>,

    /// Users in the directory
    #[arg(long, value_name = "N", default_value = "50000")]
    pub users: u32,

    /// Seed of all data: the same seed gives the same users
    #[arg(long, value_name = "N", default_value = "1")]
    pub seed: u64,

    /// File with the keys that are accepted, one in a line, KEY or INSTANCE=KEY; by default any well-formed one is
    #[arg(long = "keys-file", value_name = "PATH")]
    pub keys_file: Option<PathBuf>,
}

impl SimulateArgs {
    pub(super) fn options(&self, keys: Vec<KeyGrant>) -> clerk_simulator::Options {
        clerk_simulator::Options::default()
            .users(self.users)
            .seed(self.seed)
            .limiter(self.limiter)
            .headers(self.headers)
            .plan(self.plan)
            .limits(self.limits.clone())
            .keys(keys)
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: u32 = text.parse().map_err(|_| "write a whole number of seconds, such as 30".to_owned())?;
    if seconds == 0 { Err("write at least 1".to_owned()) } else { Ok(Duration::from_secs(seconds.into())) }
}

/// A path that begins with a slash, without what axum would read as a parameter, and that is not taken.
fn path(text: &str) -> Result<String, String> {
    if crate::admin::PATHS.contains(&text) {
        return Err("there is another page at this path: write another one, such as /metrics".to_owned());
    }
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte));
    if text.starts_with('/') && text.len() > 1 && plain && !text.starts_with("/-/") && !text.contains("//") {
        Ok(text.to_owned())
    } else {
        Err("write a path of letters, digits and - _ . ~ that begins with a slash, such as /metrics".to_owned())
    }
}

/// In the manner of Prometheus' programs.
fn long_version() -> String {
    format!(
        "{version} (revision: {revision})\n  rust version:     {rust}\n  platform:         {os}/{arch}",
        version = build::VERSION,
        revision = build::REVISION,
        rust = build::RUST_VERSION,
        os = std::env::consts::OS,
        arch = std::env::consts::ARCH,
    )
}
