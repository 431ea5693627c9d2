//! `POST /v1/users`.

use super::Directory;
use super::edit::Edit;
use super::store::{CreatedUser, Identification, Users};
use super::view::View;
use crate::body::{Fields, malformed};
use crate::error::ApiError;
use crate::ids::{ksuid, mix};

/// Clerk's shortest password.
const PASSWORD_MIN_CHARS: usize = 8;

/// The longest e-mail address (RFC 5321).
const EMAIL_MAX_BYTES: usize = 254;

impl Users {
    /// Creates a user. `serial` distinguishes the identifiers of two users.
    ///
    /// # Errors
    ///
    /// 400 if the body is not a JSON object, 422 if a field is invalid or another user has the e-mail address, the phone
    /// number, the username or the external identifier, 403 if there are too many users.
    pub(crate) fn create(
        &mut self,
        directory: &Directory,
        body: &[u8],
        serial: u64,
        now_millis: i64,
    ) -> Result<u32, ApiError> {
        let mut fields = Fields::parse(body)?;
        let view = View { directory, users: self };
        let emails = fields.texts("email_address")?;
        for email in &emails {
            check_email(email)?;
            check_free("email_address", view.find_email(email))?;
        }
        let phones = fields.texts("phone_number")?;
        for phone in &phones {
            check_phone(phone)?;
            check_free("phone_number", view.find_phone(phone))?;
        }
        let password_enabled = check_password(&mut fields)?;
        let needs_no_name = fields.boolean("skip_user_requirement")?.unwrap_or(false);
        // A created user does not have the directory's generated values: what is not given is empty.
        let banned = fields.boolean("banned")?.unwrap_or(false);
        let locked = fields.boolean("locked")?.unwrap_or(false);
        let edit = Edit { banned: Some(banned), locked, ..Edit::default() }.update(&mut fields, now_millis)?;
        check_names(&view, &edit, None)?;
        if emails.is_empty() && phones.is_empty() && edit.username.clone().flatten().is_none() && !needs_no_name {
            return Err(ApiError::form_data_missing());
        }
        let number =
            self.next_number(directory).ok_or_else(|| ApiError::quota_exceeded("user_quota_exceeded".into()))?;
        // Users rise with their creation time, also on a simulator that starts before the generated ones end.
        let last_generated = directory.len().checked_sub(1).map(|last| directory.created_at(last));
        let created_at = now_millis.max(self.newest_created_at().or(last_generated).unwrap_or(0));
        let seconds = u64::try_from(created_at / 1_000).unwrap_or(0);
        let mut identified = (0_u64..).map(|part| mix(serial, part));
        let mut identify = |value| {
            let spread = identified.next().unwrap_or_default();
            Identification { id: ksuid("idn_", seconds, spread, mix(spread, 3)), value }
        };
        self.add(CreatedUser {
            number,
            id: ksuid("user_", seconds, mix(serial, u64::MAX), mix(serial, u64::from(number))),
            emails: emails.into_iter().map(&mut identify).collect(),
            phones: phones.into_iter().map(&mut identify).collect(),
            password_enabled,
            created_at,
            edit,
        });
        Ok(number)
    }
}

/// Checks that the username and the external identifier of a change belong to no other user.
///
/// # Errors
///
/// 422 if one does.
pub(super) fn check_names(view: &View<'_>, edit: &Edit, own: Option<u32>) -> Result<(), ApiError> {
    let username = edit.username.iter().flatten().find_map(|name| view.find_username(name));
    let external_id = edit.external_id.iter().flatten().find_map(|id| view.find_external_id(id));
    for (name, found) in [("username", username), ("external_id", external_id)] {
        check_free(name, found.filter(|user| Some(*user) != own))?;
    }
    Ok(())
}

fn check_free(name: &str, found: Option<u32>) -> Result<(), ApiError> {
    match found {
        Some(_) => Err(ApiError::identifier_exists(name)),
        None => Ok(()),
    }
}

/// Checks the form of an e-mail address, roughly.
///
/// # Errors
///
/// 422 if it is wrong.
pub(crate) fn check_email(email: &str) -> Result<(), ApiError> {
    let is_well_formed = email.len() <= EMAIL_MAX_BYTES
        && !email.bytes().any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control())
        && email.rsplit_once('@').is_some_and(|(local, host)| !local.is_empty() && !host.is_empty());
    if is_well_formed { Ok(()) } else { Err(malformed("email_address", "a valid email address")) }
}

/// E.164: a plus and 7 to 15 digits.
fn check_phone(phone: &str) -> Result<(), ApiError> {
    let digits = phone.strip_prefix('+').unwrap_or_default();
    let is_well_formed = (7..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_well_formed { Ok(()) } else { Err(malformed("phone_number", "a phone number in E.164 format")) }
}

/// Returns whether the user has a password. It is checked and not stored.
fn check_password(fields: &mut Fields) -> Result<bool, ApiError> {
    let is_unchecked = fields.boolean("skip_password_checks")?.unwrap_or(false);
    let has_digest = fields.text("password_digest")?.flatten().is_some();
    let Some(password) = fields.text("password")?.flatten() else { return Ok(has_digest) };
    if password.chars().count() < PASSWORD_MIN_CHARS && !is_unchecked {
        let message = format!("Passwords must be {PASSWORD_MIN_CHARS} characters or more.");
        return Err(ApiError::parameter("form_password_length_too_short", "password", message));
    }
    Ok(true)
}
