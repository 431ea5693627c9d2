//! A read of the users of one instance.

use std::borrow::Cow;

use super::Directory;
use super::edit::Edit;
use super::store::{Name, Users};

/// The users of one instance: generated ones with that instance's changes, and those that clients created.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) directory: &'a Directory,
    pub(crate) users: &'a Users,
}

impl<'a> View<'a> {
    /// Returns the user with this identifier.
    pub(crate) fn find(&self, id: &str) -> Option<u32> {
        let generated = self.directory.find(id).filter(|user| self.exists(*user));
        generated.or_else(|| self.users.named(Name::Id, id))
    }

    /// Returns the user with this e-mail address, ignoring case.
    pub(crate) fn find_email(&self, email: &str) -> Option<u32> {
        let generated = self.directory.find_email(email).filter(|user| self.exists(*user));
        generated.or_else(|| self.users.named(Name::Email, &email.to_lowercase()))
    }

    /// Returns the user with this phone number.
    pub(super) fn find_phone(&self, number: &str) -> Option<u32> {
        self.users.named(Name::Phone, number)
    }

    /// Returns the user who has this name now.
    pub(super) fn find_username(&self, name: &str) -> Option<u32> {
        let has = |user: &u32| self.exists(*user) && self.username(*user).as_deref() == Some(name);
        self.users.named(Name::Username, name).or_else(|| self.directory.find_username(name).filter(has))
    }

    /// Returns the user who has this external identifier now.
    pub(super) fn find_external_id(&self, id: &str) -> Option<u32> {
        let has = |user: &u32| self.exists(*user) && self.external_id(*user).as_deref() == Some(id);
        self.users.named(Name::ExternalId, id).or_else(|| self.directory.find_external_id(id).filter(has))
    }

    pub(crate) fn exists(&self, user: u32) -> bool {
        self.users.exists(self.directory, user)
    }

    pub(crate) fn id(&self, user: u32) -> Cow<'a, str> {
        match self.users.created(user) {
            Some(created) => Cow::Borrowed(&created.id),
            None => Cow::Owned(self.directory.id(user)),
        }
    }

    /// Returns the first e-mail address.
    pub(crate) fn email(&self, user: u32) -> Option<Cow<'a, str>> {
        match self.users.created(user) {
            Some(created) => created.emails.first().map(|email| Cow::Borrowed(email.value.as_str())),
            None => Some(Cow::Owned(self.directory.email(user))),
        }
    }

    /// Returns what an organization's lists call a member: the e-mail address, else the phone number or the username.
    pub(crate) fn identifier(&self, user: u32) -> Option<Cow<'a, str>> {
        let phone = || self.users.created(user)?.phones.first().map(|phone| Cow::Borrowed(phone.value.as_str()));
        self.email(user).or_else(phone).or_else(|| self.username(user))
    }

    pub(crate) fn first_name(&self, user: u32) -> Option<Cow<'a, str>> {
        let generated = |directory: &Directory| Cow::Borrowed(directory.first_name(user));
        self.current(user, |edit| &edit.first_name, |directory| Some(generated(directory)))
    }

    pub(crate) fn last_name(&self, user: u32) -> Option<Cow<'a, str>> {
        self.current(user, |edit| &edit.last_name, |directory| Some(Cow::Borrowed(directory.last_name(user))))
    }

    pub(crate) fn username(&self, user: u32) -> Option<Cow<'a, str>> {
        self.current(user, |edit| &edit.username, |directory| Some(Cow::Owned(directory.username(user))))
    }

    pub(super) fn external_id(&self, user: u32) -> Option<Cow<'a, str>> {
        self.current(user, |edit| &edit.external_id, |directory| directory.external_id(user).map(Cow::Owned))
    }

    pub(crate) fn is_banned(&self, user: u32) -> bool {
        let edited = self.users.edit(user).and_then(|edit| edit.banned);
        edited.unwrap_or_else(|| self.generated(user).is_some_and(|directory| directory.is_banned(user)))
    }

    /// Milliseconds since the epoch, as all times.
    pub(super) fn created_at(&self, user: u32) -> i64 {
        self.users.created(user).map_or_else(|| self.directory.created_at(user), |created| created.created_at)
    }

    pub(super) fn updated_at(&self, user: u32) -> i64 {
        let generated = || self.last_sign_in_at(user).unwrap_or_else(|| self.created_at(user));
        self.users.edit(user).map_or_else(generated, |edit| edit.updated_at)
    }

    /// Created users never sign in.
    pub(super) fn last_active_at(&self, user: u32) -> Option<i64> {
        self.generated(user)?.last_active_at(user)
    }

    pub(crate) fn last_sign_in_at(&self, user: u32) -> Option<i64> {
        self.generated(user)?.last_sign_in_at(user)
    }

    /// The directory, if the user is in it.
    fn generated(&self, user: u32) -> Option<&'a Directory> {
        (user < self.directory.len()).then_some(self.directory)
    }

    /// The value that a client set, else the generated one.
    fn current(
        &self,
        user: u32,
        field: impl Fn(&Edit) -> &Option<Option<String>>,
        generated: impl FnOnce(&'a Directory) -> Option<Cow<'a, str>>,
    ) -> Option<Cow<'a, str>> {
        match self.users.edit(user).and_then(|edit| field(edit).as_ref()) {
            Some(value) => value.as_deref().map(Cow::Borrowed),
            None => self.generated(user).and_then(generated),
        }
    }
}
