//! `simulate`: the simulated Clerk API alone.

pub(super) mod args;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::{print, until_stopped};
use args::SimulateArgs;
use clerk_simulator::{KeyGrant, Simulator};
use prometheus_web::{ListenAddress, WebConfigSource};

/// Name of the simulator in the log.
pub(super) const LOG_NAME: &str = "simulator";

pub(super) async fn run(args: &SimulateArgs) -> anyhow::Result<ExitCode> {
    let keys = args.keys_file.as_deref().map(read_keys).transpose()?.unwrap_or_default();
    let listeners = prometheus_web::bind(&[ListenAddress::Socket(args.listen_address)]).await?;
    let addresses: String =
        listeners.iter().map(|listener| format!("Simulated Clerk: http://{}\n", listener.local_addr())).collect();
    let simulator = Simulator::new(args.options(keys));
    let stop = CancellationToken::new();
    let serving = prometheus_web::serve(
        listeners,
        simulator.router(),
        prometheus_web::Options::default().name(LOG_NAME),
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

fn read_keys(path: &Path) -> anyhow::Result<Vec<KeyGrant>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("--keys-file {}", path.display()))?;
    let lines = text.lines().map(str::trim).enumerate();
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(index, line)| line.parse().with_context(|| format!("{}:{}", path.display(), index + 1)))
        .collect()
}
