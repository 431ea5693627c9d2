//! The commands. What goes to standard output is a command's result; everything else goes to the log.

mod args;
mod check;
mod check_table;
mod demo;
mod environment;
mod log_format;
mod logging;
mod users;

use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use args::Cli;

use crate::admin;
use crate::app::{self, ConfigSource, on_termination};
use crate::config::Config;
use args::{CheckArgs, Command, Common, DemoArgs, SimulateArgs};
use clerk_client::secret::{mask_secrets, process_env};
use clerk_client::transport::environment_warnings;
use clerk_simulator::{KeyGrant, Simulator};
use environment::RefusedArguments;
use prometheus_web::{ListenAddress, WebConfigSource};
use users::args::UsersCommand;

/// Does what the command line says. Exits with 0 if all went well, 1 if not, 2 if the command line is wrong; `check` and
/// `--config.check` as they say.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match environment::parse(std::env::args_os(), &process_env) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    logging::start(cli.common.log_level, cli.common.log_format);
    let runtime = environment::worker_threads(&process_env).and_then(|threads| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(threads).enable_all().build().context("cannot start the runtime")
    });
    let done = runtime.and_then(|runtime| {
        let done = runtime.block_on(run(cli));
        // A name server that does not answer holds up a thread that cannot be ended.
        runtime.shutdown_background();
        done
    });
    done.unwrap_or_else(|error| {
        report(&error);
        ExitCode::FAILURE
    })
}

fn report(error: &anyhow::Error) {
    // It may repeat an argument, such as a path.
    let _ = writeln!(anstream::stderr(), "clerk-exporter: {}", mask_secrets(&format!("{error:#}")));
}

/// Says what is wrong with the command line, or what was asked of it: help and version come this way too. Keys do not
/// belong into arguments; one that is there all the same is not repeated.
fn refuse(error: &RefusedArguments) -> ExitCode {
    let RefusedArguments { error, variables } = error;
    let told: String = variables.iter().map(|variable| format!("{variable}\n")).collect();
    let text = error.render().to_string();
    let masked = mask_secrets(&text);
    if error.use_stderr() && masked != text {
        let _ = write!(anstream::stderr(), "{masked}");
    } else {
        // As clap does it, with colours.
        let _ = error.print();
    }
    let _ = write!(anstream::stderr(), "{told}");
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { command, common } = cli;
    if !common.config_check && matches!(command, None | Some(Command::Check(_) | Command::Users(_))) {
        for warning in environment_warnings() {
            tracing::warn!("{warning}");
        }
    }
    if common.config_check {
        let source = config_source(&common);
        let Checked { config, .. } = checked(&common, source.load()?, source)?;
        app::check(&config)?;
        environment_warnings().iter().try_for_each(|warning| print(&format!("warning: {warning}\n")))?;
        config.warnings.iter().try_for_each(|warning| print(&format!("warning: {warning}\n")))?;
        print("Config file is ok exiting...\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    match command {
        None => exporter(&common).await,
        Some(Command::Demo(args)) => demo(&common, &args).await,
        Some(Command::Check(args)) => Ok(check(&common, &args).await.unwrap_or_else(|error| {
            report(&error);
            ExitCode::from(check::CANNOT_TELL)
        })),
        Some(Command::Simulate(args)) => simulate(&args).await,
        Some(Command::Users(command)) => users(&common, &command).await,
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "clerk-exporter", &mut script);
            print(&String::from_utf8_lossy(&script))?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Man) => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            print(&String::from_utf8_lossy(&page))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn exporter(common: &Common) -> anyhow::Result<ExitCode> {
    // A bad configuration is told before any socket is bound.
    let source = config_source(common);
    let config = source.load()?;
    let stop = CancellationToken::new();
    let options = app_options(common, config, source).await?;
    until_stopped(stop.clone(), app::run(options, stop)).await
}

async fn demo(common: &Common, args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let demo = demo::Demo::bind(args).await?;
    let config = demo.config(args)?;
    let source = ConfigSource::Fixed(Box::new(config.clone()));
    let options = app_options(common, config, source).await?;
    let address = options.listeners.first().map(|listener| listener.local_addr()).context("no address to listen on")?;
    let host = if address.ip().is_unspecified() { "localhost".to_owned() } else { address.ip().to_string() };
    let host = if address.ip().is_ipv6() && host != "localhost" { format!("[{host}]") } else { host };
    let (exporter, prefix) = (format!("http://{host}:{}", address.port()), &options.site.route_prefix);
    let gateway = options.gateway.as_ref().and_then(|front| front.listeners.first());
    let gateway = format!("http://{}", gateway.context("no address for the gateway")?);
    let addresses = format!(
        "Landing page:    {exporter}{prefix}/\n\
         Metrics:         {exporter}{prefix}{metrics}\n\
         Simulated Clerk: {clerk}/v1/users/count\n\
         Its own record:  {clerk}/_simulator/truth\n\
         Gateway:         {gateway}\n\n\
         A load swings above and below 10 % remaining; the first low window is closed after half a minute. Try:\n\n  \
         curl -s {exporter}{prefix}{metrics} | grep -E 'remaining|low_windows|throttled'\n\nCtrl-C ends it.\n",
        metrics = options.site.telemetry_path,
        clerk = demo.url(),
    );
    let stop = CancellationToken::new();
    let both = {
        let stop = stop.clone();
        async move {
            print(&addresses)?;
            let (exporter, simulator) = tokio::join!(app::run(options, stop.clone()), demo.run(gateway, stop));
            exporter.and(simulator)
        }
    };
    until_stopped(stop, both).await
}

async fn check(common: &Common, args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let config = config_source(common).load()?;
    let checked = check::check(&config, args.format).await?;
    print(&checked.text)?;
    Ok(ExitCode::from(checked.exit_status))
}

async fn users(common: &Common, command: &UsersCommand) -> anyhow::Result<ExitCode> {
    let config = config_source(common).load()?;
    let stop = CancellationToken::new();
    let mut signals = JoinSet::new();
    signals.spawn(on_termination(stop.clone()).context("cannot listen for signals")?);
    match command {
        UsersCommand::Export(args) => users::export(&config, args, stop).await,
        UsersCommand::Get(args) => users::get(&config, args, stop).await,
    }
}

/// What the simulator is called in the log.
const SIMULATOR: &str = "simulator";

async fn simulate(args: &SimulateArgs) -> anyhow::Result<ExitCode> {
    let keys = args.keys_file.as_deref().map(read_keys).transpose()?.unwrap_or_default();
    let listeners = prometheus_web::bind(&[ListenAddress::Socket(args.listen_address)]).await?;
    let addresses: String =
        listeners.iter().map(|listener| format!("Simulated Clerk: http://{}\n", listener.local_addr())).collect();
    let simulator = Simulator::new(args.options(keys));
    let stop = CancellationToken::new();
    let serving = prometheus_web::serve(
        listeners,
        simulator.router(),
        prometheus_web::Options::default().name(SIMULATOR),
        WebConfigSource::none(),
        stop.clone(),
    );
    let serving = async {
        print(&addresses)?;
        serving.await;
        Ok(())
    };
    until_stopped(stop, serving).await
}

/// Works until it is done, or a signal asks it to stop and it has stopped.
async fn until_stopped(
    stop: CancellationToken,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<ExitCode> {
    let mut signals = JoinSet::new();
    signals.spawn(on_termination(stop).context("cannot listen for signals")?);
    work.await?;
    Ok(ExitCode::SUCCESS)
}

fn config_source(common: &Common) -> ConfigSource {
    common.config_file.clone().map_or(ConfigSource::Environment, ConfigSource::File)
}

/// What can be known of command line and configuration before a port is opened: with [`app::check`], the whole of
/// `--config.check`, and the beginning of each start.
struct Checked {
    config: Config,
    source: ConfigSource,
    site: admin::AdminOptions,
    web_config: WebConfigSource,
    gateway_web_config: Option<WebConfigSource>,
}

fn checked(common: &Common, config: Config, source: ConfigSource) -> anyhow::Result<Checked> {
    let open = |path: &Option<PathBuf>| match path {
        Some(path) => WebConfigSource::open(path),
        None => Ok(WebConfigSource::none()),
    };
    let web_config = open(&common.web_config_file)?;
    let site = site_options(common)?;
    let gateway_web_config = config.gateway.as_ref().map(|section| open(&section.web_config_file)).transpose()?;
    Ok(Checked { config, source, site, web_config, gateway_web_config })
}

async fn app_options(common: &Common, config: Config, source: ConfigSource) -> anyhow::Result<app::AppOptions> {
    let Checked { config, source, site, web_config, gateway_web_config } = checked(common, config, source)?;
    let gateway = match (&config.gateway, gateway_web_config) {
        (Some(section), Some(web_config)) => {
            let listeners =
                prometheus_web::bind(std::slice::from_ref(&section.listen)).await.context("gateway.listen_address")?;
            Some(app::Front { listeners, web_config })
        }
        _ => None,
    };
    let listeners = if common.systemd_socket {
        prometheus_web::from_systemd()?
    } else {
        prometheus_web::bind(&common.listen_addresses).await?
    };
    Ok(app::AppOptions {
        config,
        source,
        auto_reload: common.auto_reload.then_some(common.auto_reload_interval),
        enable_lifecycle: common.enable_lifecycle,
        site,
        serve: prometheus_web::Options::default().max_connections(common.max_connections.max(1)),
        web_config,
        listeners,
        storage: common.storage_path.clone().or_else(|| environment::state_directory(&process_env)),
        gateway,
    })
}

fn site_options(common: &Common) -> anyhow::Result<admin::AdminOptions> {
    let external_prefix = match &common.external_url {
        Some(url) => {
            // A path alone is what Prometheus takes as well.
            let uri = url.parse::<http::Uri>().ok().filter(|uri| uri.scheme().is_some() || url.starts_with('/'));
            prefix(uri.context("--web.external-url: write a URL, such as https://example.org/x")?.path())
        }
        None => String::new(),
    };
    let route_prefix = common.route_prefix.as_deref().map_or_else(|| external_prefix.clone(), prefix);
    if !route_prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte)) {
        anyhow::bail!("--web.route-prefix: write a path of letters, digits and - _ . ~, such as /clerk");
    }
    let external_prefix = if common.external_url.is_some() { external_prefix } else { route_prefix.clone() };
    Ok(admin::AdminOptions { telemetry_path: common.telemetry_path.clone(), route_prefix, external_prefix })
}

/// A path as a prefix: empty, or with a slash in front and none behind.
fn prefix(path: &str) -> String {
    let path = path.trim_matches('/');
    if path.is_empty() { String::new() } else { format!("/{path}") }
}

fn read_keys(path: &Path) -> anyhow::Result<Vec<KeyGrant>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("--keys-file {}", path.display()))?;
    let lines = text.lines().map(str::trim).enumerate();
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(index, line)| line.parse().with_context(|| format!("{}:{}", path.display(), index + 1)))
        .collect()
}

/// Writes a result. A reader that has gone away, as `head` does, is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = anstream::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
