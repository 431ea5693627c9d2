//! Requests about users.

use std::fmt;

use http::Method;
use serde::Deserialize;

use super::lookup::{self, FoundUsers, Lookup};
use super::pages::Pages;
use super::query::Query;
use super::request::decode;
use super::{Clerk, Count, Error, Loader, LoaderOptions, RawUser, User, UserRepr};
use clerk_quota::CallerId;

/// Largest page of users that Clerk gives.
pub const MAX_PAGE: u16 = 500;

/// Most values of one array parameter that Clerk takes.
const MAX_VALUES: usize = 100;

/// Longest identifier that is sent. Clerk's have 32 characters.
const MAX_ID_LENGTH: usize = 100;

/// Requests about users, made by [`Clerk::users`].
///
/// ```no_run
/// # async fn example(clerk: clerk_client::clerk::Clerk) -> Result<(), clerk_client::clerk::Error> {
/// use clerk_client::clerk::{ListUsers, Order, OrderField, UserFilter};
///
/// let latest = Order { field: OrderField::LastSignInAt, descending: true };
/// let filter = UserFilter { query: Some("ada".to_owned()), ..UserFilter::default() };
/// let list = ListUsers { filter, limit: Some(20), order_by: Some(latest), ..ListUsers::default() };
/// for user in clerk.users().list(&list).await? {
///     let name = user.first_name();
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Users {
    clerk: Clerk,
}

/// Which users are meant. The default is all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserFilter {
    /// Text that occurs in a name, an email address, an identifier and the like.
    pub query: Option<String>,
    /// One of these email addresses; empty: any. At most 100.
    pub email_addresses: Vec<String>,
    /// One of these identifiers of the application's own; empty: any. At most 100.
    pub external_ids: Vec<String>,
    /// Created after this, in milliseconds since the UNIX epoch.
    pub created_at_after: Option<i64>,
    /// Created before this, in milliseconds since the UNIX epoch.
    pub created_at_before: Option<i64>,
    /// Active at or after this, in milliseconds since the UNIX epoch.
    pub last_active_at_since: Option<i64>,
}

/// One page of a list of users.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListUsers {
    /// Which users.
    pub filter: UserFilter,
    /// Users on the page, 1 to [`MAX_PAGE`]; none: 10, as Clerk decides.
    pub limit: Option<u16>,
    /// Users to leave out at the beginning. Not together with `starting_after`.
    pub offset: u32,
    /// Begin after the user with this id. Needs the order of creation, which is also the default.
    pub starting_after: Option<String>,
    /// The order; none: latest created first, as Clerk decides.
    pub order_by: Option<Order>,
}

/// An order of users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// By what.
    pub field: OrderField,
    /// Whether the largest or latest comes first.
    pub descending: bool,
}

/// What users can be ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

impl Users {
    pub(super) const fn new(clerk: Clerk) -> Self {
        Self { clerk }
    }

    /// The same users, with all that is asked of them charged to this caller.
    pub(super) fn charged_to(self, caller: CallerId) -> Self {
        Self { clerk: self.clerk.charged_to(caller) }
    }

    /// One user: `GET /v1/users/{id}`.
    ///
    /// # Errors
    /// When `id` is not an id of a user (nothing is sent), or Clerk does not answer with the user.
    /// [`Error::is_not_found`] tells that there is none.
    pub async fn get(&self, id: &str) -> Result<User, Error> {
        self.get_as(id).await
    }

    pub(super) async fn get_as<T: UserRepr>(&self, id: &str) -> Result<T, Error> {
        check_id(id)?;
        self.clerk.get(format!("/v1/users/{id}")).await
    }

    /// One page of users: `GET /v1/users`. [`Users::list_all`] is for all of them.
    ///
    /// # Errors
    /// When a parameter is one that Clerk would refuse (nothing is sent), or Clerk does not answer with users.
    pub async fn list(&self, params: &ListUsers) -> Result<Vec<User>, Error> {
        self.list_as(params).await
    }

    pub(super) async fn list_as<T: UserRepr>(&self, params: &ListUsers) -> Result<Vec<T>, Error> {
        self.fetch(params.path()?).await
    }

    /// How many users there are: `GET /v1/users/count`.
    ///
    /// # Errors
    /// As [`Users::list`].
    pub async fn count(&self, filter: &UserFilter) -> Result<Count, Error> {
        let mut query = Query::of("/v1/users/count");
        filter.write(&mut query)?;
        self.clerk.get(query.into_path()).await
    }

    /// These users, in the order given, in requests of up to 100 ids, of which a few are under way at once as far as
    /// the rate limit allows. An id that occurs twice is asked for once.
    ///
    /// An error loses what other requests brought: use [`Users::look_up`] for many thousands.
    ///
    /// ```no_run
    /// # async fn example(clerk: clerk_client::clerk::Clerk) -> Result<(), clerk_client::clerk::Error> {
    /// for found in clerk.users().get_many(["user_2NNEqL2nrIRdJ194ndJqAHwEfxC"]).await? {
    ///     let email = found.user().and_then(|user| user.primary_email_address());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When one of the ids is not an id of a user (nothing is sent), or a request fails other than by a 422.
    pub async fn get_many<I: AsRef<str>>(&self, ids: impl IntoIterator<Item = I>) -> Result<Vec<FoundUsers>, Error> {
        lookup::in_given_order(self, ids).await
    }

    /// The same as [`Users::get_many`] with users as Clerk wrote them, byte for byte.
    ///
    /// # Errors
    /// As [`Users::get_many`].
    pub async fn get_many_raw<I: AsRef<str>>(
        &self,
        ids: impl IntoIterator<Item = I>,
    ) -> Result<Vec<FoundUsers<RawUser>>, Error> {
        lookup::in_given_order(self, ids).await
    }

    /// These users, request by request, as [`Users::get_many`] asks for them. Each id once, in the order in which they
    /// first occur.
    ///
    /// # Errors
    /// When one of the ids is not an id of a user.
    pub fn look_up<I: AsRef<str>>(&self, ids: impl IntoIterator<Item = I>) -> Result<Lookup, Error> {
        self.look_up_as(ids)
    }

    pub(super) fn look_up_as<T: UserRepr, I: AsRef<str>>(
        &self,
        ids: impl IntoIterator<Item = I>,
    ) -> Result<Lookup<T>, Error> {
        Lookup::new(self.clone(), ids)
    }

    /// Single look-ups, merged into batches. Keep the loader: only what goes through the same one is merged.
    #[must_use]
    pub fn loader(&self, options: LoaderOptions) -> Loader {
        Loader::new(self.clone(), options)
    }

    /// All users, page by page, as bulk work.
    #[must_use]
    pub fn list_all(&self) -> Pages {
        Pages::new(self.clerk.low_priority().users())
    }

    /// The users that a list answers with. Some of Clerk's lists are arrays, others objects with `data`.
    pub(super) async fn fetch<T: UserRepr>(&self, path: String) -> Result<Vec<T>, Error> {
        #[derive(Deserialize)]
        struct Wrapped<T> {
            data: Vec<T>,
        }
        let response = self.clerk.exchange(&self.clerk.call(Method::GET, path)).await?;
        let is_object = response.body().trim_ascii_start().first() == Some(&b'{');
        if is_object { decode::<Wrapped<T>>(&response).map(|list| list.data) } else { decode(&response) }
    }
}

impl ListUsers {
    fn path(&self) -> Result<String, Error> {
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
    fn write(&self, query: &mut Query) -> Result<(), Error> {
        query.push_some("query", self.query.as_deref());
        for (name, values) in [("email_address", &self.email_addresses), ("external_id", &self.external_ids)] {
            if values.len() > MAX_VALUES {
                return Err(Error::parameter(name, format!("must not have more than {MAX_VALUES} values")));
            }
            for value in values {
                // Clerk reads a sign as "and" and "but not", a comma as the next value, and ignores what is empty.
                if value.is_empty() || value.starts_with(['+', '-']) || value.contains(',') {
                    return Err(Error::parameter(name, "must not be empty, begin with + or -, or hold a comma"));
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

/// Whether this is the id of a user and nothing else: a `+` or `-` before it would turn the question round, and a slash
/// lead to another resource.
pub(super) fn check_id(id: &str) -> Result<(), Error> {
    let rest = id.strip_prefix("user_").unwrap_or_default();
    let is_id =
        !rest.is_empty() && rest.len() <= MAX_ID_LENGTH && rest.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_id { Ok(()) } else { Err(Error::invalid_id(id)) }
}
