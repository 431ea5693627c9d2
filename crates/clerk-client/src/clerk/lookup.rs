//! Many users by their ids.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream, StreamExt};

use super::lookup_state::LookupState;
use super::{ApiError, Error, User, UserRepr, Users};

/// Most ids in one request.
pub const MAX_IDS: usize = 100;

/// The result for one id.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundUser<T = User> {
    /// The requested id.
    pub id: String,
    /// The user, or why there is none.
    pub outcome: LookupOutcome<T>,
}

/// Whether there is a user with an id.
#[derive(Debug, Clone, PartialEq)]
pub enum LookupOutcome<T = User> {
    /// The user.
    User(Box<T>),
    /// No such user.
    Missing,
    /// Clerk rejected the id with 422.
    Refused(Box<ApiError>),
}

impl<T> FoundUser<T> {
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

/// A stream of many users, batch by batch, made by [`Users::lookup`].
///
/// ```no_run
/// # async fn example(clerk: clerk_client::Clerk) -> Result<(), clerk_client::Error> {
/// use clerk_client::LookupOutcome;
///
/// # let ids = ["user_2NNEqL2nrIRdJ194ndJqAHwEfxC"];
/// let mut lookup = clerk.low_priority().users().lookup(ids)?;
/// while let Some(batch) = lookup.try_next().await? {
///     for found in batch {
///         match found.outcome {
///             LookupOutcome::User(user) => { /* process it */ }
///             LookupOutcome::Missing => { /* no such user */ }
///             LookupOutcome::Refused(error) => { /* not an id for Clerk */ }
///         }
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// Each id has one result. After an error the stream goes on with the ids that have none. Dropping the future of
/// [`Lookup::try_next`] does not cancel its request: the next call waits for it. Dropping the lookup does.
///
/// **A user is missing only if Clerk says so.** Clerk may return fewer users than requested. Ids that a list is without
/// are requested again: in one list as long as that finds some, then each with its own request. So an id without a user
/// costs one more request.
pub struct Lookup<T = User> {
    /// `None` while a request is in flight.
    state: Option<LookupState<T>>,
    in_flight: Option<BoxFuture<'static, (LookupState<T>, BatchResult<T>)>>,
    left: usize,
}

type BatchResult<T> = Result<Option<Vec<FoundUser<T>>>, Error>;

impl<T: UserRepr> Lookup<T> {
    pub(super) fn new<I: AsRef<str>>(users: Users, ids: impl IntoIterator<Item = I>) -> Result<Self, Error> {
        let state = LookupState::new(users, ids)?;
        Ok(Self { left: state.left(), state: Some(state), in_flight: None })
    }

    /// Ids without a result.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.left
    }

    /// Returns the next batch, in the order of the ids; `None` at the end. The same as `TryStreamExt::try_next`.
    ///
    /// # Errors
    /// Returns an error if a request fails other than with 422. The next call goes on with the same ids.
    pub async fn try_next(&mut self) -> Result<Option<Vec<FoundUser<T>>>, Error> {
        self.next().await.transpose()
    }
}

impl<T: UserRepr> Stream for Lookup<T> {
    type Item = Result<Vec<FoundUser<T>>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(mut state) = this.state.take() {
            this.in_flight = Some(
                async move {
                    let result = state.next().await;
                    (state, result)
                }
                .boxed(),
            );
        }
        let Some(in_flight) = &mut this.in_flight else { return Poll::Ready(None) };
        let (state, result) = ready!(in_flight.poll_unpin(context));
        (this.in_flight, this.left) = (None, state.left());
        this.state = Some(state);
        Poll::Ready(result.transpose())
    }
}

impl<T> fmt::Debug for Lookup<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup").field("left", &self.left).finish_non_exhaustive()
    }
}
