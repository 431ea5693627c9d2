//! Reads that need no request of their own: answers that are kept, shared with others who ask the same, or a part of a
//! list that several look-ups share.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AGE, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, PRAGMA, RANGE, RETRY_AFTER, SET_COOKIE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use parking_lot::Mutex;
use tokio::time::timeout;

use super::answer::Own;
use super::decision::{Decision, Saving};
use super::forward;
use super::handle::{Exchange, own, say};
use super::options::Instance;
use super::parameters::parameters;
use super::policy::{Policies, Switch};
use crate::cache::{self, Asked, Hit, Key, Stored};
use crate::clerk::{ApiError, ClerkError};
use crate::outbound::pace::Priority;
use crate::outbound::retry::Repeat;
use crate::outbound::{Authorization, Relay, SendError};
use crate::quota::{Bucket, Route};
use crate::upstream::RequestBody;
use crate::webhook::{Tag, tags_of_route};

/// The route by which single users are looked up.
pub(super) const USER: &str = "/v1/users/{user_id}";

/// The header that says which version of the Backend API a client speaks.
pub(super) static API_VERSION: HeaderName = HeaderName::from_static("clerk-api-version");

/// Larger answers are handed on as they come and shared with nobody.
const MAX_SHARED_BYTES: usize = 4 * 1024 * 1024;

/// What a read asks for.
pub(super) struct Read {
    key: Key,
    tags: Vec<Tag>,
    /// The user, where it looks up a single one and nothing else.
    user: Option<String>,
}

impl Read {
    /// None where the answer may depend on more than is known to us, or the client wants Clerk's own.
    pub(super) fn of(head: &request::Parts, route: Route, instance: &Instance) -> Option<Self> {
        let headers = &head.headers;
        if head.method != Method::GET || headers.contains_key(RANGE) || wants_fresh(headers) || is_conditional(headers)
        {
            return None;
        }
        let (path, query) = (head.uri.path(), head.uri.query());
        let parameters = parameters(route.template, path)?;
        let names: Vec<&str> = parameters.iter().map(AsRef::as_ref).collect();
        let tags = tags_of_route(route.template, &names);
        let one = |name: &HeaderName| headers.get(name).map(HeaderValue::as_bytes);
        let several = [&ACCEPT, &API_VERSION].into_iter().any(|name| headers.get_all(name).iter().nth(1).is_some());
        if several {
            return None;
        }
        let asked = Asked {
            method: "GET",
            path,
            query,
            accept: one(&ACCEPT),
            accept_encoding: None,
            api_version: one(&API_VERSION),
        };
        let user = (route.template == USER && query.is_none()).then(|| names.first().map(|id| (*id).to_owned()));
        Some(Self { key: instance.shared.cache.key(&asked), tags, user: user.flatten() })
    }

    /// Whether webhooks tell when the answer changes.
    pub(super) fn is_tagged(&self) -> bool {
        !self.tags.is_empty()
    }
}

fn wants_fresh(headers: &HeaderMap) -> bool {
    // RFC 9111, sections 5.2.1 and 5.4.
    let says = |name: &HeaderName, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|directive| directive.trim().eq_ignore_ascii_case(word))
    };
    says(&CACHE_CONTROL, "no-cache") || says(&CACHE_CONTROL, "no-store") || says(&PRAGMA, "no-cache")
}

fn is_conditional(headers: &HeaderMap) -> bool {
    ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range"]
        .iter()
        .any(|name| headers.contains_key(*name))
}

impl Exchange {
    /// Answers a read under its policies.
    pub(super) async fn answer_read(mut self) -> Response<Body> {
        let Some(read) = Read::of(&self.head, self.route, &self.instance) else {
            return self.forward(RequestBody::empty()).await;
        };
        let instance = Arc::clone(&self.instance);
        let mut policies = self.policies;
        if !read.is_tagged() && !policies.is_explicit {
            policies.cache = Switch::Off;
        }
        if read.user.is_none() {
            policies.batch = Switch::Off;
        }
        let ahead = instance.shared.look_ahead(&read.key, &read.tags, &policies, &mut self.seen.shadow).await;
        if ![policies.cache, policies.coalesce, policies.batch].iter().any(|policy| policy.is_on()) {
            let response = self.forward(RequestBody::empty()).await;
            ahead.keep(response.status(), instance.outbound.clock.wall()).await;
            return response;
        }
        let response = self.share(read, policies).await;
        ahead.keep(response.status(), instance.outbound.clock.wall()).await;
        response
    }

    async fn share(self, read: Read, policies: Policies) -> Response<Body> {
        let fetcher = Arc::new(Fetcher {
            instance: Arc::clone(&self.instance),
            head: self.head.clone(),
            route: self.route,
            authorization: self.authorization,
            policies,
            priority: self.priority,
            user: read.user.clone().filter(|_| policies.batch.is_on()),
            own: Mutex::default(),
        });
        let answer = if policies.cache.is_on() || policies.coalesce.is_on() {
            let keeping = if policies.cache.is_on() {
                // Better an old answer than none while Clerk cannot give one.
                cache::Policy { stale_if_error: policies.ttl, ..cache::Policy::fresh_for(policies.ttl) }
            } else {
                cache::Policy::coalesce_only()
            };
            let fetch = || {
                let fetcher = Arc::clone(&fetcher);
                async move { fetcher.fetch().await }
            };
            self.instance.shared.cache.get_or_fetch(read.key, &read.tags, keeping, fetch).await
        } else {
            fetcher.fetch().await.map(|answer| (answer, Hit::Fetched)).map_err(Arc::new)
        };
        let cost = *fetcher.own.lock();
        match answer {
            Ok((answer, hit)) => self.give(&answer, hit, cost),
            Err(failure) => match &*failure {
                Failure::Unshareable => self.forward(RequestBody::empty()).await,
                Failure::Send(error) => own(Own::failed(error), self.seen),
                Failure::Batch(error) => match &**error {
                    ClerkError::Shed(shed) => own(Own::shed(shed), self.seen),
                    ClerkError::Transport { source, .. } => own(Own::broken(source), self.seen),
                    // What is wrong with a batch need not be wrong with a request of its own.
                    _ => self.forward(RequestBody::empty()).await,
                },
            },
        }
    }

    fn give(mut self, answer: &Stored, hit: Hit, cost: Cost) -> Response<Body> {
        let mut headers = answer.headers().clone();
        let decision = match hit {
            Hit::Memory { age } | Hit::Redis { age } | Hit::Stale { age } => {
                for name in answer.headers().keys().filter(|name| belongs_to_the_exchange(name)) {
                    headers.remove(name);
                }
                headers.insert(AGE, HeaderValue::from(age.as_secs()));
                if matches!(hit, Hit::Stale { .. }) { Decision::Stale } else { Decision::CacheHit }
            }
            Hit::Coalesced => Decision::Coalesced,
            Hit::Fetched if cost.is_batched => Decision::Batched,
            Hit::Fetched => Decision::of(cost.attempts, cost.waited),
        };
        let saving = match decision {
            Decision::CacheHit | Decision::Stale => Some(Saving::Cache),
            Decision::Coalesced => Some(Saving::Coalesce),
            Decision::Batched if !cost.has_opened => Some(Saving::Batch),
            _ => None,
        };
        if let Some(saving) = saving {
            self.seen.counts.save(saving, 1);
        }
        if hit == Hit::Fetched {
            let costs = self.route.bucket != Bucket::Unlimited;
            self.seen.spent = if costs { cost.attempts } else { 0 };
            self.seen.upstream = cost.took;
        }
        say(&mut headers, decision, cost.attempts, cost.waited);
        self.seen.ended(answer.status(), decision);
        let mut response = Response::new(Body::from(answer.body().clone()));
        *response.status_mut() = answer.status();
        *response.headers_mut() = headers;
        response
    }
}

/// Quotas, and when to come again, are of the moment in which Clerk answered.
fn belongs_to_the_exchange(name: &HeaderName) -> bool {
    let name = name.as_str();
    ["ratelimit", "x-ratelimit", "x-rate-limit"].iter().any(|prefix| name.starts_with(prefix))
        || name == RETRY_AFTER.as_str()
}

/// What a fetch of ours cost.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    attempts: u32,
    waited: Duration,
    took: Option<Duration>,
    is_batched: bool,
    /// Whether it was the first look-up of its list.
    has_opened: bool,
}

/// Asks Clerk for all who want the same.
struct Fetcher {
    instance: Arc<Instance>,
    head: request::Parts,
    route: Route,
    authorization: Authorization,
    policies: Policies,
    priority: Priority,
    /// The user to be looked up together with others.
    user: Option<String>,
    own: Mutex<Cost>,
}

/// Why there is no answer to be shared.
#[derive(Debug)]
enum Failure {
    Send(SendError),
    Batch(Arc<ClerkError>),
    /// It is too large, or broke off.
    Unshareable,
}

impl Fetcher {
    async fn fetch(&self) -> Result<Stored, Failure> {
        if let Some(user) = &self.user
            && let Some(answer) = self.fetch_with_others(user).await
        {
            return answer;
        }
        let mut head = self.head.clone();
        // Whoever gets the answer can read it.
        head.headers.remove(ACCEPT_ENCODING);
        forward::request(&mut head, &self.instance.target, false).map_err(|_| Failure::Unshareable)?;
        let repeat = Repeat::of(&head.method);
        let request = Request::from_parts(head, RequestBody::empty());
        let relay = Relay { request, route: self.route, repeat, authorization: self.authorization };
        let handling = self.instance.plan.handling(&self.policies, self.priority);
        let relayed = self.instance.outbound.relay(relay, &handling).await.map_err(Failure::Send)?;
        *self.own.lock() =
            Cost { attempts: relayed.attempts, waited: relayed.waited, took: Some(relayed.took), ..Cost::default() };
        let mut head = relayed.head;
        if head.status.is_informational() {
            return Err(Failure::Unshareable);
        }
        forward::response(&mut head);
        let body = timeout(self.instance.plan.deadline, Limited::new(relayed.body, MAX_SHARED_BYTES).collect()).await;
        let body = match body {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) => {
                if !error.is::<LengthLimitError>() {
                    tracing::debug!(clerk_instance = &*self.instance.name, %error, "an answer broke off");
                }
                return Err(Failure::Unshareable);
            }
            Err(_) => return Err(Failure::Unshareable),
        };
        for name in [CONTENT_LENGTH, SET_COOKIE] {
            head.headers.remove(name);
        }
        Ok(Stored::new(head.status, head.headers, body, self.instance.outbound.clock.wall()))
    }

    /// None where it is better asked for alone.
    async fn fetch_with_others(&self, user: &str) -> Option<Result<Stored, Failure>> {
        let loader = self.instance.shared.loader(&self.instance, self.head.headers.get(&API_VERSION), self.priority)?;
        // A list that is under way already may have been read before an invalidation that we come after.
        loader.forget(user);
        let (found, has_opened) = loader.raw_merged(user).await;
        let cost = Cost { attempts: u32::from(has_opened), is_batched: true, has_opened, ..Cost::default() };
        let answer = match found {
            Ok(Some(user)) => Ok(self.stored(StatusCode::OK, HeaderMap::new(), user.into_bytes())),
            Ok(None) => Ok(self.missing(user)),
            Err(error) => match &*error {
                ClerkError::Api(api) => Ok(self.refused(api)),
                ClerkError::Shed(_) if !self.policies.pace.is_on() => return None,
                ClerkError::Shed(_) | ClerkError::Transport { .. } => Err(Failure::Batch(error)),
                _ => return None,
            },
        };
        *self.own.lock() = cost;
        Some(answer)
    }

    fn stored(&self, status: StatusCode, mut headers: HeaderMap, body: Bytes) -> Stored {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Stored::new(status, headers, body, self.instance.outbound.clock.wall())
    }

    /// A user that a list was without, in the words that Clerk has for one that is asked for alone.
    fn missing(&self, user: &str) -> Stored {
        let body = serde_json::json!({
            "errors": [{
                "message": "not found",
                "long_message": format!("No user was found with id {user}."),
                "code": "resource_not_found",
            }],
            "clerk_trace_id": format!("gateway_{:016x}", fastrand::u64(..)),
        });
        self.stored(StatusCode::NOT_FOUND, HeaderMap::new(), body.to_string().into())
    }

    /// What Clerk said to a list, as it would have said it to each look-up.
    fn refused(&self, error: &ApiError) -> Stored {
        let mut headers = HeaderMap::new();
        if let Some(wait) = error.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        let body = serde_json::json!({
            "errors": [{
                "message": error.message,
                "long_message": error.message,
                "code": error.code.as_deref().unwrap_or("internal_clerk_error"),
            }],
            "clerk_trace_id": error.trace_id,
        });
        self.stored(error.status, headers, body.to_string().into())
    }
}
