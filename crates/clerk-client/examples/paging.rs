//! Writes all users of an instance as JSON lines, as fast as the rate limit allows.
//!
//! ```sh
//! CLERK_SECRET_KEY=sk_test_... cargo run --example paging > users.jsonl
//! cargo run --example paging user_2NNEqL2nrIRdJ194ndJqAHwEfxC@1700000000000 >> users.jsonl # Resumes at a cursor.
//! ```

use std::io::Write;

use clerk_client::{Clerk, Cursor};

pub(crate) async fn run(
    clerk: &Clerk,
    from: Option<Cursor>,
    out: &mut impl Write,
    log: &mut impl Write,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut pages = clerk.users().list_all().raw(); // Users as Clerk wrote them, byte for byte.
    if let Some(cursor) = from {
        pages = pages.resume_from(cursor);
    }
    while let Some(page) = pages.try_next().await? {
        for user in &page.users {
            out.write_all(user.as_bytes())?;
            out.write_all(b"\n")?;
        }
        out.flush()?; // Only users that are written may be skipped by a later run.
        writeln!(log, "{} users, up to {}", page.users.len(), page.cursor)?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let from = std::env::args().nth(1).map(|cursor| cursor.parse()).transpose()?;
    run(&Clerk::from_env()?, from, &mut std::io::stdout(), &mut std::io::stderr()).await
}
