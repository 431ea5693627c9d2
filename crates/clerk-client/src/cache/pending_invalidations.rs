//! What Redis could not be told to forget, until it was told.
//!
//! An answer that should be gone may still stand there. Until it was told, this process looks for no answer with one of
//! those tags in it.

use std::collections::HashSet;

use parking_lot::Mutex;

use crate::webhook::Tag;

/// More are one: all of it.
const MAX_TAGS: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct PendingInvalidations(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    tags: HashSet<Tag>,
    /// Whether somebody sees to it.
    has_retry_task: bool,
}

impl PendingInvalidations {
    /// Redis could not be told of these tags. Says whether somebody has to see to it from now on.
    pub(super) fn push(&self, tags: &[Tag]) -> bool {
        let mut state = self.0.lock();
        state.tags.extend(tags.iter().cloned());
        if state.tags.len() > MAX_TAGS {
            state.tags = HashSet::from([Tag::Everything]);
        }
        !std::mem::replace(&mut state.has_retry_task, true)
    }

    /// Whether an answer with these tags may be one that should be gone.
    pub(super) fn contains(&self, tags: &[Tag]) -> bool {
        let state = self.0.lock();
        !state.tags.is_empty()
            && (state.tags.contains(&Tag::Everything) || tags.iter().any(|tag| state.tags.contains(tag)))
    }

    /// All of them.
    pub(super) fn tags(&self) -> Vec<Tag> {
        self.0.lock().tags.iter().cloned().collect()
    }

    /// Redis was told of these. Says whether that was all, and nobody has to see to it any more.
    pub(super) fn ack(&self, sent: &[Tag]) -> bool {
        let mut state = self.0.lock();
        state.tags.retain(|tag| !sent.contains(tag));
        let is_all = state.tags.is_empty();
        state.has_retry_task = !is_all;
        is_all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: usize) -> Tag {
        Tag::User(format!("user_{number}").into())
    }

    #[test]
    fn what_is_owed_is_held_until_it_is_settled() {
        let pending = PendingInvalidations::default();
        assert!(!pending.contains(&[user(1)]));
        assert!(pending.push(&[user(1), Tag::UserList]) && !pending.push(&[user(2)]), "one sees to it");
        assert!(
            pending.contains(&[Tag::Everything, user(2)])
                && pending.contains(&[Tag::UserList])
                && !pending.contains(&[user(3)])
        );
        assert!(!pending.ack(&[user(1), Tag::UserList]), "something came meanwhile");
        assert!(!pending.contains(&[user(1)]) && pending.contains(&[user(2)]));
        assert!(pending.ack(&pending.tags()) && !pending.contains(&[user(2)]));
        assert!(pending.push(&[user(1)]), "nobody does any more");
    }

    #[test]
    fn too_much_is_everything() {
        let pending = PendingInvalidations::default();
        pending.push(&(0..=MAX_TAGS).map(user).collect::<Vec<_>>());
        assert!(pending.contains(&[user(MAX_TAGS + 1)]) && pending.contains(&[]));
        assert_eq!(pending.tags(), [Tag::Everything]);
        assert!(pending.ack(&[Tag::Everything]));
    }
}
