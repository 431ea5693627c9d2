//! Looks up the users whose ids are on standard input, one a line, a hundred with a request.
//!
//! ```sh
//! CLERK_SECRET_KEY=sk_test_... cargo run --example batch < ids.txt
//! ```

use std::io::{BufRead, Write};

use clerk_client::{Clerk, LookupOutcome};

pub(crate) async fn run(
    clerk: &Clerk,
    ids: impl BufRead,
    out: &mut impl Write,
) -> Result<(), Box<dyn std::error::Error>> {
    let ids: Vec<String> = ids.lines().collect::<Result<_, _>>()?;
    let ids = ids.iter().map(|id| id.trim()).filter(|id| !id.is_empty());
    // Low priority: other users of the instance go first.
    let mut lookup = clerk.low_priority().users().lookup(ids)?;
    while let Some(batch) = lookup.try_next().await? {
        for found in batch {
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
