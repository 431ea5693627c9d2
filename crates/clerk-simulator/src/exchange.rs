//! One request under `/v1`, from its arrival to its response.

use std::sync::atomic::Ordering;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};

use super::clock::{Epoch, shifted};
use super::error::ApiError;
use super::fault_responses::{self, api_error};
use super::faults::Effects;
use super::headers::{self, JSON, Trace};
use super::ids::mix;
use super::keys::Caller;
use super::limiter::Verdict;
use super::limits::SimulatedBucket;
use super::meters::MeterKey;
use super::resources::Success;
use super::route::Route;
use super::{Shared, Simulator};

/// Larger bodies are rejected with 413.
const MAX_BODY_BYTES: usize = 1 << 20;

/// Handles one request: faults of the edge, key, limiter, endpoint, headers, in this order.
pub(super) async fn serve(State(simulator): State<Simulator>, request: Request<Body>) -> Response<Body> {
    let shared = &simulator.shared;
    let is_head = request.method() == Method::HEAD;
    let version = headers::requested_version(request.headers()).cloned();
    let trace = shared.next_trace();
    let caller = shared.keys.lock().identify(request.headers());
    let effects = shared.draw_faults(&request, caller.as_ref().ok().map(|caller| caller.instance));
    if !effects.latency.is_zero() {
        tokio::time::sleep(effects.latency).await;
    }
    let mut response = match &effects.replacement {
        Some((fault, false)) => fault_responses::respond(fault, &trace).await,
        _ => match caller {
            Ok(caller) => shared.handle(&caller, request, &effects, &trace).await,
            Err(error) => api_error(&error, &trace),
        },
    };
    headers::add_common(response.headers_mut(), &trace, shared.claimed_time(), version.as_ref());
    shared.count(response.status());
    if is_head { without_body(response) } else { response }
}

impl Shared {
    /// Handles a request with a valid key: counts it, and rejects it if the budget is used up.
    async fn handle(
        &self,
        caller: &Caller,
        request: Request<Body>,
        effects: &Effects,
        trace: &Trace,
    ) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let route = Route::of(&parts.method, parts.uri.path());
        let verdict = self.take(caller.instance, &route);
        let mut response = if verdict.is_some_and(|(_, verdict)| !verdict.allowed) {
            api_error(&ApiError::too_many_requests(), trace)
        } else {
            // A counted fault comes after the work: a write is carried out and its response is lost.
            let done = match read(body).await {
                Ok(body) => self.respond(caller, &route, &parts.uri, &body),
                Err(error) => Err(error),
            };
            match (&effects.replacement, done) {
                (Some((fault, _)), _) => fault_responses::respond(fault, trace).await,
                (None, Ok(done)) => success(done),
                (None, Err(error)) => api_error(&error, trace),
            }
        };
        if let Some((bucket, verdict)) = verdict {
            let headers = response.headers_mut();
            headers::add_quota(headers, self.options.headers, bucket, &verdict, self.claimed_time());
            if !verdict.allowed {
                headers::add_retry_after(headers, verdict.retry_after);
            }
        }
        if effects.malformed_quota_headers {
            headers::corrupt_quota(response.headers_mut(), self.options.headers);
        }
        response
    }

    /// Counts the request against its budget, if it has one.
    fn take(&self, instance: usize, route: &Route<'_>) -> Option<(SimulatedBucket, Verdict)> {
        let (bucket, entity) = route.budget()?;
        let environment = self.keys.lock().instances().get(instance)?.environment;
        let quota = self.options.quota(bucket, environment);
        let key = MeterKey::new(instance, bucket, entity.as_deref());
        let mut meters = self.meters.lock();
        // Read under the lock, so that the limiter never sees time run backwards.
        Some((bucket, meters.take(key, quota, self.clock.now())))
    }

    fn draw_faults(&self, request: &Request<Body>, instance: Option<usize>) -> Effects {
        let mut faults = self.faults.lock();
        if faults.faults().rules.is_empty() {
            return Effects::default();
        }
        let keys = self.keys.lock();
        let name = instance.and_then(|index| keys.instances().get(index)).map(|instance| instance.name.as_str());
        faults.draw(request.method(), request.uri().path(), name)
    }

    /// Returns the wall-clock time that responses claim: the simulator's, shifted by the clock skew.
    fn claimed_time(&self) -> Epoch {
        shifted(self.clock.now(), self.faults.lock().faults().clock_skew_seconds)
    }

    fn next_trace(&self) -> Trace {
        let serial = self.responses.fetch_add(1, Ordering::Relaxed);
        let high = mix(self.options.seed, serial);
        Trace::new(high, mix(high, 1))
    }

    fn count(&self, status: StatusCode) {
        let mut requests = self.requests.lock();
        requests.total += 1;
        *requests.by_status.entry(status.as_u16()).or_default() += 1;
    }
}

async fn read(body: Body) -> Result<Bytes, ApiError> {
    to_bytes(body, MAX_BODY_BYTES).await.map_err(|_| ApiError::body_too_large())
}

fn success(done: Success) -> Response<Body> {
    let mut response = Response::new(Body::from(done.json));
    *response.status_mut() = done.status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// Converts a response for `HEAD`: keeps the length and drops the body.
fn without_body(response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = http_body::Body::size_hint(&body).exact() {
        parts.headers.entry(CONTENT_LENGTH).or_insert(HeaderValue::from(length));
    }
    Response::from_parts(parts, Body::empty())
}
