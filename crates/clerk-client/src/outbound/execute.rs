//! Waits for the rate limit, sends, and retries.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::Outbound;
use super::api_request::ApiRequest;
use super::attempt::BodyMode;
use super::error::{Phase, RequestError, SendError};
use super::options::{ExecuteOptions, RequestOptions};
use super::request::OutboundRequest;
use super::response::{BufferedResponse, ForwardedResponse, StreamingResponse, UpstreamResponse};
use super::retry::{AttemptOutcome, RetryDecision, RetryState, RetryableError};
use crate::limiter::Sender;

impl Outbound {
    /// Sends a request like [`Outbound::open`] and reads the whole response.
    ///
    /// Once a success has begun to arrive, the request is not retried, even if the body breaks off.
    ///
    /// # Errors
    /// Returns an error if no complete response arrives.
    pub async fn send(&self, call: &ApiRequest, policy: &RequestOptions) -> Result<BufferedResponse, SendError> {
        let until = Instant::now() + policy.deadline;
        let (response, attempts) = self.open_until(call, &ExecuteOptions::from(policy), until).await?;
        let response =
            timeout_at(until, response.collect()).await.unwrap_or(Err(RequestError::Timeout(policy.deadline)));
        response.map_err(|error| SendError::Request { error, attempts })
    }

    /// Sends a request when the rate limit allows, retries as the policy allows, and streams the last response.
    ///
    /// Dropping the future cancels. A 429 that is not retried is returned unchanged, with its `Retry-After`.
    ///
    /// # Errors
    /// Returns an error if the limiter rejects the request or the last attempt gets no response.
    pub async fn open(&self, call: &ApiRequest, policy: &RequestOptions) -> Result<StreamingResponse, SendError> {
        self.open_with(call, &ExecuteOptions::from(policy)).await
    }

    /// [`Outbound::open`] with options that may turn off queueing or retries.
    pub(crate) async fn open_with(
        &self,
        call: &ApiRequest,
        options: &ExecuteOptions,
    ) -> Result<StreamingResponse, SendError> {
        let until = Instant::now() + options.deadline;
        self.open_until(call, options, until).await.map(|(response, _)| response)
    }

    async fn open_until(
        &self,
        call: &ApiRequest,
        options: &ExecuteOptions,
        until: Instant,
    ) -> Result<(StreamingResponse, u32), SendError> {
        let ForwardedResponse { response, attempts, .. } =
            self.run(&mut OutboundRequest::of(call), options, BodyMode::Stream, until).await?;
        Ok((StreamingResponse::from(*response), attempts))
    }

    /// Makes all attempts of a request.
    pub(super) async fn run(
        &self,
        outbound_request: &mut OutboundRequest<'_>,
        options: &ExecuteOptions,
        body_mode: BodyMode,
        until: Instant,
    ) -> Result<ForwardedResponse, SendError> {
        let (entity, caller) = (outbound_request.route.entity, outbound_request.caller());
        self.limits.begin();
        let (mut attempts, mut waited) = (0, Duration::ZERO);
        let mut last: Option<Attempted> = None;
        let mut was_sent = false;
        loop {
            let bucket = self.bucket_of(outbound_request.route);
            if let Err(shed) = self.limits.limiter.check_paused(caller) {
                return last.take().map_or(Err(shed.into()), |last| last.finish(attempts, waited));
            }
            let permit = match options.pace {
                None => self.limits.limiter.pass(bucket, entity, Sender::ANY.of(caller)),
                Some(queue) => {
                    let max_wait = queue.max_wait.min(until.saturating_duration_since(Instant::now()));
                    let sender = Sender::from(queue.priority).of(caller);
                    let permit = self.limits.limiter.acquire(bucket, entity, sender, max_wait).await;
                    // It may have been paused while it waited.
                    let permit = permit.and_then(|mut permit| match self.limits.limiter.check_paused(caller) {
                        Ok(()) => Ok(permit),
                        Err(shed) => {
                            permit.unsent();
                            Err(shed)
                        }
                    });
                    match (permit, last.take()) {
                        (Ok(permit), _) => permit,
                        (Err(shed), None) => return Err(shed.into()),
                        // Clerk's last response is more useful than the limiter's rejection.
                        (Err(_), Some(last)) => return last.finish(attempts, waited),
                    }
                }
            };
            waited += permit.waited();
            attempts += 1;
            self.limits.count_attempt();
            let from = Instant::now();
            let timeout = options.attempt_timeout.min(until.saturating_duration_since(from));
            let mut result = self.attempt(outbound_request, permit, body_mode, from + timeout, timeout).await;
            was_sent |= outbound_request.may_be_done;
            match &mut result {
                Err(RequestError::Upstream(error)) if was_sent => error.set_after_sent(),
                result => was_sent |= result.as_ref().map_or_else(|error| error.phase() != Phase::Connect, |_| true),
            }
            let mut attempted = Attempted { result, latency: from.elapsed() };
            let Some(retry) = &options.retry else { return attempted.finish(attempts, waited) };
            let left = until.saturating_duration_since(Instant::now());
            let standing = RetryState { attempts, idempotency: outbound_request.idempotency(), left };
            match self.limits.decide(retry, standing, outcome(&attempted.result)) {
                RetryDecision::Stop(_) => return attempted.finish(attempts, waited),
                RetryDecision::Retry { after, .. } => {
                    // Returned if there is no next attempt, but it must not occupy the next one's slot.
                    if let Ok(response) = &mut attempted.result {
                        response.body.release();
                    }
                    last = Some(attempted);
                    sleep(after).await;
                }
            }
        }
    }
}

/// The result of an attempt and its latency.
#[derive(Debug)]
struct Attempted {
    result: Result<Box<UpstreamResponse>, RequestError>,
    latency: Duration,
}

impl Attempted {
    fn finish(self, attempts: u32, waited: Duration) -> Result<ForwardedResponse, SendError> {
        match self.result {
            Ok(response) => Ok(ForwardedResponse { response, attempts, waited, latency: self.latency }),
            Err(error) => Err(SendError::Request { error, attempts }),
        }
    }
}

fn outcome(result: &Result<Box<UpstreamResponse>, RequestError>) -> AttemptOutcome {
    let (error, retry_after) = match result {
        Ok(response) => (RetryableError::of_status(response.head.status), response.observation.quota.retry_after),
        Err(RequestError::Upstream(error)) => (RetryableError::of_error(error.kind()), None),
        Err(RequestError::Timeout(_)) => (Some(RetryableError::NoResponse), None),
        Err(RequestError::Key(_) | RequestError::Request(_) | RequestError::BodyTooLarge { .. }) => (None, None),
    };
    error.map_or(AttemptOutcome::Final, |error| AttemptOutcome::Failed { error, retry_after })
}
