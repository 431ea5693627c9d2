//! `test`: runs a team's own test suite against the simulated Clerk, and says what it sent.

pub(super) mod args;
mod bounds;
mod child;
mod record;
mod report;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use anyhow::Context;
use axum::middleware;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::simulate;
use args::{ReportFormat, TestArgs};
use child::{Signals, StartError};
use clerk_simulator::Simulator;
use prometheus_web::{ListenAddress, WebConfigSource};
use record::SuiteRecord;

/// Exit status when the suite sent more requests than allowed.
const ABOVE_BOUNDS: u8 = 1;

/// Runs the command. Exits as it does, or with 1 if it succeeded and sent too many requests.
pub(super) async fn run(args: &TestArgs) -> anyhow::Result<ExitCode> {
    let signals = Signals::handle().context("cannot listen for signals")?;
    let loopback = ListenAddress::Socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let listeners = prometheus_web::bind(&[loopback]).await?;
    let address = listeners.first().context("no address to listen on")?.local_addr();
    let record = SuiteRecord::default();
    let router = Simulator::new(args.options()).router();
    let router = router.layer(middleware::from_fn_with_state(record.clone(), record::note));
    let stop = CancellationToken::new();
    let mut serving = JoinSet::new();
    serving.spawn(prometheus_web::serve(
        listeners,
        router,
        prometheus_web::Options::default().name(simulate::LOG_NAME),
        WebConfigSource::none(),
        stop.clone(),
    ));
    let mut child = match child::start(&args.command, address) {
        Ok(child) => child,
        Err(StartError { status, message }) => {
            say(&message);
            return Ok(ExitCode::from(status));
        }
    };
    let ended = child::wait(&mut child, signals).await.context("cannot wait for the command")?;
    // What the command started may still send requests: they are not counted, and get no answer any more.
    let counts = record.counts();
    stop.cancel();
    serving.shutdown().await;
    let status = child::exit_status(ended);
    let exceeded = bounds::exceeded(&counts, args.max_requests, &args.max_per_route);
    let report = match args.format {
        ReportFormat::Table => report::table(&counts),
        ReportFormat::Json => report::json(&counts, &exceeded, status)?,
    };
    match &args.output {
        Some(path) => std::fs::write(path, report).with_context(|| format!("--output {}", path.display()))?,
        None => {
            let _ = anstream::stderr().write_all(report.as_bytes());
        }
    }
    for bound in &exceeded {
        say(&bound.text());
    }
    Ok(ExitCode::from(if status == 0 && !exceeded.is_empty() { ABOVE_BOUNDS } else { status }))
}

/// Writes a line to standard error.
fn say(text: &str) {
    let _ = writeln!(anstream::stderr(), "clerk-exporter: {text}");
}
