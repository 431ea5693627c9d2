//! A request that waits for the rate limit and is sent again where that may help.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::Outbound;
use super::api_request::ApiRequest;
use super::attempt::BodyMode;
use super::error::{RequestError, SendError};
use super::options::{ExecuteOptions, RequestOptions};
use super::request::OutboundRequest;
use super::response::{BufferedResponse, ForwardedResponse, StreamingResponse, UpstreamResponse};
use super::retry::{AttemptOutcome, RetryDecision, RetryState, RetryableError};
use clerk_quota::Route;

impl Outbound {
    /// Sends a request as [`Outbound::open`] does, and reads the whole answer. Once a success has begun to arrive, the
    /// request is never sent again, even if the body breaks off.
    ///
    /// # Errors
    /// When there is no complete answer.
    pub async fn send(&self, call: &ApiRequest, policy: &RequestOptions) -> Result<BufferedResponse, SendError> {
        let until = Instant::now() + policy.deadline;
        let (reply, attempts) = self.open_until(call, &ExecuteOptions::from(policy), until).await?;
        let answer = timeout_at(until, reply.collect()).await.unwrap_or(Err(RequestError::Timeout(policy.deadline)));
        answer.map_err(|error| SendError::Request { error, attempts })
    }

    /// Sends a request when the rate limit has room for it, again where the policy and the request allow it, and gives
    /// the head of the last answer and its body. Dropping the future stops at once, whatever it waits for.
    ///
    /// A 429 that is not, or no longer, retried comes back as it is, with its `Retry-After`.
    ///
    /// # Errors
    /// When the request was not let go, or the last attempt brought no answer.
    pub async fn open(&self, call: &ApiRequest, policy: &RequestOptions) -> Result<StreamingResponse, SendError> {
        self.open_with(call, &ExecuteOptions::from(policy)).await
    }

    /// [`Outbound::open`] with a policy of which parts may be off.
    pub(crate) async fn open_with(
        &self,
        call: &ApiRequest,
        handling: &ExecuteOptions,
    ) -> Result<StreamingResponse, SendError> {
        let until = Instant::now() + handling.deadline;
        self.open_until(call, handling, until).await.map(|(reply, _)| reply)
    }

    async fn open_until(
        &self,
        call: &ApiRequest,
        handling: &ExecuteOptions,
        until: Instant,
    ) -> Result<(StreamingResponse, u32), SendError> {
        let ForwardedResponse { response: answer, attempts, .. } =
            self.run(&mut OutboundRequest::of(call), handling, BodyMode::Stream, until).await?;
        Ok((StreamingResponse::from(*answer), attempts))
    }

    /// All attempts of a request: waits for the rate limit, sends, and decides whether to do it again.
    pub(super) async fn run(
        &self,
        outgoing: &mut OutboundRequest<'_>,
        handling: &ExecuteOptions,
        reading: BodyMode,
        until: Instant,
    ) -> Result<ForwardedResponse, SendError> {
        let Route { bucket, entity, .. } = outgoing.route;
        self.limits.begin();
        let (mut attempts, mut waited) = (0, Duration::ZERO);
        let mut last: Option<Attempted> = None;
        loop {
            let permit = match handling.pace {
                None => self.limits.limiter.pass(bucket, entity),
                Some(turn) => {
                    let patience = turn.max_wait.min(until.saturating_duration_since(Instant::now()));
                    let permit = self.limits.limiter.acquire(bucket, entity, turn.priority, patience).await;
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
            self.limits.count_attempt();
            let from = Instant::now();
            let timeout = handling.attempt_timeout.min(until.saturating_duration_since(from));
            let result = self.attempt(outgoing, permit, reading, from + timeout, timeout).await;
            let mut attempted = Attempted { result, took: from.elapsed() };
            let Some(retry) = &handling.retry else { return attempted.finish(attempts, waited) };
            let left = until.saturating_duration_since(Instant::now());
            let standing = RetryState { attempts, repeat: outgoing.idempotency(), left };
            match self.limits.decide(retry, standing, outcome(&attempted.result)) {
                RetryDecision::Stop(_) => return attempted.finish(attempts, waited),
                RetryDecision::Retry { after, .. } => {
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
    result: Result<Box<UpstreamResponse>, RequestError>,
    took: Duration,
}

impl Attempted {
    fn finish(self, attempts: u32, waited: Duration) -> Result<ForwardedResponse, SendError> {
        match self.result {
            Ok(opened) => Ok(ForwardedResponse { response: opened, attempts, waited, latency: self.took }),
            Err(error) => Err(SendError::Request { error, attempts }),
        }
    }
}

fn outcome(result: &Result<Box<UpstreamResponse>, RequestError>) -> AttemptOutcome {
    let (trouble, retry_after) = match result {
        Ok(opened) => (RetryableError::of_status(opened.head.status), opened.observation.quota.retry_after),
        Err(RequestError::Upstream(error)) => (RetryableError::of_error(error.kind()), None),
        Err(RequestError::Timeout(_)) => (Some(RetryableError::NoResponse), None),
        Err(RequestError::Key(_) | RequestError::Request(_) | RequestError::BodyTooLarge { .. }) => (None, None),
    };
    trouble.map_or(AttemptOutcome::Final, |trouble| AttemptOutcome::Failed { trouble, retry_after })
}
