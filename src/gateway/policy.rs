//! Which of the gateway's policies apply to a request.

use std::collections::HashMap;
use std::time::Duration;

use http::Method;

use clerk_client::outbound::limiter::Priority;
use clerk_client::outbound::retry::{Repeat, RetryPolicy};
use clerk_client::outbound::{Handling, Turn};
use clerk_quota::Route;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policies {
    /// Sends again what failed and may go better the next time; writes only where their route says so.
    pub retry: Switch,
    /// Asks Clerk once where several ask the same at the same time.
    pub coalesce: Switch,
    /// Keeps answers for a while.
    pub cache: Switch,
    /// Asks Clerk once where several ask for one resource each.
    pub batch: Switch,
    /// Waits for the rate limit, and refuses what would wait too long.
    pub pace: Switch,
    /// How long answers are kept.
    pub ttl: Duration,
    /// Whether they are said of this route, and not of all. Of routes of which no webhook tells, answers are kept only
    /// where that is asked for by name.
    pub is_explicit: bool,
}

impl Policies {
    /// Which failures allow a request under these policies, which are those of its route, to be sent again.
    pub(super) fn repeat(&self, method: &Method) -> Repeat {
        match Repeat::of(method) {
            // A route of writes that asks for it. RFC 9110, section 9.2.2: these two do no more when they come twice.
            Repeat::Never if self.retry != Switch::Off => match *method {
                Method::PUT | Method::DELETE => Repeat::Always,
                _ => Repeat::IfRefused,
            },
            repeat => repeat,
        }
    }
}

impl Default for Policies {
    fn default() -> Self {
        let off = Switch::Off;
        let (ttl, is_explicit) = (Duration::from_secs(60), false);
        Self { retry: off, coalesce: off, cache: off, batch: off, pace: off, ttl, is_explicit }
    }
}

/// What an instance's requests get. All policies are off by default: the gateway then only looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Which policies there are.
    pub policies: Policies,
    /// Those of single routes, by method and template.
    pub routes: HashMap<(&'static str, &'static str), Policies>,
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
            routes: HashMap::new(),
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
    pub fn decide(&self, method: &Method, route: &Route) -> Policies {
        let is_read = *method == Method::GET || *method == Method::HEAD;
        let policies = self.of_route(if is_read { "GET" } else { method.as_str() }, route.template);
        if is_read {
            return policies;
        }
        // A write is sent again only where that is asked for by name.
        let retry = if policies.is_explicit { policies.retry } else { Switch::Off };
        Policies { retry, coalesce: Switch::Off, cache: Switch::Off, batch: Switch::Off, ..policies }
    }

    fn of_route(&self, method: &str, template: &'static str) -> Policies {
        if self.routes.is_empty() {
            return self.policies;
        }
        // Few routes have policies of their own.
        let own = self.routes.iter().find(|((known, route), _)| *route == template && *known == method);
        own.map_or(self.policies, |(_, policies)| Policies { is_explicit: true, ..*policies })
    }

    /// Whether any route's answers are kept.
    #[must_use]
    pub(super) fn caches(&self) -> bool {
        self.routes.values().chain([&self.policies]).any(|policies| policies.cache.is_on())
    }

    /// The way of a request to Clerk under these policies.
    #[must_use]
    pub fn handling(&self, policies: &Policies, priority: Priority) -> Handling {
        let turn = Turn { priority, max_wait: self.max_queue_wait };
        Handling {
            pace: policies.pace.is_on().then_some(turn),
            retry: policies.retry.is_on().then_some(self.retry),
            attempt_timeout: self.attempt_timeout,
            deadline: self.deadline,
        }
    }
}
