//! The built program in a real setup: a simulated Clerk, a real Prometheus, a real Alertmanager, and a webhook
//! receiver.

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

/// The `Accept` header of Prometheus 2.42.
const PROMETHEUS_ACCEPT: &str = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

/// A client without a proxy, regardless of the environment: everything is local.
fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// The program under test, with a clean environment.
fn clerk_exporter() -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_clerk-exporter"));
    command.env_clear();
    command
}
