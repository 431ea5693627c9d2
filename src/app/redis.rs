//! The Redis that several processes share.

use anyhow::Context;

use crate::config::Config;
use clerk_client::redis::RedisClient;

/// A client of the configured Redis, which connects when it is used first.
///
/// # Errors
/// Returns an error if the URL cannot be read or is invalid.
pub(super) fn client(config: &Config) -> anyhow::Result<Option<RedisClient>> {
    let Some(redis) = &config.redis else { return Ok(None) };
    let options = redis.options().context("redis_url_file")?;
    RedisClient::new(options).map(Some).context("redis_url_file")
}
