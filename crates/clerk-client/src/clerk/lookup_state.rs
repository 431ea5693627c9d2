//! Requests many users by their ids: batches, halved batches, and proof that a user is missing.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::lookup::{FoundUser, LookupOutcome, MAX_IDS};
use super::query::Query;
use super::users::check_id;
use super::{Error, UserRepr, Users};

/// Most concurrent requests of one [`Users::get_many`]: enough to use the whole limit over a usual network, few enough to
/// leave permits of the limiter to others.
const PARALLEL: usize = 4;

/// Clerk's code for more values than it accepts.
const TOO_MANY: &str = "form_param_array_size_exceeded";

/// A lookup without its public wrapper.
#[derive(Debug)]
pub(super) struct LookupState<T> {
    users: Users,
    /// Ids without a result that was returned.
    left: VecDeque<String>,
    /// Results of the ids at the front of `left`, which are returned together.
    found: HashMap<String, LookupOutcome<T>>,
    /// The number of those ids; 0 before they are requested.
    batch: usize,
    /// The ids that a list was without, and that were requested again.
    requested_again: HashSet<String>,
    /// Sizes of the next batches, the next one last.
    parts: Vec<usize>,
    /// Most ids that Clerk accepts, as far as is known; shared with concurrent lookups.
    largest: Arc<AtomicUsize>,
}

impl<T: UserRepr> LookupState<T> {
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
        let (found, requested_again) = (HashMap::new(), HashSet::new());
        // A lookup reports the present: its single requests bypass the cache, as its lists do.
        Self { users: users.without_cache(), left, found, batch: 0, requested_again, parts: Vec::new(), largest }
    }

    /// Ids without a result.
    pub(super) fn left(&self) -> usize {
        self.left.len()
    }

    /// The next ids with their results, in order; `None` at the end. A 422 halves the batch until the ids that Clerk rejects
    /// are alone.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<FoundUser<T>>>, Error> {
        if self.left.is_empty() {
            return Ok(None);
        }
        if self.batch == 0 {
            self.request_batch().await?;
        }
        self.confirm_missing().await?;
        let ids: Vec<_> = self.left.drain(..std::mem::take(&mut self.batch)).collect();
        let found = ids.into_iter().map(|id| {
            let outcome = self.found.remove(&id).unwrap_or(LookupOutcome::Missing);
            FoundUser { id, outcome }
        });
        Ok(Some(found.collect()))
    }

    /// Requests the next ids in one list, fewer of them where Clerk rejects some.
    async fn request_batch(&mut self) -> Result<(), Error> {
        loop {
            let most = self.largest.load(Ordering::Relaxed).min(self.left.len());
            let count = self.parts.last().map_or(most, |part| *part.min(&most));
            let ids: Vec<_> = self.left.iter().take(count).cloned().collect();
            match self.request_list(&ids).await {
                Ok(()) => {}
                Err(Error::Api(error)) if error.status.as_u16() == 422 && count == 1 => {
                    self.found.extend(ids.into_iter().map(|id| (id, LookupOutcome::Refused(error.clone()))));
                }
                Err(error) if error.is_rejected_parameter() && count > 1 => {
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
            self.batch = count;
            return Ok(());
        }
    }

    /// Requests the ids that a list was without again, until each was found or Clerk says that it does not exist.
    async fn confirm_missing(&mut self) -> Result<(), Error> {
        let mut absent = self.absent();
        let mut is_progress = absent.len() < self.batch;
        while is_progress && absent.len() > 1 {
            self.requested_again.extend(absent.iter().cloned());
            match self.request_list(&absent).await {
                // Clerk accepted a larger list: something else is wrong, and each single request will report it.
                Err(error) if error.is_rejected_parameter() => break,
                requested => requested?,
            }
            let still = self.absent();
            is_progress = still.len() < absent.len();
            absent = still;
        }
        self.requested_again.extend(absent.iter().cloned());
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

    /// The ids of this batch without a result.
    fn absent(&self) -> Vec<String> {
        let batch = self.left.iter().take(self.batch);
        batch.filter(|id| !self.found.contains_key(*id)).cloned().collect()
    }

    /// The ids that a list was without, and that were requested again.
    pub(super) const fn requested_again(&self) -> &HashSet<String> {
        &self.requested_again
    }

    /// The results that were not returned yet, and the ids without a result.
    pub(super) fn into_rest(mut self) -> (HashMap<String, LookupOutcome<T>>, Vec<String>) {
        let found = std::mem::take(&mut self.found);
        let left = self.left.into_iter().filter(|id| !found.contains_key(id)).collect();
        (found, left)
    }

    /// One state for each request that it would make.
    fn split(mut self) -> Vec<Self> {
        let mut parts = Vec::new();
        while !self.left.is_empty() {
            let rest = self.left.split_off(self.left.len().min(MAX_IDS));
            let left = std::mem::replace(&mut self.left, rest);
            let (users, largest) = (self.users.clone(), Arc::clone(&self.largest));
            parts.push(Self::of(users, left, largest));
        }
        parts
    }

    async fn all(mut self) -> Result<Vec<FoundUser<T>>, Error> {
        let mut all = Vec::with_capacity(self.left.len());
        while let Some(found) = self.next().await? {
            all.extend(found);
        }
        Ok(all)
    }

    /// Requests these ids in a list.
    async fn request_list(&mut self, ids: &[String]) -> Result<(), Error> {
        let mut query = Query::of("/v1/users");
        // Clerk's default limit is ten.
        query.push("limit", ids.len());
        for id in ids {
            query.push("user_id", id);
        }
        let users = self.users.fetch::<T>(query.into_path()).await?;
        // A server that ignores the filter returns others.
        let requested: HashSet<&str> = ids.iter().map(String::as_str).collect();
        let users = users.into_iter().filter(|user| requested.contains(user.id()));
        self.found.extend(users.map(|user| (user.id().to_owned(), LookupOutcome::User(Box::new(user)))));
        Ok(())
    }
}

/// Returns all ids in the given order.
pub(super) async fn in_given_order<T: UserRepr, I: AsRef<str>>(
    users: &Users,
    ids: impl IntoIterator<Item = I>,
) -> Result<Vec<FoundUser<T>>, Error> {
    let ids: Vec<I> = ids.into_iter().collect();
    let parts = LookupState::<T>::new(users.clone(), ids.iter().map(AsRef::as_ref))?.split();
    let found: Vec<Vec<FoundUser<T>>> =
        stream::iter(parts.into_iter().map(LookupState::all)).buffered(PARALLEL).try_collect().await?;
    let found: Vec<FoundUser<T>> = found.into_iter().flatten().collect();
    if found.len() == ids.len() {
        return Ok(found);
    }
    let by_id: HashMap<&str, &FoundUser<T>> = found.iter().map(|found| (found.id.as_str(), found)).collect();
    Ok(ids.iter().filter_map(|id| by_id.get(id.as_ref())).map(|found| (*found).clone()).collect())
}
