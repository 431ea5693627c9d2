//! The built program as people run it: a simulated Clerk, a real Prometheus, a real Alertmanager, and one who is told.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![expect(clippy::print_stdout, reason = "`--nocapture` shows the course of a run")]

mod alert;
mod demo;
mod exposition;
mod load;
mod prometheus;
mod run;
mod shipped;
mod sink;
mod truth;

/// What Prometheus 2.42 sends as `Accept`.
const PROMETHEUS_ACCEPT: &str = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

/// A client that uses no proxy, whatever the environment says: everything is on this machine.
fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// The program under test, with nothing of the environment but what a test adds.
fn clerk_exporter() -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_clerk-exporter"));
    command.env_clear();
    command
}
