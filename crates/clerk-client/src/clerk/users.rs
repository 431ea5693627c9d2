//! Requests about users.

use http::Method;
use serde::Deserialize;

use super::lookup::{FoundUser, Lookup};
use super::lookup_state::{LookupState, in_given_order};
use super::pages::Pages;
use super::query::Query;
use super::request::decode;
use super::{
    Clerk, Count, CreateUser, DeletedUser, Error, ListUsers, Loader, LoaderOptions, RawUser, UpdateUser, User,
    UserFilter, UserRepr,
};
use crate::outbound::retry::Idempotency;
use crate::outbound::{ApiRequest, RequestMembers};
use clerk_quota::CallerId;

/// Longest id that is sent. Clerk's have 32 characters.
const MAX_ID_LENGTH: usize = 100;

/// Requests about users, made by [`Clerk::users`].
///
/// ```no_run
/// # async fn example(clerk: clerk_client::Clerk) -> Result<(), clerk_client::Error> {
/// use clerk_client::{ListUsers, Order, OrderField, UserFilter};
///
/// let latest = Order::descending(OrderField::LastSignInAt);
/// let ada = UserFilter::new().query("ada");
/// let list = ListUsers::new().filter(ada).limit(20).order_by(latest);
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

impl Users {
    pub(super) const fn new(clerk: Clerk) -> Self {
        Self { clerk }
    }

    /// Sets the caller that these requests are charged to.
    pub(super) fn charged_to(self, caller: CallerId) -> Self {
        Self { clerk: self.clerk.charged_to(caller) }
    }

    /// Sets the lookups that share these requests.
    pub(super) fn shared_by(self, members: RequestMembers) -> Self {
        Self { clerk: self.clerk.shared_by(members) }
    }

    /// The same users without the client's cache.
    pub(super) fn without_cache(self) -> Self {
        Self { clerk: self.clerk.without_cache() }
    }

    /// Returns one user: `GET /v1/users/{id}`. Served from the client's cache if it has one.
    ///
    /// # Errors
    /// Returns an error if `id` is not the id of a user (nothing is sent), or Clerk does not respond with the user.
    /// [`Error::is_not_found`] tells that there is no such user.
    pub async fn get(&self, id: &str) -> Result<User, Error> {
        self.get_as(id).await
    }

    pub(super) async fn get_as<T: UserRepr>(&self, id: &str) -> Result<T, Error> {
        self.clerk.get(path_of(id)?).await
    }

    /// Creates a user: `POST /v1/users`. Retried after a 429 only, so that no user is created twice.
    ///
    /// ```no_run
    /// # async fn example(clerk: clerk_client::Clerk) -> Result<(), clerk_client::Error> {
    /// use clerk_client::CreateUser;
    ///
    /// let ada = CreateUser::new().email_address("ada@example.com").first_name("Ada");
    /// let user = clerk.users().create(&ada).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns an error if Clerk does not respond with the user. Unless [`Error::is_unsent`] or a 4xx, the user may have
    /// been created.
    pub async fn create(&self, user: &CreateUser) -> Result<User, Error> {
        self.write(Method::POST, "/v1/users".to_owned(), user.to_body()).await
    }

    /// Changes the given fields of a user: `PATCH /v1/users/{id}`. Retried after a 429 only.
    ///
    /// # Errors
    /// As [`Users::create`]; also if `id` is not the id of a user (nothing is sent).
    pub async fn update(&self, id: &str, changes: &UpdateUser) -> Result<User, Error> {
        self.write(Method::PATCH, path_of(id)?, changes.to_body()).await
    }

    /// Deletes a user: `DELETE /v1/users/{id}`. Retried after a 429 only: a second DELETE would be a 404.
    ///
    /// # Errors
    /// As [`Users::update`].
    pub async fn delete(&self, id: &str) -> Result<DeletedUser, Error> {
        self.write(Method::DELETE, path_of(id)?, bytes::Bytes::new()).await
    }

    async fn write<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: String,
        body: bytes::Bytes,
    ) -> Result<T, Error> {
        // Clerk's limiter rejects a request before anything is executed.
        let idempotency = Idempotency::RetryIfThrottled;
        let mut request = ApiRequest { body, idempotency, ..self.clerk.api_request(method, path) };
        if !request.body.is_empty() {
            let json = http::HeaderValue::from_static("application/json");
            request.headers.insert(http::header::CONTENT_TYPE, json);
        }
        decode(&self.clerk.call(&request).await?)
    }

    /// Returns one page of users: `GET /v1/users`. For all users use [`Users::list_all`].
    ///
    /// # Errors
    /// Returns an error if Clerk would reject a parameter (nothing is sent), or does not respond with users.
    pub async fn list(&self, params: &ListUsers) -> Result<Vec<User>, Error> {
        self.list_as(params).await
    }

    pub(super) async fn list_as<T: UserRepr>(&self, params: &ListUsers) -> Result<Vec<T>, Error> {
        self.fetch(params.path()?).await
    }

    /// Returns the number of users: `GET /v1/users/count`.
    ///
    /// # Errors
    /// As [`Users::list`].
    pub async fn count(&self, filter: &UserFilter) -> Result<Count, Error> {
        let mut query = Query::of("/v1/users/count");
        filter.write(&mut query)?;
        self.clerk.get(query.into_path()).await
    }

    /// Returns these users in the given order, with requests of up to 100 ids, a few of them concurrently. Duplicate ids
    /// are requested once.
    ///
    /// An error discards the results of the other requests: for many thousand ids use [`Users::lookup`].
    ///
    /// ```no_run
    /// # async fn example(clerk: clerk_client::Clerk) -> Result<(), clerk_client::Error> {
    /// for found in clerk.users().get_many(["user_2NNEqL2nrIRdJ194ndJqAHwEfxC"]).await? {
    ///     let email = found.user().and_then(|user| user.primary_email_address());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns an error if one of the ids is not the id of a user (nothing is sent), or a request fails other than with
    /// 422.
    pub async fn get_many<I: AsRef<str>>(&self, ids: impl IntoIterator<Item = I>) -> Result<Vec<FoundUser>, Error> {
        in_given_order(self, ids).await
    }

    /// [`Users::get_many`] with users as Clerk wrote them, byte for byte.
    ///
    /// # Errors
    /// As [`Users::get_many`].
    pub async fn get_many_raw<I: AsRef<str>>(
        &self,
        ids: impl IntoIterator<Item = I>,
    ) -> Result<Vec<FoundUser<RawUser>>, Error> {
        in_given_order(self, ids).await
    }

    /// Returns these users as a stream, batch by batch: each id once, in the order of its first occurrence.
    ///
    /// # Errors
    /// Returns an error if one of the ids is not the id of a user.
    pub fn lookup<I: AsRef<str>>(&self, ids: impl IntoIterator<Item = I>) -> Result<Lookup, Error> {
        Lookup::new(self.clone(), ids)
    }

    /// [`Users::lookup`] with users as Clerk wrote them, byte for byte.
    ///
    /// # Errors
    /// As [`Users::lookup`].
    pub fn lookup_raw<I: AsRef<str>>(&self, ids: impl IntoIterator<Item = I>) -> Result<Lookup<RawUser>, Error> {
        Lookup::new(self.clone(), ids)
    }

    /// A lookup that is not a stream yet, for the loader.
    pub(super) fn lookup_state(&self, ids: &[String]) -> Result<LookupState<RawUser>, Error> {
        LookupState::new(self.clone(), ids)
    }

    /// Returns a loader, which batches single lookups. Keep it: only lookups through the same loader are batched.
    #[must_use]
    pub fn loader(&self, options: LoaderOptions) -> Loader {
        Loader::new(self.clone(), options)
    }

    /// Returns all users as a stream of pages, with low priority.
    #[must_use]
    pub fn list_all(&self) -> Pages {
        Pages::new(self.clerk.low_priority().users())
    }

    /// The users of a list response. Some of Clerk's lists are arrays, others objects with `data`.
    pub(super) async fn fetch<T: UserRepr>(&self, path: String) -> Result<Vec<T>, Error> {
        #[derive(Deserialize)]
        struct Wrapped<T> {
            data: Vec<T>,
        }
        let response = self.clerk.call(&self.clerk.api_request(Method::GET, path)).await?;
        let is_object = response.body().trim_ascii_start().first() == Some(&b'{');
        if is_object { decode::<Wrapped<T>>(&response).map(|list| list.data) } else { decode(&response) }
    }
}

fn path_of(id: &str) -> Result<String, Error> {
    check_id(id)?;
    Ok(format!("/v1/users/{id}"))
}

/// Checks that this is the id of a user and nothing else: a `+` or `-` before it would change the query's meaning, and a
/// slash the resource.
pub(super) fn check_id(id: &str) -> Result<(), Error> {
    let rest = id.strip_prefix("user_").unwrap_or_default();
    let is_id =
        !rest.is_empty() && rest.len() <= MAX_ID_LENGTH && rest.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_id { Ok(()) } else { Err(Error::invalid_id(id)) }
}
