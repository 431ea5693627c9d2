//! Asks a Clerk that fails a quarter of the time, and shows what that costs.
//!
//! ```sh
//! cargo run --example retry
//! ```
//!
//! It brings its own simulated Clerk and needs no account. A [`Policy`](clerk_client::outbound::Policy) says how often a
//! request is repeated; beyond that, retries are a share of the traffic, so that nobody makes an outage worse.

use std::io::Write;
use std::time::Duration;

use clerk_client::clerk::{Clerk, UserFilter};
use clerk_client::outbound::RequestOptions;
use clerk_client::outbound::retry::{RetryPolicy, RetryableError};
use clerk_client::secret::{Secret, SecretSource};
use clerk_simulator::{Fault, FaultBody, Faults, Options, Simulator};
use prometheus_web::{ListenAddress, WebConfigSource};
use tokio_util::sync::CancellationToken;

/// Counts users twenty times.
pub(crate) async fn run(clerk: &Clerk, out: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
    // Twice as patient as the default, but quicker.
    let retry = RetryPolicy { max_retries: 6, base: Duration::from_millis(50), ..RetryPolicy::default() };
    let clerk = clerk.clone().with_policy(RequestOptions { retry, ..RequestOptions::default() });
    for _ in 0..20 {
        match clerk.users().count(&UserFilter::default()).await {
            Ok(count) => writeln!(out, "{} users", count.total_count)?,
            // All that can be told by: what Clerk said, whether anything was executed, and when to come back.
            Err(error) => writeln!(out, "{error}; unsent: {}, again in: {:?}", error.is_unsent(), error.retry_after())?,
        }
    }
    let numbers = clerk.outbound().limits.stats();
    writeln!(out, "{} requests took {} attempts", numbers.requests, numbers.attempts)?;
    for trouble in RetryableError::ALL {
        writeln!(out, "  repeated because of {trouble:?}: {}", numbers.retried[trouble as usize])?;
    }
    Ok(())
}

/// One of five answers is a 503, one of twenty a 429 whose `Retry-After` must be waited for.
pub(crate) fn faults() -> Faults {
    let mut faults = Faults::default();
    for (fault, probability) in [
        (Fault::Status { status: 503, body: FaultBody::Html }, 0.2),
        (Fault::Throttled { retry_after: Some("1".to_owned()), body: FaultBody::Clerk }, 0.05),
    ] {
        let mut rule = fault.always();
        rule.probability = probability;
        faults.rules.push(rule);
    }
    faults
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let simulator = Simulator::new(Options { faults: faults(), ..Options::default() });
    let address: ListenAddress = "127.0.0.1:0".parse()?;
    let listeners = prometheus_web::bind(&[address]).await?;
    let url = format!("http://{}", listeners[0].local_addr());
    let stop = CancellationToken::new();
    let options = prometheus_web::Options::default();
    let server = prometheus_web::serve(listeners, simulator.router(), options, WebConfigSource::none(), stop.clone());
    let key = SecretSource::Inline(Secret::new("sk_test_simulated".to_owned()));
    let clerk = Clerk::builder().key(key).api_url(&url)?.build()?;
    let client = async {
        let done = run(&clerk, &mut std::io::stdout()).await;
        stop.cancel();
        done
    };
    let (_, done) = tokio::join!(server, client);
    done
}
