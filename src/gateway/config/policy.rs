//! Which gateway policies apply to a request.

use std::collections::HashMap;
use std::time::Duration;

use http::Method;

use clerk_client::outbound::retry::{Idempotency, RetryPolicy};
use clerk_client::outbound::{ExecuteOptions, QueueOptions};
use clerk_quota::Route;

/// The routes that verify a token (POST).
pub const VERIFICATIONS: [&str; 3] =
    ["/v1/api_keys/verify", "/v1/m2m_tokens/verify", "/v1/oauth_applications/access_tokens/verify"];

/// Whether a policy is active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Inactive.
    #[default]
    Off,
    /// Counts what the policy would do, without doing it.
    Shadow,
    /// Active.
    On,
}

impl Mode {
    /// All modes.
    pub const ALL: [Self; 3] = [Self::Off, Self::Shadow, Self::On];

    /// The value in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Shadow => "shadow",
            Self::On => "on",
        }
    }

    /// Whether the policy is active.
    #[must_use]
    pub const fn is_on(self) -> bool {
        matches!(self, Self::On)
    }
}

/// The policies, each with its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoutePolicies {
    /// Retries failed requests that may succeed later; writes only where their route enables it.
    pub retry: Mode,
    /// Sends one request for identical concurrent reads.
    pub coalesce: Mode,
    /// Caches responses.
    pub cache: Mode,
    /// Sends one list request for concurrent lookups of single resources.
    pub batch: Mode,
    /// Queues requests for the rate limit, and sheds those that would wait too long.
    pub pace: Mode,
    /// Coalesces and keeps successful verifications of tokens.
    pub verify: Mode,
    /// Maximum age of a cached response.
    pub ttl: Duration,
    /// Maximum age of a kept verification.
    pub verify_ttl: Duration,
    /// Whether the policies are configured for this route by name. Responses of routes that no webhook covers are
    /// cached only then.
    pub is_explicit: bool,
}

impl RoutePolicies {
    /// Each policy's configuration key with its mode.
    #[must_use]
    pub const fn modes(&self) -> [(&'static str, Mode); 6] {
        let Self { retry, coalesce, cache, batch, pace, verify, .. } = *self;
        [
            ("retry", retry),
            ("coalesce", coalesce),
            ("cache", cache),
            ("batch", batch),
            ("pace", pace),
            ("verify", verify),
        ]
    }

    /// The same policies without those that share responses between credentials.
    pub(in crate::gateway) const fn without_sharing(self) -> Self {
        Self { coalesce: Mode::Off, cache: Mode::Off, batch: Mode::Off, ..self }
    }

    /// Which failures allow a retry. `self` must be the policies of the request's route.
    pub(in crate::gateway) fn idempotency(&self, method: &Method) -> Idempotency {
        match Idempotency::of(method) {
            // The route enables retries of writes. PUT and DELETE are idempotent (RFC 9110, section 9.2.2).
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
        let ttl = Duration::from_secs(60);
        Self {
            retry: off,
            coalesce: off,
            cache: off,
            batch: off,
            pace: off,
            verify: off,
            ttl,
            verify_ttl: ttl,
            is_explicit: false,
        }
    }
}

/// The policies of an instance. All are off by default: the gateway then only counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstancePolicies {
    /// The default policies.
    pub policies: RoutePolicies,
    /// Policies of single routes, by method and template.
    pub routes: HashMap<(&'static str, &'static str), RoutePolicies>,
    /// Number and delays of attempts.
    pub retry: RetryPolicy,
    /// Maximum time in the queue, before each attempt.
    pub max_queue_wait: Duration,
    /// Maximum time from the start of an attempt, or from the last part of the request body, to the response head.
    pub attempt_timeout: Duration,
    /// Maximum time for all waits and attempts, up to the head of the last response.
    pub deadline: Duration,
    /// Maximum time between two parts of a response body.
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
    /// Returns the policies of a request. Only reads are coalesced, cached or batched, and only verifications are verified.
    #[must_use]
    pub fn decide(&self, method: &Method, route: &Route) -> RoutePolicies {
        let is_read = *method == Method::GET || *method == Method::HEAD;
        let policies = self.of_route(if is_read { "GET" } else { method.as_str() }, route.template);
        if is_read {
            return RoutePolicies { verify: Mode::Off, ..policies };
        }
        let is_verification = *method == Method::POST && VERIFICATIONS.contains(&route.template);
        let verify = if is_verification { policies.verify } else { Mode::Off };
        // Writes are retried only where their route enables it by name.
        let retry = if policies.is_explicit { policies.retry } else { Mode::Off };
        RoutePolicies { retry, verify, coalesce: Mode::Off, cache: Mode::Off, batch: Mode::Off, ..policies }
    }

    fn of_route(&self, method: &str, template: &'static str) -> RoutePolicies {
        if self.routes.is_empty() {
            return self.policies;
        }
        // Few routes have their own policies: a linear search is fast.
        let own = self.routes.iter().find(|((known, route), _)| *route == template && *known == method);
        own.map_or(self.policies, |(_, policies)| RoutePolicies { is_explicit: true, ..*policies })
    }

    /// Whether verifications of any route are kept.
    #[must_use]
    pub fn keeps_verifications(&self) -> bool {
        self.routes.values().chain([&self.policies]).any(|policies| policies.verify.is_on())
    }

    /// Whether the responses of any route are cached.
    #[must_use]
    pub(in crate::gateway) fn caches(&self) -> bool {
        self.routes.values().chain([&self.policies]).any(|policies| policies.cache.is_on())
    }

    /// Whether any route's cache policy is on or in shadow mode.
    #[must_use]
    pub(in crate::gateway) fn looks_at_caches(&self) -> bool {
        self.routes.values().chain([&self.policies]).any(|policies| policies.cache != Mode::Off)
    }

    /// Returns the options for sending a request to Clerk under these policies. `queue`: how it waits while pacing is on.
    #[must_use]
    pub fn execute_options(&self, policies: &RoutePolicies, queue: QueueOptions) -> ExecuteOptions {
        ExecuteOptions::default()
            .pace(policies.pace.is_on().then_some(queue))
            .retry(policies.retry.is_on().then_some(self.retry))
            .attempt_timeout(self.attempt_timeout)
            .deadline(self.deadline)
    }
}
