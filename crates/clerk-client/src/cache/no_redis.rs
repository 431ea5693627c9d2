//! Replaces the Redis tier without the feature `redis`. The type is uninhabited.

use std::convert::Infallible;
use std::time::Duration;

use super::entry::Record;
use super::key::MacKey;
use super::{Cache, CacheKey};
use crate::webhook::Tag;

pub(super) enum RedisTier {}

#[derive(Debug)]
pub(super) struct TagGenerations;

pub(super) struct RedisHit {
    pub(super) record: Record,
    pub(super) left: Duration,
}

impl RedisTier {
    pub(super) async fn look(
        &self,
        _: CacheKey,
        _: &[Tag],
        _: Duration,
    ) -> Result<(Option<RedisHit>, TagGenerations), Infallible> {
        match *self {}
    }

    pub(super) fn mac(&self) -> Option<MacKey> {
        match *self {}
    }

    pub(super) const fn is_away(&self, _: &Infallible) -> bool {
        match *self {}
    }

    pub(super) async fn keep(&self, _: &TagGenerations, _: &Record, _: Duration) -> Result<bool, Infallible> {
        match *self {}
    }

    pub(super) async fn invalidate(&self, _: &[Tag], _: Duration) -> Result<(), Infallible> {
        match *self {}
    }
}

impl Cache {
    /// There are no other processes.
    #[expect(clippy::unused_self, reason = "with the feature `redis` it is a method")]
    pub(super) const fn subscribe(&self) {}
}
