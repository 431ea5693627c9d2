//! Sets, ends and follows overrides, and passes the shares that result on to the limiters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::limits::{CallerLimits, CallerOverride, ConfiguredShares, OverrideChanges, TimedOverride};
use super::shared::{SharedOverrides, SharedOverridesError, on_clock};
use super::{ActiveOverride, OVERRIDE_DURATIONS, OverrideError, OverrideRequest, UNEXPECTED};
use crate::gateway::Gateway;
use crate::gateway::request::routing_table::{InstanceRuntime, RoutingTable};
use clerk_client::redis::RedisClient;
use clerk_quota::Moment;
use clerk_quota::clock::Clock;

/// Maximum number of names in an error.
const MAX_LISTED: usize = 20;

/// The overrides of a gateway.
#[derive(Debug)]
pub(in crate::gateway) struct OverrideControl {
    limits: Mutex<CallerLimits>,
    /// The store of all gateways; `None`: overrides hold for this process.
    shared: Option<SharedOverrides>,
    /// Held from a message to the store until its reply was applied: replies must not overtake each other.
    exchange: tokio::sync::Mutex<()>,
    /// Whether the store's content was unexpected, and that was logged.
    is_unreadable: AtomicBool,
}

impl OverrideControl {
    pub(in crate::gateway) fn new(shares: ConfiguredShares) -> Self {
        let mut limits = CallerLimits::default();
        limits.configure(shares);
        Self {
            limits: Mutex::new(limits),
            shared: None,
            exchange: tokio::sync::Mutex::default(),
            is_unreadable: AtomicBool::new(false),
        }
    }
}

/// Who made a change.
#[derive(Debug, Clone, Copy)]
enum Author<'a> {
    /// An operator here, with a name if it is known.
    Operator(Option<&'a str>),
    /// Another gateway, on the same Redis.
    OtherGateway,
    /// Time.
    Time,
}

impl Author<'_> {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Operator(_) => "operator",
            Self::OtherGateway => "other_gateway",
            Self::Time => "time",
        }
    }

    const fn name(&self) -> Option<&str> {
        if let Self::Operator(name) = self { *name } else { None }
    }
}

impl Gateway {
    /// Shares overrides with all gateways that use this Redis. Then [`Gateway::follow_overrides`] must be called about
    /// once a second.
    #[must_use]
    pub fn with_shared_overrides(mut self, redis: RedisClient) -> Self {
        self.overrides.shared = Some(SharedOverrides::new(redis));
        self
    }

    /// Pauses or caps a caller, in place of an earlier override of it.
    ///
    /// # Errors
    /// Returns an error if the request is invalid, or if the other gateways cannot be informed. Then nothing changes, unless
    /// the server got the message and its reply was lost.
    pub async fn set_override(&self, wanted: &OverrideRequest<'_>) -> Result<ActiveOverride, OverrideError> {
        let OverrideRequest { action, duration, by, .. } = *wanted;
        if !OVERRIDE_DURATIONS.contains(&duration) || !action.is_valid() {
            return Err(OverrideError::OutOfRange);
        }
        let table = self.routing_table.load_full();
        let instance = instance_named(&table, wanted.instance)?;
        let caller = self.callers.known(wanted.caller);
        let caller = caller.ok_or_else(|| OverrideError::NoCaller { known: list(&self.callers.names()) })?;
        let (name, clock) = (&instance.name, &instance.outbound.clock);
        let _exchange = self.overrides.exchange.lock().await;
        if let Some(shared) = &self.overrides.shared {
            let all = shared.set(name, &caller, action, duration).await.map_err(|error| failed("set", error))?;
            let now = clock.now();
            let all = (on_clock(&all, now), &all.unreadable[..]);
            let mut changes = self.overrides.limits.lock().replace(name, all, now);
            changes.begun.retain(|(other, _)| *other != caller);
            tell(name, clock, &changes, Author::OtherGateway);
        } else {
            let now = clock.now();
            let timed = TimedOverride { action, until: now.after(duration) };
            let set = self.overrides.limits.lock().set(name, (Arc::clone(&caller), timed), now);
            set.map_err(|_| OverrideError::TooMany)?;
        }
        self.apply_shares();
        let active = self.overrides.limits.lock().active(name, clock.now());
        let own = active.into_iter().find(|(other, _)| *other == caller).ok_or(OverrideError::Content)?;
        tell_begun(name, clock, &own, Author::Operator(by));
        Ok(self.shown(instance, own))
    }

    /// Ends the override of a caller before its time. Returns it as it was.
    ///
    /// # Errors
    /// Returns an error if there is none, or if the other gateways cannot be informed.
    pub async fn end_override(
        &self,
        instance: Option<&str>,
        caller: &str,
        by: Option<&str>,
    ) -> Result<ActiveOverride, OverrideError> {
        let table = self.routing_table.load_full();
        let instance = instance_named(&table, instance)?;
        let (name, clock) = (&instance.name, &instance.outbound.clock);
        let _exchange = self.overrides.exchange.lock().await;
        let ended = if let Some(shared) = &self.overrides.shared {
            let before = shared.end(name, caller).await.map_err(|error| failed("ended", error))?;
            let now = clock.now();
            let (mut before, unreadable) = (on_clock(&before, now), before.unreadable);
            let place = before.iter().position(|(other, _)| **other == *caller);
            let ended = place.map(|place| before.swap_remove(place));
            let mut limits = self.overrides.limits.lock();
            // It is not in the reply if the message arrived twice.
            let ended = limits.end(name, caller, now).or(ended);
            let changes = limits.replace(name, (before, &unreadable), now);
            drop(limits);
            tell(name, clock, &changes, Author::OtherGateway);
            ended
        } else {
            self.overrides.limits.lock().end(name, caller, clock.now())
        };
        self.apply_shares();
        let ended = ended.ok_or(OverrideError::NoOverride)?;
        tell_ended(name, &ended, Author::Operator(by));
        Ok(self.shown(instance, ended))
    }

    /// Returns the overrides that are in force, by instance and caller.
    #[must_use]
    pub fn overrides(&self) -> Vec<ActiveOverride> {
        let table = self.routing_table.load();
        let all = table.instances.iter().flat_map(|instance| {
            let active = self.overrides.limits.lock().active(&instance.name, instance.outbound.clock.now());
            active.into_iter().map(|it| self.shown(instance, it))
        });
        all.collect()
    }

    /// Follows the other gateways, and removes overrides that are over. To be called about once a second. If Redis does not
    /// answer, the known overrides stay until their end.
    pub async fn follow_overrides(&self) {
        let table = self.routing_table.load_full();
        let (mut has_changed, mut is_unreadable) = (false, false);
        for instance in &table.instances {
            let (Some(shared), name, clock) = (&self.overrides.shared, &instance.name, &instance.outbound.clock) else {
                break;
            };
            let _exchange = self.overrides.exchange.lock().await;
            match shared.read(name).await {
                Ok(all) => {
                    is_unreadable |= !all.unreadable.is_empty();
                    let now = clock.now();
                    let all = (on_clock(&all, now), &all.unreadable[..]);
                    let changes = self.overrides.limits.lock().replace(name, all, now);
                    has_changed |= !changes.is_empty();
                    tell(name, clock, &changes, Author::OtherGateway);
                }
                // The client logs that Redis is down.
                Err(SharedOverridesError::Redis(_)) => {}
                Err(SharedOverridesError::Content | SharedOverridesError::TooMany) => is_unreadable = true,
            }
        }
        if is_unreadable != self.overrides.is_unreadable.swap(is_unreadable, Ordering::Relaxed) {
            if is_unreadable {
                tracing::warn!("{UNEXPECTED}; the known ones stay until their end");
            } else {
                tracing::info!("the overrides in Redis can be read again");
            }
        }
        // All instances share one clock.
        if let Some(instance) = table.instances.first() {
            let ended = self.overrides.limits.lock().expire(instance.outbound.clock.now());
            has_changed |= !ended.is_empty();
            ended.iter().for_each(|(name, ended)| tell_ended(name, ended, Author::Time));
        }
        if has_changed {
            self.apply_shares();
        }
    }

    /// Takes over the shares of another configuration.
    pub(in crate::gateway) fn configure_shares(&self, shares: ConfiguredShares) {
        self.overrides.limits.lock().configure(shares);
        self.apply_shares();
    }

    /// Passes the shares on to the limiters.
    pub(in crate::gateway) fn apply_shares(&self) {
        // Locked before the table is read, so that the newest of both is applied last.
        let limits = self.overrides.limits.lock();
        for instance in &self.routing_table.load().instances {
            let now = instance.outbound.clock.now();
            let shares = limits.shares(&instance.name, now, |caller| self.callers.configured(caller));
            instance.outbound.limits.limiter.set_shares(shares);
        }
    }

    fn shown(&self, instance: &InstanceRuntime, (caller, it): CallerOverride) -> ActiveOverride {
        ActiveOverride {
            instance: Arc::clone(&instance.name),
            caller,
            action: it.action,
            until: on_wall(&instance.outbound.clock, it.until),
            is_shared: self.overrides.shared.is_some(),
        }
    }
}

/// The instance of this name, or the only one.
fn instance_named<'a>(
    table: &'a RoutingTable,
    wanted: Option<&str>,
) -> Result<&'a Arc<InstanceRuntime>, OverrideError> {
    let names = || list(table.instances.iter().map(|instance| &instance.name));
    match (wanted, &table.instances[..]) {
        (Some(wanted), all) => {
            let found = all.iter().find(|instance| *instance.name == *wanted);
            found.ok_or_else(|| OverrideError::NoInstance { known: names() })
        }
        (None, [only]) => Ok(only),
        (None, _) => Err(OverrideError::WhichInstance { known: names() }),
    }
}

/// The first names, separated by commas.
fn list<'a>(names: impl IntoIterator<Item = &'a Arc<str>>) -> String {
    let names: Vec<&str> = names.into_iter().map(|name| &**name).collect();
    let rest = names.len().saturating_sub(MAX_LISTED);
    let first = names[..names.len() - rest].join(", ");
    if rest == 0 { first } else { format!("{first} and {rest} more") }
}

fn failed(what: &'static str, error: SharedOverridesError) -> OverrideError {
    match error {
        SharedOverridesError::Redis(error) => OverrideError::Redis { what, error },
        SharedOverridesError::TooMany => OverrideError::TooMany,
        SharedOverridesError::Content => OverrideError::Content,
    }
}

/// A moment on the wall clock, also after that was set.
fn on_wall(clock: &Clock, moment: Moment) -> SystemTime {
    let (time, step) = (moment.to_system_time(), clock.step_seconds());
    let by = Duration::from_secs_f64(step.abs());
    let set = if step < 0.0 { time.checked_sub(by) } else { time.checked_add(by) };
    set.unwrap_or(time)
}

fn tell(instance: &str, clock: &Clock, changes: &OverrideChanges, author: Author<'_>) {
    changes.begun.iter().for_each(|begun| tell_begun(instance, clock, begun, author));
    changes.ended.iter().for_each(|ended| tell_ended(instance, ended, author));
    changes.over.iter().for_each(|over| tell_ended(instance, over, Author::Time));
}

fn tell_begun(instance: &str, clock: &Clock, (caller, it): &CallerOverride, author: Author<'_>) {
    tracing::warn!(
        clerk_instance = instance,
        caller = &**caller,
        action = it.action.as_str(),
        max_share = it.action.max_share(),
        until = %humantime::format_rfc3339_seconds(on_wall(clock, it.until)),
        by = author.as_str(),
        user = author.name(),
        "override of a caller begins"
    );
}

fn tell_ended(instance: &str, (caller, it): &CallerOverride, author: Author<'_>) {
    tracing::info!(
        clerk_instance = instance,
        caller = &**caller,
        action = it.action.as_str(),
        by = author.as_str(),
        user = author.name(),
        "override of a caller ends"
    );
}
