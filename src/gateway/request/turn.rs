//! How a request waits for the rate limit, and with whose requests it may share a response.

use std::time::Duration;

use super::identify::Identity;
use super::routing_table::InstanceRuntime;
use crate::gateway::config::policy::{Mode, RoutePolicies};
use clerk_client::limiter::{CallerRules, Sender};
use clerk_client::outbound::QueueOptions;

/// A request's turn.
#[derive(Debug, Clone, Copy)]
pub(in crate::gateway) struct Turn {
    /// Its caller is only named if that has a share or a wait of its own: then no other caller's request waits for this
    /// one, nor this one for another's.
    pub(in crate::gateway) sender: Sender,
    /// Longest time in the queue, before each attempt.
    pub(in crate::gateway) max_wait: Duration,
}

impl Turn {
    pub(in crate::gateway) fn of(identity: &Identity, instance: &InstanceRuntime) -> (Self, CallerRules) {
        let rules = instance.outbound.limits.limiter.caller_rules(identity.caller);
        let sender = Sender::from(identity.priority);
        let is_apart = rules.has_share || identity.max_wait.is_some();
        let sender = if is_apart { sender.of(identity.caller) } else { sender };
        let max_wait = identity.max_wait.unwrap_or(instance.policies.max_queue_wait);
        (Self { sender, max_wait }, rules)
    }

    pub(in crate::gateway) const fn queue(self) -> QueueOptions {
        QueueOptions::new(self.sender.priority, self.max_wait)
    }

    /// The senders whose responses a request may share. Without pacing there is no queue to wait in.
    pub(in crate::gateway) fn sharing(self, policies: RoutePolicies) -> Sender {
        if policies.pace.is_on() { self.sender } else { Sender::ANY }
    }
}

/// The policies of a request whose caller has a cap that holds in any case.
pub(in crate::gateway) fn enforced(policies: RoutePolicies, rules: CallerRules) -> RoutePolicies {
    if rules.always_waits { RoutePolicies { pace: Mode::On, ..policies } } else { policies }
}
