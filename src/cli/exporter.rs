//! The exporter itself, and `--config.check`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::args::{ExporterFlags, WebFlags};
use super::{config_source, environment, print, until_stopped};
use crate::admin;
use crate::app::{self, ConfigSource};
use crate::config::Config;
use clerk_client::secret::process_env;
use clerk_client::transport::environment_warnings;
use prometheus_web::{BindError, ListenAddress, WebConfigSource};

pub(super) async fn run(flags: &ExporterFlags) -> anyhow::Result<ExitCode> {
    // A bad configuration is reported before a port is opened.
    let source = config_source(&flags.config);
    let config = source.load()?;
    let stop = CancellationToken::new();
    let server = Server {
        web: &flags.web,
        enable_lifecycle: flags.enable_lifecycle,
        enable_probe_debug: flags.enable_probe_debug,
        shutdown_delay: flags.shutdown_delay,
        auto_reload: flags.auto_reload.then_some(flags.auto_reload_interval),
        storage: flags.storage_path.clone().or_else(|| environment::state_directory(&process_env)),
    };
    let options = app_options(&server, config, source).await?;
    until_stopped(stop.clone(), app::run(options, stop)).await
}

/// `--config.check`: everything a start checks before it opens a port.
pub(super) fn check(flags: &ExporterFlags) -> anyhow::Result<ExitCode> {
    let source = config_source(&flags.config);
    let Checked { config, .. } = checked(&flags.web, source.load()?, source)?;
    app::check(&config)?;
    environment_warnings().iter().try_for_each(|warning| print(&format!("warning: {warning}\n")))?;
    config.warnings.iter().try_for_each(|warning| print(&format!("warning: {warning}\n")))?;
    print("Configuration is valid.\n")?;
    Ok(ExitCode::SUCCESS)
}

/// Flags of the server.
pub(super) struct Server<'a> {
    web: &'a WebFlags,
    enable_lifecycle: bool,
    enable_probe_debug: bool,
    shutdown_delay: std::time::Duration,
    auto_reload: Option<std::time::Duration>,
    storage: Option<PathBuf>,
}

impl<'a> Server<'a> {
    /// The demo has no file to reload and keeps no state.
    pub(super) const fn of_demo(web: &'a WebFlags) -> Self {
        Self {
            web,
            enable_lifecycle: false,
            enable_probe_debug: false,
            shutdown_delay: std::time::Duration::ZERO,
            auto_reload: None,
            storage: None,
        }
    }
}

/// Command line and configuration, checked as far as possible without a port.
struct Checked {
    config: Config,
    source: ConfigSource,
    site: admin::AdminOptions,
    web_config: WebConfigSource,
    gateway_web_config: Option<WebConfigSource>,
    telemetry_web_config: Option<WebConfigSource>,
}

fn checked(flags: &WebFlags, config: Config, source: ConfigSource) -> anyhow::Result<Checked> {
    let open = |path: &Option<PathBuf>| match path {
        Some(path) => WebConfigSource::open(path),
        None => Ok(WebConfigSource::none()),
    };
    let web_config = open(&flags.web_config_file)?;
    let site = site_options(flags)?;
    let gateway_web_config = config.gateway.as_ref().map(|section| open(&section.web_config_file)).transpose()?;
    let telemetry_web_config = config.telemetry.as_ref().map(|section| open(&section.web_config_file)).transpose()?;
    Ok(Checked { config, source, site, web_config, gateway_web_config, telemetry_web_config })
}

pub(super) async fn app_options(
    server: &Server<'_>,
    config: Config,
    source: ConfigSource,
) -> anyhow::Result<app::AppOptions> {
    let flags = server.web;
    let Checked { config, source, site, web_config, gateway_web_config, telemetry_web_config } =
        checked(flags, config, source)?;
    let gateway = match (&config.gateway, gateway_web_config) {
        (Some(section), Some(web_config)) => {
            Some(front(&section.listen, web_config).await.context("gateway.listen_address")?)
        }
        _ => None,
    };
    let telemetry = match (&config.telemetry, telemetry_web_config) {
        (Some(section), Some(web_config)) => {
            Some(front(&section.listen, web_config).await.context("telemetry.listen_address")?)
        }
        _ => None,
    };
    let listeners = if flags.systemd_socket {
        prometheus_web::from_systemd()?
    } else {
        prometheus_web::bind(&flags.listen_addresses).await?
    };
    Ok(app::AppOptions {
        config,
        source,
        auto_reload: server.auto_reload,
        enable_lifecycle: server.enable_lifecycle,
        enable_probe_debug: server.enable_probe_debug,
        shutdown_delay: server.shutdown_delay,
        site,
        serve: prometheus_web::Options::default().max_connections(flags.max_connections.max(1)),
        web_config,
        listeners,
        storage: server.storage.clone(),
        gateway,
        telemetry,
    })
}

/// Binds one of the other ports.
async fn front(listen: &ListenAddress, web_config: WebConfigSource) -> Result<app::Front, BindError> {
    let listeners = prometheus_web::bind(std::slice::from_ref(listen)).await?;
    Ok(app::Front { listeners, web_config })
}

fn site_options(flags: &WebFlags) -> anyhow::Result<admin::AdminOptions> {
    let external_prefix = match &flags.external_url {
        Some(url) => {
            // Like Prometheus, accept a path alone.
            let uri = url.parse::<http::Uri>().ok().filter(|uri| uri.scheme().is_some() || url.starts_with('/'));
            prefix(uri.context("--web.external-url: write a URL, such as https://example.org/x")?.path())
        }
        None => String::new(),
    };
    let route_prefix = flags.route_prefix.as_deref().map_or_else(|| external_prefix.clone(), prefix);
    if !route_prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte)) {
        anyhow::bail!("--web.route-prefix: write a path of letters, digits and - _ . ~, such as /clerk");
    }
    let external_prefix = if flags.external_url.is_some() { external_prefix } else { route_prefix.clone() };
    Ok(admin::AdminOptions { telemetry_path: flags.telemetry_path.clone(), route_prefix, external_prefix })
}

/// A path as a prefix: empty, or with a leading slash and no trailing one.
fn prefix(path: &str) -> String {
    let path = path.trim_matches('/');
    if path.is_empty() { String::new() } else { format!("/{path}") }
}
