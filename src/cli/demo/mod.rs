//! `demo`: exporter, gateway, simulated Clerk API and generated load in one process.

pub(super) mod args;
mod load;
mod spans;

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
use clerk_simulator::{HeaderProfile, Simulator};
use load::{APPLICATIONS, Application, Visibility, load};
use prometheus_web::{ListenAddress, Listener, WebConfigSource};
use spans::SpanBuffer;

/// Runs the demo until a signal.
pub(super) async fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let demo = Demo::bind(args).await?;
    let config = demo.config(args)?;
    let source = ConfigSource::Fixed(Box::new(config.clone()));
    let options = app_options(&Server::of_demo(&args.web), config, source).await?;
    let address = options.listeners.first().map(|listener| listener.local_addr()).context("no address to listen on")?;
    let gateway = options.gateway.as_ref().and_then(|front| front.listeners.first());
    let gateway = format!("http://{}", gateway.context("no address for the gateway")?);
    let receiver = options.telemetry.as_ref().and_then(|front| front.listeners.first());
    let receiver = format!("http://{}", receiver.context("no address for traces")?);
    let base = format!("{}{}", reachable(address), options.site.route_prefix);
    let addresses = format!(
        "Landing page:    {base}/\n\
         Metrics:         {base}{metrics}\n\
         Simulated Clerk: {clerk}/v1/users/count\n\
         Its own record:  {clerk}/_simulator/truth\n\
         Gateway:         {gateway}\n\
         Traces (OTLP):   {receiver}/v1/traces\n\n\
         The load alternates above and below 10 % remaining; the first low window closes after half a minute. The\n\
         instance storefront has no quota headers and no gateway: its numbers come from traces. Try:\n\n  \
         curl -s {base}{metrics} | grep -E 'remaining|low_windows|throttled'\n\nPress Ctrl-C to stop.\n",
        metrics = options.site.telemetry_path,
        clerk = demo.url(),
    );
    let stop = CancellationToken::new();
    let both = {
        let stop = stop.clone();
        async move {
            print(&addresses)?;
            let (exporter, simulator) =
                tokio::join!(app::run(options, stop.clone()), demo.run(gateway, receiver, stop));
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
    /// With quota headers, for instances behind the gateway.
    clerk: SimulatedClerk,
    /// Without, as the real Clerk, for the instance that traces show.
    silent_clerk: SimulatedClerk,
}

struct SimulatedClerk {
    listener: Listener,
    simulator: Simulator,
}

impl SimulatedClerk {
    async fn bind(address: SocketAddr, options: clerk_simulator::Options) -> anyhow::Result<Self> {
        let keys = APPLICATIONS
            .iter()
            .map(|application| format!("{}={}", application.name, application.key).parse())
            .collect::<Result<_, _>>()
            .context("the demo's own keys")?;
        let simulator = Simulator::new(options.keys(keys));
        let listeners = prometheus_web::bind(&[ListenAddress::Socket(address)])
            .await
            .context("cannot start the simulated Clerk API; choose another address with --simulator.listen-address")?;
        let listener = listeners.into_iter().next().context("no socket for the simulated Clerk")?;
        Ok(Self { listener, simulator })
    }

    fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr())
    }

    async fn serve(self, stop: CancellationToken) {
        let options = prometheus_web::Options::default().name(simulate::LOG_NAME);
        let web_config = WebConfigSource::none();
        prometheus_web::serve(vec![self.listener], self.simulator.router(), options, web_config, stop).await;
    }
}

impl Demo {
    /// Binds the simulator's address.
    ///
    /// # Errors
    /// Returns an error if it is in use.
    async fn bind(args: &DemoArgs) -> anyhow::Result<Self> {
        let options = clerk_simulator::Options::default();
        let with_headers = options.clone().headers(HeaderProfile::XRateLimit);
        let clerk = SimulatedClerk::bind(args.simulator_address, with_headers).await?;
        // Only the demo uses it, so any free port will do.
        let silent_address = SocketAddr::new(args.simulator_address.ip(), 0);
        let silent_clerk = SimulatedClerk::bind(silent_address, options).await?;
        Ok(Self { clerk, silent_clerk })
    }

    /// URL of the simulated Clerk API.
    fn url(&self) -> String {
        self.clerk.url()
    }

    /// Configuration of the exporter.
    fn config(&self, args: &DemoArgs) -> anyhow::Result<Config> {
        let interval = humantime::format_duration(args.probe_interval);
        let mut text = format!("probe: {{ interval: {interval} }}\nusers: {{ interval: 1m }}\ninstances:\n");
        for Application { name, key, visibility, .. } in APPLICATIONS {
            let clerk = if visibility == Visibility::Traces { &self.silent_clerk } else { &self.clerk };
            let url = clerk.url();
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
        text.push_str("telemetry:\n  listen_address: 127.0.0.1:0\n  lateness: 8s\n");
        let traced = APPLICATIONS.iter().filter(|application| application.visibility == Visibility::Traces);
        for Application { name, .. } in traced {
            text.push_str(&format!("  instances: {{ {name}: {name} }}\n  complete: [{name}]\n"));
        }
        Ok(Config::parse(&text, Path::new("demo.yml"), &|_| None)?)
    }

    /// Serves the simulated Clerk API and generates load until `stop`, with the URLs of the gateway and of the receiver
    /// of traces.
    async fn run(self, gateway: String, receiver: String, stop: CancellationToken) -> anyhow::Result<()> {
        let (clerk, silent_clerk) = (self.clerk.url(), self.silent_clerk.url());
        let users: Arc<[String]> = (0..100).filter_map(|number| self.clerk.simulator.user_id(number)).collect();
        let upstream = ReqwestTransport::new(transport::ReqwestOptions::default())?;
        let mut tasks = JoinSet::new();
        for application in APPLICATIONS {
            let bases = match application.visibility {
                Visibility::Gateway => [&gateway, &gateway],
                Visibility::PartOfGateway => [&gateway, &clerk],
                Visibility::Traces => [&silent_clerk, &silent_clerk],
            };
            let spans = (application.visibility == Visibility::Traces)
                .then(|| SpanBuffer::new(application.name, application.name));
            if let Some(spans) = &spans {
                tasks.spawn(spans.clone().send_to(receiver.clone(), Arc::clone(&upstream)));
            }
            let (users, upstream) = (Arc::clone(&users), Arc::clone(&upstream));
            tasks.spawn(load(application, bases.map(String::clone), users, upstream, spans));
        }
        tokio::join!(self.clerk.serve(stop.clone()), self.silent_clerk.serve(stop));
        tasks.shutdown().await;
        Ok(())
    }
}
