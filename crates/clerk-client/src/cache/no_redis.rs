//! Stands for the second tier where the feature `redis` is off: there is none, as its type says.

use std::time::Duration;

use super::stored::Record;
use super::{Cache, Key};
use crate::webhook::{InvalidateError, Tag};

/// There is no such tier.
pub(super) enum Shared {}

/// Nothing was seen before a fetch.
#[derive(Debug)]
pub(super) struct Seen;

/// An answer in the second tier, and how long it is there.
pub(super) struct Found {
    pub(super) record: Record,
    pub(super) left: Duration,
}

impl Shared {
    pub(super) async fn look(&self, _: Key, _: &[Tag], _: Duration) -> Result<(Option<Found>, Seen), InvalidateError> {
        match *self {}
    }

    pub(super) async fn keep(&self, _: &Seen, _: &Record, _: Duration) -> Result<bool, InvalidateError> {
        match *self {}
    }

    pub(super) async fn forget(&self, _: &[Tag]) -> Result<(), InvalidateError> {
        match *self {}
    }
}

impl Cache {
    /// There are no other processes to be heard.
    #[expect(clippy::unused_self, reason = "with the feature `redis` it is a method")]
    pub(super) const fn listen(&self) {}
}
