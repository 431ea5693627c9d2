//! Which of the gateway's policies apply to a request.

use std::collections::HashMap;
use std::time::Duration;

use http::Method;

use clerk_client::limiter::Priority;
use clerk_client::outbound::retry::{Idempotency, RetryPolicy};
use clerk_client::outbound::{ExecuteOptions, QueueOptions};
use clerk_quota::Route;

/// How far a policy goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Not at all.
    #[default]
    Off,
    /// What it would do is counted, and not done.
    Shadow,
    /// It acts.
    On,
}

impl Mode {
    /// All modes.
    pub const ALL: [Self; 3] = [Self::Off, Self::Shadow, Self::On];

    /// The word in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Shadow => "shadow",
            Self::On => "on",
        }
    }

    /// Whether it acts.
    #[must_use]
    pub const fn is_on(self) -> bool {
        matches!(self, Self::On)
    }
}

/// The policies, each with its switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoutePolicies {
    /// Sends again what failed and may go better the next time; writes only where their route says so.
    pub retry: Mode,
    /// Asks Clerk once where several ask the same at the same time.
    pub coalesce: Mode,
    /// Keeps answers for a while.
    pub cache: Mode,
    /// Asks Clerk once where several ask for one resource each.
    pub batch: Mode,
    /// Waits for the rate limit, and refuses what would wait too long.
    pub pace: Mode,
    /// How long answers are kept.
    pub ttl: Duration,
    /// Whether they are said of this route, and not of all. Of routes of which no webhook tells, answers are kept only
    /// where that is asked for by name.
    pub is_explicit: bool,
}

impl RoutePolicies {
    /// Each policy by the word that the configuration has for it, with its mode.
    #[must_use]
    pub const fn modes(&self) -> [(&'static str, Mode); 5] {
        let Self { retry, coalesce, cache, batch, pace, .. } = *self;
        [("retry", retry), ("coalesce", coalesce), ("cache", cache), ("batch", batch), ("pace", pace)]
    }

    /// The same without those by which requests share an answer.
    pub(in crate::gateway) const fn without_sharing(self) -> Self {
        Self { coalesce: Mode::Off, cache: Mode::Off, batch: Mode::Off, ..self }
    }

    /// Which failures allow a request under these policies, which are those of its route, to be sent again.
    pub(in crate::gateway) fn idempotency(&self, method: &Method) -> Idempotency {
        match Idempotency::of(method) {
            // A route of writes that asks for it. RFC 9110, section 9.2.2: these two do no more when they come twice.
            Idempotency::NonIdempotent if self.retry != Mode::Off => match *method {
                Method::PUT | Method::DELETE => Idempotency::Idempotent,
                _ => Idempotency::RetryIfThrottled,
            },
            repeat => repeat,
        }
    }
}

impl Default for RoutePolicies {
    fn default() -> Self {
        let off = Mode::Off;
        let (ttl, is_explicit) = (Duration::from_secs(60), false);
        Self { retry: off, coalesce: off, cache: off, batch: off, pace: off, ttl, is_explicit }
    }
}

/// What an instance's requests get. All policies are off by default: the gateway then only looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstancePolicies {
    /// Which policies there are.
    pub policies: RoutePolicies,
    /// Those of single routes, by method and template.
    pub routes: HashMap<(&'static str, &'static str), RoutePolicies>,
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

impl Default for InstancePolicies {
    fn default() -> Self {
        Self {
            policies: RoutePolicies::default(),
            routes: HashMap::new(),
            retry: RetryPolicy::default(),
            max_queue_wait: Duration::from_secs(5),
            attempt_timeout: Duration::from_secs(10),
            deadline: Duration::from_secs(90),
            body_idle_timeout: Duration::from_secs(60),
        }
    }
}

impl InstancePolicies {
    /// The policies of a request: those that spare Clerk an answer are for requests that read.
    #[must_use]
    pub fn decide(&self, method: &Method, route: &Route) -> RoutePolicies {
        let is_read = *method == Method::GET || *method == Method::HEAD;
        let policies = self.of_route(if is_read { "GET" } else { method.as_str() }, route.template);
        if is_read {
            return policies;
        }
        // A write is sent again only where that is asked for by name.
        let retry = if policies.is_explicit { policies.retry } else { Mode::Off };
        RoutePolicies { retry, coalesce: Mode::Off, cache: Mode::Off, batch: Mode::Off, ..policies }
    }

    fn of_route(&self, method: &str, template: &'static str) -> RoutePolicies {
        if self.routes.is_empty() {
            return self.policies;
        }
        // Few routes have policies of their own.
        let own = self.routes.iter().find(|((known, route), _)| *route == template && *known == method);
        own.map_or(self.policies, |(_, policies)| RoutePolicies { is_explicit: true, ..*policies })
    }

    /// Whether any route's answers are kept.
    #[must_use]
    pub(in crate::gateway) fn caches(&self) -> bool {
        self.routes.values().chain([&self.policies]).any(|policies| policies.cache.is_on())
    }

    /// Whether any route's answers are kept, or it is counted what that would do.
    #[must_use]
    pub(in crate::gateway) fn looks_at_caches(&self) -> bool {
        self.routes.values().chain([&self.policies]).any(|policies| policies.cache != Mode::Off)
    }

    /// The way of a request to Clerk under these policies.
    #[must_use]
    pub fn execute_options(&self, policies: &RoutePolicies, priority: Priority) -> ExecuteOptions {
        let turn = QueueOptions { priority, max_wait: self.max_queue_wait };
        ExecuteOptions {
            pace: policies.pace.is_on().then_some(turn),
            retry: policies.retry.is_on().then_some(self.retry),
            attempt_timeout: self.attempt_timeout,
            deadline: self.deadline,
        }
    }
}
