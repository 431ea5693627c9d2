//! Caches users in memory and Redis. A write through the client invalidates them, in all processes with the same Redis.
//!
//! ```sh
//! REDIS_URL=redis://127.0.0.1 CLERK_SECRET_KEY=sk_test_... cargo run --features redis --example cache user_...
//! ```

use std::io::Write;
use std::time::Duration;

use clerk_client::{Cache, CacheBuilder, Clerk, ClerkBuilder, Error, UpdateUser};

/// Users are fresh for five minutes, and for an hour while Clerk cannot respond.
pub(crate) fn cache(redis_url: Option<String>) -> CacheBuilder {
    let cache = Cache::memory(64 << 20).ttl(Duration::from_secs(300)).stale_if_error(Duration::from_secs(3600));
    match redis_url {
        Some(url) => cache.redis(url, "production"),
        None => cache,
    }
}

pub(crate) async fn run(clerk: &Clerk, id: &str) -> Result<Option<String>, Error> {
    clerk.users().get(id).await?; // A request.
    clerk.users().get(id).await?; // From memory.
    clerk.users().update(id, &UpdateUser::new().first_name("Ada")).await?; // Invalidates it.
    let user = clerk.users().get(id).await?; // A request.
    Ok(user.first_name().map(str::to_owned))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let clerk = ClerkBuilder::from_env().cache(cache(std::env::var("REDIS_URL").ok())).build()?;
    let id = std::env::args().nth(1).ok_or("usage: cache USER_ID")?;
    let name = run(&clerk, &id).await?;
    Ok(writeln!(std::io::stdout(), "{name:?} {:?}", clerk.cache().map(Cache::stats))?)
}
