//! When a stored response expires. Pure: time and randomness are passed in.

use std::time::Duration;

use http::StatusCode;

use super::CachePolicy;
use super::generations::{Generations, Snapshot};
use super::memory_tier::Times;
use clerk_quota::Moment;

/// How long after the doubt about a write ends responses are stored for a short time only.
const AFTER_DOUBT: Duration = Duration::from_secs(60);

/// A response and its fetch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fetched<'a> {
    /// When its fetch began.
    pub(super) begun: Moment,
    /// Generations of its tags from before the fetch.
    pub(super) snapshot: &'a Snapshot,
    pub(super) status: StatusCode,
}

impl Fetched<'_> {
    /// Returns the expiry times; `None` if the response must not be stored: its status is not cacheable, or it was
    /// invalidated since its fetch began.
    ///
    /// `grace` is [`CacheOptions::read_after_write_grace`](super::CacheOptions::read_after_write_grace), `permille` the
    /// part of the TTL that applies, so that entries stored together do not expire together.
    pub(super) fn times(
        &self,
        policy: CachePolicy,
        generations: &Generations,
        grace: Duration,
        permille: u32,
    ) -> Option<Times> {
        let Self { begun, snapshot, status } = *self;
        let (ttl, stale, stale_if_error) = policy.of(status)?;
        if !generations.is_valid(snapshot) || generations.is_doubtful(snapshot, begun, Duration::ZERO) {
            return None;
        }
        let ttl = (ttl / 1000).saturating_mul(permille);
        let times = Times::new(begun.after(ttl), stale, stale_if_error);
        let is_short =
            generations.is_recent(snapshot, begun, grace) || generations.is_doubtful(snapshot, begun, AFTER_DOUBT);
        Some(if is_short { times.capped(begun.after(grace)) } else { times })
    }
}
