//! Flags that several commands share. A command has those that act on it and no others.
//!
//! Their environment variables are named in `environment`, so that no flag is without one.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::value;
use prometheus_web::ListenAddress;

/// Flags of the exporter.
#[derive(Debug, Args)]
pub(crate) struct ExporterFlags {
    /// The configuration.
    #[command(flatten)]
    pub(crate) config: ConfigFlags,

    /// Check the configuration and exit: 0 if it is valid, 1 if not
    #[arg(long = "config.check", help_heading = "Configuration")]
    pub(crate) config_check: bool,

    /// Reload the configuration when its file changes
    #[arg(long = "config.enable-auto-reload", help_heading = "Configuration")]
    pub(crate) auto_reload: bool,

    /// Time between checks of the file
    #[arg(long = "config.auto-reload-interval", value_name = "DURATION", default_value = "30s")]
    #[arg(value_parser = value::reload_interval, help_heading = "Configuration")]
    pub(crate) auto_reload_interval: Duration,

    /// Folder that keeps the requests of the last window, so that a restart does not spend the quota again; by default
    /// systemd's StateDirectory=, otherwise nothing is kept
    #[arg(long = "storage.path", value_name = "PATH", help_heading = "Configuration")]
    pub(crate) storage_path: Option<PathBuf>,

    /// The web server.
    #[command(flatten)]
    pub(crate) web: WebFlags,

    /// After SIGTERM, keep the ports open for this long while /-/ready is 503, so that load balancers notice
    #[arg(long = "web.shutdown-delay", value_name = "DURATION", default_value = "0s")]
    #[arg(value_parser = value::shutdown_delay, help_heading = "Web")]
    pub(crate) shutdown_delay: Duration,

    /// Allow POST /-/reload; SIGHUP always reloads
    #[arg(long = "web.enable-lifecycle", help_heading = "Web")]
    pub(crate) enable_lifecycle: bool,

    /// Allow GET /probe?instance=NAME&debug=true, which shows the last probe step by step; each probe then opens a
    /// connection of its own
    #[arg(long = "web.enable-probe-debug", help_heading = "Web")]
    pub(crate) enable_probe_debug: bool,

    /// The log.
    #[command(flatten)]
    pub(crate) log: LogFlags,
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub(crate) struct ConfigFlags {
    /// Configuration file (YAML); without it, one instance is taken from CLERK_SECRET_KEY and CLERK_API_URL
    #[arg(long = "config.file", value_name = "PATH", help_heading = "Configuration")]
    pub(crate) config_file: Option<PathBuf>,
}

/// The web server.
#[derive(Debug, Args)]
pub(crate) struct WebFlags {
    /// Address to listen on; may be given several times
    #[arg(long = "web.listen-address", value_name = "ADDRESS", default_value = ":10429")]
    #[arg(value_delimiter = ',', help_heading = "Web")]
    pub(crate) listen_addresses: Vec<ListenAddress>,

    /// Listen on systemd's sockets instead of addresses
    #[arg(long = "web.systemd-socket", help_heading = "Web")]
    pub(crate) systemd_socket: bool,

    /// Path to a Prometheus web configuration file (TLS, basic auth)
    #[arg(long = "web.config.file", value_name = "PATH", help_heading = "Web")]
    pub(crate) web_config_file: Option<PathBuf>,

    /// Path of the metrics
    #[arg(long = "web.telemetry-path", value_name = "PATH", default_value = "/metrics")]
    #[arg(value_parser = value::telemetry_path, help_heading = "Web")]
    pub(crate) telemetry_path: String,

    /// URL at which browsers reach the exporter, such as https://example.org/clerk; for links
    #[arg(long = "web.external-url", value_name = "URL", help_heading = "Web")]
    pub(crate) external_url: Option<String>,

    /// Prefix of all paths; by default the path of --web.external-url
    #[arg(long = "web.route-prefix", value_name = "PATH", help_heading = "Web")]
    pub(crate) route_prefix: Option<String>,

    /// Maximum number of simultaneous connections
    #[arg(long = "web.max-connections", value_name = "N", default_value = "512", help_heading = "Web")]
    pub(crate) max_connections: usize,
}

/// The log.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct LogFlags {
    /// Least severe messages to log
    #[arg(long = "log.level", value_name = "LEVEL", default_value = "info", help_heading = "Log")]
    pub(crate) log_level: LogLevel,

    /// Format of the log, which goes to standard error
    #[arg(long = "log.format", value_name = "FORMAT", default_value = "logfmt", help_heading = "Log")]
    pub(crate) log_format: LogFormat,
}

impl Default for LogFlags {
    fn default() -> Self {
        Self { log_level: LogLevel::Info, log_format: LogFormat::Logfmt }
    }
}

/// Which messages are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    /// Everything, including the HTTP libraries
    Trace,
    /// Every probe
    Debug,
    /// Changes of state
    Info,
    /// Problems
    Warn,
    /// Failures
    Error,
}

/// Format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// key=value pairs
    Logfmt,
    /// One JSON object per line
    Json,
}
