//! Leases of the right to probe, in the Redis that exporters share: a string for each instance.

use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use clerk_client::redis::{InstanceKeys, RedisClient, RedisClientError, RedisKey, Script};

/// KEYS: the lease. ARGV: who asks, length in milliseconds.
/// Returns 0 if it was taken or renewed, or else how long another one has it, in milliseconds.
const TAKE: &str = r"
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  local left = redis.call('PTTL', KEYS[1])
  if left > 0 then return left end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 0
";

/// KEYS: the lease. ARGV: who gives it up.
const RELEASE: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 0
";

/// The store.
#[derive(Debug)]
pub struct SharedLeases {
    client: RedisClient,
    take: Script,
    release: Script,
    /// The name of this process, which no other one has.
    process: String,
}

impl SharedLeases {
    /// Creates a store.
    #[must_use]
    pub fn new(client: RedisClient) -> Self {
        // 128 random bits.
        let mut process = String::new();
        for _ in 0..2 {
            // Writing into a string does not fail.
            let _ = write!(process, "{:016x}", RandomState::new().hash_one(0));
        }
        Self { client, take: Script::new(TAKE), release: Script::new(RELEASE), process }
    }

    /// Takes or renews the lease of an instance. Returns how long another process has it; `None` if this one has it now.
    ///
    /// # Errors
    /// Returns an error if the server does not answer or refuses. The lease may have been taken.
    pub async fn take(&self, instance: &str, length: Duration) -> Result<Option<Duration>, RedisClientError> {
        let length = length.as_millis().to_string();
        let arguments = [self.process.as_bytes(), length.as_bytes()];
        let reply = self.client.run(&self.take, &[&key(instance)], &arguments).await?;
        let left = reply.int().and_then(|left| u64::try_from(left).ok()).filter(|left| *left > 0);
        Ok(left.map(Duration::from_millis))
    }

    /// Gives up the lease of an instance, if this process has it.
    ///
    /// # Errors
    /// Returns an error if the server does not answer or refuses. The lease then ends by itself.
    pub async fn release(&self, instance: &str) -> Result<(), RedisClientError> {
        self.client.run(&self.release, &[&key(instance)], &[self.process.as_bytes()]).await.map(drop)
    }
}

fn key(instance: &str) -> RedisKey {
    InstanceKeys::new(instance).key(&["probe", "lease"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use clerk_test_support::redis::calls_within_rights;

    #[test]
    fn commands_of_the_scripts_are_in_the_documented_rights() {
        assert_eq!(calls_within_rights(TAKE) + calls_within_rights(RELEASE), 5);
    }

    #[test]
    fn processes_have_different_names() {
        let client = || RedisClient::try_from("redis://127.0.0.1:1").unwrap();
        assert_ne!(SharedLeases::new(client()).process, SharedLeases::new(client()).process);
    }
}
