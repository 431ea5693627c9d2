//! `demo`: exporter, gateway, simulated Clerk API and generated load in one process.

pub(super) mod args;
mod load;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::exporter::{Server, app_options};
use super::{print, simulate, until_stopped};
use crate::app::{self, ConfigSource};
use crate::config::Config;
use args::DemoArgs;
use clerk_client::transport::{self, ReqwestTransport};
use clerk_simulator::Simulator;
use load::{APPLICATIONS, Application, load};
use prometheus_web::{ListenAddress, Listener, WebConfigSource};

/// Runs the demo until a signal.
pub(super) async fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let demo = Demo::bind(args).await?;
    let config = demo.config(args)?;
    let source = ConfigSource::Fixed(Box::new(config.clone()));
    let options = app_options(&Server::of_demo(&args.web), config, source).await?;
    let address = options.listeners.first().map(|listener| listener.local_addr()).context("no address to listen on")?;
    let gateway = options.gateway.as_ref().and_then(|front| front.listeners.first());
    let gateway = format!("http://{}", gateway.context("no address for the gateway")?);
    let base = format!("{}{}", reachable(address), options.site.route_prefix);
    let addresses = format!(
        "Landing page:    {base}/\n\
         Metrics:         {base}{metrics}\n\
         Simulated Clerk: {clerk}/v1/users/count\n\
         Its own record:  {clerk}/_simulator/truth\n\
         Gateway:         {gateway}\n\n\
         The load alternates above and below 10 % remaining; the first low window closes after half a minute. Try:\n\n  \
         curl -s {base}{metrics} | grep -E 'remaining|low_windows|throttled'\n\nPress Ctrl-C to stop.\n",
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

/// A URL at which this machine reaches a listener on `address`.
fn reachable(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        return format!("http://localhost:{}", address.port());
    }
    format!("http://{address}")
}

/// The simulated Clerk API, bound, and its load.
struct Demo {
    listener: Listener,
    simulator: Simulator,
}

impl Demo {
    /// Binds the simulator's address.
    ///
    /// # Errors
    /// Returns an error if it is in use.
    async fn bind(args: &DemoArgs) -> anyhow::Result<Self> {
        let keys = APPLICATIONS
            .iter()
            .map(|application| format!("{}={}", application.name, application.key).parse())
            .collect::<Result<_, _>>()
            .context("the demo's own keys")?;
        let simulator = Simulator::new(clerk_simulator::Options::default().keys(keys));
        let listeners = prometheus_web::bind(&[ListenAddress::Socket(args.simulator_address)])
            .await
            .context("cannot start the simulated Clerk API; choose another address with --simulator.listen-address")?;
        let listener = listeners.into_iter().next().context("no socket for the simulated Clerk")?;
        Ok(Self { listener, simulator })
    }

    /// URL of the simulated Clerk API.
    fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr())
    }

    /// Configuration of the exporter.
    fn config(&self, args: &DemoArgs) -> anyhow::Result<Config> {
        let interval = humantime::format_duration(args.probe_interval);
        let mut text = format!("probe: {{ interval: {interval} }}\nusers: {{ interval: 1m }}\ninstances:\n");
        for Application { name, key, .. } in APPLICATIONS {
            let url = self.url();
            text.push_str(&format!(
                "  - {{ name: {name}, secret_key: {key}, api_url: \"{url}\", users_limit: 60000 }}\n"
            ));
        }
        text.push_str(&format!("gateway:\n  sole: true\n  listen_address: \"{}\"\n", args.gateway_address));
        // Most policies are in shadow, so that the load reaches its limit.
        text.push_str(
            "  allow_clear_text: true\n  policies:\n    retry: shadow\n    coalesce: shadow\n    batch: shadow\n    \
             cache: { mode: shadow, ttl: 10s }\n    \
             routes: { GET /v1/users: { pace: on }, GET /v1/jwks: { cache: { mode: on, ttl: 30s } } }\n",
        );
        Ok(Config::parse(&text, Path::new("demo.yml"), &|_| None)?)
    }

    /// Serves the simulated Clerk API and generates load until `stop`. `gateway` is the URL of the gateway.
    async fn run(self, gateway: String, stop: CancellationToken) -> anyhow::Result<()> {
        let clerk = self.url();
        let users: Arc<[String]> = (0..100).filter_map(|number| self.simulator.user_id(number)).collect();
        let upstream = ReqwestTransport::new(transport::ReqwestOptions::default())?;
        let mut tasks = JoinSet::new();
        for application in APPLICATIONS {
            let job = if application.is_all_behind_gateway { gateway.clone() } else { clerk.clone() };
            let (users, upstream) = (Arc::clone(&users), Arc::clone(&upstream));
            tasks.spawn(load(application, [gateway.clone(), job], users, upstream));
        }
        let options = prometheus_web::Options::default().name(simulate::LOG_NAME);
        let web_config = WebConfigSource::none();
        prometheus_web::serve(vec![self.listener], self.simulator.router(), options, web_config, stop).await;
        tasks.shutdown().await;
        Ok(())
    }
}
