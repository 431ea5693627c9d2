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
///
/// **Nobody is called missing because a list is without them.** Clerk may give fewer users than were asked for. Those that
/// a list is without are asked for again: in one list for as long as lists bring some of them, and then each by its own
/// address, where Clerk says itself that there is no such user. So an id of nobody costs one request more, and a list that
/// Clerk cuts off one more for each part.
#[derive(Debug)]
pub struct Lookup<T = User> {
    users: Users,
    left: VecDeque<String>,
    /// What was found for some of the ids at the front of `left`, which are given together.
    found: HashMap<String, LookupOutcome<T>>,
    /// How many those are; 0 before they are asked for.
    round: usize,
    /// Those that a list was without, and for whom a further request was made.
    asked_again: HashSet<String>,
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
        Ok(Self::of(users, left, Arc::new(AtomicUsize::new(MAX_IDS))))
    }

    fn of(users: Users, left: VecDeque<String>, largest: Arc<AtomicUsize>) -> Self {
        let (found, asked_again) = (HashMap::new(), HashSet::new());
        Self { users, left, found, round: 0, asked_again, parts: Vec::new(), largest, form: PhantomData }
    }

    /// The same with users as Clerk wrote them, byte for byte. What was found and not given yet is asked for again.
    #[must_use]
    pub fn raw(self) -> Lookup<RawUser> {
        let Self { users, left, asked_again, parts, largest, .. } = self;
        Lookup { asked_again, parts, ..Lookup::of(users, left, largest) }
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
        if self.left.is_empty() {
            return Ok(None);
        }
        if self.round == 0 {
            self.ask_for_round().await?;
        }
        self.prove_absences().await?;
        let ids: Vec<_> = self.left.drain(..std::mem::take(&mut self.round)).collect();
        let found = ids.into_iter().map(|id| {
            let outcome = self.found.remove(&id).unwrap_or(LookupOutcome::Missing);
            FoundUsers { id, outcome }
        });
        Ok(Some(found.collect()))
    }

    /// Asks for the next ids in one list, fewer of them where Clerk refuses some.
    async fn ask_for_round(&mut self) -> Result<(), Error> {
        loop {
            let most = self.largest.load(Ordering::Relaxed).min(self.left.len());
            let count = self.parts.last().map_or(most, |part| *part.min(&most));
            let ids: Vec<_> = self.left.iter().take(count).cloned().collect();
            match self.ask(&ids).await {
                Ok(()) => {}
                Err(Error::Api(error)) if error.status.as_u16() == 422 && count == 1 => {
                    self.found.extend(ids.into_iter().map(|id| (id, LookupOutcome::Refused(error.clone()))));
                }
                Err(error) if error.is_refused_parameter() && count > 1 => {
                    let half = count / 2;
                    if error.code() == Some(TOO_MANY) {
                        self.largest.fetch_min(half, Ordering::Relaxed);
                    }
                    self.parts.pop();
                    self.parts.extend([count - half, half]);
                    continue;
                }
                Err(error) => return Err(error),
            }
            self.parts.pop();
            self.round = count;
            return Ok(());
        }
    }

    /// Asks again for those that lists were without, until each was found or is missing by Clerk's own word.
    async fn prove_absences(&mut self) -> Result<(), Error> {
        let mut absent = self.absent();
        let mut was_useful = absent.len() < self.round;
        while was_useful && absent.len() > 1 {
            self.asked_again.extend(absent.iter().cloned());
            match self.ask(&absent).await {
                // Of a part of what it took, it refuses none: something else is wrong, which each will hear for itself.
                Err(error) if error.is_refused_parameter() => break,
                asked => asked?,
            }
            let still = self.absent();
            was_useful = still.len() < absent.len();
            absent = still;
        }
        self.asked_again.extend(absent.iter().cloned());
        let users = self.users.clone();
        let singly = absent.into_iter().map(|id| {
            let users = users.clone();
            async move {
                let answer = users.get_as::<T>(&id).await;
                (id, answer)
            }
        });
        let mut singly = stream::iter(singly).buffer_unordered(PARALLEL);
        while let Some((id, answer)) = singly.next().await {
            let outcome = match answer {
                Ok(user) => LookupOutcome::User(Box::new(user)),
                Err(error) if error.is_not_found() => LookupOutcome::Missing,
                Err(Error::Api(error)) if error.status.as_u16() == 422 => LookupOutcome::Refused(error),
                Err(error) => return Err(error),
            };
            self.found.insert(id, outcome);
        }
        Ok(())
    }

    /// Those of the present ids of which nothing is known.
    fn absent(&self) -> Vec<String> {
        let asked = self.left.iter().take(self.round);
        asked.filter(|id| !self.found.contains_key(*id)).cloned().collect()
    }

    /// Those that a list was without, and for whom a further request was made.
    pub(super) const fn asked_again(&self) -> &HashSet<String> {
        &self.asked_again
    }

    /// What was found and not given, and the ids that have no answer yet.
    pub(super) fn into_rest(mut self) -> (HashMap<String, LookupOutcome<T>>, Vec<String>) {
        let found = std::mem::take(&mut self.found);
        let left = self.left.into_iter().filter(|id| !found.contains_key(id)).collect();
        (found, left)
    }

    /// One for each request that it would make.
    fn in_parts(mut self) -> Vec<Self> {
        let mut parts = Vec::new();
        while !self.left.is_empty() {
            let rest = self.left.split_off(self.left.len().min(MAX_IDS));
            let left = std::mem::replace(&mut self.left, rest);
            let (users, largest) = (self.users.clone(), Arc::clone(&self.largest));
            parts.push(Self::of(users, left, largest));
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

    /// Asks for these in a list.
    async fn ask(&mut self, ids: &[String]) -> Result<(), Error> {
        let mut query = Query::of("/v1/users");
        // Without a limit Clerk gives ten.
        query.push("limit", ids.len());
        for id in ids {
            query.push("user_id", id);
        }
        let users = self.users.fetch::<T>(query.into_path()).await?;
        // Whoever else is in the list was not asked for.
        let asked: HashSet<&str> = ids.iter().map(String::as_str).collect();
        let users = users.into_iter().filter(|user| asked.contains(user.id()));
        self.found.extend(users.map(|user| (user.id().to_owned(), LookupOutcome::User(Box::new(user)))));
        Ok(())
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
