//! The Redis tier, and messages to other processes.
//!
//! A generation in Redis is a random value under the key of a tag. A fetch first reads the generations of its tags and
//! creates missing ones. A script stores the response only if they are unchanged, and stores them with it; a lookup
//! compares them again. An invalidation removes them. So losing a key (eviction, restart, expiry) can only invalidate
//! entries, never revive them, and invalidation works when Redis is out of memory.

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
use super::key::MacKey;
use super::{CacheKey, millis};
use crate::redis::scripts::cache::{INVALIDATE, KEEP, LOOK};
use crate::redis::{
    InstanceKeys, RedisChannel, RedisClient, RedisClientError, RedisKey, RedisStats, Reply, Script, Subscription,
};
use crate::webhook::Tag;

/// Upper bound of the doubt accepted from another process.
const LONGEST_DOUBT: Duration = Duration::from_secs(600);

/// The second tier of a cache.
pub(super) struct RedisTier {
    store: RedisClient,
    seal: Option<Encryption>,
    keys: InstanceKeys,
    channel: RedisChannel,
    /// Identifies this cache in its messages.
    sender: Box<str>,
    look: Script,
    keep: Script,
    invalidate: Script,
    has_met_unreadable: AtomicBool,
}

/// State read before a fetch: the key of the entry, and the generations of its tags.
#[derive(Debug)]
pub(super) struct TagGenerations {
    place: RedisKey,
    tags: Vec<RedisKey>,
    generations: Bytes,
}

/// An invalidation that failed in Redis or may not have reached other processes.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidationError {
    /// Redis may hold outdated entries.
    #[error(transparent)]
    Redis(#[from] RedisClientError),
    /// Redis has invalidated the entries, but other processes were not notified.
    #[error("{0}; subscribed processes were not notified")]
    NotPublished(RedisClientError),
}

/// An entry in Redis and its remaining TTL.
pub(super) struct RedisHit {
    pub(super) record: Record,
    pub(super) left: Duration,
}

#[derive(Serialize, Deserialize)]
struct Message {
    from: String,
    forget: Vec<String>,
    /// How long a write may still take effect, in milliseconds. Absent from earlier versions.
    #[serde(default, skip_serializing_if = "is_zero")]
    doubt: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "required by serde")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl RedisTier {
    pub(super) fn new(store: RedisClient, seal: Option<Encryption>, instance: &str) -> Self {
        let sender = URL_SAFE_NO_PAD.encode(random()).into();
        let [look, keep, invalidate] = [LOOK, KEEP, INVALIDATE].map(Script::new);
        let has_met_unreadable = AtomicBool::new(false);
        let keys = InstanceKeys::new(instance);
        let channel = keys.channel(&["forget"]);
        Self { store, seal, keys, channel, sender, look, keep, invalidate, has_met_unreadable }
    }

    /// Looks up a valid entry. `lifetime` bounds how long an entry may be stored.
    pub(super) async fn look(
        &self,
        key: CacheKey,
        tags: &[Tag],
        lifetime: Duration,
    ) -> Result<(Option<RedisHit>, TagGenerations), RedisClientError> {
        let place = self.keys.key(&["answer", &key.to_text()]);
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
            tracing::debug!("removed an unreadable cache entry from Redis");
        } else {
            tracing::warn!(
                "removed an unreadable cache entry from Redis; if this continues, processes that share this Redis have \
                different encryption keys: configure the same keys for all of them (repeats are logged at debug)"
            );
        }
        self.store.remove(&[&seen.place]).await?;
        Ok((None, seen))
    }

    /// Stores a response for `ttl` unless one of its tags was invalidated since `seen`. Returns whether it did.
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

    /// Invalidates all responses with one of the tags and publishes it, with how long a write may still change them. If
    /// publishing fails, it suffices that no process is subscribed: a process without a subscription does not use its
    /// memory while Redis works.
    pub(super) async fn invalidate(&self, tags: &[Tag], doubt: Duration) -> Result<(), InvalidationError> {
        if tags.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = tags.iter().map(|tag| self.tag_key(tag)).collect();
        let keys: Vec<_> = keys.iter().collect();
        let forget = tags.iter().map(ToString::to_string).collect();
        let message = Message { from: self.sender.clone().into(), forget, doubt: millis(doubt) };
        let message = serde_json::to_vec(&message).unwrap_or_default();
        let channel = self.store.channel_name(&self.channel);
        let refused = self.store.run(&self.invalidate, &keys, &[channel.as_bytes(), &message]).await?.into_bytes();
        let refused = refused.as_deref().map(String::from_utf8_lossy);
        match self.store.published(refused.as_deref()) {
            // In a cluster it is not known whether there are any.
            Some(error) if !matches!(self.store.subscribers(&self.channel).await, Ok(Some(0))) => {
                Err(InvalidationError::NotPublished(error))
            }
            _ => Ok(()),
        }
    }

    /// The key for keyed hashes that all processes with the same encryption key have; `None` without encryption.
    pub(super) fn mac(&self) -> Option<MacKey> {
        self.seal.as_ref().map(Encryption::mac)
    }

    /// Subscribes to messages for [`read`](Self::read).
    pub(super) fn subscribe(&self) -> Subscription {
        self.store.subscribe(&self.channel)
    }

    /// Whether the server is unreachable, as opposed to refusing commands.
    pub(super) fn is_away(&self, error: &RedisClientError) -> bool {
        error.is_outage() && !self.store.health().refuses.contains(&true)
    }

    pub(super) fn stats(&self) -> RedisStats {
        self.store.health()
    }

    /// The tags of a message, and how long a write may still change them; `None` for a message of this cache. An
    /// unreadable message counts as `Tag::Everything`.
    pub(super) fn read(&self, message: &[u8]) -> Option<(Vec<Tag>, Duration)> {
        let Ok(message) = serde_json::from_slice::<Message>(message) else {
            return Some((vec![Tag::Everything], Duration::ZERO));
        };
        if *message.from == *self.sender {
            return None;
        }
        let tags = message.forget.iter().map(|text| text.parse().unwrap_or(Tag::Everything)).collect();
        // A working process does not wait longer for a write.
        Some((tags, Duration::from_millis(message.doubt).min(LONGEST_DOUBT)))
    }

    /// Hashed, because tags contain user ids.
    fn tag_key(&self, tag: &Tag) -> RedisKey {
        let hash = Sha256::digest(tag.to_string().as_bytes());
        self.keys.key(&["tag", &URL_SAFE_NO_PAD.encode(&hash[..16])])
    }

    /// Data authenticated with an encrypted entry.
    fn context(&self, seen: &TagGenerations) -> Vec<u8> {
        [self.store.key_name(&seen.place).as_bytes(), &seen.generations].concat()
    }
}

fn keys<'a>(place: &'a RedisKey, tags: &'a [RedisKey]) -> Vec<&'a RedisKey> {
    [place].into_iter().chain(tags).collect()
}

/// Outlives every entry with this generation. If it expired earlier, the entry would only be fetched sooner.
fn generation_ttl(lifetime: Duration) -> String {
    millis(lifetime.saturating_mul(2).saturating_add(Duration::from_secs(600))).to_string()
}

/// A new unique value.
fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        // The system has no randomness available. Uniqueness suffices; the value is not secret.
        bytes = std::array::from_fn(|_| fastrand::u8(..));
    }
    bytes
}
