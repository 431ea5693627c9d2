//! One request through its phases.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use http::{Method, Request, Response, request};
use tokio::time::Instant;

use super::error_response::ErrorResponse;
use super::headers::{self, RequestRejection};
use super::identify::Identity;
use super::routing_table::RoutingTable;
use super::transaction::{Transaction, local_response};
use super::upload::upload;
use crate::gateway::Gateway;
use crate::gateway::accounting::counters::{DryRunCounts, RequestCounters};
use crate::gateway::accounting::decision::Decision;
use crate::gateway::accounting::request_record::{CLIENT_GONE, RequestRecord};
use clerk_client::outbound::Credentials;
use clerk_client::transport::{BodyError, RequestBody};
use clerk_quota::{CallerId, MethodLabel, route};
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
            Admission::Rejected(response) => *response,
            Admission::Accepted(transaction, body) if transaction.is_read(&body) => transaction.answer_read().await,
            Admission::Accepted(transaction, body) => transaction.forward(body).await,
        }
    }

    /// What needs no waiting: whose request it is, and what is to become of it.
    fn begin<B>(&self, request: Request<B>) -> Admission
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        let from = Instant::now();
        let table = self.routing_table.load_full();
        let (head, body) = request.into_parts();
        let method = MethodLabel::from(&head.method);
        let identity = match self.admit(&table, &head) {
            Ok(identity) => identity,
            Err(rejection) => {
                let unknown_keys = (&table.unknown_keys.name, &table.unknown_keys.counters);
                let record = self.record(unknown_keys, from, route::OTHER, CallerId::UNNAMED, method);
                return Admission::Rejected(Box::new(local_response(ErrorResponse::rejected(rejection), record)));
            }
        };
        // The bytes that are matched are the bytes that are sent.
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let route = route::find(head.method.as_str(), path.as_bytes());
        let instance = match identity.instance {
            Some(place) => table.instances.get(place),
            None => table.unknown_keys.forward.as_ref(),
        };
        let Some(instance) = instance else {
            let unknown_keys = (&table.unknown_keys.name, &table.unknown_keys.counters);
            let record = self.record(unknown_keys, from, route.template, identity.caller, method);
            return Admission::Rejected(Box::new(local_response(ErrorResponse::unknown_key(), record)));
        };
        let record = self.record((&instance.name, &instance.counters), from, route.template, identity.caller, method);
        let policies = instance.policies.decide(&head.method, &route);
        let (body, upload_error) = upload(body);
        let credentials = identity.credentials;
        let priority = identity.priority;
        let instance = Arc::clone(instance);
        // In a box, since each step of the way would keep a copy of it.
        let head = Arc::new(head);
        let transaction =
            Box::new(Transaction { instance, head, route, credentials, priority, policies, upload_error, record });
        Admission::Accepted(transaction, body)
    }

    fn admit(&self, table: &RoutingTable, head: &request::Parts) -> Result<Identity, RequestRejection> {
        match head.extensions.get::<Ambiguity>() {
            Some(Ambiguity::Framing) => return Err(RequestRejection::Framing),
            Some(Ambiguity::Fragment) => return Err(RequestRejection::Fragment),
            None => {}
        }
        headers::check(head)?;
        let identity = table.credentials.identify(&head.headers, &self.callers)?;
        // The answer may repeat all that Clerk was sent (RFC 9110, section 9.3.8), and whoever has a token has no key.
        if head.method == Method::TRACE && identity.credentials == Credentials::Instance {
            return Err(RequestRejection::Trace);
        }
        Ok(identity)
    }

    fn record(
        &self,
        (instance, counters): (&Arc<str>, &Arc<RequestCounters>),
        from: Instant,
        template: &'static str,
        caller: CallerId,
        method: MethodLabel,
    ) -> RequestRecord {
        RequestRecord {
            instance: Arc::clone(instance),
            counters: Arc::clone(counters),
            callers: Arc::clone(&self.callers),
            from,
            template,
            caller,
            method,
            code: CLIENT_GONE,
            decision: Decision::Abandoned,
            upstream: None,
            dry_run: DryRunCounts::default(),
        }
    }
}

/// A request of which is known what is to become of it.
enum Admission {
    Rejected(Box<Response<Body>>),
    Accepted(Box<Transaction>, RequestBody),
}

impl Handler for Gateway {
    /// Paths name people.
    const LOGS_PATHS: bool = false;

    async fn handle(&self, request: Request<Body>, _peer: SocketAddr) -> Response<Body> {
        match &self.webhooks {
            Some(hooks) if hooks.is_for(request.uri().path()) => Box::pin(hooks.handle(request)).await,
            _ => Self::handle(self, request).await,
        }
    }
}
