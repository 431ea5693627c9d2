//! Single look-ups of users, merged into batches.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use super::batcher::{BatchShare, Batcher, Bounds, Full};
use super::users::check_id;
use super::{Error, LookupOutcome, MAX_IDS, RawUser, User, Users};
use crate::limiter::{Shed, ShedReason};
use clerk_quota::{Bucket, CallerId};

/// Time after which somebody who found too many others waiting may try again.
const COME_AGAIN: Duration = Duration::from_secs(1);

type LoadResult = Result<RawUser, Arc<Error>>;

/// What a batch brought for an id.
#[derive(Debug, Clone)]
struct Loaded {
    answer: LoadResult,
    /// Whether a further request of the batch was made for it: its list was without it.
    was_asked_again: bool,
}

/// How look-ups are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoaderOptions {
    /// How long the first id of a request waits for others. Timers have a resolution of a millisecond.
    pub window: Duration,
    /// Most ids in a request, 1 to [`MAX_IDS`]. Values beyond are taken for the nearest.
    pub max_ids: usize,
    /// Most different ids that are without an answer at the same time. Who asks for one more gets
    /// [`ShedReason::QueueFull`].
    pub max_waiting: usize,
}

impl Default for LoaderOptions {
    /// 5 ms, 100 ids, and 10 000 waiting.
    fn default() -> Self {
        Self { window: Duration::from_millis(5), max_ids: MAX_IDS, max_waiting: 10_000 }
    }
}

/// Looks users up one by one for its callers, and many at once at Clerk: look-ups that come within a few milliseconds
/// become one request for up to 100 users. Made by [`Users::loader`].
///
/// - An id that is asked for again while its answer is under way is asked for once. Who must see a change of a moment
///   ago calls [`Loader::invalidate`] first.
/// - An id that stands alone is asked for with `GET /v1/users/{id}`.
/// - A caller that goes away disturbs no other. When all callers of a request are gone, it is cancelled.
/// - What goes wrong with a request, all its callers are told; a 422 only those whose id Clerk refuses.
/// - Nobody is missing because a list is without them: they are asked for again, as [`Lookup`](super::Lookup) says.
///
/// Nothing is cached: an answer goes to those who asked before it came. Clones share their requests.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use clerk_client::clerk::{Clerk, LoaderOptions};
///
/// let users = Clerk::from_env()?.users().loader(LoaderOptions::default());
/// // In a handler of requests, a hundred of which run at the same time:
/// match users.get("user_2NNEqL2nrIRdJ194ndJqAHwEfxC").await {
///     Ok(user) => println!("{:?}", user.first_name()),
///     Err(error) if error.is_not_found() => println!("nobody"),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Loader {
    merge: Arc<Batcher<String, Loaded>>,
}

impl Loader {
    pub(super) fn new(users: Users, options: LoaderOptions) -> Self {
        let LoaderOptions { window, max_ids, max_waiting } = options;
        let bounds = Bounds { window, keys: max_ids.clamp(1, MAX_IDS), waiting: max_waiting };
        let merge = Batcher::new(bounds, move |ids, caller| fetch(users.clone().charged_to(caller), ids).boxed());
        Self { merge: Arc::new(merge) }
    }

    /// One user.
    ///
    /// # Errors
    /// As [`Users::get`], also for a user that does not exist: [`Error::is_not_found`]. Shared, since it may be that
    /// of other callers, too. A caller too many gets [`Error::Shed`].
    pub async fn get(&self, id: &str) -> Result<User, Arc<Error>> {
        self.load(id, CallerId::UNNAMED).await.0?.parse().map_err(|_| Arc::new(Error::ambiguous()))
    }

    /// One user as Clerk wrote it, byte for byte, in a list or alone; none if there is no such user.
    ///
    /// # Errors
    /// As [`Loader::get`] for all but a missing user.
    pub async fn raw(&self, id: &str) -> Result<Option<RawUser>, Arc<Error>> {
        self.raw_merged(id, CallerId::UNNAMED).await.0
    }

    /// [`Loader::raw`], and how this look-up shared its request with others. Of each request
    /// that is sent, the `caller` of the first look-up of its batch is charged for it.
    pub async fn raw_merged(&self, id: &str, caller: CallerId) -> (Result<Option<RawUser>, Arc<Error>>, BatchShare) {
        let (answer, share) = self.load(id, caller).await;
        let found = match answer {
            Ok(user) => Ok(Some(user)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        };
        (found, share)
    }

    /// The user has changed: who asks from now on gets no answer to a request that was sent before.
    pub fn invalidate(&self, id: &str) {
        self.merge.invalidate(&id.to_owned());
    }

    async fn load(&self, id: &str, caller: CallerId) -> (LoadResult, BatchShare) {
        if let Err(error) = check_id(id) {
            return (Err(Arc::new(error)), BatchShare::default());
        }
        match self.merge.get_merged(&id.to_owned(), caller).await {
            Ok((Some(Loaded { answer, was_asked_again }), share)) => {
                (answer, BatchShare { is_first: share.is_first || was_asked_again, ..share })
            }
            Ok((None, share)) => (Err(Arc::new(Error::missing_user())), share),
            Err(Full) => {
                let reason = ShedReason::QueueFull;
                (
                    Err(Arc::new(Shed { reason, bucket: Bucket::Instance, retry_after: COME_AGAIN }.into())),
                    BatchShare::default(),
                )
            }
        }
    }
}

/// The answers to a batch.
async fn fetch(users: Users, ids: Vec<String>) -> HashMap<String, Loaded> {
    if let [id] = &*ids {
        let answer = users.get_as::<RawUser>(id).await.map_err(Arc::new);
        return HashMap::from([(id.clone(), Loaded { answer, was_asked_again: false })]);
    }
    let mut answers: HashMap<String, LoadResult> = HashMap::with_capacity(ids.len());
    let mut look_up = match users.look_up_as::<RawUser, _>(&ids) {
        Ok(look_up) => look_up,
        Err(error) => {
            let error = Arc::new(error);
            let failed = |id| (id, Loaded { answer: Err(Arc::clone(&error)), was_asked_again: false });
            return ids.into_iter().map(failed).collect();
        }
    };
    let mut failed = None;
    while failed.is_none() {
        match look_up.next().await {
            Ok(Some(found)) => answers.extend(found.into_iter().map(|found| (found.id, answer(found.outcome)))),
            Ok(None) => break,
            Err(error) => failed = Some(Arc::new(error)),
        }
    }
    let asked_again = look_up.asked_again().clone();
    let (found, left) = look_up.into_rest();
    answers.extend(found.into_iter().map(|(id, outcome)| (id, answer(outcome))));
    if let Some(error) = failed {
        answers.extend(left.into_iter().map(|id| (id, Err(Arc::clone(&error)))));
    }
    let loaded = |(id, answer)| {
        let was_asked_again = asked_again.contains(&id);
        (id, Loaded { answer, was_asked_again })
    };
    answers.into_iter().map(loaded).collect()
}

fn answer(outcome: LookupOutcome<RawUser>) -> LoadResult {
    match outcome {
        LookupOutcome::User(user) => Ok(*user),
        LookupOutcome::Refused(error) => Err(Arc::new(Error::Api(error))),
        LookupOutcome::Missing => Err(Arc::new(Error::missing_user())),
    }
}
