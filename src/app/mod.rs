//! Wiring: starts all parts from a configuration, and shuts them down.
//!
//! Start: configuration, ledger, probes, pages, sockets. Stop: sockets drain, probes in flight end, then the rest.

mod access_log;
mod gateway;
mod instances;
mod leases;
mod limits;
mod months;
mod overrides;
mod redis;
mod reload;
mod restart;
mod signals;
mod spans;
mod telemetry;
mod upstreams;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin, Reloader};
use crate::config::Config;
use crate::gateway::Gateway;
use crate::metrics::{ConfigStatus, Metrics, ReloadKind, Reloads, build};
use crate::probe::Probes;
use crate::sources::Sources;
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use gateway::GatewayRunner;
use instances::all_settings;
use leases::{Affected, Leases};
use limits::{ProcessLimits, ServeLimits};
use months::{MonthKeeper, set_plans};
use overrides::{FIRST_OVERRIDES, follow_overrides};
use prometheus_web::{Listener, Shutdown, WebConfigFile, WebConfigSource};
use telemetry::TelemetryRunner;
use watch::Watch;

pub use instances::{Instances, settings};
pub use reload::ConfigSource;
pub use signals::{on_hangup, on_termination};

/// Maximum wait for probes in flight at shutdown; their own deadlines may be longer.
const PROBE_GRACE: Duration = Duration::from_secs(2);
/// Maximum time for the last spans at shutdown: a dead collector must not delay it.
const SPAN_GRACE: Duration = Duration::from_secs(2);

/// Options of the exporter.
pub struct AppOptions {
    /// The configuration.
    pub config: Config,
    /// Where the configuration is reloaded from.
    pub source: ConfigSource,
    /// Time between checks of the file for changes; `None`: no automatic reload.
    pub auto_reload: Option<Duration>,
    /// Whether `POST /-/reload` is allowed.
    pub enable_lifecycle: bool,
    /// Whether `/probe` shows the last probe of an instance step by step.
    pub enable_probe_debug: bool,
    /// Paths of the pages.
    pub site: admin::AdminOptions,
    /// How long the ports stay open after `stop`, while `/-/ready` says that the process leaves.
    pub shutdown_delay: Duration,
    /// Limits of the server.
    pub serve: prometheus_web::Options,
    /// TLS and authentication.
    pub web_config: WebConfigSource,
    /// The sockets.
    pub listeners: Vec<Listener>,
    /// Folder for state: when requests were sent.
    pub storage: Option<PathBuf>,
    /// The gateway's sockets, if the configuration has a gateway.
    pub gateway: Option<Front>,
    /// The sockets of the receiver of traces, if the configuration has one.
    pub telemetry: Option<Front>,
}

/// The sockets of another port than the exporter's.
pub struct Front {
    /// The sockets.
    pub listeners: Vec<Listener>,
    /// TLS.
    pub web_config: WebConfigSource,
}

/// The parts that exist before the ports are opened.
struct Prepared {
    clock: Arc<Clock>,
    status: Arc<ConfigStatus>,
    ledger: Arc<Ledger>,
    instances: Instances,
    probes: Arc<Probes>,
    runner: Option<GatewayRunner>,
    gateway: Option<Arc<Gateway>>,
    telemetry: Option<TelemetryRunner>,
    months: Option<Arc<MonthKeeper>>,
}

/// What the parts are prepared for.
#[derive(Clone, Copy)]
enum Purpose<'a> {
    /// To run, with a folder for state; the last probes may be kept step by step.
    Start { storage: Option<&'a Path>, keep_stories: bool },
    /// To check the configuration only.
    Check,
}

impl Prepared {
    /// Does everything of a start that needs no port. A check opens no connections and writes nothing.
    fn new(config: &Config, purpose: Purpose<'_>) -> anyhow::Result<Self> {
        let clock = Arc::new(Clock::new());
        let status = Arc::new(ConfigStatus::new(clock.now(), config.low_threshold));
        let mut instances = Instances::new(Arc::clone(&clock)).counting(&status.reloads);
        let ledger = Arc::new(Ledger::new(all_settings(config)));
        set_plans(config, &ledger, clock.now());
        instances.check(config)?;
        let store = redis::client(config)?;
        if let (Some(store), None) = (&store, &config.gateway) {
            status.show_redis(store.clone());
        }
        if let Purpose::Start { keep_stories, .. } = purpose {
            instances.keep_stories = keep_stories;
            instances.leases = store.clone().map(|store| Arc::new(Leases::new(store, Arc::clone(&clock))));
            instances.store = store;
        }
        let mut runner = match &config.gateway {
            Some(section) => {
                Some(GatewayRunner::new(config, section, &mut instances, Arc::clone(&clock), Arc::clone(&status))?)
            }
            None => None,
        };
        if let Some(section) = &config.gateway {
            instances.reserve = section.policies.pace.reserve;
            instances.max_in_flight = section.max_in_flight;
        }
        let mut months = None;
        if let Purpose::Start { storage, .. } = purpose {
            restart::restore(storage, config, &mut instances, &ledger, &clock);
            let journal = instances.journal.as_ref().map(|(journal, _)| Arc::clone(journal));
            // An exporter without a gateway counts nothing that is billed.
            let store = instances.store.clone().filter(|_| config.gateway.is_some());
            months = MonthKeeper::open(Arc::clone(&clock), Arc::clone(&ledger), storage.zip(journal), store);
        }
        let probes = Probes::new(instances.probes(config, &ledger)?);
        let gateway = match &mut runner {
            Some(runner) => Some(runner.start(config, &mut instances, &ledger)?),
            None => None,
        };
        let telemetry = match &config.telemetry {
            Some(section) => Some(TelemetryRunner::new(config, section, &ledger, Arc::clone(&clock))?),
            None => None,
        };
        let months = months.map(Arc::new);
        Ok(Self { clock, status, ledger, instances, probes, runner, gateway, telemetry, months })
    }
}

/// Checks a configuration by doing everything of a start except opening ports. Needs a tokio runtime.
///
/// # Errors
/// Returns the error that the start would return.
pub fn check(config: &Config) -> anyhow::Result<()> {
    Prepared::new(config, Purpose::Check).map(drop)
}

/// Runs the exporter until `stop`, and [`AppOptions::shutdown_delay`] longer, then shuts down gracefully.
///
/// # Errors
/// Returns an error if the exporter cannot start. Once running, neither Clerk nor clients can end it.
pub async fn run(options: AppOptions, stop: CancellationToken) -> anyhow::Result<()> {
    let config = options.config;
    let purpose = Purpose::Start { storage: options.storage.as_deref(), keep_stories: options.enable_probe_debug };
    let Prepared { clock, status, ledger, instances, probes, mut runner, gateway, telemetry, months } =
        Prepared::new(&config, purpose)?;
    let span_sender = runner.as_mut().and_then(GatewayRunner::take_span_sender);
    let sources = Sources {
        gateway: gateway.clone(),
        telemetry: telemetry.as_ref().map(|telemetry| Arc::clone(telemetry.receiver())),
    };
    follow_web_config(&status.reloads, &options.web_config);
    for front in [&options.gateway, &options.telemetry].into_iter().flatten() {
        follow_web_config(&status.reloads, &front.web_config);
    }
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

    let limits = serve_limits(options.serve.max_connections, &options.gateway, &options.telemetry);
    let serve = options
        .serve
        .max_connections(limits.pages)
        .max_unsent_bytes(limits.unsent_bytes)
        .open_paths(options.site.health_paths());
    let watch = Watch::new(Arc::clone(&ledger), Arc::clone(&clock), sources.clone());
    let (reloads, requests) = mpsc::channel(1);
    let reloader = Reloader(reloads);
    let site = Admin {
        options: options.site,
        metrics: Arc::new(Metrics::with_sources(
            Arc::clone(&ledger),
            Arc::clone(&clock),
            Arc::clone(&status),
            sources.clone(),
        )),
        sources: sources.clone(),
        ledger: Arc::clone(&ledger),
        clock,
        probes: Arc::clone(&probes),
        config_text: Arc::clone(&config_text),
        reloader: options.enable_lifecycle.then(|| reloader.clone()),
        enable_probe_debug: options.enable_probe_debug,
        leaving: stop.clone(),
    };
    let leases = instances.leases.clone();
    let affected = Affected { ledger: Arc::clone(&ledger), probes: Arc::clone(&probes), status: Arc::clone(&status) };
    let reload = reload::Reload {
        watched: reload::WatchedConfig::new(&options.source, &config, &status.reloads),
        started_redis: config.redis.clone(),
        config,
        source: options.source,
        instances,
        ledger,
        probes: Arc::clone(&probes),
        gateway: runner,
        telemetry,
        months: months.clone(),
        status,
        config_text,
        auto_reload: options.auto_reload,
    };

    // Until then, everything works as before.
    let closing = CancellationToken::new();
    let shutdown = Shutdown::in_two_steps(stop.clone(), closing.clone());
    // Ends after the last request, which has a span, too.
    let requests_ended = CancellationToken::new();
    let mut span_senders = JoinSet::new();
    if let Some(sender) = span_sender {
        span_senders.spawn(sender.run(requests_ended.clone(), SPAN_GRACE));
    }
    let mut tasks = JoinSet::new();
    if let Some(leases) = leases {
        // Given up when the process begins to leave: another one takes over meanwhile.
        tasks.spawn(leases.run(affected, stop.clone(), closing.clone()));
    }
    tasks.spawn(close_after(options.shutdown_delay, stop, closing.clone()));
    tasks.spawn(on_hangup(reloader, closing.clone()));
    tasks.spawn(reload.run(requests, closing.clone()));
    tasks.spawn(watch.run(closing.clone()));
    if let Some(months) = &months {
        tasks.spawn(Arc::clone(months).run(closing.clone()));
    }
    if let Some(gateway) = &gateway {
        // A caller that is paused must not send because of a restart.
        let _ = timeout(FIRST_OVERRIDES, gateway.follow_overrides()).await;
        tasks.spawn(follow_overrides(Arc::clone(gateway), closing.clone()));
    }
    let probing = tasks.spawn(probes.run(closing.clone()));
    let pages =
        prometheus_web::serve(options.listeners, site.router(), serve.clone(), options.web_config, shutdown.clone());
    let forwarding = async {
        if let (Some(front), Some(gateway)) = (options.gateway, gateway) {
            let options = gateway_options(serve.clone(), limits);
            prometheus_web::serve(front.listeners, gateway, options, front.web_config, shutdown.clone()).await;
        }
    };
    let receiving = async {
        if let (Some(front), Some(telemetry)) = (options.telemetry, &sources.telemetry) {
            let options = telemetry_options(serve.clone(), limits);
            prometheus_web::serve(front.listeners, telemetry.router(), options, front.web_config, shutdown.clone())
                .await;
        }
    };
    tokio::join!(pages, forwarding, receiving);
    closing.cancel();
    requests_ended.cancel();
    let ended = timeout(PROBE_GRACE, async { while tasks.join_next().await.is_some() {} }).await;
    if ended.is_err() && !probing.is_finished() {
        tracing::info!("cancelled probes in flight");
    }
    if let Some(months) = months {
        months.finish().await;
    }
    while span_senders.join_next().await.is_some() {}
    tracing::info!("stopped");
    Ok(())
}

/// Cancels `closing` some time after `stop`: load balancers learn meanwhile that the process leaves.
async fn close_after(delay: Duration, stop: CancellationToken, closing: CancellationToken) {
    let is_first = closing.run_until_cancelled(stop.cancelled()).await.is_some();
    if is_first && !delay.is_zero() {
        tracing::info!(
            shutdown_delay = %humantime::format_duration(delay),
            "not ready any more; the ports stay open until the delay is over"
        );
        closing.run_until_cancelled(sleep(delay)).await;
    }
    closing.cancel();
}

/// Counts the reloads of a web configuration, which its server performs.
fn follow_web_config(reloads: &Reloads, web_config: &WebConfigSource) {
    for file in WebConfigFile::ALL {
        let kind = match file {
            WebConfigFile::WebConfig => ReloadKind::WebConfig,
            WebConfigFile::TlsCertificate => ReloadKind::TlsCertificate,
            WebConfigFile::ClientCa => ReloadKind::ClientCa,
        };
        let source = web_config.clone();
        reloads.follow(kind, move || {
            let counts = source.reloads(file);
            (counts.failures, counts.successes)
        });
    }
}

/// The limits of all ports; logs them.
fn serve_limits(asked: usize, gateway: &Option<Front>, telemetry: &Option<Front>) -> ServeLimits {
    let process = ProcessLimits::of_this_process();
    let (has_gateway, has_telemetry) = (gateway.is_some(), telemetry.is_some());
    let limits = ServeLimits::new(asked, has_gateway, has_telemetry, process);
    tracing::info!(
        max_connections = limits.pages,
        gateway_max_connections = has_gateway.then_some(limits.gateway),
        telemetry_max_connections = has_telemetry.then_some(limits.telemetry),
        open_files = process.open_files,
        memory_bytes = process.memory_bytes,
        "connection limits"
    );
    if limits.pages < asked {
        tracing::warn!(
            asked,
            max_connections = limits.pages,
            "fewer connections than --web.max-connections: not enough open files or memory; raise LimitNOFILE or the \
             memory limit"
        );
    }
    limits
}

/// The options of the gateway's port. Applications keep many connections, and their requests are forwarded unchanged.
fn gateway_options(pages: prometheus_web::Options, limits: ServeLimits) -> prometheus_web::Options {
    pages
        .name("gateway")
        .max_connections(limits.gateway)
        .preserve_header_case(true)
        .mark_ambiguous_heads(true)
        .open_paths(Vec::new())
}

/// The options of the receiver's port.
fn telemetry_options(pages: prometheus_web::Options, limits: ServeLimits) -> prometheus_web::Options {
    pages.name("telemetry").max_connections(limits.telemetry).open_paths(Vec::new())
}
