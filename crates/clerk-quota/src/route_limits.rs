//! Routes that have a limit of their own under the header names of the instance's limit.
//!
//! Limits of single routes are not all documented. One shows itself by a limit that contradicts what other routes say at the
//! same time: it is a bucket of its own from then on, and no longer when they agree.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Moment;
use super::route_id::RouteId;

/// Routes that may have buckets of their own at the same time. Servers that name a limit for each route are not followed
/// further.
pub(super) const MAX_OWN: usize = 16;

/// The limit that each route named last.
#[derive(Debug, Clone, Default)]
pub(super) struct RouteLimits {
    named: BTreeMap<RouteId, (u64, Moment)>,
    own: Vec<RouteId>,
}

/// Where the numbers of a response belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NamedBy {
    /// The instance's own limit.
    Instance,
    /// A limit of this route alone.
    Route,
    /// A limit of this route alone, for which there is no place.
    Ignored,
}

impl RouteLimits {
    /// A response of this route named a limit at `at`. Words older than `memory` are no longer held against it.
    pub(super) fn name(&mut self, route: RouteId, limit: u64, at: Moment, memory: Duration) -> NamedBy {
        if self.own.is_empty() && self.named.values().all(|(other, _)| *other == limit) {
            // Nearly always: nothing contradicts it, and old words can wait to be forgotten until something does.
            self.named.insert(route, (limit, at));
            return NamedBy::Instance;
        }
        self.named.retain(|_, (_, named_at)| at.since(*named_at) <= memory);
        if let Some((before, _)) = self.named.insert(route, (limit, at))
            && before != limit
        {
            // The limit was changed: those who named the old one will name the new one.
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

    /// Whether the route has a bucket of its own.
    pub(super) fn is_own(&self, route: RouteId) -> bool {
        self.own.contains(&route)
    }

    /// The limit that most routes name; of equally many the largest, since a limit of one route is tighter.
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
    fn the_tighter_limit_of_one_route_is_its_own() {
        let mut limits = RouteLimits::default();
        assert_eq!(name(&mut limits, ORGANIZATIONS, 5, 0), NamedBy::Instance, "there is nothing to compare it with");
        assert_eq!(name(&mut limits, USERS, 40, 1), NamedBy::Instance);
        assert_eq!(name(&mut limits, ORGANIZATIONS, 5, 2), NamedBy::Route);
        assert!(limits.is_own(RouteId::at(ORGANIZATIONS)) && !limits.is_own(RouteId::at(USERS)));
    }

    #[test]
    fn routes_that_agree_are_merged_again() {
        let mut limits = RouteLimits::default();
        name(&mut limits, USERS, 40, 0);
        name(&mut limits, ORGANIZATIONS, 5, 1);
        assert_eq!(name(&mut limits, ORGANIZATIONS, 40, 2), NamedBy::Instance);
        assert!(!limits.is_own(RouteId::at(ORGANIZATIONS)));
    }

    #[test]
    fn a_plan_that_changes_is_no_contradiction() {
        let mut limits = RouteLimits::default();
        name(&mut limits, USERS, 1000, 0);
        name(&mut limits, COUNT, 1000, 1);
        assert_eq!(name(&mut limits, USERS, 100, 2), NamedBy::Instance);
        assert_eq!(name(&mut limits, COUNT, 100, 3), NamedBy::Instance);
        assert!(limits.own.is_empty());
    }

    #[test]
    fn old_words_are_not_held_against_anything() {
        let mut limits = RouteLimits::default();
        name(&mut limits, USERS, 1000, 0);
        assert_eq!(name(&mut limits, COUNT, 100, 61), NamedBy::Instance);
    }

    #[test]
    fn a_server_with_a_limit_for_each_route_fills_no_memory() {
        let mut limits = RouteLimits::default();
        for route in 0..249 {
            name(&mut limits, route, 100 + route as u64, 1);
        }
        assert!(limits.own.len() <= MAX_OWN, "{}", limits.own.len());
    }
}
