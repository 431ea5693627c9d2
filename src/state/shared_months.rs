//! Metered operations of all gateways that share a Redis: a hash for each instance and billing month.
//!
//! Each process writes its own total into a field of its own. A write that is repeated, or of which it is not known
//! whether it arrived, therefore changes nothing: no operation is lost or counted twice.

use std::time::Duration;

use bytes::Bytes;

use clerk_client::redis::{InstanceKeys, RedisClient, RedisClientError, Reply, Script};
use clerk_quota::metered::{MeteredOperation, MonthUsage};

/// KEYS: the hash. ARGV: field, counts, from when they are counted, TTL in milliseconds. Returns the whole hash.
const SYNC: &str = r"
local since = tonumber(redis.call('HGET', KEYS[1], 'since') or '')
if not since or tonumber(ARGV[3]) < since then redis.call('HSET', KEYS[1], 'since', ARGV[3]) end
if ARGV[2] ~= '0 0 0 0' then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return redis.call('HGETALL', KEYS[1])
";

/// How long a hash is kept after it was written last: longer than a month, and until the slowest clock has left it.
const TTL: Duration = Duration::from_secs(40 * 24 * 3600);

/// The field of a process begins with this.
const PROCESS: &str = "process:";

/// The store.
#[derive(Debug)]
pub struct SharedMonths {
    client: RedisClient,
    script: Script,
    /// How the fields of this process begin.
    field: String,
}

/// Why the months of other processes are not known.
#[derive(Debug, thiserror::Error)]
pub enum SharedMonthsError {
    /// The server did not answer.
    #[error(transparent)]
    Redis(#[from] RedisClientError),
    /// Another program, or another version of this one, wrote something else.
    #[error("the hash of the month has unexpected content; delete it, or use the same version in all gateways")]
    Content,
}

impl SharedMonths {
    /// Creates a store for the process of this name, which no other one has.
    #[must_use]
    pub fn new(client: RedisClient, process: &str) -> Self {
        Self { client, script: Script::new(SYNC), field: [PROCESS, process].concat() }
    }

    /// Writes what this process counted in a month, and returns what the others did.
    ///
    /// # Errors
    /// Returns an error if the server does not answer, or has content that cannot be read. The write may have arrived.
    pub async fn sync(&self, instance: &str, own: &MonthUsage) -> Result<MonthUsage, SharedMonthsError> {
        let start = own.month.start.as_secs().to_string();
        let key = InstanceKeys::new(instance).key(&["metered", &start]);
        let counts = own.operations.map(|count| count.to_string()).join(" ");
        // Rounded up: never from earlier than it is true.
        let since = own.since.as_secs() + u64::from(own.since.subsec_nanos() > 0);
        let (since, ttl) = (since.to_string(), TTL.as_millis().to_string());
        // After the clock or the billing day changed, the count restarts and adds to the former one.
        let field = format!("{}:{since}", self.field);
        let arguments: [&[u8]; 4] = [field.as_bytes(), counts.as_bytes(), since.as_bytes(), ttl.as_bytes()];
        let reply = self.client.run(&self.script, &[&key], &arguments).await?;
        self.others(reply, own, &field).ok_or(SharedMonthsError::Content)
    }

    fn others(&self, reply: Reply, own: &MonthUsage, own_field: &str) -> Option<MonthUsage> {
        let texts = reply.into_list()?.into_iter().map(|entry| text(entry.into_bytes()?));
        let texts = texts.collect::<Option<Vec<String>>>()?;
        let mut others = MonthUsage::empty(own.month, own.since);
        for [field, value] in texts.as_chunks().0 {
            if field == "since" {
                others.since = Duration::from_secs(value.parse().ok()?).max(own.month.start).min(own.since);
            } else if field.starts_with(PROCESS) {
                let counts = counts(value)?;
                if field != own_field {
                    others.operations = std::array::from_fn(|it| others.operations[it].saturating_add(counts[it]));
                }
            }
        }
        Some(others)
    }
}

fn text(bytes: Bytes) -> Option<String> {
    String::from_utf8(bytes.into()).ok()
}

fn counts(value: &str) -> Option<[u64; MeteredOperation::ALL.len()]> {
    let counts = value.split(' ').map(|count| count.parse().ok()).collect::<Option<Vec<u64>>>()?;
    counts.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clerk_test_support::redis::calls_within_rights;

    /// The rights that the documentation lists suffice.
    #[test]
    fn commands_of_the_script_are_in_the_documented_rights() {
        assert_eq!(calls_within_rights(SYNC), 5);
    }
}
