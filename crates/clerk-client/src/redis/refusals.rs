//! What the server refuses now. A refusal is a state: it begins with a first error and lasts until what was refused is
//! done.
//!
//! Pure: time is passed in.

use std::time::Duration;

use tokio::time::Instant;

use super::permissions::Command;
use super::{ErrorReply, RefusalClass};

/// A script takes different ways. That it succeeded says that a refusal is over only when none came for so long.
const SETTLED_AFTER: Duration = Duration::from_secs(60);

/// More are not told apart.
const MAX_ACTIVE: usize = 64;

/// What was to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Command(Command),
    /// By its hash.
    Script(Box<str>),
}

impl Operation {
    /// Whether nothing is lost when it is refused.
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
    /// When it was seen last.
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
    /// Something was refused. Says whether that is new.
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

    /// Something was done. Gives the refusals that are over.
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

    /// Whether anything is refused, in the order of [`RefusalClass::ALL`].
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
    fn a_command_is_refused_until_it_is_done() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        assert!(refusals.refused(&SUBSCRIBE, &ErrorReply::ReadOnly, now));
        assert!(!refusals.refused(&SUBSCRIBE, &ErrorReply::ReadOnly, now));
        assert!(!refusals.refused(&GET, &ErrorReply::ReadOnly, now), "one warning for one cause");
        assert!(refusals.refused(&GET, &ErrorReply::OutOfMemory, now));
        assert_eq!(refusals.succeeded(&SUBSCRIBE, now), [], "another command is still refused for it");
        assert_eq!(refusals.succeeded(&GET, now), [ErrorReply::ReadOnly, ErrorReply::OutOfMemory]);
        assert_eq!(refusals.by_class(), [false; RefusalClass::ALL.len()]);
        assert!(refusals.refused(&GET, &ErrorReply::ReadOnly, now), "and it may begin again");
    }

    #[test]
    fn a_script_that_succeeds_now_and_then_does_not_flap() {
        let (mut refusals, mut now) = (Refusals::default(), Instant::now());
        assert!(refusals.refused(&script("look"), &ErrorReply::OutOfMemory, now));
        for _ in 0..10 {
            now += SETTLED_AFTER / 2;
            assert_eq!(refusals.succeeded(&script("look"), now), []);
            assert!(!refusals.refused(&script("look"), &ErrorReply::OutOfMemory, now));
        }
        now += SETTLED_AFTER;
        assert_eq!(refusals.succeeded(&script("keep"), now), [], "another script says nothing of it");
        assert!(refusals.by_class()[RefusalClass::OutOfMemory as usize]);
        assert_eq!(refusals.succeeded(&script("look"), now), [ErrorReply::OutOfMemory]);
    }

    #[test]
    fn whatever_is_done_shows_that_the_connection_is_let_in() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        refusals.refused(&script("look"), &ErrorReply::Credentials, now);
        refusals.refused(&SUBSCRIBE, &ErrorReply::Credentials, now);
        assert_eq!(refusals.succeeded(&GET, now), [ErrorReply::Credentials]);
    }

    #[test]
    fn replies_that_never_come_twice_do_not_pile_up() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        for number in 0..2 * MAX_ACTIVE {
            refusals.refused(&GET, &ErrorReply::Other(format!("E{number}").into()), now);
        }
        assert_eq!(refusals.active.len(), MAX_ACTIVE);
    }
}
