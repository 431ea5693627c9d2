//! Operations that Clerk bills: verifications and creations of API keys and of M2M tokens.
//!
//! The counts are upper bounds. Clerk does not say which requests it bills, so each attempt counts that it may have
//! billed: also one without a response, and one that failed. A creation with `min_remaining_ttl_seconds` counts too,
//! although Clerk may hand back a token that still is valid.

mod counter;
mod month;

use std::sync::LazyLock;

pub(crate) use counter::MeteredCounter;
pub use counter::{MeteredSnapshot, MonthOfOthers, MonthUsage};
pub use month::{BillingDay, BillingMonth};

use crate::budget::AttemptEnd;
use crate::{CallerId, RouteId, Source, route};

/// An operation that Clerk bills. A closed set, because it is a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MeteredOperation {
    /// Verification of an API key: `POST /v1/api_keys/verify`.
    ApiKeyVerify,
    /// Creation of an API key: `POST /v1/api_keys`.
    ApiKeyCreate,
    /// Verification of an M2M token: `POST /v1/m2m_tokens/verify`.
    M2mVerify,
    /// Creation of an M2M token: `POST /v1/m2m_tokens`.
    M2mCreate,
}

/// The routes of the operations, by [`MeteredOperation::index`].
static ROUTES: LazyLock<[RouteId; MeteredOperation::ALL.len()]> =
    LazyLock::new(|| MeteredOperation::ALL.map(|operation| route::find("POST", operation.path().as_bytes()).id));

impl MeteredOperation {
    /// All operations, in the order of [`MeteredOperation::index`].
    pub const ALL: [Self; 4] = [Self::ApiKeyVerify, Self::ApiKeyCreate, Self::M2mVerify, Self::M2mCreate];

    /// Returns the operation of a request, which the catalogue found with or without `/v1` in its path.
    ///
    /// ```
    /// use clerk_quota::metered::MeteredOperation;
    /// use clerk_quota::route;
    ///
    /// for path in ["/v1/api_keys/verify", "/api_keys/verify"] {
    ///     let found = route::find("POST", path.as_bytes());
    ///     assert_eq!(MeteredOperation::of_route(found.id), Some(MeteredOperation::ApiKeyVerify));
    /// }
    /// ```
    #[must_use]
    pub fn of_route(route: RouteId) -> Option<Self> {
        // An operation whose route left the catalogue matches nothing.
        let known = |operation: &Self| route != RouteId::OTHER && ROUTES[operation.index()] == route;
        Self::ALL.into_iter().find(known)
    }

    /// Returns the value of the label `operation`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApiKeyVerify => "api_key_verify",
            Self::ApiKeyCreate => "api_key_create",
            Self::M2mVerify => "m2m_verify",
            Self::M2mCreate => "m2m_create",
        }
    }

    /// Returns the position in [`MeteredOperation::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    const fn path(self) -> &'static str {
        match self {
            Self::ApiKeyVerify => "/v1/api_keys/verify",
            Self::ApiKeyCreate => "/v1/api_keys",
            Self::M2mVerify => "/v1/m2m_tokens/verify",
            Self::M2mCreate => "/v1/m2m_tokens",
        }
    }
}

/// What an instance's plan says about metered operations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeteredPlan {
    /// The day on which the billing month starts.
    pub billing_day: BillingDay,
    /// Operations of a billing month that cost nothing, by [`MeteredOperation::index`].
    pub free: [u64; MeteredOperation::ALL.len()],
    /// Price of each further operation in USD, by [`MeteredOperation::index`].
    pub price_usd: [f64; MeteredOperation::ALL.len()],
}

impl MeteredPlan {
    /// What Clerk published when billing began on 2026-04-17, as read in 2026-11 at <https://clerk.com/pricing>.
    pub const PUBLISHED: Self = Self {
        billing_day: BillingDay::FIRST,
        free: [100_000, 1000, 100_000, 2500],
        price_usd: [0.000_01, 0.001, 0.000_01, 0.001],
    };
}

impl Default for MeteredPlan {
    fn default() -> Self {
        Self::PUBLISHED
    }
}

/// The labels of a count of metered operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MeteredKey {
    /// The operation.
    pub operation: MeteredOperation,
    /// The caller.
    pub caller: CallerId,
    /// The part of the program that sent or saw it.
    pub source: Source,
}

/// Returns whether Clerk may have billed a request that ended like this.
///
/// Not if it was not sent, if Clerk did not accept the credentials (401), or if it was throttled (429).
pub(crate) const fn may_be_billed(end: AttemptEnd<'_>) -> bool {
    match end {
        AttemptEnd::NotSent => false,
        AttemptEnd::Unanswered => true,
        AttemptEnd::Answered(observation) => !matches!(observation.status, 401 | 429),
    }
}
