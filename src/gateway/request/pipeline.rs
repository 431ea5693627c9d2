//! The phases of a request.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use http::{Method, Request, Response, request};
use tokio::time::Instant;

use super::error_response::ErrorResponse;
use super::headers::{self, RequestRejection};
use super::identify::{Identity, Owner};
use super::logged_request::logged_request;
use super::own_paths::{OwnPath, is_delivery};
use super::routing_table::RoutingTable;
use super::transaction::{Transaction, local_response};
use super::turn::{Turn, enforced};
use super::upload::upload;
use super::upstream_request::UpstreamRequest;
use super::webhooks::WebhookEndpoint;
use crate::gateway::Gateway;
use crate::gateway::accounting::counters::{DryRunCounts, RequestCounters};
use crate::gateway::accounting::credential_shape::CredentialShape;
use crate::gateway::accounting::decision::Decision;
use crate::gateway::accounting::request_record::{CLIENT_GONE, RequestRecord};
use crate::gateway::spans::RequestSpan;
use clerk_client::limiter::Priority;
use clerk_client::outbound::Credentials;
use clerk_client::transport::{BodyError, RequestBody};
use clerk_quota::{CallerId, MethodLabel, route};
use prometheus_web::{Ambiguity, Handler};

impl Gateway {
    /// Handles a request. Errors become responses. Dropping the future cancels the request to Clerk.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        match self.begin(request) {
            Admission::Rejected(response) => *response,
            Admission::Accepted(transaction, body) if transaction.is_read(&body) => transaction.answer_read().await,
            Admission::Accepted(transaction, body) if transaction.verifies() => {
                Box::pin(transaction.verify(body)).await
            }
            Admission::Accepted(transaction, body) => transaction.forward(body).await,
        }
    }

    /// The synchronous part: identifies the request and selects its policies.
    fn begin<B>(&self, request: Request<B>) -> Admission
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        let from = Instant::now();
        let table = self.routing_table.load_full();
        let (head, body) = request.into_parts();
        let method = MethodLabel::from(&head.method);
        let own_path = OwnPath::of(head.uri.path(), self.webhooks.as_ref().map(WebhookEndpoint::path));
        let is_page = own_path == Some(OwnPath::Page);
        let is_ours = own_path == Some(OwnPath::Near) || is_delivery(&head.headers);
        let span = self.tracer.as_ref().map(|tracer| tracer.begin(method, &head.headers));
        let identity = match self.admit(&table, &head, is_ours) {
            Ok(identity) => identity,
            Err(rejection) => {
                let unknown_keys = (&table.unknown_keys.name, &table.unknown_keys.counters);
                let record = self.record(unknown_keys, from, (route::OTHER, method), CallerId::UNNAMED, span);
                return Admission::Rejected(Box::new(local_response(ErrorResponse::rejected(rejection), record)));
            }
        };
        // Routes are matched on the same bytes that are sent.
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let route = route::find(head.method.as_str(), path.as_bytes());
        let instance = match identity.owner {
            Owner::Instance(place) => table.instances.get(place),
            Owner::Unknown(shape) => table.unknown_keys.forward(shape, head.uri.path()),
        };
        let unknown = match identity.owner {
            Owner::Instance(_) => None,
            Owner::Unknown(shape) => Some(shape),
        };
        let Some(instance) = instance else {
            let shape = unknown.unwrap_or(CredentialShape::Other);
            self.unknown_credentials.rejected(shape);
            let unknown_keys = (&table.unknown_keys.name, &table.unknown_keys.counters);
            let record = self.record(unknown_keys, from, (route.template, method), identity.caller, span);
            return Admission::Rejected(Box::new(local_response(ErrorResponse::unknown_key(shape), record)));
        };
        if let Some(shape) = unknown {
            self.unknown_credentials.forwarded(shape);
        }
        let counted = (&instance.name, &instance.counters);
        let mut record = self.record(counted, from, (route.template, method), identity.caller, span);
        record.priority = identity.priority;
        if is_page {
            let answer = ErrorResponse::rejected(RequestRejection::OwnPath);
            return Admission::Rejected(Box::new(local_response(answer, record)));
        }
        // Callers with unknown keys are of no instance that an operator could name.
        if unknown.is_none()
            && let Err(shed) = instance.outbound.limits.limiter.check_paused(identity.caller)
        {
            let answer = ErrorResponse::throttled(&shed, &mut record);
            return Admission::Rejected(Box::new(local_response(answer, record)));
        }
        let policies = instance.policies.decide(&head.method, &route);
        // A response to a machine key is only for that machine.
        let policies = if identity.is_machine { policies.without_sharing() } else { policies };
        let (turn, rules) = Turn::of(&identity, instance);
        let policies = enforced(policies, rules);
        let (body, upload_error) = upload(body);
        let credentials = identity.credentials;
        let instance = Arc::clone(instance);
        let Ok(mut request) = UpstreamRequest::new(head, &instance.target, body.is_of_unknown_length()) else {
            return Admission::Rejected(Box::new(local_response(ErrorResponse::no_address(), record)));
        };
        if let Some(parent) = record.span.as_ref().and_then(RequestSpan::parent) {
            request.set_parent(parent);
        }
        if let Some(log) = &instance.access_log {
            let may_share = unknown.is_none() && !identity.is_machine;
            let logged = logged_request(log, &request, &instance, route, (credentials, turn, policies), may_share);
            request.set_logged(logged);
        }
        let transaction =
            Box::new(Transaction { instance, request, route, credentials, turn, policies, upload_error, record });
        Admission::Accepted(transaction, body)
    }

    fn admit(&self, table: &RoutingTable, head: &request::Parts, is_ours: bool) -> Result<Identity, RequestRejection> {
        match head.extensions.get::<Ambiguity>() {
            Some(Ambiguity::Framing) => return Err(RequestRejection::Framing),
            Some(Ambiguity::Fragment) => return Err(RequestRejection::Fragment),
            None => {}
        }
        headers::check(head)?;
        if is_ours {
            return Err(RequestRejection::OwnPath);
        }
        let identity = table.credentials.identify(head, &self.callers)?;
        // A TRACE response may contain the whole request (RFC 9110, section 9.3.8), and the holder of a token must not
        // see the key.
        if head.method == Method::TRACE && identity.credentials == Credentials::Instance {
            return Err(RequestRejection::Trace);
        }
        Ok(identity)
    }

    fn record(
        &self,
        (instance, counters): (&Arc<str>, &Arc<RequestCounters>),
        from: Instant,
        (template, method): (&'static str, MethodLabel),
        caller: CallerId,
        span: Option<RequestSpan>,
    ) -> RequestRecord {
        RequestRecord {
            instance: Arc::clone(instance),
            counters: Arc::clone(counters),
            callers: Arc::clone(&self.callers),
            from,
            template,
            caller,
            method,
            priority: Priority::default(),
            code: CLIENT_GONE,
            decision: Decision::Abandoned,
            shed: None,
            upstream: None,
            dry_run: DryRunCounts::default(),
            span,
        }
    }
}

/// The result of the synchronous part.
enum Admission {
    Rejected(Box<Response<Body>>),
    Accepted(Box<Transaction>, RequestBody),
}

impl Handler for Gateway {
    /// Paths contain user IDs.
    const LOGS_PATHS: bool = false;
    /// Responses are streamed from Clerk, or shared.
    const HOLDS_RESPONSES: bool = false;

    async fn handle(&self, request: Request<Body>, _peer: SocketAddr) -> Response<Body> {
        match &self.webhooks {
            Some(hooks) if hooks.is_for(request.uri().path()) => Box::pin(hooks.handle(request)).await,
            _ => Self::handle(self, request).await,
        }
    }
}
