//! Who sends a request, and its place among those that wait.

use super::Priority;
use clerk_quota::CallerId;

/// Who sends a request: it decides when it leaves, and whose share it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sender {
    /// Priority in the queue.
    pub priority: Priority,
    /// The caller, if it may have a share ([`Limiter::set_shares`](super::Limiter::set_shares)).
    pub caller: Option<CallerId>,
}

impl From<Priority> for Sender {
    /// A sender without a share.
    fn from(priority: Priority) -> Self {
        Self { priority, ..Self::ANY }
    }
}

impl Default for Sender {
    fn default() -> Self {
        Self::ANY
    }
}

impl Sender {
    /// High priority, without a share.
    pub const ANY: Self = Self { priority: Priority::High, caller: None };

    /// Sets [`Sender::caller`].
    #[must_use]
    pub const fn of(self, caller: CallerId) -> Self {
        Self { caller: Some(caller), ..self }
    }

    /// Returns the senders whose fetches a request of this one may join: those of the same caller that do not queue behind
    /// it. What waits for the share of one caller must not hold up another.
    pub fn may_join(self) -> impl Iterator<Item = Self> {
        self.priority.may_join().iter().map(move |priority| Self { priority: *priority, ..self })
    }
}

/// Order in which requests leave; equal ones leave in order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Within the guarantee of its caller.
    Guaranteed,
    High,
    Low,
}

impl Rank {
    pub(super) const COUNT: usize = 3;

    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

impl From<Priority> for Rank {
    /// The rank beyond any guarantee.
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::High => Self::High,
            Priority::Low => Self::Low,
        }
    }
}
