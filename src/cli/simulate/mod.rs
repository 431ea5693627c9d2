//! `simulate`: the simulated Clerk API alone.

pub(super) mod args;
mod webhooks;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::{print, until_stopped};
use args::SimulateArgs;
use clerk_client::secret::process_env;
use clerk_client::transport::{self, ReqwestTransport};
use clerk_simulator::{KeyGrant, Simulator};
use prometheus_web::{ListenAddress, WebConfigSource};
use webhooks::WebhookTarget;

/// Name of the simulator in the log.
pub(super) const LOG_NAME: &str = "simulator";

pub(super) async fn run(args: &SimulateArgs) -> anyhow::Result<ExitCode> {
    let keys = args.keys_file.as_deref().map(read_keys).transpose()?.unwrap_or_default();
    let listeners = prometheus_web::bind(&[ListenAddress::Socket(args.listen_address)]).await?;
    let addresses: String =
        listeners.iter().map(|listener| format!("Simulated Clerk: http://{}\n", listener.local_addr())).collect();
    let simulator = Simulator::new(args.options(keys));
    let stop = CancellationToken::new();
    let target = WebhookTarget::of(&args.webhooks, &process_env)?;
    let delivering = target.map(|target| {
        let transport = ReqwestTransport::new(transport::ReqwestOptions::default())?;
        // From now on, so that no change is missed.
        let events = simulator.events();
        anyhow::Ok(webhooks::deliver(simulator.clone(), events, target, transport, stop.clone()))
    });
    let delivering = delivering.transpose()?;
    let serving = prometheus_web::serve(
        listeners,
        simulator.router(),
        prometheus_web::Options::default().name(LOG_NAME),
        WebConfigSource::none(),
        stop.clone(),
    );
    let serving = async {
        print(&addresses)?;
        let delivering = async {
            if let Some(delivering) = delivering {
                delivering.await;
            }
        };
        tokio::join!(serving, delivering);
        Ok(())
    };
    until_stopped(stop, serving).await
}

fn read_keys(path: &Path) -> anyhow::Result<Vec<KeyGrant>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("--keys-file {}", path.display()))?;
    let lines = text.lines().map(str::trim).enumerate();
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(index, line)| line.parse().with_context(|| format!("{}:{}", path.display(), index + 1)))
        .collect()
}
