//! Many users by their ids.

use std::collections::{HashMap, HashSet, VecDeque};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::query::Query;
use super::users::check_id;
use super::{ApiError, Error, RawUser, User, UserRepr, Users};

/// Most ids in one request.
pub const MAX_IDS: usize = 100;

/// Most requests of one [`Users::get_many`] that are under way at the same time. Enough to use the whole limit over a
/// usual network, few enough to leave room among the requests that the pacer has in flight.
const PARALLEL: usize = 4;

/// Clerk's code for more values than it takes.
const TOO_MANY: &str = "form_param_array_size_exceeded";

/// What was found for an id.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundUsers<T = User> {
    /// The id that was asked for.
    pub id: String,
    /// What there is.
    pub outcome: LookupOutcome<T>,
}

/// What there is for an id.
#[derive(Debug, Clone, PartialEq)]
pub enum LookupOutcome<T = User> {
    /// The user.
    User(Box<T>),
    /// No such user.
    Missing,
    /// Clerk refuses the id with a 422.
    Refused(Box<ApiError>),
}

impl<T> FoundUsers<T> {
    /// The user, if there is one.
    #[must_use]
    pub fn user(&self) -> Option<&T> {
        if let LookupOutcome::User(user) = &self.outcome { Some(user) } else { None }
    }

    /// Whether there is no such user.
    #[must_use]
    pub const fn is_missing(&self) -> bool {
        matches!(self.outcome, LookupOutcome::Missing)
    }
}

/// Users that are asked for in one request after the other, made by [`Users::look_up`].
///
/// ```no_run
/// # async fn example(clerk: clerk_client::clerk::Clerk) -> Result<(), clerk_client::clerk::Error> {
/// use clerk_client::clerk::LookupOutcome;
///
/// # let ids = ["user_2NNEqL2nrIRdJ194ndJqAHwEfxC"];
/// let mut look_up = clerk.low_priority().users().look_up(ids)?;
/// while let Some(found) = look_up.next().await? {
///     for found in found {
///         match found.outcome {
///             LookupOutcome::User(user) => { /* deal with it */ }
///             LookupOutcome::Missing => { /* there is no such user */ }
///             LookupOutcome::Refused(error) => { /* Clerk takes it for no id */ }
///         }
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// Each id is answered once. After an error, or when the future of [`Lookup::next`] was dropped, the next call asks for
/// what has no answer yet.
#[derive(Debug)]
pub struct Lookup<T = User> {
    users: Users,
    left: VecDeque<String>,
    /// How many ids the next requests are to have, the next one last; together at most what is left.
    parts: Vec<usize>,
    /// Most ids that Clerk takes, as far as is known; shared with others that look up at the same time.
    largest: Arc<AtomicUsize>,
    form: PhantomData<fn() -> T>,
}

impl<T: UserRepr> Lookup<T> {
    pub(super) fn new<I: AsRef<str>>(users: Users, ids: impl IntoIterator<Item = I>) -> Result<Self, Error> {
        let mut known = HashSet::new();
        let mut left = VecDeque::new();
        for id in ids {
            let id = id.as_ref();
            check_id(id)?;
            if known.insert(id.to_owned()) {
                left.push_back(id.to_owned());
            }
        }
        Ok(Self { users, left, parts: Vec::new(), largest: Arc::new(AtomicUsize::new(MAX_IDS)), form: PhantomData })
    }

    /// The same with users as Clerk wrote them, byte for byte.
    #[must_use]
    pub fn raw(self) -> Lookup<RawUser> {
        let Self { users, left, parts, largest, form: _ } = self;
        Lookup { users, left, parts, largest, form: PhantomData }
    }

    /// How many ids have no answer yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left.len()
    }

    /// The next ids, in order, with what was found; none at the end.
    ///
    /// A 422 halves the request until the ids that Clerk refuses stand alone.
    ///
    /// # Errors
    /// When a request fails other than by a 422.
    pub async fn next(&mut self) -> Result<Option<Vec<FoundUsers<T>>>, Error> {
        while !self.left.is_empty() {
            let most = self.largest.load(Ordering::Relaxed).min(self.left.len());
            let count = self.parts.last().map_or(most, |part| *part.min(&most));
            match self.ask(count).await {
                Ok(users) => return Ok(Some(self.answer(count, users))),
                Err(Error::Api(error)) if error.status.as_u16() == 422 && count == 1 => {
                    self.parts.pop();
                    let refused = |id| FoundUsers { id, outcome: LookupOutcome::Refused(error) };
                    return Ok(self.left.pop_front().map(|id| vec![refused(id)]));
                }
                Err(error) if error.is_refused_parameter() && count > 1 => {
                    let half = count / 2;
                    if error.code() == Some(TOO_MANY) {
                        self.largest.fetch_min(half, Ordering::Relaxed);
                    }
                    self.parts.pop();
                    self.parts.extend([count - half, half]);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The ids that have no answer yet.
    pub(super) fn into_left(self) -> VecDeque<String> {
        self.left
    }

    /// One for each request that it would make.
    fn in_parts(mut self) -> Vec<Self> {
        let mut parts = Vec::new();
        while !self.left.is_empty() {
            let rest = self.left.split_off(self.left.len().min(MAX_IDS));
            let left = std::mem::replace(&mut self.left, rest);
            let (users, largest) = (self.users.clone(), Arc::clone(&self.largest));
            parts.push(Self { users, left, parts: Vec::new(), largest, form: PhantomData });
        }
        parts
    }

    async fn all(mut self) -> Result<Vec<FoundUsers<T>>, Error> {
        let mut all = Vec::with_capacity(self.left.len());
        while let Some(found) = self.next().await? {
            all.extend(found);
        }
        Ok(all)
    }

    async fn ask(&self, count: usize) -> Result<Vec<T>, Error> {
        let mut query = Query::of("/v1/users");
        // Without a limit Clerk gives ten.
        query.push("limit", count);
        for id in self.left.iter().take(count) {
            query.push("user_id", id);
        }
        self.users.fetch(query.into_path()).await
    }

    fn answer(&mut self, count: usize, users: Vec<T>) -> Vec<FoundUsers<T>> {
        self.parts.pop();
        let mut users: HashMap<String, T> = users.into_iter().map(|user| (user.id().to_owned(), user)).collect();
        let ids = self.left.drain(..count);
        ids.map(|id| {
            let user = users.remove(&id);
            FoundUsers { id, outcome: user.map_or(LookupOutcome::Missing, |user| LookupOutcome::User(Box::new(user))) }
        })
        .collect()
    }
}

/// All of the ids, in the order given.
pub(super) async fn in_given_order<T: UserRepr, I: AsRef<str>>(
    users: &Users,
    ids: impl IntoIterator<Item = I>,
) -> Result<Vec<FoundUsers<T>>, Error> {
    let ids: Vec<I> = ids.into_iter().collect();
    let parts = Lookup::<T>::new(users.clone(), ids.iter().map(AsRef::as_ref))?.in_parts();
    let found: Vec<Vec<FoundUsers<T>>> =
        stream::iter(parts.into_iter().map(Lookup::all)).buffered(PARALLEL).try_collect().await?;
    let found: Vec<FoundUsers<T>> = found.into_iter().flatten().collect();
    if found.len() == ids.len() {
        return Ok(found);
    }
    let by_id: HashMap<&str, &FoundUsers<T>> = found.iter().map(|found| (found.id.as_str(), found)).collect();
    Ok(ids.iter().filter_map(|id| by_id.get(id.as_ref())).map(|found| (*found).clone()).collect())
}
