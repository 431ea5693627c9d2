//! One request through its phases.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Method, Request, Response, request};
use tokio::time::Instant;

use super::Gateway;
use super::answer::{ATTEMPTS, ErrorResponse, WAITED_MS};
use super::callers::CallerId;
use super::counts::{DryRunCounts, RequestCounters};
use super::decision::{Decision, MethodLabel};
use super::forward::{self, RequestRejection};
use super::identify::Identity;
use super::options::{InstanceRuntime, RoutingTable};
use super::policy::{Mode, RoutePolicies};
use super::seen::{CLIENT_GONE, RecordingBody, RequestRecord};
use super::upload::{UploadError, in_memory, upload};
use super::writes::{self, WriteGuard};
use clerk_client::limiter::Priority;
use clerk_client::outbound::retry::{Idempotency, RetryableError};
use clerk_client::outbound::{Credentials, ForwardRequest, ForwardedResponse, Phase, SendError, UpstreamResponse};
use clerk_client::transport::{BodyError, RequestBody};
use clerk_quota::{Bucket, Route, route};
use prometheus_web::{Ambiguity, Handler};

impl Gateway {
    /// Answers a request. Never fails: what goes wrong is an answer, too. Dropping the future cancels the request to
    /// Clerk.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        match self.begin(request) {
            Admission::Refused(response) => *response,
            Admission::Exchange(exchange, body) if exchange.is_read(&body) => exchange.answer_read().await,
            Admission::Exchange(exchange, body) => exchange.forward(body).await,
        }
    }

    /// What needs no waiting: whose request it is, and what is to become of it.
    fn begin<B>(&self, request: Request<B>) -> Admission
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        let from = Instant::now();
        let table = self.table.load_full();
        let (head, body) = request.into_parts();
        let method = MethodLabel::from(&head.method);
        let identity = match self.admit(&table, &head) {
            Ok(identity) => identity,
            Err(refusal) => {
                let strangers = (&table.strangers.name, &table.strangers.counts);
                let seen = self.record(strangers, from, route::OTHER, CallerId::UNKNOWN, method);
                return Admission::Refused(Box::new(local_response(ErrorResponse::rejected(refusal), seen)));
            }
        };
        // The bytes that are matched are the bytes that are sent.
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let route = route::find(head.method.as_str(), path.as_bytes());
        let instance = match identity.instance {
            Some(place) => table.instances.get(place),
            None => table.strangers.forward.as_ref(),
        };
        let Some(instance) = instance else {
            let strangers = (&table.strangers.name, &table.strangers.counts);
            let seen = self.record(strangers, from, route.template, identity.caller, method);
            return Admission::Refused(Box::new(local_response(ErrorResponse::unknown_key(), seen)));
        };
        let seen = self.record((&instance.name, &instance.counts), from, route.template, identity.caller, method);
        let policies = instance.plan.decide(&head.method, &route);
        let (body, fault) = upload(body);
        let authorization = identity.authorization;
        let priority = identity.priority;
        let instance = Arc::clone(instance);
        // In a box, since each step of the way would keep a copy of it.
        let head = Arc::new(head);
        let exchange = Box::new(Transaction { instance, head, route, authorization, priority, policies, fault, seen });
        Admission::Exchange(exchange, body)
    }

    fn admit(&self, table: &RoutingTable, head: &request::Parts) -> Result<Identity, RequestRejection> {
        match head.extensions.get::<Ambiguity>() {
            Some(Ambiguity::Framing) => return Err(RequestRejection::Framing),
            Some(Ambiguity::Fragment) => return Err(RequestRejection::Fragment),
            None => {}
        }
        forward::check(head)?;
        let identity = table.register.identify(&head.headers, &self.callers)?;
        // The answer may repeat all that Clerk was sent (RFC 9110, section 9.3.8), and whoever has a token has no key.
        if head.method == Method::TRACE && identity.authorization == Credentials::Instance {
            return Err(RequestRejection::Trace);
        }
        Ok(identity)
    }

    fn record(
        &self,
        (instance, counts): (&Arc<str>, &Arc<RequestCounters>),
        from: Instant,
        template: &'static str,
        caller: CallerId,
        method: MethodLabel,
    ) -> RequestRecord {
        RequestRecord {
            instance: Arc::clone(instance),
            counts: Arc::clone(counts),
            callers: Arc::clone(&self.callers),
            clock: Arc::clone(&self.clock),
            from,
            template,
            caller,
            method,
            code: CLIENT_GONE,
            decision: Decision::Abandoned,
            upstream: None,
            spent: 0,
            shadow: DryRunCounts::default(),
        }
    }
}

/// A request of which is known what is to become of it.
enum Admission {
    Refused(Box<Response<Body>>),
    Exchange(Box<Transaction>, RequestBody),
}

/// A request that is to be answered.
pub(super) struct Transaction {
    pub(super) instance: Arc<InstanceRuntime>,
    /// Shared with whoever asks for all who want the same.
    pub(super) head: Arc<request::Parts>,
    pub(super) route: Route,
    pub(super) authorization: Credentials,
    pub(super) priority: Priority,
    pub(super) policies: RoutePolicies,
    fault: UploadError,
    pub(super) seen: RequestRecord,
}

impl Transaction {
    /// Whether an answer might come from elsewhere than Clerk.
    fn is_read(&self, body: &RequestBody) -> bool {
        let policies = self.policies;
        let has_policy = [policies.cache, policies.coalesce, policies.batch].into_iter().any(|it| it != Mode::Off);
        has_policy && !body.is_stream()
    }

    /// Hands the request on to Clerk and the answer back.
    pub(super) async fn forward(mut self: Box<Self>, mut body: RequestBody) -> Response<Body> {
        let (route, authorization, priority, policies) = (self.route, self.authorization, self.priority, self.policies);
        let repeat = policies.idempotency(&self.head.method);
        if policies.retry.is_on() && repeat != Idempotency::NonIdempotent {
            // What is to be sent again has to be at hand.
            body = match Box::pin(in_memory(body)).await {
                Ok(body) => body,
                Err(_) => return local_response(ErrorResponse::incomplete_request(self.fault.blame()), self.seen),
            };
        }
        let mut head = Arc::unwrap_or_clone(self.head);
        let write = WriteGuard::of(&self.instance, &head.method, route.template, head.uri.path());
        if forward::request(&mut head, &self.instance.target, body.is_of_unknown_length()).is_err() {
            if let Some(write) = write {
                write.rejected();
            }
            return local_response(ErrorResponse::no_address(), self.seen);
        }
        self.seen.shadow.queued = self.instance.would_throttle(&policies, route, priority);
        // If the client leaves before there is an answer: from the queue nothing was sent.
        let is_limited = route.bucket != Bucket::Unlimited;
        self.seen.spent = u32::from(is_limited && !policies.pace.is_on());
        let relay = ForwardRequest {
            request: Request::from_parts(head, body),
            route,
            idempotency: repeat,
            credentials: authorization,
        };
        match self.instance.outbound.forward(relay, &self.instance.plan.execute_options(&policies, priority)).await {
            Ok(relayed) if !forward::is_final(&relayed.response.head) => {
                local_response(ErrorResponse::unexpected_response(), self.seen)
            }
            Ok(relayed) => {
                let status = relayed.response.head.status;
                // What the client got wrong was not done. What broke at Clerk may have been, and so may an earlier attempt,
                // or a request on an idle connection that just closed.
                let is_first = relayed.attempts == 1 && repeat != Idempotency::Idempotent;
                match write {
                    Some(write) if status.is_client_error() && is_first => write.rejected(),
                    Some(write) => Box::pin(write.done()).await,
                    None => {}
                }
                if policies.retry == Mode::Shadow {
                    let trouble = RetryableError::of_status(status);
                    self.seen.shadow.retried = trouble.is_some_and(|trouble| repeat.allows(trouble));
                }
                self.instance.reload_key_on_unauthorized(authorization, status);
                respond(relayed, &self.instance, route, self.seen)
            }
            Err(error) => {
                match write {
                    Some(write) if writes::may_be_done(&error) => Box::pin(write.done()).await,
                    Some(write) => write.rejected(),
                    None => {}
                }
                self.seen.spent = if is_limited { billable_attempts(&error) } else { 0 };
                let blame = self.fault.of_the_client();
                let answer =
                    blame.map_or_else(|| ErrorResponse::request_failed(&error), ErrorResponse::incomplete_request);
                upstream_error(&self.instance, answer, &error, self.seen)
            }
        }
    }
}

/// Clerk's answer on its way back.
pub(super) fn respond(
    relayed: ForwardedResponse,
    instance: &InstanceRuntime,
    route: Route,
    mut seen: RequestRecord,
) -> Response<Body> {
    let ForwardedResponse { response: answer, attempts, waited, latency: took } = relayed;
    let UpstreamResponse { mut head, body, .. } = *answer;
    forward::response(&mut head);
    let decision = Decision::of(attempts, waited);
    add_decision_headers(&mut head.headers, decision, attempts, waited);
    seen.finish(head.status, decision);
    seen.upstream = Some(took);
    seen.spent = if route.bucket == Bucket::Unlimited { 0 } else { attempts };
    let body = RecordingBody::new(body, instance.plan.body_idle_timeout, seen);
    Response::from_parts(head, Body::new(body))
}

/// Says what we did, where it was more than to hand on.
pub(super) fn add_decision_headers(headers: &mut HeaderMap, decision: Decision, attempts: u32, waited: Duration) {
    if decision == Decision::Forwarded {
        return;
    }
    headers.insert(&super::DECISION, HeaderValue::from_static(decision.as_str()));
    if attempts > 1 {
        headers.insert(&ATTEMPTS, HeaderValue::from(attempts));
    }
    if !waited.is_zero() {
        let millis = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        headers.insert(&WAITED_MS, HeaderValue::from(millis));
    }
}

/// Attempts that Clerk may have counted, of a request without an answer.
pub(super) const fn billable_attempts(error: &SendError) -> u32 {
    match error {
        SendError::Request { error, attempts } if !matches!(error.phase(), Phase::Connect) => *attempts,
        SendError::Request { .. } | SendError::Shed(_) => 0,
    }
}

/// The answer of ours to a request that got none of Clerk's. The cause, which names hosts of ours, goes to the log.
pub(super) fn upstream_error(
    instance: &InstanceRuntime,
    answer: ErrorResponse,
    why: &dyn Display,
    seen: RequestRecord,
) -> Response<Body> {
    tracing::debug!(clerk_instance = &*instance.name, error = %why, code = answer.code(), "no answer");
    local_response(answer, seen)
}

pub(super) fn local_response(answer: ErrorResponse, mut seen: RequestRecord) -> Response<Body> {
    seen.finish(answer.status, answer.decision);
    answer.into_response()
}

impl Handler for Gateway {
    /// Paths name people.
    const LOGS_PATHS: bool = false;

    async fn handle(&self, request: Request<Body>, _peer: SocketAddr) -> Response<Body> {
        match &self.hooks {
            Some(hooks) if hooks.is_for(request.uri().path()) => Box::pin(hooks.handle(request)).await,
            _ => Self::handle(self, request).await,
        }
    }
}
