//! Counts who spends the quota: requests that Clerk may have counted, by sender and route.

use rustc_hash::FxHashMap;

use super::limits::Bucket;
use super::method::MethodLabel;
use super::route_id::RouteId;
use super::top::{Span, TopCounter};
use super::{Moment, Source};

/// Label combinations that are counted separately for an instance.
const MAX_SERIES: usize = 4000;

/// The sender of a request, as an id that the program assigned. The program keeps the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallerId(pub u16);

impl CallerId {
    /// A sender without a name other than its [`Source`].
    pub const UNNAMED: Self = Self(0);
    /// All senders that exceed the limit of named callers.
    pub const OTHER: Self = Self(1);
}

/// The outcome of a request that Clerk may have counted. A closed set, because it is a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SpendResult {
    /// A response other than a 429 arrived.
    Served,
    /// 429.
    Refused,
    /// No response arrived, so it is not known whether the request was counted.
    Unknown,
}

impl SpendResult {
    /// All outcomes.
    pub const ALL: [Self; 3] = [Self::Served, Self::Refused, Self::Unknown];

    /// Returns the value of the label `result`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// The sender and route of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spender {
    /// The caller.
    pub caller: CallerId,
    /// The part of the program that sent it.
    pub source: Source,
    /// The route as sent; for a batch of lookups, the list route.
    pub route: RouteId,
    /// The method.
    pub method: MethodLabel,
}

impl Spender {
    /// Returns the spender to count instead once the series limit is reached.
    const fn folded(self) -> Self {
        Self { caller: CallerId::OTHER, route: RouteId::OTHER, method: MethodLabel::Other, ..self }
    }
}

/// The labels of a count of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpendKey {
    /// The bucket.
    pub bucket: Bucket,
    /// The sender and route.
    pub spender: Spender,
    /// The outcome.
    pub result: SpendResult,
}

/// The use of one spender in a time span.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpendShare {
    /// The sender and route.
    pub spender: Spender,
    /// Number of requests.
    pub requests: u64,
    /// Share of all requests of that time, from 0 to 1.
    pub ratio: f64,
}

/// The counts of an instance.
#[derive(Debug, Clone, Default)]
pub(super) struct Spending {
    counts: FxHashMap<SpendKey, u64>,
    top: TopCounter<Spender>,
    folded: u64,
}

impl Spending {
    /// Counts a request that is being sent.
    pub(super) fn begin(&mut self, at: Moment, spender: Spender) {
        self.top.record(at, spender, 1);
    }

    /// Counts requests that were reported after they ended.
    pub(super) fn count_reported(&mut self, now: Moment, key: SpendKey, requests: u32) {
        self.top.record(now, key.spender, requests);
        self.add(key, u64::from(requests));
    }

    /// Removes a request that was counted at `at` but not sent.
    pub(super) fn refund(&mut self, at: Moment, spender: Spender) {
        self.top.refund(at, spender, 1);
    }

    /// Counts a request that ended.
    pub(super) fn count(&mut self, key: SpendKey) {
        self.add(key, 1);
    }

    fn add(&mut self, key: SpendKey, requests: u64) {
        let mut key = key;
        if self.counts.len() >= MAX_SERIES && !self.counts.contains_key(&key) {
            self.folded += requests;
            key.spender = key.spender.folded();
        }
        *self.counts.entry(key).or_default() += requests;
    }

    /// Returns all counts, sorted.
    pub(super) fn counts(&self) -> Vec<(SpendKey, u64)> {
        let mut counts: Vec<_> = self.counts.iter().map(|(key, count)| (*key, *count)).collect();
        counts.sort_unstable();
        counts
    }

    /// Returns the requests that were folded into another caller and route because the series limit was reached.
    pub(super) const fn folded(&self) -> u64 {
        self.folded
    }

    /// Returns who used the budgets in a time span that ends at `now`, largest share first.
    pub(super) fn top(&self, now: Moment, span: Span) -> Vec<SpendShare> {
        let shares = self.top.shares(now, span);
        let all: u64 = shares.iter().map(|(_, requests)| requests).sum();
        let other = Spender {
            caller: CallerId::OTHER,
            source: Source::Gateway,
            route: RouteId::OTHER,
            method: MethodLabel::Other,
        };
        let share = |(spender, requests): (Option<Spender>, u64)| SpendShare {
            spender: spender.unwrap_or(other),
            requests,
            ratio: requests as f64 / all.max(1) as f64,
        };
        shares.into_iter().map(share).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_beyond_the_limit_are_folded() {
        let mut spending = Spending::default();
        for caller in 0..5000 {
            let (source, method) = (Source::Gateway, MethodLabel::Get);
            let spender = Spender { caller: CallerId(caller), source, route: RouteId::OTHER, method };
            spending.count(SpendKey { bucket: Bucket::Instance, spender, result: SpendResult::Served });
        }
        assert_eq!(spending.counts().iter().map(|(_, count)| count).sum::<u64>(), 5000);
        assert!(spending.counts().len() <= MAX_SERIES + 3, "{}", spending.counts().len());
        assert_eq!(spending.folded(), 1000);
    }
}
