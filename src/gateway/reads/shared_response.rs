//! The response to a request that a policy may have answered with that of another one.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::header::{AGE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::upstream_fetch::{FetchError, FetchStats, Fetcher, body_of};
use super::write_invalidation::{invalidate_named, is_gone};
use crate::gateway::accounting::decision::{Decision, Saving};
use crate::gateway::config::policy::Mode;
use crate::gateway::request::error_response::ErrorResponse;
use crate::gateway::request::transaction::{
    Transaction, add_decision_headers, local_response, respond, upstream_error,
};
use clerk_client::cache::{CachedResponse, Hit};
use clerk_client::clerk::Error;
use clerk_client::outbound::retry::RetryableError;

impl Transaction {
    /// Returns the response, or an error response, to the client. `fetcher`: of this request, if it fetched. `body`: what
    /// is sent if the request needs a response of its own.
    pub(super) async fn respond_shared(
        mut self: Box<Self>,
        answer: Result<(CachedResponse, Hit), Arc<FetchError>>,
        fetcher: Option<&Arc<Fetcher>>,
        body: &Bytes,
    ) -> Response<Body> {
        let (stats, large) =
            fetcher.map(|fetcher| (*fetcher.stats.lock(), fetcher.large.lock().take())).unwrap_or_default();
        self.record.dry_run.set_pace(stats.pace_forecast);
        self.record.dry_run.batched = stats.shadow_batched;
        if let Ok((answer, Hit::Fetched)) = &answer
            && is_gone(answer.status())
        {
            Box::pin(invalidate_named(&self.instance, self.route.template, self.request.path())).await;
        }
        match answer {
            // A rejected key says nothing about other keys of the same instance.
            Ok((answer, Hit::Coalesced)) if !self.policies.verify.is_on() && is_of_the_key(answer.status()) => {
                Box::pin(self.forward(body_of(body))).await
            }
            Ok((answer, hit)) => self.respond_from(answer, hit, stats),
            Err(why) => match (large, &*why) {
                (Some(forwarded), _) => respond(forwarded, &self.instance, self.record),
                // A verification is a write, which is not sent again.
                (None, FetchError::Unshareable) if self.policies.verify.is_on() && stats.is_leader => {
                    local_response(ErrorResponse::unexpected_response(stats.attempts), self.record)
                }
                (None, FetchError::Unshareable) => Box::pin(self.forward(body_of(body))).await,
                // Another caller was paused or capped after this request had joined its fetch.
                (None, error) if !stats.is_leader && error.is_of_caller() => {
                    Box::pin(self.forward(body_of(body))).await
                }
                (None, FetchError::Send(error)) => {
                    let answer = ErrorResponse::request_failed(error, &mut self.record);
                    upstream_error(&self.instance, answer, error, self.record)
                }
                (None, FetchError::List(error)) => match error {
                    Error::Shed(shed) => {
                        let answer = ErrorResponse::throttled(shed, &mut self.record);
                        upstream_error(&self.instance, answer, shed, self.record)
                    }
                    Error::Transport { source, attempts } => {
                        let answer = ErrorResponse::bad_gateway(source, *attempts);
                        upstream_error(&self.instance, answer, source, self.record)
                    }
                    _ => Box::pin(self.forward(body_of(body))).await,
                },
                (None, FetchError::Broken(error)) => {
                    let answer = ErrorResponse::bad_gateway(error, stats.attempts.max(1));
                    upstream_error(&self.instance, answer, error, self.record)
                }
            },
        }
    }

    fn respond_from(mut self, answer: CachedResponse, hit: Hit, stats: FetchStats) -> Response<Body> {
        let (status, mut headers, body) = match hit.age() {
            Some(age) => {
                let mut headers = replayable_headers(answer.headers());
                headers.insert(AGE, HeaderValue::from(age.as_secs()));
                (answer.status(), headers, answer.body().clone())
            }
            None => answer.into_parts(),
        };
        let decision = match hit {
            Hit::Memory { .. } | Hit::Redis { .. } => Decision::CacheHit,
            Hit::Stale { .. } => Decision::Stale,
            Hit::Coalesced => Decision::Coalesced,
            Hit::Fetched if stats.is_batched => Decision::Batched,
            Hit::Fetched => Decision::of(stats.attempts, stats.waited),
        };
        let saving = match decision {
            Decision::CacheHit | Decision::Coalesced if self.policies.verify.is_on() => Some(Saving::Verify),
            Decision::CacheHit => Some(Saving::Cache),
            // If this request led the fetch, the upstream request was not saved.
            Decision::Stale if !stats.is_leader => Some(Saving::Cache),
            Decision::Coalesced => Some(Saving::Coalesce),
            Decision::Batched if !stats.is_batch_leader => Some(Saving::Batch),
            _ => None,
        };
        if let Some(saving) = saving {
            self.record.counters.save(saving, 1);
        }
        if hit == Hit::Fetched {
            self.record.upstream = stats.latency;
            let idempotency = self.policies.idempotency(self.request.method());
            let trouble = RetryableError::of_status(status).filter(|trouble| idempotency.allows(*trouble));
            self.record.dry_run.retried = self.policies.retry == Mode::Shadow && trouble.is_some();
        }
        add_decision_headers(&mut headers, decision, stats.attempts, stats.waited);
        self.record.finish(status, decision);
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// The headers of a replayed response. Quotas and `Retry-After` are removed: they were only valid when Clerk responded.
fn replayable_headers(headers: &HeaderMap) -> HeaderMap {
    let is_kept = |name: &HeaderName| *name != RETRY_AFTER && !ratelimit_headers::is_quota_header(name.as_str());
    // Two more for the age and the decision.
    let mut kept = HeaderMap::with_capacity(headers.len() + 2);
    for (name, value) in headers.iter().filter(|(name, _)| is_kept(name)) {
        kept.append(name, value.clone());
    }
    kept
}

/// Whether Clerk rejected the key.
fn is_of_the_key(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}
