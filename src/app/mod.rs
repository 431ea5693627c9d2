//! Wiring: from a configuration to running parts, and back to nothing in good order.
//!
//! Start: configuration, ledger, probes, pages, sockets; stop: sockets drain, probes under way end, the rest goes.

mod gateway;
mod instances;
mod reload;
mod restart;
mod signals;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin, Reloader};
use crate::config::Config;
use crate::metrics::{ConfigStatus, Metrics, build};
use crate::probe::Probes;
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use gateway::GatewayRunner;
use instances::all_settings;
use prometheus_web::{Listener, WebConfigSource};
use watch::Watch;

pub use instances::{Instances, settings};
pub use reload::ConfigSource;
pub use signals::{on_hangup, on_termination};

/// Longest wait for probes under way after the order to stop; their own deadlines may be longer.
const PROBE_GRACE: Duration = Duration::from_secs(2);

/// Connections of applications, each of which may have a pool of its own.
const GATEWAY_CONNECTIONS: usize = 16_384;

/// What the exporter is started with.
pub struct AppOptions {
    /// The configuration.
    pub config: Config,
    /// Where it is loaded from again.
    pub source: ConfigSource,
    /// Time between looks at the file; never without.
    pub auto_reload: Option<Duration>,
    /// Whether `POST /-/reload` is allowed.
    pub enable_lifecycle: bool,
    /// Where things are found.
    pub site: admin::AdminOptions,
    /// Limits of the server.
    pub serve: prometheus_web::Options,
    /// TLS and authentication.
    pub web_config: WebConfigSource,
    /// The sockets.
    pub listeners: Vec<Listener>,
    /// Folder in which it is kept when requests were sent.
    pub storage: Option<PathBuf>,
    /// Where the gateway listens, if the configuration has one.
    pub gateway: Option<Front>,
}

/// Where the gateway listens.
pub struct Front {
    /// The sockets.
    pub listeners: Vec<Listener>,
    /// TLS.
    pub web_config: WebConfigSource,
}

/// Runs the exporter until `stop`, then ends in good order.
///
/// # Errors
/// When it cannot start; once it runs, nothing of what Clerk or clients do ends it.
pub async fn run(options: AppOptions, stop: CancellationToken) -> anyhow::Result<()> {
    let config = options.config;
    let clock = Arc::new(Clock::new());
    let mut instances = Instances::new(Arc::clone(&clock));
    let ledger = Arc::new(Ledger::new(all_settings(&config)));
    instances.check(&config)?;
    let mut gateways = match &config.gateway {
        Some(section) => Some(GatewayRunner::new(&config, section, Arc::clone(&clock))?),
        None => None,
    };
    instances.store = gateways.as_ref().and_then(|gateways| gateways.store().cloned());
    instances.reserve = config.gateway.as_ref().map_or(instances.reserve, |section| section.policies.pace.reserve);
    restart::restore(options.storage.as_deref(), &config, &mut instances, &ledger, &clock);
    let probes = Probes::new(instances.probes(&config, &ledger)?);
    let gateway = match &mut gateways {
        Some(gateways) => Some(gateways.start(&config, &mut instances, &ledger)?),
        None => None,
    };
    let status = Arc::new(ConfigStatus::new(clock.now(), config.low_threshold));
    let config_text = Arc::new(ArcSwap::from_pointee(config.masked_yaml()));
    tracing::info!(
        version = build::VERSION,
        revision = build::REVISION,
        instances = config.instances.len(),
        "starting"
    );
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }

    let watch = Watch::new(Arc::clone(&ledger), Arc::clone(&clock), gateway.clone());
    let (reloads, requests) = mpsc::channel(1);
    let reloader = Reloader(reloads);
    let site = Admin {
        options: options.site,
        metrics: Arc::new(Metrics::with_gateway(
            Arc::clone(&ledger),
            Arc::clone(&clock),
            Arc::clone(&status),
            gateway.clone(),
        )),
        gateway: gateway.clone(),
        ledger: Arc::clone(&ledger),
        clock,
        probes: Arc::clone(&probes),
        config_text: Arc::clone(&config_text),
        reloader: options.enable_lifecycle.then(|| reloader.clone()),
    };
    let reload = reload::Reload {
        config,
        source: options.source,
        instances,
        ledger,
        probes: Arc::clone(&probes),
        gateway: gateways,
        status,
        config_text,
        auto_reload: options.auto_reload,
    };

    let mut tasks = JoinSet::new();
    tasks.spawn(on_hangup(reloader, stop.clone()));
    tasks.spawn(reload.run(requests, stop.clone()));
    tasks.spawn(watch.run(stop.clone()));
    let probing = tasks.spawn(probes.run(stop.clone()));
    let pages = prometheus_web::serve(
        options.listeners,
        site.router(),
        options.serve.clone(),
        options.web_config,
        stop.clone(),
    );
    let handing_on = async {
        if let (Some(front), Some(gateway)) = (options.gateway, gateway) {
            let options = gateway_limits(options.serve);
            prometheus_web::serve(front.listeners, gateway, options, front.web_config, stop.clone()).await;
        }
    };
    tokio::join!(pages, handing_on);
    stop.cancel();
    let ended = tokio::time::timeout(PROBE_GRACE, async { while tasks.join_next().await.is_some() {} }).await;
    if ended.is_err() && !probing.is_finished() {
        tracing::info!("left probes that were under way");
    }
    tracing::info!("stopped");
    Ok(())
}

/// The limits of the gateway's port. Applications keep many connections, and their requests are handed on as they are.
fn gateway_limits(pages: prometheus_web::Options) -> prometheus_web::Options {
    prometheus_web::Options {
        name: "gateway",
        max_connections: pages.max_connections.max(GATEWAY_CONNECTIONS),
        preserve_header_case: true,
        mark_ambiguous_heads: true,
        ..pages
    }
}
