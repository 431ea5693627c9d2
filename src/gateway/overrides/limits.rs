//! Configured shares and overrides of callers, and the shares that result. Pure: time is passed in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{MAX_OVERRIDES, OverrideAction};
use crate::gateway::config::options::CallerToken;
use clerk_client::limiter::CallerShare;
use clerk_quota::{CallerId, Moment};

/// An override is the same as before if its end, which is measured again with each message, differs by less.
const MEASURING_ERROR: Duration = Duration::from_secs(1);

/// An override of another gateway that ends sooner is not adopted: by another clock it may be over.
const ABOUT_TO_END: Duration = Duration::from_secs(2);

/// Shares and overrides of all instances, by alias. Those of instances that left the configuration are kept until their
/// end: they may come back.
#[derive(Debug, Default)]
pub(in crate::gateway) struct CallerLimits {
    instances: BTreeMap<Arc<str>, InstanceCallers>,
}

#[derive(Debug, Default)]
struct InstanceCallers {
    shares: BTreeMap<Arc<str>, ConfiguredShare>,
    overrides: BTreeMap<Arc<str>, TimedOverride>,
}

#[derive(Debug, Clone, Copy)]
struct ConfiguredShare {
    min: f64,
    max: f64,
}

/// The shares of a configuration, with instance and caller.
#[derive(Debug)]
pub(in crate::gateway) struct ConfiguredShares(Vec<(Arc<str>, Arc<str>, ConfiguredShare)>);

impl ConfiguredShares {
    /// Takes the shares of callers that have one.
    pub(in crate::gateway) fn of(tokens: &[CallerToken]) -> Self {
        let own = tokens.iter().filter(|token| token.min_share > 0.0 || token.max_share < 1.0);
        let shares = own.map(|token| {
            let share = ConfiguredShare { min: token.min_share, max: token.max_share };
            (Arc::clone(&token.instance), Arc::clone(&token.caller), share)
        });
        Self(shares.collect())
    }
}

/// An override without the name of its caller.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::gateway) struct TimedOverride {
    pub(in crate::gateway) action: OverrideAction,
    pub(in crate::gateway) until: Moment,
}

/// A caller with its override.
pub(in crate::gateway) type CallerOverride = (Arc<str>, TimedOverride);

/// The instance has as many overrides as it may have.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::gateway) struct TooManyOverrides;

/// What changed.
#[derive(Debug, Default, PartialEq)]
pub(in crate::gateway) struct OverrideChanges {
    /// New overrides, and those with another action or end.
    pub(in crate::gateway) begun: Vec<CallerOverride>,
    /// Those that were there before, and would have lasted longer.
    pub(in crate::gateway) ended: Vec<CallerOverride>,
    /// Those whose time is over.
    pub(in crate::gateway) over: Vec<CallerOverride>,
}

impl OverrideChanges {
    pub(in crate::gateway) const fn is_empty(&self) -> bool {
        self.begun.is_empty() && self.ended.is_empty() && self.over.is_empty()
    }
}

impl CallerLimits {
    /// Replaces the configured shares of all instances. Overrides stay.
    pub(in crate::gateway) fn configure(&mut self, shares: ConfiguredShares) {
        self.instances.values_mut().for_each(|callers| callers.shares.clear());
        for (instance, caller, share) in shares.0 {
            self.instances.entry(instance).or_default().shares.insert(caller, share);
        }
    }

    /// Sets an override, in place of one of the same caller.
    ///
    /// # Errors
    /// Returns an error if there are too many; then nothing changes.
    pub(in crate::gateway) fn set(
        &mut self,
        instance: &Arc<str>,
        (caller, wanted): CallerOverride,
        now: Moment,
    ) -> Result<(), TooManyOverrides> {
        let overrides = &mut self.instances.entry(Arc::clone(instance)).or_default().overrides;
        let others = overrides.iter().filter(|(other, it)| **other != caller && it.until > now);
        if others.count() >= MAX_OVERRIDES {
            return Err(TooManyOverrides);
        }
        overrides.insert(caller, wanted);
        Ok(())
    }

    /// Ends the override of a caller, and returns it.
    pub(in crate::gateway) fn end(&mut self, instance: &str, caller: &str, now: Moment) -> Option<CallerOverride> {
        let overrides = &mut self.instances.get_mut(instance)?.overrides;
        overrides.remove_entry(caller).filter(|(_, it)| it.until > now)
    }

    /// Replaces all overrides of an instance by those that all gateways have. Those of `unreadable` callers stay.
    pub(in crate::gateway) fn replace(
        &mut self,
        instance: &Arc<str>,
        (all, unreadable): (Vec<CallerOverride>, &[String]),
        now: Moment,
    ) -> OverrideChanges {
        let before = &mut self.instances.entry(Arc::clone(instance)).or_default().overrides;
        let mut after = BTreeMap::new();
        let mut changes = OverrideChanges::default();
        for (caller, found) in all.into_iter().take(MAX_OVERRIDES) {
            let known = before.remove(&caller);
            let is_same = |known: &TimedOverride| {
                known.action == found.action && known.until.distance(found.until) <= MEASURING_ERROR
            };
            match known {
                // The end that was told first stays, so that it does not fluctuate.
                Some(known) if is_same(&known) => drop(after.insert(caller, known)),
                None if found.until.since(now) <= ABOUT_TO_END => {}
                _ => {
                    changes.begun.push((Arc::clone(&caller), found));
                    after.insert(caller, found);
                }
            }
        }
        after.extend(before.extract_if(.., |caller, _| unreadable.iter().any(|other| **other == **caller)));
        let gone = std::mem::replace(before, after);
        // The server's clock may be a little ahead.
        (changes.over, changes.ended) = gone.into_iter().partition(|(_, it)| it.until.since(now) <= MEASURING_ERROR);
        changes
    }

    /// Removes the overrides that are over, and returns them with their instances.
    pub(in crate::gateway) fn expire(&mut self, now: Moment) -> Vec<(Arc<str>, CallerOverride)> {
        let mut ended = Vec::new();
        for (instance, callers) in &mut self.instances {
            let over = callers.overrides.extract_if(.., |_, it| it.until <= now);
            ended.extend(over.map(|it| (Arc::clone(instance), it)));
        }
        self.instances.retain(|_, callers| !callers.shares.is_empty() || !callers.overrides.is_empty());
        ended
    }

    /// The overrides of an instance that are in force.
    pub(in crate::gateway) fn active(&self, instance: &str, now: Moment) -> Vec<CallerOverride> {
        let all = self.instances.get(instance).into_iter().flat_map(|callers| &callers.overrides);
        all.filter(|(_, it)| it.until > now).map(|(caller, it)| (Arc::clone(caller), *it)).collect()
    }

    /// The shares of an instance's callers for its limiter: the configured ones, changed by overrides. `id` names callers.
    pub(in crate::gateway) fn shares(
        &self,
        instance: &str,
        now: Moment,
        id: impl Fn(&Arc<str>) -> CallerId,
    ) -> Vec<CallerShare> {
        let Some(InstanceCallers { shares, overrides }) = self.instances.get(instance) else { return Vec::new() };
        let overrides: BTreeMap<_, _> = overrides.iter().filter(|(_, it)| it.until > now).collect();
        let overridden = overrides.keys().copied().filter(|caller| !shares.contains_key(*caller));
        let all = shares.keys().chain(overridden).map(|caller| {
            let ConfiguredShare { min, max } =
                shares.get(caller).copied().unwrap_or(ConfiguredShare { min: 0.0, max: 1.0 });
            let wanted = overrides.get(caller);
            let max = wanted.and_then(|it| it.action.max_share()).map_or(max, |cap| cap.min(max));
            let paused = wanted.filter(|it| it.action == OverrideAction::Pause).map(|it| it.until);
            CallerShare::new(id(caller), Arc::clone(caller))
                .min_share(min.min(max))
                .max_share(max)
                .paused_until(paused)
                // An operator's cap does not wait for a policy.
                .always_waits(wanted.is_some_and(|it| it.action.max_share().is_some()))
        });
        all.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clerk_client::limiter::Priority;
    use clerk_client::secret::Secret;

    fn at(seconds: u64) -> Moment {
        Moment::from_unix(Duration::from_secs(1000 + seconds))
    }

    fn token(caller: &str, instance: &str, min_share: f64, max_share: f64) -> CallerToken {
        CallerToken {
            caller: caller.into(),
            instance: instance.into(),
            token: Secret::new("web-token-0123456789".to_owned()),
            priority: Priority::High,
            min_share,
            max_share,
            max_wait: None,
        }
    }

    fn pause(caller: &str, until: u64) -> CallerOverride {
        (caller.into(), TimedOverride { action: OverrideAction::Pause, until: at(until) })
    }

    fn cap(caller: &str, max_share: f64, until: u64) -> CallerOverride {
        (caller.into(), TimedOverride { action: OverrideAction::Cap { max_share }, until: at(until) })
    }

    /// Names, shares and pauses at a time.
    fn shares(limits: &CallerLimits, seconds: u64) -> Vec<(String, f64, f64, Option<Moment>)> {
        let shares = limits.shares("prod", at(seconds), |_| CallerId(7)).into_iter();
        shares.map(|it| (it.name.to_string(), it.min_share, it.max_share, it.paused_until)).collect()
    }

    fn limits() -> CallerLimits {
        let mut limits = CallerLimits::default();
        limits.configure(ConfiguredShares::of(&[
            token("web", "prod", 0.5, 1.0),
            token("import", "prod", 0.2, 0.3),
            token("import", "prod", 0.2, 0.3),
            token("plain", "prod", 0.0, 1.0),
            token("web", "dev", 0.1, 1.0),
        ]));
        limits
    }

    #[test]
    fn only_callers_with_a_share_are_passed_on() {
        let expected = [("import".to_owned(), 0.2, 0.3, None), ("web".to_owned(), 0.5, 1.0, None)];
        assert_eq!(shares(&limits(), 0), expected);
        assert!(limits().shares("other", at(0), |_| CallerId(7)).is_empty());
        let mut limits = limits();
        limits.configure(ConfiguredShares::of(&[]));
        assert_eq!(shares(&limits, 0), []);
    }

    #[test]
    fn cap_lowers_both_shares_and_never_raises_one() {
        let (mut limits, prod) = (limits(), Arc::from("prod"));
        for (caller, max_share, expected) in [
            ("web", 0.1, (0.1, 0.1)),
            ("web", 0.7, (0.5, 0.7)),
            ("import", 0.9, (0.2, 0.3)),
            ("plain", 0.4, (0.0, 0.4)),
        ] {
            limits.set(&prod, cap(caller, max_share, 60), at(0)).unwrap();
            let found = shares(&limits, 59).into_iter().find(|it| it.0 == caller).unwrap();
            assert_eq!((found.1, found.2, found.3), (expected.0, expected.1, None), "{caller} {max_share}");
        }
        assert_eq!(shares(&limits, 60).len(), 2, "they are over");
    }

    #[test]
    fn pause_keeps_the_shares_and_replaces_a_cap() {
        let (mut limits, prod) = (limits(), Arc::from("prod"));
        limits.set(&prod, cap("import", 0.1, 600), at(0)).unwrap();
        limits.set(&prod, pause("import", 60), at(1)).unwrap();
        assert_eq!(shares(&limits, 2)[0], ("import".to_owned(), 0.2, 0.3, Some(at(60))));
        limits.configure(ConfiguredShares::of(&[]));
        assert_eq!(shares(&limits, 2), [("import".to_owned(), 0.0, 1.0, Some(at(60)))], "a reload keeps it");
        assert_eq!(limits.end("prod", "import", at(3)), Some(pause("import", 60)));
        assert_eq!((limits.end("prod", "import", at(3)), limits.end("dev", "import", at(3))), (None, None));
    }

    #[test]
    fn override_ends_by_itself() {
        let (mut limits, prod) = (limits(), Arc::from("prod"));
        limits.set(&prod, pause("web", 60), at(0)).unwrap();
        limits.set(&prod, cap("import", 0.1, 30), at(0)).unwrap();
        assert_eq!((limits.active("prod", at(29)).len(), limits.expire(at(29))), (2, Vec::new()));
        assert_eq!(limits.active("prod", at(30)), [pause("web", 60)]);
        assert_eq!(limits.expire(at(30)), [(prod, cap("import", 0.1, 30))]);
        assert_eq!(limits.end("prod", "web", at(60)), None, "it is over");
    }

    #[test]
    fn number_of_overrides_is_bounded() {
        let (mut limits, prod) = (CallerLimits::default(), Arc::from("prod"));
        for number in 0..MAX_OVERRIDES {
            limits.set(&prod, pause(&number.to_string(), 60), at(0)).unwrap();
        }
        assert_eq!(limits.set(&prod, pause("one more", 90), at(0)), Err(TooManyOverrides));
        assert_eq!(limits.set(&prod, pause("7", 90), at(0)), Ok(()), "in place of its own");
        assert_eq!(limits.set(&prod, pause("one more", 90), at(60)), Ok(()), "the others are over");
    }

    #[test]
    fn overrides_of_other_gateways_are_followed() {
        let (mut limits, prod) = (limits(), Arc::from("prod"));
        let changes = limits.replace(&prod, (vec![pause("web", 60), cap("import", 0.1, 90)], &[]), at(0));
        assert_eq!(
            changes,
            OverrideChanges { begun: vec![pause("web", 60), cap("import", 0.1, 90)], ..OverrideChanges::default() }
        );
        // The same end, measured again.
        let again = limits.replace(&prod, (vec![pause("web", 61), cap("import", 0.1, 89)], &[]), at(1));
        assert!(again.is_empty(), "{again:?}");
        assert_eq!(limits.active("prod", at(1)), [cap("import", 0.1, 90), pause("web", 60)], "it does not fluctuate");
        // What another version wrote does not end what is known.
        assert!(limits.replace(&prod, (vec![pause("web", 60)], &["import".to_owned()]), at(2)).is_empty());
        let changes = limits.replace(&prod, (vec![pause("web", 300)], &[]), at(2));
        assert_eq!(changes.begun, [pause("web", 300)]);
        assert_eq!(changes.ended, [cap("import", 0.1, 90)]);
        // After its end here, it is not adopted again, although the server's clock is a little behind.
        assert_eq!(limits.expire(at(300)).len(), 1);
        assert!(limits.replace(&prod, (vec![pause("web", 301)], &[]), at(300)).is_empty());
        assert_eq!(limits.active("prod", at(300)), []);
        limits.replace(&prod, (vec![pause("web", 400)], &[]), at(301));
        let changes = limits.replace(&prod, (vec![], &[]), at(399));
        assert_eq!(
            (changes.over, changes.ended),
            (vec![pause("web", 400)], vec![]),
            "by the server's clock, it is over"
        );
    }
}
