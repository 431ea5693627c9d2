//! A request after admission: forwarding it, and returning its response.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Response};

use super::error_response::{ATTEMPTS, DECISION, ErrorResponse, WAITED_MS};
use super::headers;
use super::routing_table::InstanceRuntime;
use super::turn::Turn;
use super::upload::{UploadError, in_memory};
use super::upstream_request::UpstreamRequest;
use crate::gateway::accounting::decision::Decision;
use crate::gateway::accounting::request_record::{RecordingBody, RequestRecord};
use crate::gateway::config::policy::{Mode, RoutePolicies};
use crate::gateway::reads::write_invalidation::{WriteGuard, invalidate_named, is_gone};
use clerk_client::outbound::retry::{Idempotency, RetryableError};
use clerk_client::outbound::{Credentials, ForwardRequest, ForwardedResponse, UpstreamResponse, WriteOutcome};
use clerk_client::transport::{RequestBody, error_chain};
use clerk_quota::Route;

/// A request after admission.
pub(in crate::gateway) struct Transaction {
    pub(in crate::gateway) instance: Arc<InstanceRuntime>,
    pub(in crate::gateway) request: UpstreamRequest,
    pub(in crate::gateway) route: Route,
    pub(in crate::gateway) credentials: Credentials,
    pub(in crate::gateway) turn: Turn,
    pub(in crate::gateway) policies: RoutePolicies,
    pub(in crate::gateway) upload_error: UploadError,
    pub(in crate::gateway) record: RequestRecord,
}

impl Transaction {
    /// Whether a policy may answer the request without Clerk.
    pub(in crate::gateway) fn is_read(&self, body: &RequestBody) -> bool {
        let policies = self.policies;
        let has_policy = [policies.cache, policies.coalesce, policies.batch].into_iter().any(|it| it != Mode::Off);
        has_policy && !body.is_stream()
    }

    /// Forwards the request to Clerk and returns the response.
    pub(in crate::gateway) async fn forward(mut self: Box<Self>, mut body: RequestBody) -> Response<Body> {
        let (route, credentials, turn, policies) = (self.route, self.credentials, self.turn, self.policies);
        let (idempotency, caller) = (policies.idempotency(self.request.method()), self.record.caller);
        if policies.retry.is_on() && idempotency != Idempotency::NonIdempotent {
            // Retries need the whole body in memory.
            body = match Box::pin(in_memory(body)).await {
                Ok(body) => body,
                Err(_) => {
                    return local_response(ErrorResponse::incomplete_request(self.upload_error.blame()), self.record);
                }
            };
        }
        let request = self.request;
        let write = WriteGuard::of(&self.instance, request.method(), route.template, request.path());
        let path = self.instance.policies.looks_at_caches().then(|| request.path().to_owned());
        if !self.record.dry_run.is_spared() {
            self.record.dry_run.set_pace(self.instance.forecast_pace(&policies, route, turn));
        }
        let head = request.into_head();
        let forward_request = ForwardRequest { head, omitted: &[], body, route, idempotency, credentials, caller };
        match self
            .instance
            .outbound
            .forward(forward_request, &self.instance.policies.execute_options(&policies, turn.queue()))
            .await
        {
            Ok(forwarded) if !headers::is_final(&forwarded.response.head) => {
                local_response(ErrorResponse::unexpected_response(forwarded.attempts), self.record)
            }
            Ok(forwarded) => {
                let status = forwarded.response.head.status;
                // Clerk rejected the request, so that nothing changed, unless an earlier attempt was executed. That
                // includes a hidden one on an idle connection that closed.
                let is_first = forwarded.attempts == 1 && idempotency != Idempotency::Idempotent;
                if let Some(write) = write {
                    Box::pin(write.finish(WriteOutcome::of_status(status, is_first))).await;
                }
                if let Some(path) = path.filter(|_| is_gone(status)) {
                    Box::pin(invalidate_named(&self.instance, route.template, &path)).await;
                }
                if policies.retry == Mode::Shadow {
                    let trouble = RetryableError::of_status(status);
                    self.record.dry_run.retried = trouble.is_some_and(|trouble| idempotency.allows(trouble));
                }
                self.instance.reload_key_on_unauthorized(credentials, status);
                respond(forwarded, &self.instance, self.record)
            }
            Err(error) => {
                if let Some(write) = write {
                    Box::pin(write.finish(WriteOutcome::of_error(&error))).await;
                }
                let client_error = self.upload_error.of_the_client();
                let answer = match client_error {
                    Some(client_error) => ErrorResponse::incomplete_request(client_error),
                    None => ErrorResponse::request_failed(&error, &mut self.record),
                };
                upstream_error(&self.instance, answer, &error, self.record)
            }
        }
    }
}

/// Returns Clerk's response to the client.
pub(in crate::gateway) fn respond(
    forwarded: ForwardedResponse,
    instance: &InstanceRuntime,
    mut record: RequestRecord,
) -> Response<Body> {
    let ForwardedResponse { response: answer, attempts, waited, latency } = forwarded;
    let UpstreamResponse { mut head, body, .. } = *answer;
    headers::response(&mut head);
    let decision = Decision::of(attempts, waited);
    add_decision_headers(&mut head.headers, decision, attempts, waited);
    record.finish(head.status, decision);
    record.upstream = Some(latency);
    let body = RecordingBody::new(body, instance.policies.body_idle_timeout, record);
    Response::from_parts(head, Body::new(body))
}

/// Adds headers that describe the decision, unless the request was simply forwarded.
pub(in crate::gateway) fn add_decision_headers(
    headers: &mut HeaderMap,
    decision: Decision,
    attempts: u32,
    waited: Duration,
) {
    if decision == Decision::Forwarded {
        return;
    }
    headers.insert(&DECISION, HeaderValue::from_static(decision.as_str()));
    if attempts > 1 {
        headers.insert(&ATTEMPTS, HeaderValue::from(attempts));
    }
    if !waited.is_zero() {
        let millis = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        headers.insert(&WAITED_MS, HeaderValue::from(millis));
    }
}

/// An error response for a request without a response from Clerk. The cause, which contains host names, is logged.
pub(in crate::gateway) fn upstream_error(
    instance: &InstanceRuntime,
    answer: ErrorResponse,
    error: &(dyn Error + 'static),
    record: RequestRecord,
) -> Response<Body> {
    tracing::debug!(clerk_instance = &*instance.name, error = error_chain(error), code = answer.code(), "no answer");
    local_response(answer, record)
}

pub(in crate::gateway) fn local_response(answer: ErrorResponse, mut record: RequestRecord) -> Response<Body> {
    record.finish(answer.status, answer.decision);
    answer.into_response()
}
