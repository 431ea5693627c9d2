//! Writes all users of an instance as one JSON object a line, as fast as the rate limit allows.
//!
//! ```sh
//! CLERK_SECRET_KEY=sk_test_... cargo run --example paging > users.jsonl
//! ```
//!
//! After each page the place is written to standard error. A run that was interrupted goes on there:
//!
//! ```sh
//! cargo run --example paging user_2NNEqL2nrIRdJ194ndJqAHwEfxC@1700000000000 >> users.jsonl
//! ```
//!
//! `CLERK_API_URL` leads to another server: `http://127.0.0.1:10431` to that of `clerk-exporter simulate`, which
//! takes any key. `clerk-exporter users export` does all this, and keeps the place itself.

use std::io::Write;

use clerk_client::clerk::{Clerk, Cursor};

pub(crate) async fn run(
    clerk: &Clerk,
    from: Option<Cursor>,
    out: &mut impl Write,
    log: &mut impl Write,
) -> Result<(), Box<dyn std::error::Error>> {
    // As Clerk wrote them: nothing is lost, and nothing is parsed only to be written again.
    let mut pages = clerk.users().list_all().raw();
    if let Some(cursor) = from {
        pages = pages.resume_from(cursor);
    }
    while let Some(page) = pages.next().await? {
        for user in &page.users {
            out.write_all(user.as_bytes())?;
            out.write_all(b"\n")?;
        }
        // Only what was written may be skipped by a later run.
        out.flush()?;
        writeln!(log, "{} users, up to {}", page.users.len(), page.cursor)?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let from = std::env::args().nth(1).map(|cursor| cursor.parse()).transpose()?;
    run(&Clerk::from_env()?, from, &mut std::io::stdout(), &mut std::io::stderr()).await
}
