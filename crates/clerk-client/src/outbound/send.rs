//! A request that waits for the rate limit and is sent again where that may help.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::attempt::{Opened, Reading};
use super::limiter::{Priority, Shed};
use super::outgoing::Outgoing;
use super::relay::{Handling, Relayed};
use super::reply::{Answer, Reply};
use super::retry::{Decision, Outcome, RetryPolicy, Standing, Trouble};
use super::{Call, CallError, Outbound};
use clerk_quota::Route;

/// How much trouble a request is worth.
///
/// ```
/// use std::time::Duration;
///
/// use clerk_client::outbound::Policy;
/// use clerk_client::outbound::retry::RetryPolicy;
///
/// // For a page that somebody looks at: quick or not at all.
/// let page = Policy {
///     retry: RetryPolicy { max_retries: 1, max_wait: Duration::from_secs(1), ..RetryPolicy::default() },
///     max_queue_wait: Duration::from_millis(500),
///     attempt_timeout: Duration::from_secs(2),
///     deadline: Duration::from_secs(3),
///     ..Policy::default()
/// };
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Who goes first.
    pub priority: Priority,
    /// How often it is tried.
    pub retry: RetryPolicy,
    /// Longest wait in the queue, before each attempt.
    pub max_queue_wait: Duration,
    /// Longest time that one attempt takes, from its start to the head of the answer (of an error, to its end).
    pub attempt_timeout: Duration,
    /// Longest time for everything: waits, attempts, and with [`Outbound::send`] the body.
    pub deadline: Duration,
}

impl Default for Policy {
    /// Interactive: 30 s in the queue, 10 s an attempt, 90 s for everything, so that a `Retry-After` of the longest wait
    /// fits in.
    fn default() -> Self {
        Self {
            priority: Priority::High,
            retry: RetryPolicy::default(),
            max_queue_wait: Duration::from_secs(30),
            attempt_timeout: Duration::from_secs(10),
            deadline: Duration::from_secs(90),
        }
    }
}

impl Policy {
    /// For work at which nobody waits: goes last, leaves a reserve, and waits ten minutes for its turn.
    #[must_use]
    pub fn bulk() -> Self {
        let patience = Duration::from_secs(600);
        Self { priority: Priority::Low, max_queue_wait: patience, deadline: patience * 2, ..Self::default() }
    }
}

/// Why a request has no answer. An answer of any status, a 429 too, is no error.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It was not let go; nothing was sent.
    #[error("{0}")]
    Shed(#[from] Shed),
    /// The last attempt brought no complete answer.
    #[error("{error} (attempts: {attempts})")]
    Call {
        /// What went wrong, the last time.
        #[source]
        error: CallError,
        /// Attempts made.
        attempts: u32,
    },
}

impl Outbound {
    /// Sends a request as [`Outbound::open`] does, and reads the whole answer. Once a success has begun to arrive, the
    /// request is never sent again, even if the body breaks off.
    ///
    /// # Errors
    /// When there is no complete answer.
    pub async fn send(&self, call: &Call, policy: &Policy) -> Result<Answer, SendError> {
        let until = Instant::now() + policy.deadline;
        let (reply, attempts) = self.open_until(call, &Handling::from(policy), until).await?;
        let answer = timeout_at(until, reply.collect()).await.unwrap_or(Err(CallError::Timeout(policy.deadline)));
        answer.map_err(|error| SendError::Call { error, attempts })
    }

    /// Sends a request when the rate limit has room for it, again where the policy and the request allow it, and gives
    /// the head of the last answer and its body. Dropping the future stops at once, whatever it waits for.
    ///
    /// A 429 that is not, or no longer, retried comes back as it is, with its `Retry-After`.
    ///
    /// # Errors
    /// When the request was not let go, or the last attempt brought no answer.
    pub async fn open(&self, call: &Call, policy: &Policy) -> Result<Reply, SendError> {
        self.open_handled(call, &Handling::from(policy)).await
    }

    /// [`Outbound::open`] with a policy of which parts may be off.
    pub(crate) async fn open_handled(&self, call: &Call, handling: &Handling) -> Result<Reply, SendError> {
        let until = Instant::now() + handling.deadline;
        self.open_until(call, handling, until).await.map(|(reply, _)| reply)
    }

    async fn open_until(&self, call: &Call, handling: &Handling, until: Instant) -> Result<(Reply, u32), SendError> {
        let Relayed { answer, attempts, .. } =
            self.run(&mut Outgoing::of(call), handling, Reading::Stream, until).await?;
        Ok((Reply::from(*answer), attempts))
    }

    /// All attempts of a request: waits for the rate limit, sends, and decides whether to do it again.
    pub(super) async fn run(
        &self,
        outgoing: &mut Outgoing<'_>,
        handling: &Handling,
        reading: Reading,
        until: Instant,
    ) -> Result<Relayed, SendError> {
        let Route { bucket, entity, .. } = outgoing.route;
        self.flow.begin();
        let (mut attempts, mut waited) = (0, Duration::ZERO);
        let mut last: Option<Attempted> = None;
        loop {
            let permit = match handling.pace {
                None => self.flow.pacer.pass(bucket, entity),
                Some(turn) => {
                    let patience = turn.max_wait.min(until.saturating_duration_since(Instant::now()));
                    let permit = self.flow.pacer.acquire(bucket, entity, turn.priority, patience).await;
                    match (permit, last.take()) {
                        (Ok(permit), _) => permit,
                        (Err(shed), None) => return Err(shed.into()),
                        // What Clerk said is worth more than that we may not ask again.
                        (Err(_), Some(last)) => return last.finish(attempts, waited),
                    }
                }
            };
            waited += permit.waited();
            attempts += 1;
            self.flow.count_attempt();
            let from = Instant::now();
            let timeout = handling.attempt_timeout.min(until.saturating_duration_since(from));
            let result = self.attempt(outgoing, permit, reading, from + timeout, timeout).await;
            let mut attempted = Attempted { result, took: from.elapsed() };
            let Some(retry) = &handling.retry else { return attempted.finish(attempts, waited) };
            let left = until.saturating_duration_since(Instant::now());
            let standing = Standing { attempts, repeat: outgoing.repeat(), left };
            match self.flow.decide(retry, standing, outcome(&attempted.result)) {
                Decision::Stop(_) => return attempted.finish(attempts, waited),
                Decision::Retry { after, .. } => {
                    // Kept in case that there is no next one. It must not take the place of the next one, though.
                    if let Ok(opened) = &mut attempted.result {
                        opened.body.release();
                    }
                    last = Some(attempted);
                    sleep(after).await;
                }
            }
        }
    }
}

/// An attempt, and how long it took.
#[derive(Debug)]
struct Attempted {
    result: Result<Box<Opened>, CallError>,
    took: Duration,
}

impl Attempted {
    fn finish(self, attempts: u32, waited: Duration) -> Result<Relayed, SendError> {
        match self.result {
            Ok(opened) => Ok(Relayed { answer: opened, attempts, waited, took: self.took }),
            Err(error) => Err(SendError::Call { error, attempts }),
        }
    }
}

fn outcome(result: &Result<Box<Opened>, CallError>) -> Outcome {
    let (trouble, retry_after) = match result {
        Ok(opened) => (Trouble::of_status(opened.head.status), opened.observation.quota.retry_after),
        Err(CallError::Upstream(error)) => (Trouble::of_error(error.kind()), None),
        Err(CallError::Timeout(_)) => (Some(Trouble::Lost), None),
        Err(CallError::Key(_) | CallError::Request(_) | CallError::BodyTooLarge { .. }) => (None, None),
    };
    trouble.map_or(Outcome::Final, |trouble| Outcome::Failed { trouble, retry_after })
}
