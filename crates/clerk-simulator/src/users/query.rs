//! The query of `GET /v1/users` and `GET /v1/users/count`.

use std::borrow::Cow;

use axum::extract::Query;
use http::Uri;

use crate::error::ApiError;

/// Clerk's largest page.
const MAX_LIMIT: u32 = 500;
const DEFAULT_LIMIT: u32 = 10;
/// Clerk's largest number of values of one array parameter.
const MAX_ARRAY: usize = 100;

/// A filter, an order and a page of users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserQuery {
    pub(super) filter: Filter,
    pub(super) order: Order,
    pub(super) descending: bool,
    pub(super) limit: u32,
    pub(super) offset: u32,
    pub(super) starting_after: Option<String>,
}

/// The properties that a user must have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) user_ids: Members,
    pub(super) external_ids: Members,
    pub(super) emails: Vec<String>,
    pub(super) usernames: Vec<String>,
    pub(super) phones: Vec<String>,
    /// Fields and the lower-case text that they must contain.
    pub(super) texts: Vec<(TextField, String)>,
    pub(super) organizations: Members,
    /// Members of the wanted organizations, if there are any, and of the unwanted ones. Sorted numbers.
    pub(super) members: Option<Vec<u32>>,
    pub(super) members_of_unwanted: Vec<u32>,
    pub(super) banned: Option<bool>,
    pub(super) created_at: Range,
    pub(super) last_active_at: Range,
    pub(super) last_sign_in_at: Range,
    /// The query filters by something that no simulated user has, such as a wallet.
    pub(super) matches_none: bool,
}

/// Values to include, and values to exclude (written with a leading `-`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Members {
    pub(super) wanted: Vec<String>,
    pub(super) unwanted: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextField {
    Any,
    Email,
    Username,
    Name,
}

/// A range in milliseconds since the epoch, both ends inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: i64,
    pub(super) last: i64,
}

impl Default for Range {
    fn default() -> Self {
        Self { first: i64::MIN, last: i64::MAX }
    }
}

impl Range {
    /// Returns whether the date is in the range. An open range does not evaluate the date; a user without it is only
    /// in an open range.
    pub(super) fn contains_or_open(self, at: impl FnOnce() -> Option<i64>) -> bool {
        self == Self::default() || at().is_some_and(|at| (self.first..=self.last).contains(&at))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    CreatedAt,
    UpdatedAt,
    LastActiveAt,
    LastSignInAt,
    Email,
    Username,
    FirstName,
    LastName,
}

impl Filter {
    /// Returns whether only the creation date is filtered, so that the result is a range of numbers.
    pub(super) fn is_by_creation_only(&self) -> bool {
        let rest = Self { created_at: Range::default(), ..Self::default() };
        *self == Self { created_at: self.created_at, ..rest }
    }
}

impl UserQuery {
    /// Parses the query. Parameters that the simulator does not know are ignored.
    ///
    /// # Errors
    ///
    /// 422 for a value that Clerk would reject.
    pub(crate) fn of(uri: &Uri) -> Result<Self, ApiError> {
        let mut query = Self {
            filter: Filter::default(),
            order: Order::CreatedAt,
            descending: true,
            limit: DEFAULT_LIMIT,
            offset: 0,
            starting_after: None,
        };
        if uri.query().is_none() {
            return Ok(query);
        }
        let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
            return Err(ApiError::parameter("form_param_format_invalid", "", "the query is not form-encoded"));
        };
        let (mut ordered, mut offset_given) = (false, false);
        for (name, value) in pairs {
            if value.is_empty() {
                continue;
            }
            match name.as_str() {
                "limit" => query.limit = number(&name, &value, 1, MAX_LIMIT)?,
                "offset" => {
                    query.offset = number(&name, &value, 0, u32::MAX)?;
                    offset_given = true;
                }
                // The first of several orders counts.
                "order_by" if !ordered => {
                    (query.order, query.descending) = order(&value)?;
                    ordered = true;
                }
                "starting_after" => query.starting_after = Some(value),
                _ => query.filter.add(&name, &value)?,
            }
        }
        query.filter.check_sizes()?;
        if query.starting_after.is_some() && (query.order != Order::CreatedAt || offset_given) {
            let message = "starting_after requires the order created_at and no offset";
            return Err(ApiError::parameter("form_param_value_invalid", "starting_after", message));
        }
        Ok(query)
    }
}

impl UserQuery {
    /// Looks up the members of the organizations that the query names. `members_of` returns sorted numbers.
    pub(crate) fn with_members(mut self, members_of: impl Fn(&[String]) -> Vec<u32>) -> Self {
        let Members { wanted, unwanted } = &self.filter.organizations;
        self.filter.members = (!wanted.is_empty()).then(|| members_of(wanted));
        self.filter.members_of_unwanted = members_of(unwanted);
        self
    }
}

impl Filter {
    fn add(&mut self, name: &str, value: &str) -> Result<(), ApiError> {
        match name {
            "user_id" => self.user_ids.add(value),
            "external_id" => self.external_ids.add(value),
            "email_address" => self.emails.extend(items(value).map(str::to_owned)),
            "username" => self.usernames.extend(items(value).map(str::to_owned)),
            "phone_number" => self.phones.extend(items(value).map(|number| plus_restored(number).into_owned())),
            "query" => self.texts.push((TextField::Any, value.to_lowercase())),
            "email_address_query" => self.texts.push((TextField::Email, value.to_lowercase())),
            "username_query" => self.texts.push((TextField::Username, value.to_lowercase())),
            "name_query" => self.texts.push((TextField::Name, value.to_lowercase())),
            "banned" => {
                let invalid =
                    |_| ApiError::parameter("form_param_format_invalid", name, "banned must be true or false");
                self.banned = Some(value.parse().map_err(invalid)?);
            }
            "created_at_after" => self.created_at.first = millis(name, value)?.saturating_add(1),
            "created_at_before" => self.created_at.last = millis(name, value)?.saturating_sub(1),
            "last_active_at_since" => self.last_active_at.first = millis(name, value)?,
            "last_active_at_after" => self.last_active_at.first = millis(name, value)?.saturating_add(1),
            "last_active_at_before" => self.last_active_at.last = millis(name, value)?.saturating_sub(1),
            "last_sign_in_at_after" => self.last_sign_in_at.first = millis(name, value)?.saturating_add(1),
            "last_sign_in_at_before" => self.last_sign_in_at.last = millis(name, value)?.saturating_sub(1),
            "organization_id" => self.organizations.add(value),
            "phone_number_query" | "web3_wallet" | "provider" | "provider_user_id" => {
                self.matches_none = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<(), ApiError> {
        for (name, size) in [
            ("user_id", self.user_ids.wanted.len() + self.user_ids.unwanted.len()),
            ("external_id", self.external_ids.wanted.len() + self.external_ids.unwanted.len()),
            ("email_address", self.emails.len()),
            ("username", self.usernames.len()),
            ("phone_number", self.phones.len()),
            ("organization_id", self.organizations.wanted.len() + self.organizations.unwanted.len()),
        ] {
            if size > MAX_ARRAY {
                let message = format!("{name} has {size} values, at most {MAX_ARRAY} are allowed");
                return Err(ApiError::parameter("form_param_array_size_exceeded", name, message));
            }
        }
        Ok(())
    }
}

impl Members {
    fn add(&mut self, value: &str) {
        for item in items(value) {
            match item.strip_prefix('-') {
                Some(unwanted) => self.unwanted.push(unwanted.to_owned()),
                None => self.wanted.push(without_plus(item).to_owned()),
            }
        }
    }
}

/// A form decodes a bare `+` to a space, and many clients do not encode it.
fn without_plus(text: &str) -> &str {
    text.strip_prefix(['+', ' ']).unwrap_or(text)
}

/// The same in front of a phone number, where it belongs to the value.
fn plus_restored(number: &str) -> Cow<'_, str> {
    number.strip_prefix(' ').map_or(Cow::Borrowed(number), |digits| Cow::Owned(format!("+{digits}")))
}

fn items(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').filter(|item| !item.is_empty())
}

fn number(name: &str, value: &str, least: u32, most: u32) -> Result<u32, ApiError> {
    value.parse().ok().filter(|number| (least..=most).contains(number)).ok_or_else(|| {
        let message = format!("{name} must be a whole number from {least} to {most}");
        ApiError::parameter("form_param_value_invalid", name, message)
    })
}

fn millis(name: &str, value: &str) -> Result<i64, ApiError> {
    value.parse().map_err(|_| {
        let message = format!("{name} must be a UNIX time in milliseconds");
        ApiError::parameter("form_param_format_invalid", name, message)
    })
}

fn order(value: &str) -> Result<(Order, bool), ApiError> {
    let (field, descending) = match value.strip_prefix('-') {
        Some(field) => (field, true),
        None => (without_plus(value), false),
    };
    let order = match field {
        // No simulated user has a phone number or a wallet: all are equal, which leaves the order of creation.
        "created_at" | "phone_number" | "web3wallet" => Order::CreatedAt,
        "updated_at" => Order::UpdatedAt,
        "last_active_at" => Order::LastActiveAt,
        "last_sign_in_at" => Order::LastSignInAt,
        "email_address" => Order::Email,
        "username" => Order::Username,
        "first_name" => Order::FirstName,
        "last_name" => Order::LastName,
        _ => {
            let message = "order_by must be a sortable field with an optional leading + or -";
            return Err(ApiError::parameter("form_param_value_invalid", "order_by", message));
        }
    };
    Ok((order, descending))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Result<UserQuery, &'static str> {
        UserQuery::of(&format!("/v1/users?{text}").parse().unwrap()).map_err(|error| error.code())
    }

    #[test]
    fn arrays_accept_both_notations_with_signs() {
        let expected = Members { wanted: vec!["a".into(), "b".into(), "c".into()], unwanted: vec!["d".into()] };
        for text in ["user_id=a&user_id=%2Bb&user_id=+c&user_id=-d", "user_id=a,%2Bb,+c,-d"] {
            assert_eq!(query(text).unwrap().filter.user_ids, expected, "{text}");
        }
    }

    #[test]
    fn first_order_counts_and_its_sign_is_the_direction() {
        let of = |text| query(text).map(|query| (query.order, query.descending));
        assert_eq!(of("limit=1"), Ok((Order::CreatedAt, true)));
        assert_eq!(of("order_by=created_at"), Ok((Order::CreatedAt, false)));
        assert_eq!(of("order_by=%2Bemail_address&order_by=-created_at"), Ok((Order::Email, false)));
        assert_eq!(of("order_by=+username"), Ok((Order::Username, false)));
        assert_eq!(of("order_by=-last_active_at"), Ok((Order::LastActiveAt, true)));
        assert_eq!(of("order_by=shoe_size"), Err("form_param_value_invalid"));
    }

    #[test]
    fn values_that_clerk_rejects_are_rejected() {
        for text in ["limit=0", "limit=501", "limit=-1", "limit=x", "offset=-1", "offset=x"] {
            assert_eq!(query(text), Err("form_param_value_invalid"), "{text}");
        }
        for text in ["created_at_after=yesterday", "banned=perhaps"] {
            assert_eq!(query(text), Err("form_param_format_invalid"), "{text}");
        }
        for text in ["starting_after=a&offset=0", "starting_after=a&order_by=username"] {
            assert_eq!(query(text), Err("form_param_value_invalid"), "{text}");
        }
        let ids = |count| vec!["user_id=a"; count].join("&");
        assert!(query(&ids(100)).is_ok());
        assert_eq!(query(&ids(101)), Err("form_param_array_size_exceeded"));
    }

    #[test]
    fn after_and_before_are_exclusive_and_since_is_inclusive() {
        let filter = query("created_at_after=5&created_at_before=9&last_active_at_since=5").unwrap().filter;
        assert_eq!(filter.created_at, Range { first: 6, last: 8 });
        assert_eq!(filter.last_active_at, Range { first: 5, last: i64::MAX });
    }
}
