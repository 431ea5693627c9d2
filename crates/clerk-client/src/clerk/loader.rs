//! Single lookups of users, in batches.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::Extensions;

use super::batcher::{BatchShare, Batcher, Bounds, Full};
use super::users::check_id;
use super::{Error, LookupOutcome, MAX_IDS, RawUser, User, Users};
use crate::limiter::{Shed, ShedReason};
use clerk_quota::{Bucket, CallerId};

/// `retry_after` of a lookup that was shed because the queue was full.
const RETRY_AFTER: Duration = Duration::from_secs(1);

type LoadResult = Result<RawUser, Error>;

/// The result of a batch for an id.
#[derive(Debug, Clone)]
struct Loaded {
    result: LoadResult,
    /// Whether the list was without it, so that it was requested again.
    was_requested_again: bool,
}

/// How lookups are batched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoaderOptions {
    /// How long the first lookup of a batch waits for others. Timers have a resolution of 1 ms.
    pub window: Duration,
    /// Most ids in a batch, clamped to 1 to [`MAX_IDS`].
    pub max_ids: usize,
    /// Most ids without a result. A lookup beyond is shed with [`ShedReason::QueueFull`].
    pub max_waiting: usize,
}

impl LoaderOptions {
    /// The default: 5 ms, 100 ids, 10 000 waiting.
    #[must_use]
    pub const fn new() -> Self {
        Self { window: Duration::from_millis(5), max_ids: MAX_IDS, max_waiting: 10_000 }
    }

    /// Sets [`LoaderOptions::window`].
    #[must_use]
    pub const fn window(self, window: Duration) -> Self {
        Self { window, ..self }
    }

    /// Sets [`LoaderOptions::max_ids`].
    #[must_use]
    pub const fn max_ids(self, ids: usize) -> Self {
        Self { max_ids: ids, ..self }
    }

    /// Sets [`LoaderOptions::max_waiting`].
    #[must_use]
    pub const fn max_waiting(self, ids: usize) -> Self {
        Self { max_waiting: ids, ..self }
    }
}

impl Default for LoaderOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Looks up single users for concurrent callers in batches: lookups within a few milliseconds become one request for up to
/// 100 users. Made by [`Users::loader`].
///
/// - Concurrent lookups of one id share one result. Call [`Loader::invalidate`] first to see a change made a moment ago.
/// - A batch of one id is `GET /v1/users/{id}`.
/// - Dropping a lookup affects no other. A request whose callers all went away is cancelled.
/// - If a request fails, all its callers get the error; of a 422 only those whose id Clerk rejects.
/// - A user is missing only if Clerk says so: see [`Lookup`](super::Lookup).
///
/// Nothing is cached, whatever the client's cache: a result goes to those who requested it before it came. Clones share
/// their requests.
///
/// ```no_run
/// # async fn example() -> Result<(), clerk_client::Error> {
/// use clerk_client::{Clerk, LoaderOptions};
///
/// let users = Clerk::from_env()?.users().loader(LoaderOptions::new());
/// // In a request handler, a hundred of which run concurrently:
/// match users.get("user_2NNEqL2nrIRdJ194ndJqAHwEfxC").await {
///     Ok(user) => println!("{:?}", user.first_name()),
///     Err(error) if error.is_not_found() => println!("no such user"),
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Loader {
    batcher: Arc<Batcher<String, Loaded>>,
}

impl Loader {
    pub(super) fn new(users: Users, options: LoaderOptions) -> Self {
        let LoaderOptions { window, max_ids, max_waiting } = options;
        let users = users.without_cache();
        let bounds = Bounds { window, keys: max_ids.clamp(1, MAX_IDS), waiting: max_waiting };
        let batcher = Batcher::new(bounds, move |ids, caller, members| {
            fetch(users.clone().charged_to(caller).shared_by(members), ids).boxed()
        });
        Self { batcher: Arc::new(batcher) }
    }

    /// Returns one user.
    ///
    /// # Errors
    /// As [`Users::get`], also for a user that does not exist ([`Error::is_not_found`]); [`Error::Shed`] if too many
    /// lookups wait.
    pub async fn get(&self, id: &str) -> Result<User, Error> {
        self.load(id, CallerId::UNNAMED, Extensions::new()).await.0?.parse().map_err(|_| Error::ambiguous())
    }

    /// Returns one user as Clerk wrote it, byte for byte; `None` if there is no such user.
    ///
    /// # Errors
    /// As [`Loader::get`], except for a missing user.
    pub async fn raw(&self, id: &str) -> Result<Option<RawUser>, Error> {
        self.raw_batched(id, CallerId::UNNAMED, Extensions::new()).await.0
    }

    /// [`Loader::raw`], with how the lookup shared its request. Each request is charged to the `caller` of its first lookup,
    /// and an [`AttemptLog`](crate::outbound::AttemptLog) gets the `extensions` of all that made any.
    pub async fn raw_batched(
        &self,
        id: &str,
        caller: CallerId,
        extensions: Extensions,
    ) -> (Result<Option<RawUser>, Error>, BatchShare) {
        let (result, share) = self.load(id, caller, extensions).await;
        let found = match result {
            Ok(user) => Ok(Some(user)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        };
        (found, share)
    }

    /// Lookups from now on do not get the result of a request that was sent before.
    pub fn invalidate(&self, id: &str) {
        self.batcher.invalidate(&id.to_owned());
    }

    async fn load(&self, id: &str, caller: CallerId, extensions: Extensions) -> (LoadResult, BatchShare) {
        if let Err(error) = check_id(id) {
            return (Err(error), BatchShare::default());
        }
        match self.batcher.get_batched(&id.to_owned(), caller, extensions).await {
            Ok((Some(Loaded { result, was_requested_again }), share)) => {
                (result, BatchShare { is_first: share.is_first || was_requested_again, ..share })
            }
            Ok((None, share)) => (Err(Error::missing_user()), share),
            Err(Full) => {
                let reason = ShedReason::QueueFull;
                (
                    Err(Shed { reason, bucket: Bucket::Instance, cap: None, retry_after: RETRY_AFTER }.into()),
                    BatchShare::default(),
                )
            }
        }
    }
}

/// The results of a batch.
async fn fetch(users: Users, ids: Vec<String>) -> HashMap<String, Loaded> {
    if let [id] = &*ids {
        let result = users.get_as::<RawUser>(id).await;
        return HashMap::from([(id.clone(), Loaded { result, was_requested_again: false })]);
    }
    let mut results: HashMap<String, LoadResult> = HashMap::with_capacity(ids.len());
    let mut lookup = match users.lookup_state(&ids) {
        Ok(lookup) => lookup,
        Err(error) => {
            let failed = |id| (id, Loaded { result: Err(error.clone()), was_requested_again: false });
            return ids.into_iter().map(failed).collect();
        }
    };
    let mut failed = None;
    while failed.is_none() {
        match lookup.next().await {
            Ok(Some(found)) => results.extend(found.into_iter().map(|found| (found.id, result_of(found.outcome)))),
            Ok(None) => break,
            Err(error) => failed = Some(error),
        }
    }
    let requested_again = lookup.requested_again().clone();
    let (found, left) = lookup.into_rest();
    results.extend(found.into_iter().map(|(id, outcome)| (id, result_of(outcome))));
    if let Some(error) = failed {
        results.extend(left.into_iter().map(|id| (id, Err(error.clone()))));
    }
    let loaded = |(id, result)| {
        let was_requested_again = requested_again.contains(&id);
        (id, Loaded { result, was_requested_again })
    };
    results.into_iter().map(loaded).collect()
}

fn result_of(outcome: LookupOutcome<RawUser>) -> LoadResult {
    match outcome {
        LookupOutcome::User(user) => Ok(*user),
        LookupOutcome::Refused(error) => Err(Error::Api(error)),
        LookupOutcome::Missing => Err(Error::missing_user()),
    }
}
