//! One request through its phases.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Method, Request, Response, request};
use tokio::time::Instant;

use super::Gateway;
use super::answer::{ATTEMPTS, Own, WAITED_MS};
use super::callers::CallerId;
use super::counts::{Counts, Shadow};
use super::decision::{Decision, MethodLabel};
use super::forward::{self, Refusal};
use super::identify::Identity;
use super::options::{Instance, Table};
use super::policy::{Policies, Switch};
use super::seen::{CLIENT_GONE, Seen, SeenBody};
use super::upload::{Fault, in_memory, upload};
use super::writes::{self, Write};
use clerk_client::outbound::limiter::Priority;
use clerk_client::outbound::retry::{Repeat, Trouble};
use clerk_client::outbound::{Authorization, Opened, Phase, Relay, Relayed, SendError};
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
            Begun::Refused(response) => *response,
            Begun::Exchange(exchange, body) if exchange.is_read(&body) => exchange.answer_read().await,
            Begun::Exchange(exchange, body) => exchange.forward(body).await,
        }
    }

    /// What needs no waiting: whose request it is, and what is to become of it.
    fn begin<B>(&self, request: Request<B>) -> Begun
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
                let seen = self.seen(strangers, from, route::OTHER, CallerId::UNKNOWN, method);
                return Begun::Refused(Box::new(own(Own::refused(refusal), seen)));
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
            let seen = self.seen(strangers, from, route.template, identity.caller, method);
            return Begun::Refused(Box::new(own(Own::unknown_key(), seen)));
        };
        let seen = self.seen((&instance.name, &instance.counts), from, route.template, identity.caller, method);
        let policies = instance.plan.decide(&head.method, &route);
        let (body, fault) = upload(body);
        let authorization = identity.authorization;
        let priority = identity.priority;
        let instance = Arc::clone(instance);
        // In a box, since each step of the way would keep a copy of it.
        let head = Arc::new(head);
        let exchange = Box::new(Exchange { instance, head, route, authorization, priority, policies, fault, seen });
        Begun::Exchange(exchange, body)
    }

    fn admit(&self, table: &Table, head: &request::Parts) -> Result<Identity, Refusal> {
        match head.extensions.get::<Ambiguity>() {
            Some(Ambiguity::Framing) => return Err(Refusal::Framing),
            Some(Ambiguity::Fragment) => return Err(Refusal::Fragment),
            None => {}
        }
        forward::check(head)?;
        let identity = table.register.identify(&head.headers, &self.callers)?;
        // The answer may repeat all that Clerk was sent (RFC 9110, section 9.3.8), and whoever has a token has no key.
        if head.method == Method::TRACE && identity.authorization == Authorization::Ours {
            return Err(Refusal::Trace);
        }
        Ok(identity)
    }

    fn seen(
        &self,
        (instance, counts): (&Arc<str>, &Arc<Counts>),
        from: Instant,
        template: &'static str,
        caller: CallerId,
        method: MethodLabel,
    ) -> Seen {
        Seen {
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
            shadow: Shadow::default(),
        }
    }
}

/// A request of which is known what is to become of it.
enum Begun {
    Refused(Box<Response<Body>>),
    Exchange(Box<Exchange>, RequestBody),
}

/// A request that is to be answered.
pub(super) struct Exchange {
    pub(super) instance: Arc<Instance>,
    /// Shared with whoever asks for all who want the same.
    pub(super) head: Arc<request::Parts>,
    pub(super) route: Route,
    pub(super) authorization: Authorization,
    pub(super) priority: Priority,
    pub(super) policies: Policies,
    fault: Fault,
    pub(super) seen: Seen,
}

impl Exchange {
    /// Whether an answer might come from elsewhere than Clerk.
    fn is_read(&self, body: &RequestBody) -> bool {
        let policies = self.policies;
        let has_policy = [policies.cache, policies.coalesce, policies.batch].into_iter().any(|it| it != Switch::Off);
        has_policy && !body.is_stream()
    }

    /// Hands the request on to Clerk and the answer back.
    pub(super) async fn forward(mut self: Box<Self>, mut body: RequestBody) -> Response<Body> {
        let (route, authorization, priority, policies) = (self.route, self.authorization, self.priority, self.policies);
        let repeat = policies.repeat(&self.head.method);
        if policies.retry.is_on() && repeat != Repeat::Never {
            // What is to be sent again has to be at hand.
            body = match Box::pin(in_memory(body)).await {
                Ok(body) => body,
                Err(_) => return own(Own::incomplete_request(self.fault.blame()), self.seen),
            };
        }
        let mut head = Arc::unwrap_or_clone(self.head);
        let write = Write::of(&self.instance, &head.method, route.template, head.uri.path());
        if forward::request(&mut head, &self.instance.target, body.is_of_unknown_length()).is_err() {
            if let Some(write) = write {
                write.refused();
            }
            return own(Own::no_address(), self.seen);
        }
        self.seen.shadow.queued = self.instance.would_wait(&policies, route, priority);
        // If the client leaves before there is an answer: from the queue nothing was sent.
        let is_limited = route.bucket != Bucket::Unlimited;
        self.seen.spent = u32::from(is_limited && !policies.pace.is_on());
        let relay = Relay { request: Request::from_parts(head, body), route, repeat, authorization };
        match self.instance.outbound.relay(relay, &self.instance.plan.handling(&policies, priority)).await {
            Ok(relayed) if !forward::is_final(&relayed.answer.head) => own(Own::unexpected_answer(), self.seen),
            Ok(relayed) => {
                let status = relayed.answer.head.status;
                // What the client got wrong was not done. What broke at Clerk may have been, and so may an earlier attempt,
                // or a request on an idle connection that just closed.
                let is_first = relayed.attempts == 1 && repeat != Repeat::Always;
                match write {
                    Some(write) if status.is_client_error() && is_first => write.refused(),
                    Some(write) => Box::pin(write.done()).await,
                    None => {}
                }
                if policies.retry == Switch::Shadow {
                    let trouble = Trouble::of_status(status);
                    self.seen.shadow.retried = trouble.is_some_and(|trouble| repeat.allows(trouble));
                }
                self.instance.heed_refusal(authorization, status);
                hand_back(relayed, &self.instance, route, self.seen)
            }
            Err(error) => {
                match write {
                    Some(write) if writes::may_be_done(&error) => Box::pin(write.done()).await,
                    Some(write) => write.refused(),
                    None => {}
                }
                self.seen.spent = if is_limited { spent(&error) } else { 0 };
                let blame = self.fault.of_the_client();
                let answer = blame.map_or_else(|| Own::failed(&error), Own::incomplete_request);
                no_answer(&self.instance, answer, &error, self.seen)
            }
        }
    }
}

/// Clerk's answer on its way back.
pub(super) fn hand_back(relayed: Relayed, instance: &Instance, route: Route, mut seen: Seen) -> Response<Body> {
    let Relayed { answer, attempts, waited, took } = relayed;
    let Opened { mut head, body, .. } = *answer;
    forward::response(&mut head);
    let decision = Decision::of(attempts, waited);
    say(&mut head.headers, decision, attempts, waited);
    seen.ended(head.status, decision);
    seen.upstream = Some(took);
    seen.spent = if route.bucket == Bucket::Unlimited { 0 } else { attempts };
    let body = SeenBody::new(body, instance.plan.body_idle_timeout, seen);
    Response::from_parts(head, Body::new(body))
}

/// Says what we did, where it was more than to hand on.
pub(super) fn say(headers: &mut HeaderMap, decision: Decision, attempts: u32, waited: Duration) {
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
pub(super) const fn spent(error: &SendError) -> u32 {
    match error {
        SendError::Call { error, attempts } if !matches!(error.phase(), Phase::Connect) => *attempts,
        SendError::Call { .. } | SendError::Shed(_) => 0,
    }
}

/// The answer of ours to a request that got none of Clerk's. The cause, which names hosts of ours, goes to the log.
pub(super) fn no_answer(instance: &Instance, answer: Own, why: &dyn Display, seen: Seen) -> Response<Body> {
    tracing::debug!(clerk_instance = &*instance.name, error = %why, code = answer.code(), "no answer");
    own(answer, seen)
}

pub(super) fn own(answer: Own, mut seen: Seen) -> Response<Body> {
    seen.ended(answer.status, answer.decision);
    answer.into_response()
}

impl Handler for Gateway {
    /// Paths name people.
    const LOGS_PATHS: bool = false;

    async fn handle(&self, request: Request<Body>, _peer: SocketAddr) -> Response<Body> {
        match &self.hooks {
            Some(hooks) if hooks.is_for(request.uri().path()) => Box::pin(hooks.answer(request)).await,
            _ => Self::handle(self, request).await,
        }
    }
}
