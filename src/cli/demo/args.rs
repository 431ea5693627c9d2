//! Flags of `demo`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use crate::cli::args::{LogFlags, WebFlags, probe_interval};

/// Flags of `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Address of the simulated Clerk API
    #[arg(long = "simulator.listen-address", value_name = "ADDRESS", default_value = "127.0.0.1:10431")]
    pub(crate) simulator_address: SocketAddr,

    /// Address of the gateway, which receives a part of the load
    #[arg(long = "gateway.listen-address", value_name = "ADDRESS", default_value = "127.0.0.1:10430")]
    pub(crate) gateway_address: SocketAddr,

    /// Time between probes
    #[arg(long = "probe.interval", value_name = "DURATION", default_value = "3s", value_parser = probe_interval)]
    pub(crate) probe_interval: Duration,

    /// The web server.
    #[command(flatten)]
    pub(crate) web: WebFlags,

    /// The log.
    #[command(flatten)]
    pub(crate) log: LogFlags,
}
