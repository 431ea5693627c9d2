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
//! takes any key.

use std::io::Write;

use clerk_exporter::clerk::Clerk;

#[tokio::main]
#[expect(clippy::print_stderr, reason = "progress of an example")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut pages = Clerk::from_env()?.users().list_all();
    if let Some(cursor) = std::env::args().nth(1) {
        pages = pages.resume_from(cursor.parse()?);
    }
    let mut out = std::io::stdout();
    while let Some(page) = pages.next().await? {
        for user in &page.users {
            writeln!(out, "{}", serde_json::to_string(user)?)?;
        }
        // Only what was written may be skipped by a later run.
        out.flush()?;
        eprintln!("{} users, up to {}", page.users.len(), page.cursor);
    }
    Ok(())
}
