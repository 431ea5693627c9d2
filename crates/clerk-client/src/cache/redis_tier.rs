//! Answers in Redis, and what other processes are told.
//!
//! A generation in Redis is a random value under the key of a tag. Whoever is about to fetch an answer notes those of its
//! tags, and makes the ones that are missing. The answer is written by a script only if they are still the same, and
//! carries them: whoever reads it compares again. An invalidation removes them. So nothing that Redis may lose, by
//! eviction, by a restart, or because its time is over, can make an old answer look new, and invalidating works when its
//! memory is full.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::codec;
use super::encryption::Encryption;
use super::entry::Record;
use super::{CacheKey, millis};
use crate::redis::{RedisClient, RedisClientError, Reply, Script, Subscription};
use crate::webhook::Tag;

/// KEYS: answer, tags. ARGV: new generation, its time to live.
/// Returns whether the answer is good, the generations, the answer, its time to live.
const LOOK: &str = r"
local value = redis.call('GET', KEYS[1])
local seen, missing = {}, {}
for i = 2, #KEYS do
  local generation = redis.call('GET', KEYS[i])
  if not generation or #generation ~= 16 then
    missing[#missing + 1] = KEYS[i]
    generation = ARGV[1]
  end
  seen[#seen + 1] = generation
end
seen = string.char(#seen) .. table.concat(seen)
if value and #missing == 0 and string.sub(value, 1, #seen) == seen then
  return {1, seen, string.sub(value, #seen + 1), redis.call('PTTL', KEYS[1])}
end
if value then
  redis.call('UNLINK', KEYS[1])
end
for _, key in ipairs(missing) do
  redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
end
return {0, seen}
";

/// KEYS: answer, tags. ARGV: generations from before the fetch, answer, its time to live, that of generations.
/// Returns whether the answer was kept.
const KEEP: &str = r"
local seen = {}
for i = 2, #KEYS do
  seen[#seen + 1] = redis.call('GET', KEYS[i]) or ''
end
seen = string.char(#seen) .. table.concat(seen)
if seen ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'PX', ARGV[3])
for i = 2, #KEYS do
  if redis.call('PTTL', KEYS[i]) < tonumber(ARGV[4]) then
    redis.call('PEXPIRE', KEYS[i], ARGV[4])
  end
end
return 1
";

/// KEYS: tags. ARGV: channel, message.
const FORGET: &str = r"
redis.call('UNLINK', unpack(KEYS))
return redis.call('PUBLISH', ARGV[1], ARGV[2])
";

/// The longest doubt that another process is believed.
const LONGEST_DOUBT: Duration = Duration::from_secs(600);

/// The second level of a cache.
pub(super) struct RedisTier {
    store: RedisClient,
    seal: Option<Encryption>,
    instance: Box<str>,
    /// Names this cache in its messages.
    sender: Box<str>,
    look: Script,
    keep: Script,
    forget: Script,
    has_met_unreadable: AtomicBool,
}

/// What was seen before a fetch: where its answer belongs, and which generations it belongs to.
#[derive(Debug)]
pub(super) struct TagGenerations {
    place: String,
    tags: Vec<String>,
    generations: Bytes,
}

/// An answer in Redis, and how long it is there.
pub(super) struct RedisHit {
    pub(super) record: Record,
    pub(super) left: Duration,
}

#[derive(Serialize, Deserialize)]
struct Message {
    from: String,
    forget: Vec<String>,
    /// How long a write may still be carried out that changes it, in milliseconds. Earlier versions do not say it.
    #[serde(default, skip_serializing_if = "is_zero")]
    doubt: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl RedisTier {
    pub(super) fn new(store: RedisClient, seal: Option<Encryption>, instance: &str) -> Self {
        let sender = URL_SAFE_NO_PAD.encode(random()).into();
        let [look, keep, forget] = [LOOK, KEEP, FORGET].map(Script::new);
        let has_met_unreadable = AtomicBool::new(false);
        Self { store, seal, instance: instance.into(), sender, look, keep, forget, has_met_unreadable }
    }

    /// Looks for an answer that is not older than its tags. `lifetime` is how long an answer is to be kept.
    pub(super) async fn look(
        &self,
        key: CacheKey,
        tags: &[Tag],
        lifetime: Duration,
    ) -> Result<(Option<RedisHit>, TagGenerations), RedisClientError> {
        let place = format!("answer:{}", key.to_text());
        let tags: Vec<_> = tags.iter().map(|tag| self.tag_key(tag)).collect();
        let (generation, ttl) = (random(), generation_ttl(lifetime));
        let arguments = [&generation[..], ttl.as_bytes()];
        let reply = self.store.run(&self.look, &keys(&place, &tags), &arguments).await?;
        let mut reply = reply.into_list().unwrap_or_default().into_iter();
        let is_good = reply.next().and_then(|reply| reply.int()) == Some(1);
        let generations = reply.next().and_then(Reply::into_bytes).unwrap_or_default();
        let value = reply.next().and_then(Reply::into_bytes);
        let left = reply.next().and_then(|reply| u64::try_from(reply.int()?).ok()).map(Duration::from_millis);
        let seen = TagGenerations { place, tags, generations };
        let (true, Some(value), Some(left)) = (is_good, value, left) else {
            return Ok((None, seen));
        };
        if let Some(record) = codec::decode(value, self.seal.as_ref(), &self.context(&seen)) {
            return Ok((Some(RedisHit { record, left }), seen));
        }
        if self.has_met_unreadable.swap(true, Ordering::Relaxed) {
            tracing::debug!("an answer in Redis cannot be read and is removed");
        } else {
            tracing::warn!(
                "an answer in Redis cannot be read and is removed; if that goes on, processes that share this Redis have \
                 different encryption keys: give all of them the same ones (further ones are logged at debug)"
            );
        }
        self.store.remove(&[&seen.place]).await?;
        Ok((None, seen))
    }

    /// Keeps an answer for `ttl` unless one of its tags was invalidated since `seen`. Says whether it did.
    pub(super) async fn keep(
        &self,
        seen: &TagGenerations,
        record: &Record,
        ttl: Duration,
    ) -> Result<bool, RedisClientError> {
        let Some(value) = codec::encode(record, self.seal.as_ref(), &self.context(seen)) else {
            return Ok(false);
        };
        let (ttl, generation_ttl) = (millis(ttl).max(1).to_string(), generation_ttl(ttl));
        let arguments = [&seen.generations[..], &value, ttl.as_bytes(), generation_ttl.as_bytes()];
        let reply = self.store.run(&self.keep, &keys(&seen.place, &seen.tags), &arguments).await?;
        Ok(reply.int() == Some(1))
    }

    /// Makes all answers old that have one of the tags, and tells other processes; and for how long a write may still change
    /// them.
    pub(super) async fn invalidate(&self, tags: &[Tag], doubt: Duration) -> Result<(), RedisClientError> {
        if tags.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = tags.iter().map(|tag| self.tag_key(tag)).collect();
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        let forget = tags.iter().map(ToString::to_string).collect();
        let message = Message { from: self.sender.clone().into(), forget, doubt: millis(doubt) };
        let message = serde_json::to_vec(&message).unwrap_or_default();
        let channel = self.store.name(&self.channel());
        self.store.run(&self.forget, &keys, &[channel.as_bytes(), &message]).await.map(drop)
    }

    /// What other processes say, to be read by [`read`](Self::read).
    pub(super) fn subscribe(&self) -> Subscription {
        self.store.subscribe(&self.channel())
    }

    /// The tags that a message names, and how long a write may still change them; `None` if it is our own. What cannot be
    /// read could mean anything.
    pub(super) fn read(&self, message: &[u8]) -> Option<(Vec<Tag>, Duration)> {
        let Ok(message) = serde_json::from_slice::<Message>(message) else {
            return Some((vec![Tag::Everything], Duration::ZERO));
        };
        if *message.from == *self.sender {
            return None;
        }
        let tags = message.forget.iter().map(|text| text.parse().unwrap_or(Tag::Everything)).collect();
        // Nobody who is well waits longer for a write.
        Some((tags, Duration::from_millis(message.doubt).min(LONGEST_DOUBT)))
    }

    fn channel(&self) -> String {
        format!("forget:{}", self.instance)
    }

    fn tag_key(&self, tag: &Tag) -> String {
        let length = (self.instance.len() as u64).to_be_bytes();
        let hash = Sha256::new().chain_update(length).chain_update(self.instance.as_bytes());
        let hash = hash.chain_update(tag.to_string().as_bytes()).finalize();
        format!("tag:{}", URL_SAFE_NO_PAD.encode(&hash[..16]))
    }

    /// What an answer is sealed along with.
    fn context(&self, seen: &TagGenerations) -> Vec<u8> {
        [self.store.name(&seen.place).as_bytes(), &seen.generations].concat()
    }
}

fn keys<'a>(place: &'a str, tags: &'a [String]) -> Vec<&'a str> {
    [place].into_iter().chain(tags.iter().map(String::as_str)).collect()
}

/// Longer than any answer that carries the generation. If not, the answer would only be fetched sooner.
fn generation_ttl(lifetime: Duration) -> String {
    millis(lifetime.saturating_mul(2).saturating_add(Duration::from_secs(600))).to_string()
}

/// A value that was never there before.
fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        // The system has no randomness at hand. Good enough: it has to be new, not to be secret.
        bytes = std::array::from_fn(|_| fastrand::u8(..));
    }
    bytes
}
