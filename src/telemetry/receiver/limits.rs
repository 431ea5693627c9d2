//! Limits of the receiver, and what they reject.

use crate::telemetry::decode::DecodeLimits;

/// Limits on requests and memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiverLimits {
    /// Limits on one body.
    pub decode: DecodeLimits,
    /// Maximum bytes of all bodies that are received or wait to be decoded.
    pub max_waiting_bytes: usize,
    /// Maximum number of bodies that are decoded at the same time. Each may need the memory of [`DecodeLimits`].
    pub max_decoders: usize,
    /// Maximum number of remembered hashes of 8 bytes; a call needs up to three.
    pub max_remembered: usize,
    /// Maximum number of senders with a wrong clock in each 10 s.
    pub max_senders: usize,
    /// Maximum number of caller names.
    pub max_callers: usize,
}

impl Default for ReceiverLimits {
    fn default() -> Self {
        Self {
            decode: DecodeLimits::default(),
            max_waiting_bytes: 32 << 20,
            max_decoders: 2,
            // 5 minutes of 1000 calls a second.
            max_remembered: 1 << 20,
            max_senders: 1024,
            max_callers: 100,
        }
    }
}

/// Spans of an accepted request that are calls to Clerk and were not counted as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rejected {
    /// Without valid ids or times.
    pub malformed: u64,
    /// Beyond the limit on calls that wait for their window: only totals count them.
    pub dropped: u64,
}

impl Rejected {
    /// Returns the number of rejected spans.
    #[must_use]
    pub const fn spans(self) -> u64 {
        self.malformed + self.dropped
    }
}
