//! Sets how requests are retried, and prints what an error says.
//!
//! ```sh
//! CLERK_SECRET_KEY=sk_test_... cargo run --example retry
//! ```

use std::io::Write;
use std::time::Duration;

use clerk_client::outbound::RequestOptions;
use clerk_client::outbound::retry::RetryPolicy;
use clerk_client::{Clerk, UserFilter};

/// Counts users twenty times.
pub(crate) async fn run(clerk: Clerk, out: &mut impl Write) -> std::io::Result<()> {
    // Twice as many retries as the default, after shorter waits. A `Retry-After` is always waited for.
    let retry = RetryPolicy::default().max_retries(6).base(Duration::from_millis(50));
    let clerk = clerk.with_options(RequestOptions::default().retry(retry));
    for _ in 0..20 {
        match clerk.users().count(&UserFilter::new()).await {
            Ok(count) => writeln!(out, "{} users", count.total_count)?,
            Err(error) => {
                writeln!(out, "{error}; unsent: {}, retry after {:?}", error.is_unsent(), error.retry_after())?
            }
        }
    }
    let stats = clerk.outbound().limits.stats();
    writeln!(out, "{} requests took {} attempts", stats.requests, stats.attempts)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    Ok(run(Clerk::from_env()?, &mut std::io::stdout()).await?)
}
