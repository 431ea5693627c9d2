//! Looks up the users whose ids are on standard input, one a line, with a request for each hundred of them.
//!
//! ```sh
//! CLERK_SECRET_KEY=sk_test_... cargo run --example batch < ids.txt
//! ```
//!
//! `CLERK_API_URL` leads to another server: `http://127.0.0.1:10431` to that of `clerk-exporter simulate`, which
//! takes any key.

use std::io::{BufRead, Write};

use clerk_client::clerk::{Clerk, LookupOutcome};

pub(crate) async fn run(
    clerk: &Clerk,
    ids: impl BufRead,
    out: &mut impl Write,
) -> Result<(), Box<dyn std::error::Error>> {
    let ids: Vec<String> = ids.lines().collect::<Result<_, _>>()?;
    let ids = ids.iter().map(|id| id.trim()).filter(|id| !id.is_empty());
    // Nobody waits for a single answer: other users of the instance go first.
    let mut look_up = clerk.low_priority().users().look_up(ids)?;
    while let Some(found) = look_up.next().await? {
        for found in found {
            match found.outcome {
                LookupOutcome::User(user) => {
                    writeln!(out, "{} {}", user.id, user.primary_email_address().unwrap_or("-"))?
                }
                LookupOutcome::Missing => writeln!(out, "{} is missing", found.id)?,
                LookupOutcome::Refused(error) => writeln!(out, "{}: {error}", found.id)?,
            }
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    run(&Clerk::from_env()?, std::io::stdin().lock(), &mut std::io::stdout()).await
}
