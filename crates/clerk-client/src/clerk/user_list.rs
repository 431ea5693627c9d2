//! Which users a list shows, and in which order.

use std::fmt;

use super::Error;
use super::query::Query;
use super::users::check_id;

/// Largest page of users that Clerk returns.
pub const MAX_PAGE: u16 = 500;

/// Most values of one array parameter that Clerk accepts.
const MAX_VALUES: usize = 100;

/// Which users a request is about. The default is all users.
///
/// ```
/// use clerk_client::UserFilter;
///
/// let filter = UserFilter::new().query("ada").created_at_after(1_700_000_000_000);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct UserFilter {
    /// Text within a name, an email address, an id and the like.
    pub query: Option<String>,
    /// Any of these email addresses; empty: no restriction. At most 100.
    pub email_addresses: Vec<String>,
    /// Any of these ids of the application's own; empty: no restriction. At most 100.
    pub external_ids: Vec<String>,
    /// Created after this time, in milliseconds since the UNIX epoch.
    pub created_at_after: Option<i64>,
    /// Created before this time, in milliseconds since the UNIX epoch.
    pub created_at_before: Option<i64>,
    /// Active at or after this time, in milliseconds since the UNIX epoch.
    pub last_active_at_since: Option<i64>,
}

impl UserFilter {
    /// All users.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`UserFilter::query`].
    #[must_use]
    pub fn query(self, text: impl Into<String>) -> Self {
        Self { query: Some(text.into()), ..self }
    }

    /// Sets [`UserFilter::email_addresses`].
    #[must_use]
    pub fn email_addresses<T: Into<String>>(self, addresses: impl IntoIterator<Item = T>) -> Self {
        Self { email_addresses: addresses.into_iter().map(Into::into).collect(), ..self }
    }

    /// Sets [`UserFilter::external_ids`].
    #[must_use]
    pub fn external_ids<T: Into<String>>(self, ids: impl IntoIterator<Item = T>) -> Self {
        Self { external_ids: ids.into_iter().map(Into::into).collect(), ..self }
    }

    /// Sets [`UserFilter::created_at_after`].
    #[must_use]
    pub fn created_at_after(self, millis: i64) -> Self {
        Self { created_at_after: Some(millis), ..self }
    }

    /// Sets [`UserFilter::created_at_before`].
    #[must_use]
    pub fn created_at_before(self, millis: i64) -> Self {
        Self { created_at_before: Some(millis), ..self }
    }

    /// Sets [`UserFilter::last_active_at_since`].
    #[must_use]
    pub fn last_active_at_since(self, millis: i64) -> Self {
        Self { last_active_at_since: Some(millis), ..self }
    }
}

/// One page of a list of users. The default is Clerk's: the ten users that were created last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ListUsers {
    /// Which users.
    pub filter: UserFilter,
    /// Users on the page, 1 to [`MAX_PAGE`]. Default: 10.
    pub limit: Option<u16>,
    /// Users to skip. Cannot be combined with `starting_after`.
    pub offset: u32,
    /// The id of the user after which the page starts. Requires the order of creation.
    pub starting_after: Option<String>,
    /// The order. Default: last created first.
    pub order_by: Option<Order>,
}

impl ListUsers {
    /// Clerk's default page.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`ListUsers::filter`].
    #[must_use]
    pub fn filter(self, filter: UserFilter) -> Self {
        Self { filter, ..self }
    }

    /// Sets [`ListUsers::limit`].
    #[must_use]
    pub fn limit(self, users: u16) -> Self {
        Self { limit: Some(users), ..self }
    }

    /// Sets [`ListUsers::offset`].
    #[must_use]
    pub fn offset(self, users: u32) -> Self {
        Self { offset: users, ..self }
    }

    /// Sets [`ListUsers::starting_after`].
    #[must_use]
    pub fn starting_after(self, id: impl Into<String>) -> Self {
        Self { starting_after: Some(id.into()), ..self }
    }

    /// Sets [`ListUsers::order_by`].
    #[must_use]
    pub fn order_by(self, order: Order) -> Self {
        Self { order_by: Some(order), ..self }
    }
}

/// An order of users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// The field.
    pub field: OrderField,
    /// Whether the largest or latest comes first.
    pub descending: bool,
}

impl Order {
    /// Smallest or earliest first.
    #[must_use]
    pub const fn ascending(field: OrderField) -> Self {
        Self { field, descending: false }
    }

    /// Largest or latest first.
    #[must_use]
    pub const fn descending(field: OrderField) -> Self {
        Self { field, descending: true }
    }
}

/// A field that users can be ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "Clerk's own field names")]
pub enum OrderField {
    CreatedAt,
    UpdatedAt,
    EmailAddress,
    FirstName,
    LastName,
    Username,
    LastActiveAt,
    LastSignInAt,
}

impl OrderField {
    const fn as_str(self) -> &'static str {
        match self {
            Self::CreatedAt => "created_at",
            Self::UpdatedAt => "updated_at",
            Self::EmailAddress => "email_address",
            Self::FirstName => "first_name",
            Self::LastName => "last_name",
            Self::Username => "username",
            Self::LastActiveAt => "last_active_at",
            Self::LastSignInAt => "last_sign_in_at",
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.descending { "-" } else { "" }, self.field.as_str())
    }
}

impl ListUsers {
    pub(super) fn path(&self) -> Result<String, Error> {
        let mut query = Query::of("/v1/users");
        if self.limit.is_some_and(|limit| !(1..=MAX_PAGE).contains(&limit)) {
            return Err(Error::parameter("limit", format!("must be 1 to {MAX_PAGE}")));
        }
        if let Some(id) = &self.starting_after {
            check_id(id)?;
            if self.offset > 0 || self.order_by.is_some_and(|order| order.field != OrderField::CreatedAt) {
                return Err(Error::parameter("starting_after", "needs the order created_at, and no offset"));
            }
        }
        query.push_some("limit", self.limit);
        query.push_some("order_by", self.order_by);
        query.push_some("offset", Some(self.offset).filter(|offset| *offset > 0));
        query.push_some("starting_after", self.starting_after.as_deref());
        self.filter.write(&mut query)?;
        Ok(query.into_path())
    }
}

impl UserFilter {
    pub(super) fn write(&self, query: &mut Query) -> Result<(), Error> {
        query.push_some("query", self.query.as_deref());
        for (name, values) in [("email_address", &self.email_addresses), ("external_id", &self.external_ids)] {
            if values.len() > MAX_VALUES {
                return Err(Error::parameter(name, format!("must not have more than {MAX_VALUES} values")));
            }
            for value in values {
                // Clerk reads `+` and `-` as "and" and "but not", a comma as a separator, and ignores empty values.
                if value.is_empty() || value.starts_with(['+', '-']) || value.contains(',') {
                    return Err(Error::parameter(name, "must not be empty, begin with + or -, or contain a comma"));
                }
                query.push(name, value);
            }
        }
        query.push_some("created_at_after", self.created_at_after);
        query.push_some("created_at_before", self.created_at_before);
        query.push_some("last_active_at_since", self.last_active_at_since);
        Ok(())
    }
}
