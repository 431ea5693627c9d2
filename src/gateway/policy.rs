//! Which of the gateway's policies apply to a request.

use std::time::Duration;

use http::Method;

use crate::outbound::pace::Priority;
use crate::outbound::retry::RetryPolicy;
use crate::outbound::{Handling, Turn};
use crate::quota::Route;

/// How far a policy goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Switch {
    /// Not at all.
    #[default]
    Off,
    /// What it would do is counted, and not done.
    Shadow,
    /// It acts.
    On,
}

impl Switch {
    /// Whether it acts.
    #[must_use]
    pub const fn is_on(self) -> bool {
        matches!(self, Self::On)
    }
}

/// The policies, each with its switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policies {
    /// Sends again what failed and may go better the next time; requests that read only.
    pub retry: Switch,
    /// Asks Clerk once where several ask the same at the same time.
    pub coalesce: Switch,
    /// Keeps answers for a while.
    pub cache: Switch,
    /// Asks Clerk once where several ask for one resource each.
    pub batch: Switch,
    /// Waits for the rate limit, and refuses what would wait too long.
    pub pace: Switch,
}

/// What an instance's requests get. All policies are off by default: the gateway then only looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Which policies there are.
    pub policies: Policies,
    /// How often and how long a request is tried.
    pub retry: RetryPolicy,
    /// Longest wait in the queue, before each attempt.
    pub max_queue_wait: Duration,
    /// Longest time from the start of an attempt, or the last part of the request's body, to the head of the answer.
    pub attempt_timeout: Duration,
    /// Longest time for all waits and attempts, up to the head of the last answer.
    pub deadline: Duration,
    /// Longest silence within the body of an answer.
    pub body_idle_timeout: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            policies: Policies::default(),
            retry: RetryPolicy::default(),
            max_queue_wait: Duration::from_secs(5),
            attempt_timeout: Duration::from_secs(10),
            deadline: Duration::from_secs(90),
            body_idle_timeout: Duration::from_secs(60),
        }
    }
}

impl Plan {
    /// The policies of a request: those that spare Clerk an answer are for requests that read.
    #[must_use]
    pub fn decide(&self, method: &Method, _route: &Route) -> Policies {
        if *method == Method::GET || *method == Method::HEAD {
            return self.policies;
        }
        Policies { coalesce: Switch::Off, cache: Switch::Off, batch: Switch::Off, ..self.policies }
    }

    /// The way of a request to Clerk under these policies.
    #[must_use]
    pub fn handling(&self, policies: Policies) -> Handling {
        let turn = Turn { priority: Priority::Interactive, max_wait: self.max_queue_wait };
        Handling {
            pace: policies.pace.is_on().then_some(turn),
            retry: policies.retry.is_on().then_some(self.retry),
            attempt_timeout: self.attempt_timeout,
            deadline: self.deadline,
        }
    }
}
