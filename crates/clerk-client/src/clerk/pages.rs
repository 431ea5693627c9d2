//! All users, page by page.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use super::users::check_id;
use super::{Error, ListUsers, MAX_PAGE, Order, OrderField, RawUser, User, UserFilter, UserRepr, Users};

const OLDEST_FIRST: Order = Order { field: OrderField::CreatedAt, descending: false };

/// A walk over all users, oldest first, made by [`Users::list_all`].
///
/// Nothing is fetched ahead: the next page is asked for when it is wanted, with bulk priority, so that the walk leaves a
/// reserve of the rate limit to others.
///
/// What happens to changes during the walk:
///
/// - A user who is there from beginning to end is given exactly once.
/// - A user who is created meanwhile is given at the end.
/// - A user who is deleted meanwhile is given if the walk had come by before. If it is the one that the walk stands at,
///   which Clerk cannot begin after then, the walk goes on by the date of creation.
/// - A user who is changed meanwhile is given as of when the walk came by.
///
/// After an error, or when the future of [`Pages::next`] was dropped, the next call asks for the same page again. A walk
/// that [resumes](Pages::resume_from) and finds its user deleted may give users of the same millisecond a second time.
///
/// ```no_run
/// # async fn example(clerk: clerk_client::clerk::Clerk) -> Result<(), Box<dyn std::error::Error>> {
/// let mut pages = clerk.users().list_all();
/// if let Ok(kept) = std::fs::read_to_string("cursor") {
///     pages = pages.resume_from(kept.parse()?);
/// }
/// while let Some(page) = pages.next().await? {
///     // Deal with `page.users`, and only then:
///     std::fs::write("cursor", page.cursor.to_string())?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Pages<T = User> {
    users: Users,
    filter: UserFilter,
    page_size: u16,
    cursor: Option<Cursor>,
    /// Who was given and was created at the same moment as the one that the walk stands at.
    given: HashSet<String>,
    way: PagingMode,
    is_done: bool,
    form: PhantomData<fn() -> T>,
}

/// How the next page is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PagingMode {
    /// After the last user: exact, and as quick at the end as at the beginning.
    After,
    /// By the date of creation of the last user, and behind so many of those: for when that user is gone.
    Since { offset: u32 },
}

/// Some users, and where the walk goes on after them.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T = User> {
    /// The users, oldest first; never empty.
    pub users: Vec<T>,
    /// The place behind the last of them.
    pub cursor: Cursor,
}

/// A place in the list of all users. As text: `user_...@` and the date of creation in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    id: String,
    created_at: Option<i64>,
}

/// Text that is no [`Cursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a place in the list of users: write `user_...@` and the date of creation in milliseconds, as it was given"
)]
pub struct InvalidCursor;

impl Cursor {
    /// The place behind a user.
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
            given: HashSet::new(),
            way: PagingMode::After,
            is_done: false,
            form: PhantomData,
        }
    }

    /// The same walk with users as Clerk wrote them, byte for byte.
    #[must_use]
    pub fn raw(self) -> Pages<RawUser> {
        let Self { users, filter, page_size, cursor, given, way, is_done, form: _ } = self;
        Pages { users, filter, page_size, cursor, given, way, is_done, form: PhantomData }
    }

    /// Only users that pass a filter. Keep it the same for a walk that is resumed.
    #[must_use]
    pub fn filter(self, filter: UserFilter) -> Self {
        Self { filter, ..self }
    }

    /// Users on a page: 1 to [`MAX_PAGE`], which is also the default. Values beyond are taken for the nearest.
    #[must_use]
    pub fn page_size(self, users: u16) -> Self {
        Self { page_size: users.clamp(1, MAX_PAGE), ..self }
    }

    /// Goes on behind this place, such as [`Page::cursor`] of the last page that an earlier walk dealt with.
    #[must_use]
    pub fn resume_from(self, cursor: Cursor) -> Self {
        let given = HashSet::from([cursor.id.clone()]);
        Self { cursor: Some(cursor), given, way: PagingMode::After, is_done: false, ..self }
    }

    /// Where the walk stands: behind the last user that was given. None at the beginning.
    #[must_use]
    pub const fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    /// The next page; none at the end, which is where Clerk has no more users, not where a page is short.
    ///
    /// # Errors
    /// When the page cannot be had. The next call asks for it again.
    pub async fn next(&mut self) -> Result<Option<Page<T>>, Error> {
        while !self.is_done {
            let users = match self.users.list_as(&self.params()).await {
                Ok(users) => users,
                Err(error) if self.is_refused_cursor(&error) => {
                    self.way = PagingMode::Since { offset: 0 };
                    continue;
                }
                Err(error) => return Err(error),
            };
            if users.is_empty() {
                self.is_done = true;
                break;
            }
            if let Some(page) = self.take(users)? {
                return Ok(Some(page));
            }
        }
        Ok(None)
    }

    fn params(&self) -> ListUsers {
        let mut params = ListUsers {
            filter: self.filter.clone(),
            limit: Some(self.page_size),
            order_by: Some(OLDEST_FIRST),
            ..ListUsers::default()
        };
        match self.way {
            PagingMode::After => params.starting_after = self.cursor.as_ref().map(|cursor| cursor.id.clone()),
            PagingMode::Since { offset } => {
                // "After" leaves the moment itself out.
                let from = self.moment().map(|at| at.saturating_sub(1));
                params.filter.created_at_after = self.filter.created_at_after.max(from);
                params.offset = offset;
            }
        }
        params
    }

    /// When the user was created that the walk stands at.
    fn moment(&self) -> Option<i64> {
        self.cursor.as_ref()?.created_at
    }

    /// Whether Clerk cannot begin after the user that the walk stands at, and there is another way.
    fn is_refused_cursor(&self, error: &Error) -> bool {
        let status = error.status().map(|status| status.as_u16());
        self.way == PagingMode::After
            && self.moment().is_some()
            && matches!(status, Some(400 | 404 | 422))
            && error.code().is_some()
    }

    /// The users that were not given yet; none if there are none among these.
    fn take(&mut self, users: Vec<T>) -> Result<Option<Page<T>>, Error> {
        if !users.is_sorted_by_key(T::created_at) {
            return Err(Error::Disordered);
        }
        let count = users.len();
        let moment = self.moment();
        let is_before = |user: &T| matches!((user.created_at(), moment), (Some(at), Some(moment)) if at < moment);
        let begins_before = users.first().is_some_and(is_before);
        let fresh: Vec<T> =
            users.into_iter().filter(|user| !is_before(user) && !self.given.contains(user.id())).collect();
        let is_all_fresh = fresh.len() == count;
        match (self.way, fresh.last()) {
            (_, Some(last)) => {
                let cursor = Cursor::after(last);
                if cursor.created_at.is_none() || cursor.created_at != moment {
                    self.given.clear();
                }
                let same_moment = fresh.iter().filter(|user| user.created_at() == cursor.created_at);
                self.given.extend(same_moment.map(|user| user.id().to_owned()));
                self.cursor = Some(cursor.clone());
                // Users from before the place: whoever answers did not begin after it.
                self.way = if self.way == PagingMode::After && is_all_fresh {
                    PagingMode::After
                } else {
                    PagingMode::Since { offset: 0 }
                };
                Ok(Some(Page { users: fresh, cursor }))
            }
            (PagingMode::After, None) if moment.is_some() => {
                self.way = PagingMode::Since { offset: 0 };
                Ok(None)
            }
            (PagingMode::Since { offset }, None) if !begins_before => {
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                self.way = PagingMode::Since { offset: offset.saturating_add(count) };
                Ok(None)
            }
            (_, None) => Err(Error::Disordered),
        }
    }
}
