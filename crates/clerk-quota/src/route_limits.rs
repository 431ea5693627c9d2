//! Routes with their own limit under the header names of the instance's limit.
//!
//! Not all limits of single routes are documented. A route's own limit shows when it differs from the limit that other
//! routes report at the same time. The route then has its own bucket, until the limits agree again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Moment;
use super::route_id::RouteId;

/// Routes that may have their own bucket at the same time. Bounds memory for servers that report a different limit for
/// each route.
pub(super) const MAX_OWN: usize = 16;

/// The limit that each route reported last.
#[derive(Debug, Clone, Default)]
pub(super) struct RouteLimits {
    named: BTreeMap<RouteId, (u64, Moment)>,
    own: Vec<RouteId>,
}

/// Where the numbers of a response belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NamedBy {
    /// To the instance's own limit.
    Instance,
    /// To a limit of this route alone.
    Route,
    /// To a limit of this route alone, but [`MAX_OWN`] is reached.
    Ignored,
}

impl RouteLimits {
    /// Takes in a limit that a response of this route reported at `at`. Reports older than `memory` are dropped.
    pub(super) fn name(&mut self, route: RouteId, limit: u64, at: Moment, memory: Duration) -> NamedBy {
        if self.own.is_empty() && self.named.values().all(|(other, _)| *other == limit) {
            // Almost always: nothing contradicts it, and old reports can stay until something does.
            self.named.insert(route, (limit, at));
            return NamedBy::Instance;
        }
        self.named.retain(|_, (_, named_at)| at.since(*named_at) <= memory);
        if let Some((before, _)) = self.named.insert(route, (limit, at))
            && before != limit
        {
            // The limit changed: other routes that reported the old one will report the new one.
            self.named.retain(|_, (other, _)| *other != before);
        }
        let instance = self.of_instance();
        self.own.retain(|own| self.named.get(own).is_some_and(|(limit, _)| Some(*limit) != instance));
        if instance == Some(limit) {
            return NamedBy::Instance;
        }
        if !self.own.contains(&route) {
            if self.own.len() >= MAX_OWN {
                return NamedBy::Ignored;
            }
            self.own.push(route);
        }
        NamedBy::Route
    }

    /// Returns whether the route has its own bucket.
    pub(super) fn is_own(&self, route: RouteId) -> bool {
        self.own.contains(&route)
    }

    /// Returns the limit that most routes report; on a tie the largest, because a route's own limit is tighter.
    fn of_instance(&self) -> Option<u64> {
        let mut routes: BTreeMap<u64, usize> = BTreeMap::new();
        for (limit, _) in self.named.values() {
            *routes.entry(*limit).or_default() += 1;
        }
        routes.into_iter().max_by_key(|(limit, routes)| (*routes, *limit)).map(|(limit, _)| limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: Duration = Duration::from_secs(60);
    const USERS: usize = 1;
    const COUNT: usize = 2;
    const ORGANIZATIONS: usize = 3;

    fn at(seconds: u64) -> Moment {
        Moment::from_unix(Duration::from_secs(1_000_000 + seconds))
    }

    fn name(limits: &mut RouteLimits, route: usize, limit: u64, seconds: u64) -> NamedBy {
        limits.name(RouteId::at(route), limit, at(seconds), MEMORY)
    }

    #[test]
    fn tighter_limit_of_one_route_is_its_own() {
        let mut limits = RouteLimits::default();
        assert_eq!(name(&mut limits, ORGANIZATIONS, 5, 0), NamedBy::Instance, "there is nothing to compare it with");
        assert_eq!(name(&mut limits, USERS, 40, 1), NamedBy::Instance);
        assert_eq!(name(&mut limits, ORGANIZATIONS, 5, 2), NamedBy::Route);
        assert!(limits.is_own(RouteId::at(ORGANIZATIONS)) && !limits.is_own(RouteId::at(USERS)));
    }

    #[test]
    fn routes_that_agree_again_share_the_instance_limit() {
        let mut limits = RouteLimits::default();
        name(&mut limits, USERS, 40, 0);
        name(&mut limits, ORGANIZATIONS, 5, 1);
        assert_eq!(name(&mut limits, ORGANIZATIONS, 40, 2), NamedBy::Instance);
        assert!(!limits.is_own(RouteId::at(ORGANIZATIONS)));
    }

    #[test]
    fn changed_plan_is_not_a_route_limit() {
        let mut limits = RouteLimits::default();
        name(&mut limits, USERS, 1000, 0);
        name(&mut limits, COUNT, 1000, 1);
        assert_eq!(name(&mut limits, USERS, 100, 2), NamedBy::Instance);
        assert_eq!(name(&mut limits, COUNT, 100, 3), NamedBy::Instance);
        assert!(limits.own.is_empty());
    }

    #[test]
    fn old_reports_are_not_compared() {
        let mut limits = RouteLimits::default();
        name(&mut limits, USERS, 1000, 0);
        assert_eq!(name(&mut limits, COUNT, 100, 61), NamedBy::Instance);
    }

    #[test]
    fn own_route_limits_are_bounded() {
        let mut limits = RouteLimits::default();
        for route in 0..249 {
            name(&mut limits, route, 100 + route as u64, 1);
        }
        assert!(limits.own.len() <= MAX_OWN, "{}", limits.own.len());
    }
}
