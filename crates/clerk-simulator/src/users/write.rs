//! Changes and deletions of users.

use super::Directory;
use super::create::check_names;
use super::edit::Edit;
use super::store::Users;
use super::view::View;
use crate::body::Fields;
use crate::error::ApiError;

/// A change without a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flag {
    Banned(bool),
    Locked(bool),
}

impl Users {
    /// Applies `PATCH /v1/users/{user_id}`.
    ///
    /// # Errors
    ///
    /// 404 if there is no such user, 400 or 422 if the body is invalid.
    pub(crate) fn update(&mut self, directory: &Directory, id: &str, body: &[u8], now: i64) -> Result<u32, ApiError> {
        let user = self.find(directory, id)?;
        let edit = self.edit_of(user).update(&mut Fields::parse(body)?, now)?;
        check_names(&View { directory, users: self }, &edit, Some(user))?;
        self.set_edit(directory, user, edit);
        Ok(user)
    }

    /// Applies `PATCH` or `PUT` (`replace`) `/v1/users/{user_id}/metadata`.
    ///
    /// # Errors
    ///
    /// As [`Self::update`].
    pub(crate) fn update_metadata(
        &mut self,
        directory: &Directory,
        id: &str,
        body: &[u8],
        replace: bool,
        now: i64,
    ) -> Result<u32, ApiError> {
        let user = self.find(directory, id)?;
        let edit = self.edit_of(user).update_metadata(body, replace, now)?;
        self.set_edit(directory, user, edit);
        Ok(user)
    }

    /// Bans, unbans, locks or unlocks a user.
    ///
    /// # Errors
    ///
    /// 404 if there is no such user.
    pub(crate) fn set_flag(&mut self, directory: &Directory, id: &str, flag: Flag, now: i64) -> Result<u32, ApiError> {
        let user = self.find(directory, id)?;
        let mut edit = self.edit_of(user);
        match flag {
            Flag::Banned(banned) => edit.banned = Some(banned),
            Flag::Locked(locked) => edit.locked = locked,
        }
        edit.updated_at = now;
        self.set_edit(directory, user, edit);
        Ok(user)
    }

    /// Deletes a user.
    ///
    /// # Errors
    ///
    /// 404 if there is no such user.
    pub(crate) fn delete(&mut self, directory: &Directory, id: &str) -> Result<u32, ApiError> {
        let user = self.find(directory, id)?;
        self.remove(directory, user);
        Ok(user)
    }

    fn find(&self, directory: &Directory, id: &str) -> Result<u32, ApiError> {
        View { directory, users: self }.find(id).ok_or_else(|| ApiError::not_found("user", id))
    }

    fn edit_of(&self, user: u32) -> Edit {
        self.edit(user).cloned().unwrap_or_default()
    }
}
