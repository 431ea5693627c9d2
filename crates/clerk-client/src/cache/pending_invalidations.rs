//! Invalidations that Redis has not accepted yet.
//!
//! Redis may still hold outdated entries with these tags. Until it accepts the invalidation, this process does not look
//! them up in Redis.

use std::collections::HashSet;

use parking_lot::Mutex;

use crate::webhook::Tag;

/// Above this number, the tags collapse into `Tag::Everything`.
const MAX_TAGS: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct PendingInvalidations(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    tags: HashSet<Tag>,
    has_retry_task: bool,
}

impl PendingInvalidations {
    /// Adds tags. Returns whether the caller has to start a retry task.
    pub(super) fn push(&self, tags: &[Tag]) -> bool {
        let mut state = self.0.lock();
        state.tags.extend(tags.iter().cloned());
        if state.tags.len() > MAX_TAGS {
            state.tags = HashSet::from([Tag::Everything]);
        }
        !std::mem::replace(&mut state.has_retry_task, true)
    }

    /// Whether an entry with these tags may be outdated in Redis.
    pub(super) fn contains(&self, tags: &[Tag]) -> bool {
        let state = self.0.lock();
        !state.tags.is_empty()
            && (state.tags.contains(&Tag::Everything) || tags.iter().any(|tag| state.tags.contains(tag)))
    }

    pub(super) fn tags(&self) -> Vec<Tag> {
        self.0.lock().tags.iter().cloned().collect()
    }

    /// Removes tags that Redis has accepted. Returns whether none remain, which ends the retry task.
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
    fn pending_tags_are_contained_until_acknowledged() {
        let pending = PendingInvalidations::default();
        assert!(!pending.contains(&[user(1)]));
        assert!(pending.push(&[user(1), Tag::UserList]) && !pending.push(&[user(2)]), "one retry task");
        assert!(
            pending.contains(&[Tag::Everything, user(2)])
                && pending.contains(&[Tag::UserList])
                && !pending.contains(&[user(3)])
        );
        assert!(!pending.ack(&[user(1), Tag::UserList]), "a tag was added meanwhile");
        assert!(!pending.contains(&[user(1)]) && pending.contains(&[user(2)]));
        assert!(pending.ack(&pending.tags()) && !pending.contains(&[user(2)]));
        assert!(pending.push(&[user(1)]), "the retry task has ended");
    }

    #[test]
    fn too_many_tags_become_everything() {
        let pending = PendingInvalidations::default();
        pending.push(&(0..=MAX_TAGS).map(user).collect::<Vec<_>>());
        assert!(pending.contains(&[user(MAX_TAGS + 1)]) && pending.contains(&[]));
        assert_eq!(pending.tags(), [Tag::Everything]);
        assert!(pending.ack(&[Tag::Everything]));
    }
}
