//! What the server refuses now. A refusal starts with a first error and lasts until the operation succeeds.
//!
//! Pure: time is passed in.

use std::time::Duration;

use tokio::time::Instant;

use super::permissions::Command;
use super::{ErrorReply, RefusalClass};

/// A script has several code paths, so its success ends a refusal only if none came for this long.
const SETTLED_AFTER: Duration = Duration::from_secs(60);

/// Maximum number of tracked refusals.
const MAX_ACTIVE: usize = 64;

/// A refused or successful operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Command(Command),
    /// Hash of the script.
    Script(Box<str>),
}

impl Operation {
    /// Whether a refusal has no consequences.
    pub(super) fn is_optional(&self) -> bool {
        matches!(self, Self::Command(command) if command.is_optional())
    }
}

#[derive(Debug, Default)]
pub(super) struct Refusals {
    active: Vec<Active>,
}

#[derive(Debug)]
struct Active {
    operation: Operation,
    reply: ErrorReply,
    /// When it was last seen.
    at: Instant,
}

impl Active {
    fn is_over_after(&self, operation: &Operation, now: Instant) -> bool {
        if self.reply.is_of_the_connection() {
            return true;
        }
        let is_certain = matches!(operation, Operation::Command(_)) || now.duration_since(self.at) >= SETTLED_AFTER;
        self.operation == *operation && is_certain
    }
}

impl Refusals {
    /// Records a refusal. Returns whether it is new.
    pub(super) fn refused(&mut self, operation: &Operation, reply: &ErrorReply, now: Instant) -> bool {
        if let Some(known) = self.active.iter_mut().find(|it| it.operation == *operation && it.reply == *reply) {
            known.at = now;
            return false;
        }
        let is_new = !self.holds(reply) && self.active.len() < MAX_ACTIVE;
        if self.active.len() < MAX_ACTIVE {
            self.active.push(Active { operation: operation.clone(), reply: reply.clone(), at: now });
        }
        is_new
    }

    /// Records a success. Returns the refusals that it ended.
    pub(super) fn succeeded(&mut self, operation: &Operation, now: Instant) -> Vec<ErrorReply> {
        let over: Vec<_> = self.active.extract_if(.., |it| it.is_over_after(operation, now)).collect();
        let mut ended: Vec<ErrorReply> = Vec::new();
        for it in over {
            if !self.holds(&it.reply) && !ended.contains(&it.reply) {
                ended.push(it.reply);
            }
        }
        ended
    }

    /// Which classes are refused, in the order of [`RefusalClass::ALL`].
    pub(super) fn by_class(&self) -> [bool; RefusalClass::ALL.len()] {
        RefusalClass::ALL.map(|class| self.active.iter().any(|it| it.reply.class() == class))
    }

    fn holds(&self, reply: &ErrorReply) -> bool {
        self.active.iter().any(|it| it.reply == *reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: Operation = Operation::Command(Command::Get);
    const SUBSCRIBE: Operation = Operation::Command(Command::Subscribe);

    fn script(name: &str) -> Operation {
        Operation::Script(name.into())
    }

    #[test]
    fn command_is_refused_until_it_succeeds() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        assert!(refusals.refused(&SUBSCRIBE, &ErrorReply::ReadOnly, now));
        assert!(!refusals.refused(&SUBSCRIBE, &ErrorReply::ReadOnly, now));
        assert!(!refusals.refused(&GET, &ErrorReply::ReadOnly, now), "one warning for one cause");
        assert!(refusals.refused(&GET, &ErrorReply::OutOfMemory, now));
        assert_eq!(refusals.succeeded(&SUBSCRIBE, now), [], "another command is still refused for it");
        assert_eq!(refusals.succeeded(&GET, now), [ErrorReply::ReadOnly, ErrorReply::OutOfMemory]);
        assert_eq!(refusals.by_class(), [false; RefusalClass::ALL.len()]);
        assert!(refusals.refused(&GET, &ErrorReply::ReadOnly, now), "it may begin again");
    }

    #[test]
    fn intermittent_script_success_does_not_flap() {
        let (mut refusals, mut now) = (Refusals::default(), Instant::now());
        assert!(refusals.refused(&script("look"), &ErrorReply::OutOfMemory, now));
        for _ in 0..10 {
            now += SETTLED_AFTER / 2;
            assert_eq!(refusals.succeeded(&script("look"), now), []);
            assert!(!refusals.refused(&script("look"), &ErrorReply::OutOfMemory, now));
        }
        now += SETTLED_AFTER;
        assert_eq!(refusals.succeeded(&script("keep"), now), [], "another script does not count");
        assert!(refusals.by_class()[RefusalClass::OutOfMemory as usize]);
        assert_eq!(refusals.succeeded(&script("look"), now), [ErrorReply::OutOfMemory]);
    }

    #[test]
    fn any_success_ends_a_connection_refusal() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        refusals.refused(&script("look"), &ErrorReply::Credentials, now);
        refusals.refused(&SUBSCRIBE, &ErrorReply::Credentials, now);
        assert_eq!(refusals.succeeded(&GET, now), [ErrorReply::Credentials]);
    }

    #[test]
    fn distinct_refusals_are_bounded() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        for number in 0..2 * MAX_ACTIVE {
            refusals.refused(&GET, &ErrorReply::Other(format!("E{number}").into()), now);
        }
        assert_eq!(refusals.active.len(), MAX_ACTIVE);
    }
}
