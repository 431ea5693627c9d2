//! The users of one instance: the generated ones without those that were deleted, their changes, and those that clients
//! created.
//!
//! A user has a number. Generated users have those below the size of the directory; created users get the next ones, so
//! that numbers rise with the creation time. A *place* is a position among the users that exist, in the same order.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use super::Directory;
use super::edit::Edit;

/// Changed generated users that are stored. Beyond, the user that was changed first returns to its generated state.
const MAX_EDITED_USERS: usize = 16_384;

/// Users that clients can create in one instance, beyond those that were deleted.
pub(super) const MAX_CREATED_USERS: usize = 100_000;

/// A user that a client created.
#[derive(Debug)]
pub(crate) struct CreatedUser {
    pub(super) number: u32,
    pub(super) id: String,
    pub(super) emails: Vec<Identification>,
    pub(super) phones: Vec<Identification>,
    pub(super) password_enabled: bool,
    /// Milliseconds since the epoch.
    pub(super) created_at: i64,
    pub(super) edit: Edit,
}

/// An e-mail address or a phone number.
#[derive(Debug)]
pub(crate) struct Identification {
    pub(super) id: String,
    pub(super) value: String,
}

/// The kinds of names that lead to a user. E-mail addresses are in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Name {
    Id,
    Email,
    Phone,
    Username,
    ExternalId,
}

/// The users of one instance.
#[derive(Debug, Default)]
pub(crate) struct Users {
    edits: HashMap<u32, Edit>,
    /// Edited users in the order of their first change.
    order: VecDeque<u32>,
    /// Generated users that were deleted, in order.
    deleted: Vec<u32>,
    created: HashMap<u32, CreatedUser>,
    /// The numbers of created users, in order.
    numbers: Vec<u32>,
    /// Names that generated users did not have at creation.
    names: HashMap<(Name, String), u32>,
    created_total: u32,
}

impl Users {
    pub(super) fn exists(&self, directory: &Directory, user: u32) -> bool {
        if user < directory.len() { self.deleted.binary_search(&user).is_err() } else { self.created(user).is_some() }
    }

    pub(super) fn created(&self, user: u32) -> Option<&CreatedUser> {
        if self.created.is_empty() { None } else { self.created.get(&user) }
    }

    pub(super) fn edit(&self, user: u32) -> Option<&Edit> {
        self.edits.get(&user).or_else(|| self.created(user).map(|created| &created.edit))
    }

    /// Returns the user that got this name from a client.
    pub(super) fn named(&self, name: Name, value: &str) -> Option<u32> {
        if self.names.is_empty() { None } else { self.names.get(&(name, value.to_owned())).copied() }
    }

    /// Replaces the changes of a user.
    pub(super) fn set_edit(&mut self, directory: &Directory, user: u32, edit: Edit) {
        self.unname(user);
        self.name(user, &edit);
        if user >= directory.len() {
            if let Some(created) = self.created.get_mut(&user) {
                created.edit = edit;
            }
            return;
        }
        if self.edits.insert(user, edit).is_none() {
            self.order.push_back(user);
        }
        while self.edits.len() > MAX_EDITED_USERS {
            let Some(oldest) = self.order.pop_front() else { break };
            self.unname(oldest);
            self.edits.remove(&oldest);
        }
    }

    fn name(&mut self, user: u32, edit: &Edit) {
        for (name, value) in [(Name::Username, &edit.username), (Name::ExternalId, &edit.external_id)] {
            if let Some(Some(value)) = value {
                self.names.insert((name, value.clone()), user);
            }
        }
    }

    /// Removes the names of the user's changes.
    fn unname(&mut self, user: u32) {
        let Some(edit) = self.edit(user) else { return };
        let username = edit.username.clone().flatten().map(|value| (Name::Username, value));
        let external_id = edit.external_id.clone().flatten().map(|value| (Name::ExternalId, value));
        for key in [username, external_id].into_iter().flatten() {
            if self.names.get(&key) == Some(&user) {
                self.names.remove(&key);
            }
        }
    }

    /// Returns the number of the next created user; `None` if there are too many.
    pub(super) fn next_number(&self, directory: &Directory) -> Option<u32> {
        if self.created.len() >= MAX_CREATED_USERS { None } else { directory.len().checked_add(self.created_total) }
    }

    /// Returns when the newest created user was created, in milliseconds since the epoch.
    pub(super) fn newest_created_at(&self) -> Option<i64> {
        self.numbers.last().and_then(|number| self.created(*number)).map(|created| created.created_at)
    }

    /// Adds a user with the number of [`Self::next_number`].
    pub(super) fn add(&mut self, user: CreatedUser) {
        let number = user.number;
        self.names.insert((Name::Id, user.id.clone()), number);
        for (name, list) in [(Name::Email, &user.emails), (Name::Phone, &user.phones)] {
            let values = list.iter().map(|it| ((name, it.value.to_lowercase()), number));
            self.names.extend(values);
        }
        self.name(number, &user.edit);
        self.created.insert(number, user);
        self.numbers.push(number);
        self.created_total = self.created_total.saturating_add(1);
    }

    /// Removes a user that exists.
    pub(super) fn remove(&mut self, directory: &Directory, user: u32) {
        self.unname(user);
        if user < directory.len() {
            if self.edits.remove(&user).is_some() {
                self.order.retain(|edited| *edited != user);
            }
            if let Err(place) = self.deleted.binary_search(&user) {
                self.deleted.insert(place, user);
            }
        } else if let Some(gone) = self.created.remove(&user) {
            if let Ok(place) = self.numbers.binary_search(&user) {
                self.numbers.remove(place);
            }
            self.names.remove(&(Name::Id, gone.id));
            for (name, list) in [(Name::Email, gone.emails), (Name::Phone, gone.phones)] {
                for it in list {
                    self.names.remove(&(name, it.value.to_lowercase()));
                }
            }
        }
    }

    fn generated(&self, directory: &Directory) -> usize {
        directory.len() as usize - self.deleted.len()
    }

    /// Returns the place of a user, or where it would be.
    pub(super) fn place_of(&self, directory: &Directory, user: u32) -> usize {
        if user < directory.len() {
            user as usize - self.deleted.partition_point(|deleted| *deleted < user)
        } else {
            self.generated(directory) + self.numbers.partition_point(|number| *number < user)
        }
    }

    /// Returns the user at a place.
    pub(super) fn at(&self, directory: &Directory, place: usize) -> Option<u32> {
        let generated = self.generated(directory);
        if place >= generated {
            return self.numbers.get(place - generated).copied();
        }
        // The number of deleted users before the wanted one: the first `index` of which fewer than `place` exist before.
        let (mut low, mut high) = (0, self.deleted.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.deleted[middle] as usize - middle <= place { low = middle + 1 } else { high = middle }
        }
        u32::try_from(place + low).ok()
    }

    /// Returns the places of the users that were created from `first` to `last`, in milliseconds since the epoch.
    pub(super) fn places_created(&self, directory: &Directory, first: i64, last: i64) -> Range<usize> {
        let before = |is_before: &dyn Fn(i64) -> bool| {
            let generated = directory.created_partition(is_before);
            let created_before =
                |number: &u32| self.created(*number).is_some_and(|created| is_before(created.created_at));
            let created = self.numbers.partition_point(created_before);
            let generated = generated as usize - self.deleted.partition_point(|deleted| *deleted < generated);
            generated + created
        };
        let start = before(&|at| at < first);
        start..before(&|at| at <= last).max(start)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn directory() -> Directory {
        Directory::new(100, 5, Duration::from_secs(1_795_608_000))
    }

    fn person(number: u32) -> CreatedUser {
        CreatedUser {
            number,
            id: format!("user_{number}"),
            emails: vec![Identification { id: format!("idn_{number}"), value: format!("{number}@Example.com") }],
            phones: Vec::new(),
            password_enabled: false,
            created_at: 1_795_608_000_000 + i64::from(number),
            edit: Edit { username: Some(Some(format!("name{number}"))), ..Edit::default() },
        }
    }

    #[test]
    fn places_skip_deleted_users_and_end_with_created_ones() {
        let directory = directory();
        let mut users = Users::default();
        for _ in 0..5 {
            users.add(person(users.next_number(&directory).unwrap()));
        }
        for gone in [0, 1, 50, 99, 102] {
            users.remove(&directory, gone);
        }
        let all: Vec<u32> = (0..105).filter(|user| users.exists(&directory, *user)).collect();
        for (place, user) in all.iter().enumerate() {
            assert_eq!(users.at(&directory, place), Some(*user));
            assert_eq!(users.place_of(&directory, *user), place);
        }
        assert_eq!(users.at(&directory, all.len()), None);
        assert_eq!(users.places_created(&directory, i64::MIN, i64::MAX), 0..all.len());
        assert_eq!(users.places_created(&directory, 1_795_608_000_000, i64::MAX).len(), 4);
        users.add(person(users.next_number(&directory).unwrap()));
        assert!(users.created(105).is_some(), "numbers are not used twice");
    }

    #[test]
    fn names_lead_to_the_user_that_has_them_now() {
        let directory = directory();
        let mut users = Users::default();
        users.add(person(100));
        assert_eq!(users.named(Name::Email, "100@example.com"), Some(100));
        assert_eq!(users.named(Name::Username, "name100"), Some(100));
        users.set_edit(&directory, 100, Edit { username: Some(Some("other".to_owned())), ..Edit::default() });
        assert_eq!(users.named(Name::Username, "name100"), None);
        assert_eq!(users.named(Name::Username, "other"), Some(100));
        users.remove(&directory, 100);
        assert!(users.names.is_empty());
    }

    #[test]
    fn oldest_edit_is_evicted_at_the_limit() {
        let directory = Directory::new(50_000, 5, Duration::from_secs(1_795_608_000));
        let mut users = Users::default();
        for user in 0..20_000 {
            let edit = Edit { external_id: Some(Some(user.to_string())), ..Edit::default() };
            users.set_edit(&directory, user, edit);
        }
        assert_eq!((users.edits.len(), users.order.len()), (MAX_EDITED_USERS, MAX_EDITED_USERS));
        assert!(users.edit(0).is_none() && users.edit(19_999).is_some());
        assert_eq!(users.names.len(), MAX_EDITED_USERS);
    }
}
