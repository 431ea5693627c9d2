//! Who spends the quota: every request that Clerk may have counted, by who sent it and what for.

use rustc_hash::FxHashMap;

use super::limits::Bucket;
use super::method::MethodLabel;
use super::route_id::RouteId;
use super::top::{Span, TopCounter};
use super::{Moment, Source};

/// Most combinations that are kept apart for an instance.
const MAX_SERIES: usize = 4000;

/// Who sent a request, as the one that gives the names calls it. Names stay there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallerId(pub u16);

impl CallerId {
    /// A sender that has no name but that of its [`Source`].
    pub const UNNAMED: Self = Self(0);
    /// All those for whom there is no place.
    pub const OTHER: Self = Self(1);
}

/// What came of a request that Clerk may have counted. A closed set: it is a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SpendResult {
    /// A response came that is no refusal of the limiter.
    Served,
    /// 429.
    Refused,
    /// No response came: whether it was counted is not known.
    Unknown,
}

impl SpendResult {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Served, Self::Refused, Self::Unknown];

    /// The value of the label `result`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// Who sent a request, and what it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spender {
    /// Who.
    pub caller: CallerId,
    /// Which part of the program sent it.
    pub source: Source,
    /// The route that was sent, which for a list of look-ups is the list.
    pub route: RouteId,
    /// The method.
    pub method: MethodLabel,
}

impl Spender {
    /// The same, where there is no place for it.
    const fn folded(self) -> Self {
        Self { caller: CallerId::OTHER, route: RouteId::OTHER, method: MethodLabel::Other, ..self }
    }
}

/// Requests of one kind that Clerk may have counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpendKey {
    /// The budget.
    pub bucket: Bucket,
    /// By whom, for what.
    pub spender: Spender,
    /// What came of them.
    pub result: SpendResult,
}

/// The use of one spender in a stretch of time, before it has names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpendShare {
    /// Who, and what for.
    pub spender: Spender,
    /// Requests.
    pub requests: u64,
    /// Of all requests of that time, from 0 to 1.
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
    /// A request is sent.
    pub(super) fn begin(&mut self, at: Moment, spender: Spender) {
        self.top.record(at, spender, 1);
    }

    /// A request that was sent at `at` surely never left.
    pub(super) fn take_back(&mut self, at: Moment, spender: Spender) {
        self.top.take_back(at, spender, 1);
    }

    /// A request ended.
    pub(super) fn count(&mut self, key: SpendKey) {
        let mut key = key;
        if self.counts.len() >= MAX_SERIES && !self.counts.contains_key(&key) {
            self.folded += 1;
            key.spender = key.spender.folded();
        }
        *self.counts.entry(key).or_default() += 1;
    }

    /// All counts, sorted.
    pub(super) fn counts(&self) -> Vec<(SpendKey, u64)> {
        let mut counts: Vec<_> = self.counts.iter().map(|(key, count)| (*key, *count)).collect();
        counts.sort_unstable();
        counts
    }

    /// Requests that were counted as of another caller and route, for want of a place.
    pub(super) const fn folded(&self) -> u64 {
        self.folded
    }

    /// Who used the budgets in a stretch of time that ends at `now`, most first.
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
    fn callers_without_end_are_folded_into_one() {
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
