//! Reads that need no request of their own: answers that are kept, shared with others who ask the same, or a part of a
//! list that several look-ups share.

use std::sync::{Arc, OnceLock};

use axum::body::Body;
use http::header::{
    ACCEPT, AGE, CACHE_CONTROL, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, PRAGMA,
    RANGE, RETRY_AFTER,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, request};
use parking_lot::Mutex;

use super::answer::Own;
use super::decision::{Decision, Saving};
use super::fetch::{Cost, Fetcher, Why};
use super::handle::{Exchange, hand_back, no_answer, say, spent};
use super::options::Instance;
use super::parameters::parameters;
use super::policy::{Policies, Switch};
use clerk_client::cache::{self, Asked, Hit, Key, Stored, Urgency};
use clerk_client::clerk::Error;
use clerk_client::outbound::limiter::Priority;
use clerk_client::outbound::retry::Trouble;
use clerk_client::transport::RequestBody;
use clerk_client::webhook::{Tag, tags_of_route};
use clerk_quota::{Bucket, Route};

/// The route by which single users are looked up.
pub(super) const USER: &str = "/v1/users/{user_id}";

/// The header that says which version of the Backend API a client speaks.
pub(super) static API_VERSION: HeaderName = HeaderName::from_static("clerk-api-version");

/// Who sends one of these wants a part of an answer, or one only if it is another than the client's own.
static OF_ONE_CLIENT: [HeaderName; 6] =
    [RANGE, IF_RANGE, IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE];

/// What a read asks for.
pub(super) struct Read {
    key: Key,
    tags: Vec<Tag>,
    /// Whether webhooks tell when the answer changes.
    is_tagged: bool,
    /// The user, where it looks up a single one and nothing else.
    user: Option<String>,
}

impl Read {
    /// None where the answer may depend on more than is known to us, or the client wants Clerk's own.
    pub(super) fn of(head: &request::Parts, route: Route, instance: &Instance) -> Option<Self> {
        if head.method != Method::GET {
            return None;
        }
        let wishes = Wishes::of(&head.headers)?;
        let (path, query) = (head.uri.path(), head.uri.query());
        let parameters = parameters(route.template, path)?;
        let names: Vec<&str> = parameters.iter().map(AsRef::as_ref).collect();
        let mut tags = tags_of_route(route.template, &names);
        let is_tagged = !tags.is_empty();
        if !is_tagged {
            // A write through the gateway may change it, too.
            tags.push(Tag::Everything);
        }
        let asked = Asked {
            method: "GET",
            path,
            query,
            accept: wishes.accept,
            accept_encoding: None,
            api_version: wishes.api_version,
        };
        let user = (route.template == USER && query.is_none()).then(|| names.first().map(|id| (*id).to_owned()));
        Some(Self { key: instance.shared.cache.key(&asked), tags, is_tagged, user: user.flatten() })
    }
}

/// What the headers of a read say of the answer that is wanted.
struct Wishes<'a> {
    accept: Option<&'a [u8]>,
    api_version: Option<&'a [u8]>,
}

impl<'a> Wishes<'a> {
    /// None where the client wants Clerk's own answer, a part of one, or contradicts itself. One look at all names costs
    /// less than asking for each.
    fn of(headers: &'a HeaderMap) -> Option<Self> {
        let mut wishes = Self { accept: None, api_version: None };
        for (name, value) in headers {
            let is_twice = if *name == ACCEPT {
                wishes.accept.replace(value.as_bytes()).is_some()
            } else if *name == API_VERSION {
                wishes.api_version.replace(value.as_bytes()).is_some()
            } else {
                false
            };
            // RFC 9111, sections 5.2.1 and 5.4.
            let wants_fresh = (*name == CACHE_CONTROL && says(value, &["no-cache", "no-store"]))
                || (*name == PRAGMA && says(value, &["no-cache"]));
            if is_twice || wants_fresh || OF_ONE_CLIENT.contains(name) {
                return None;
            }
        }
        Some(wishes)
    }
}

/// Whether one of these directives is among the value's.
fn says(value: &HeaderValue, directives: &[&str]) -> bool {
    let said = value.to_str().unwrap_or_default().split(',').map(str::trim);
    said.into_iter().any(|said| directives.iter().any(|directive| said.eq_ignore_ascii_case(directive)))
}

impl Exchange {
    /// Answers a read under its policies.
    pub(super) async fn answer_read(mut self: Box<Self>) -> Response<Body> {
        let Some(read) = Read::of(&self.head, self.route, &self.instance) else {
            return self.forward(RequestBody::empty()).await;
        };
        let instance = Arc::clone(&self.instance);
        let mut policies = self.policies;
        if !read.is_tagged && !policies.is_explicit {
            policies.cache = Switch::Off;
        }
        if read.user.is_none() {
            policies.batch = Switch::Off;
        }
        let urgency = self.urgency(policies);
        let shadow = &mut self.seen.shadow;
        let ahead = instance.shared.look_ahead(&read.key, &read.tags, &policies, urgency, shadow).await;
        let acts = [policies.cache, policies.coalesce, policies.batch].iter().any(|policy| policy.is_on());
        let response = if acts { self.share(read, policies).await } else { self.forward(RequestBody::empty()).await };
        ahead.keep(response.status(), response.headers(), instance.outbound.clock.wall()).await;
        response
    }

    async fn share(mut self: Box<Self>, read: Read, policies: Policies) -> Response<Body> {
        // What is answered from the cache needs none.
        let fetcher = OnceLock::new();
        let fetch = || {
            let fetcher = Arc::clone(fetcher.get_or_init(|| Arc::new(self.fetcher(&read, policies))));
            // In a box, since each step of the way would keep a copy of it.
            Box::pin(async move { fetcher.fetch().await })
        };
        let answer = if policies.cache.is_on() || policies.coalesce.is_on() {
            let keeping = if policies.cache.is_on() {
                // Better an old answer than none while Clerk cannot give one.
                cache::Policy { stale_if_error: policies.ttl, ..cache::Policy::fresh_for(policies.ttl) }
            } else {
                cache::Policy::coalesce_only()
            };
            let keeping = cache::Policy { urgency: self.urgency(policies), ..keeping };
            self.instance.shared.cache.get_or_fetch(read.key, &read.tags, keeping, fetch).await
        } else {
            fetch().await.map(|answer| (answer, Hit::Fetched)).map_err(Arc::new)
        };
        let (cost, large) =
            fetcher.get().map(|fetcher| (*fetcher.cost.lock(), fetcher.large.lock().take())).unwrap_or_default();
        self.seen.shadow.queued = cost.would_wait;
        match answer {
            // A key that is refused says nothing of another one of the same instance.
            Ok((answer, Hit::Coalesced)) if is_of_the_key(answer.status()) => {
                Box::pin(self.forward(RequestBody::empty())).await
            }
            Ok((answer, hit)) => self.give(answer, hit, cost),
            Err(why) => match (large, &*why) {
                (Some(relayed), _) => hand_back(relayed, &self.instance, self.route, self.seen),
                (None, Why::Unshareable) => Box::pin(self.forward(RequestBody::empty())).await,
                (None, Why::Send(error)) => {
                    let is_limited = self.route.bucket != Bucket::Unlimited;
                    self.seen.spent = if cost.is_ours && is_limited { spent(error) + cost.lists } else { 0 };
                    no_answer(&self.instance, Own::failed(error), error, self.seen)
                }
                (None, Why::List(error)) => match &**error {
                    Error::Shed(shed) => no_answer(&self.instance, Own::shed(shed), shed, self.seen),
                    Error::Transport { source, .. } => {
                        no_answer(&self.instance, Own::broken(source), source, self.seen)
                    }
                    _ => Box::pin(self.forward(RequestBody::empty())).await,
                },
                (None, Why::Broken(error)) => no_answer(&self.instance, Own::broken(error), error, self.seen),
            },
        }
    }

    /// Who goes first does not stand in the queue with those who go last.
    const fn urgency(&self, policies: Policies) -> Urgency {
        match self.priority {
            Priority::Low if policies.pace.is_on() => Urgency::Patient,
            Priority::Low | Priority::High => Urgency::Urgent,
        }
    }

    fn fetcher(&self, read: &Read, policies: Policies) -> Fetcher {
        Fetcher {
            instance: Arc::clone(&self.instance),
            head: Arc::clone(&self.head),
            route: self.route,
            authorization: self.authorization,
            policies,
            priority: self.priority,
            user: read.user.clone().filter(|_| policies.batch.is_on()),
            cost: Mutex::default(),
            large: Mutex::default(),
        }
    }

    fn give(mut self, answer: Stored, hit: Hit, cost: Cost) -> Response<Body> {
        let (status, mut headers, body) = match hit.age() {
            Some(age) => {
                let mut headers = kept(answer.headers());
                headers.insert(AGE, HeaderValue::from(age.as_secs()));
                (answer.status(), headers, answer.body().clone())
            }
            None => answer.into_parts(),
        };
        let decision = match hit {
            Hit::Memory { .. } | Hit::Redis { .. } => Decision::CacheHit,
            Hit::Stale { .. } => Decision::Stale,
            Hit::Coalesced => Decision::Coalesced,
            Hit::Fetched if cost.is_batched => Decision::Batched,
            Hit::Fetched => Decision::of(cost.attempts, cost.waited),
        };
        let saving = match decision {
            Decision::CacheHit => Some(Saving::Cache),
            // Others may have asked in vain before.
            Decision::Stale if !cost.is_ours => Some(Saving::Cache),
            Decision::Coalesced => Some(Saving::Coalesce),
            Decision::Batched if !cost.has_opened => Some(Saving::Batch),
            _ => None,
        };
        if let Some(saving) = saving {
            self.seen.counts.save(saving, 1);
        }
        if hit == Hit::Fetched {
            let costs = self.route.bucket != Bucket::Unlimited;
            self.seen.spent = if costs { cost.attempts + cost.lists } else { 0 };
            self.seen.upstream = cost.took;
            self.seen.shadow.retried = self.policies.retry == Switch::Shadow && Trouble::of_status(status).is_some();
        }
        say(&mut headers, decision, cost.attempts, cost.waited);
        self.seen.ended(status, decision);
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// The headers of an answer that is given again: without quotas and when to come again, which are of the moment in which
/// Clerk answered.
fn kept(headers: &HeaderMap) -> HeaderMap {
    let is_kept = |name: &HeaderName| {
        let text = name.as_str();
        *name != RETRY_AFTER
            && !["ratelimit", "x-ratelimit", "x-rate-limit"].iter().any(|prefix| text.starts_with(prefix))
    };
    // And the age, and what we did.
    let mut kept = HeaderMap::with_capacity(headers.len() + 2);
    for (name, value) in headers.iter().filter(|(name, _)| is_kept(name)) {
        kept.append(name, value.clone());
    }
    kept
}

/// Whether it is the key that Clerk finds fault with.
fn is_of_the_key(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}
