//! All users, page by page.

use std::collections::HashSet;
use std::fmt;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream, StreamExt, TryStreamExt, stream};

use super::users::check_id;
use super::{Error, ListUsers, MAX_PAGE, Order, OrderField, RawUser, User, UserFilter, UserRepr, Users};

const OLDEST_FIRST: Order = Order::ascending(OrderField::CreatedAt);

/// A stream of all users, oldest first, page by page, made by [`Users::list_all`].
///
/// Nothing is fetched ahead: a page is requested when the stream is polled, with low priority, so that paging leaves a
/// reserve of the rate limit to others.
///
/// Changes while it runs:
///
/// - A user who exists from beginning to end is returned exactly once.
/// - A user created meanwhile is returned at the end.
/// - A user deleted meanwhile is returned if their page came first. If it is the last user of a page, after whom Clerk then
///   cannot continue, paging goes on by the date of creation.
/// - A user changed meanwhile is returned as of the request of their page.
///
/// After an error the stream requests the same page again. A stream that [resumes](Pages::resume_from) after a deleted user
/// may return users of the same millisecond a second time. Dropping the future of [`Pages::try_next`] does not cancel its
/// request: the next call waits for it. Dropping the stream does.
///
/// ```no_run
/// # async fn example(clerk: clerk_client::Clerk) -> Result<(), Box<dyn std::error::Error>> {
/// let mut pages = clerk.users().list_all();
/// if let Ok(saved) = std::fs::read_to_string("cursor") {
///     pages = pages.resume_from(saved.parse()?);
/// }
/// while let Some(page) = pages.try_next().await? {
///     // Process `page.users`, then:
///     std::fs::write("cursor", page.cursor.to_string())?;
/// }
/// # Ok(())
/// # }
/// ```
///
/// User by user:
///
/// ```no_run
/// # async fn example(clerk: clerk_client::Clerk) -> Result<(), clerk_client::Error> {
/// use futures_util::TryStreamExt;
///
/// let mut users = clerk.users().list_all().into_users();
/// while let Some(user) = users.try_next().await? {
///     let email = user.primary_email_address();
/// }
/// # Ok(())
/// # }
/// ```
pub struct Pages<T = User> {
    users: Users,
    filter: UserFilter,
    page_size: u16,
    cursor: Option<Cursor>,
    /// The returned users that were created in the same millisecond as the user at the cursor.
    returned: HashSet<String>,
    mode: PagingMode,
    is_done: bool,
    in_flight: Option<BoxFuture<'static, Result<Vec<T>, Error>>>,
}

/// How the next page is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PagingMode {
    /// After the last user: exact, and as quick at the end as at the beginning.
    After,
    /// From the date of creation of the last user on, with an offset: for when that user was deleted.
    Since { offset: u32 },
}

/// A page of users, and the place after it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Page<T = User> {
    /// The users, oldest first; never empty.
    pub users: Vec<T>,
    /// The place after the last of them.
    pub cursor: Cursor,
}

/// A place in the list of all users. Its text is `user_...@` and the date of creation in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    id: String,
    created_at: Option<i64>,
}

/// The text is not a [`Cursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a place in the list of users: write `user_...@` and the date of creation in milliseconds, as it was printed"
)]
pub struct InvalidCursor;

impl Cursor {
    /// The place after a user.
    #[must_use]
    pub fn after(user: &impl UserRepr) -> Self {
        Self { id: user.id().to_owned(), created_at: user.created_at() }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        self.created_at.map_or(Ok(()), |at| write!(f, "@{at}"))
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (id, created_at) = match text.split_once('@') {
            Some((id, at)) => (id, Some(at.parse().map_err(|_| InvalidCursor)?)),
            None => (text, None),
        };
        check_id(id).map_err(|_| InvalidCursor)?;
        Ok(Self { id: id.to_owned(), created_at })
    }
}

impl<T: UserRepr> Pages<T> {
    pub(super) fn new(users: Users) -> Self {
        Self {
            users,
            filter: UserFilter::default(),
            page_size: MAX_PAGE,
            cursor: None,
            returned: HashSet::new(),
            mode: PagingMode::After,
            is_done: false,
            in_flight: None,
        }
    }

    /// The same stream with users as Clerk wrote them, byte for byte.
    #[must_use]
    pub fn raw(self) -> Pages<RawUser> {
        let Self { users, filter, page_size, cursor, returned, mode, is_done, in_flight: _ } = self;
        Pages { users, filter, page_size, cursor, returned, mode, is_done, in_flight: None }
    }

    /// The same stream user by user.
    pub fn into_users(self) -> impl Stream<Item = Result<T, Error>> + Send + Unpin {
        self.map_ok(|page| stream::iter(page.users.into_iter().map(Ok))).try_flatten()
    }

    /// Returns only users that match a filter. Use the same filter when resuming.
    #[must_use]
    pub fn filter(self, filter: UserFilter) -> Self {
        Self { filter, in_flight: None, ..self }
    }

    /// Sets the users on a page, clamped to 1 to [`MAX_PAGE`]. Default: [`MAX_PAGE`].
    #[must_use]
    pub fn page_size(self, users: u16) -> Self {
        Self { page_size: users.clamp(1, MAX_PAGE), in_flight: None, ..self }
    }

    /// Continues after this place, such as [`Page::cursor`] of the last page that was processed.
    #[must_use]
    pub fn resume_from(self, cursor: Cursor) -> Self {
        let returned = HashSet::from([cursor.id.clone()]);
        let mode = PagingMode::After;
        Self { cursor: Some(cursor), returned, mode, is_done: false, in_flight: None, ..self }
    }

    /// The place after the last returned user; `None` at the beginning.
    #[must_use]
    pub const fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    /// Returns the next page; `None` at the end, which is an empty page of Clerk's, not a short one. The same as
    /// `TryStreamExt::try_next`.
    ///
    /// # Errors
    /// Returns an error if the page cannot be fetched. The next call requests it again.
    pub async fn try_next(&mut self) -> Result<Option<Page<T>>, Error> {
        self.next().await.transpose()
    }

    /// Requests a page.
    fn fetch(&self) -> BoxFuture<'static, Result<Vec<T>, Error>> {
        let (users, params) = (self.users.clone(), self.params());
        async move { users.list_as(&params).await }.boxed()
    }

    /// The page in a response; `None` if the next one has to be requested.
    fn accept(&mut self, response: Result<Vec<T>, Error>) -> Option<Result<Page<T>, Error>> {
        match response {
            Ok(users) if users.is_empty() => {
                self.is_done = true;
                None
            }
            Ok(users) => self.take(users).transpose(),
            Err(error) if self.is_rejected_cursor(&error) => {
                self.mode = PagingMode::Since { offset: 0 };
                None
            }
            Err(error) => Some(Err(error)),
        }
    }

    fn params(&self) -> ListUsers {
        let mut params = ListUsers {
            filter: self.filter.clone(),
            limit: Some(self.page_size),
            order_by: Some(OLDEST_FIRST),
            ..ListUsers::default()
        };
        match self.mode {
            PagingMode::After => params.starting_after = self.cursor.as_ref().map(|cursor| cursor.id.clone()),
            PagingMode::Since { offset } => {
                // `created_at_after` excludes the moment itself.
                let from = self.moment().map(|at| at.saturating_sub(1));
                params.filter.created_at_after = self.filter.created_at_after.max(from);
                params.offset = offset;
            }
        }
        params
    }

    /// When the user at the cursor was created.
    fn moment(&self) -> Option<i64> {
        self.cursor.as_ref()?.created_at
    }

    /// Whether Clerk cannot start after the user at the cursor, and paging by date is possible.
    fn is_rejected_cursor(&self, error: &Error) -> bool {
        let status = error.status().map(|status| status.as_u16());
        self.mode == PagingMode::After
            && self.moment().is_some()
            && matches!(status, Some(400 | 404 | 422))
            && error.code().is_some()
    }

    /// The users that were not returned yet; `None` if all were.
    fn take(&mut self, users: Vec<T>) -> Result<Option<Page<T>>, Error> {
        if !users.is_sorted_by_key(T::created_at) {
            return Err(Error::Disordered);
        }
        let count = users.len();
        let moment = self.moment();
        let is_before = |user: &T| matches!((user.created_at(), moment), (Some(at), Some(moment)) if at < moment);
        let begins_before = users.first().is_some_and(is_before);
        let fresh: Vec<T> =
            users.into_iter().filter(|user| !is_before(user) && !self.returned.contains(user.id())).collect();
        let is_all_fresh = fresh.len() == count;
        match (self.mode, fresh.last()) {
            (_, Some(last)) => {
                let cursor = Cursor::after(last);
                if cursor.created_at.is_none() || cursor.created_at != moment {
                    self.returned.clear();
                }
                let same_moment = fresh.iter().filter(|user| user.created_at() == cursor.created_at);
                self.returned.extend(same_moment.map(|user| user.id().to_owned()));
                self.cursor = Some(cursor.clone());
                // Users from before the cursor: the server ignored `starting_after`.
                self.mode = if self.mode == PagingMode::After && is_all_fresh {
                    PagingMode::After
                } else {
                    PagingMode::Since { offset: 0 }
                };
                Ok(Some(Page { users: fresh, cursor }))
            }
            (PagingMode::After, None) if moment.is_some() => {
                self.mode = PagingMode::Since { offset: 0 };
                Ok(None)
            }
            (PagingMode::Since { offset }, None) if !begins_before => {
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                self.mode = PagingMode::Since { offset: offset.saturating_add(count) };
                Ok(None)
            }
            (_, None) => Err(Error::Disordered),
        }
    }
}

impl<T: UserRepr> Stream for Pages<T> {
    type Item = Result<Page<T>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while !this.is_done {
            let mut in_flight = this.in_flight.take().unwrap_or_else(|| this.fetch());
            let Poll::Ready(response) = in_flight.poll_unpin(context) else {
                this.in_flight = Some(in_flight);
                return Poll::Pending;
            };
            if let Some(page) = this.accept(response) {
                return Poll::Ready(Some(page));
            }
        }
        Poll::Ready(None)
    }
}

impl<T> fmt::Debug for Pages<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("cursor", &self.cursor).field("is_done", &self.is_done).finish_non_exhaustive()
    }
}
