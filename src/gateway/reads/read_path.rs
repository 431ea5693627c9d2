//! Reads answered from the cache, from an identical request in flight, or from a batch of lookups.

use std::sync::{Arc, OnceLock};

use axum::body::Body;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Method, Response};
use parking_lot::Mutex;

use super::instance_state::LookUpKind;
use super::shareable::RequestDirectives;
use super::upstream_fetch::Fetcher;
use crate::gateway::accounting::access_log::{AccessLog, LoggedRequest};
use crate::gateway::config::policy::{Mode, RoutePolicies};
use crate::gateway::request::transaction::Transaction;
use crate::gateway::request::upstream_request::UpstreamRequest;
use clerk_client::cache::{self, Cache, CacheKey, CacheKeyParts, Hit};
use clerk_client::outbound::Credentials;
use clerk_client::transport::RequestBody;
use clerk_client::webhook::{ReadTags, Tag, tags_of_read};
use clerk_quota::Route;

/// The route that looks up a single user.
pub(crate) const USER: &str = "/v1/users/{user_id}";

/// The cache key and tags of a read.
pub(in crate::gateway) struct ReadRequest {
    key: CacheKey,
    tags: Vec<Tag>,
    /// Whether webhooks report changes of the response.
    is_tagged: bool,
    /// The user ID, if the request only looks up a single user.
    user: Option<String>,
}

impl ReadRequest {
    /// `None` if the response may depend on more than the cache key contains, or if the client wants a fresh response.
    /// Everything is derived from the request that is sent upstream.
    pub(in crate::gateway) fn of(
        request: &UpstreamRequest,
        route: Route,
        credentials: Credentials,
        cache: &Cache,
    ) -> Option<Self> {
        if *request.method() != Method::GET {
            return None;
        }
        // Client credentials without an `Authorization` field are tied to the connection.
        if credentials == Credentials::Client && !request.headers().contains_key(AUTHORIZATION) {
            return None;
        }
        let directives = RequestDirectives::of(request.headers())?;
        let (path, query) = (request.path(), request.query());
        let ReadTags { tags, is_covered } = tags_of_read(route.template, path)?;
        let asked = CacheKeyParts {
            method: "GET",
            path,
            query,
            accept: directives.accept.map(HeaderValue::as_bytes),
            accept_encoding: None,
            api_version: directives.api_version.map(HeaderValue::as_bytes),
        };
        let is_look_up = route.template == USER && query.is_none() && directives.accepts_json();
        let id = |tag: &Tag| if let Tag::User(id) = tag { Some(String::from(&**id)) } else { None };
        let user = if is_look_up { tags.iter().find_map(id) } else { None };
        Some(Self { key: cache.key(&asked), tags, is_tagged: is_covered, user })
    }

    /// What the access log says of it.
    pub(in crate::gateway) fn logged(&self, log: &AccessLog, kind: &LookUpKind) -> LoggedRequest {
        LoggedRequest {
            resource: Some(log.hash(&self.key)),
            batch: self.user.is_some().then(|| log.hash(kind)),
            shows: log.tags(&self.tags),
            changes: Vec::new(),
        }
    }
}

impl Transaction {
    /// Answers a read under its policies.
    pub(in crate::gateway) async fn answer_read(mut self: Box<Self>) -> Response<Body> {
        let cache = &self.instance.state.cache;
        let Some(read) = ReadRequest::of(&self.request, self.route, self.credentials, cache) else {
            return self.forward(RequestBody::empty()).await;
        };
        let instance = Arc::clone(&self.instance);
        let mut policies = self.policies;
        if !read.is_tagged && !policies.is_explicit {
            policies.cache = Mode::Off;
        }
        if read.user.is_none() {
            policies.batch = Mode::Off;
        }
        let sender = self.turn.sharing(policies);
        let shadow = &mut self.record.dry_run;
        let ahead = instance.state.dry_run(&read.key, &read.tags, &policies, sender, shadow).await;
        let is_shared = shadow.cache_hit || shadow.coalesced;
        let acts = [policies.cache, policies.coalesce, policies.batch].iter().any(|policy| policy.is_on());
        if !acts && !is_shared && policies.batch == Mode::Shadow {
            let kind = LookUpKind::of(self.request.headers(), self.turn, policies);
            self.record.dry_run.batched = instance.state.dry_run_batch(&read.key, kind);
        }
        let response =
            if acts { self.coalesce(read, policies).await } else { self.forward(RequestBody::empty()).await };
        ahead.keep(response.status(), response.headers(), instance.outbound.clock.wall()).await;
        response
    }

    async fn coalesce(self: Box<Self>, read: ReadRequest, policies: RoutePolicies) -> Response<Body> {
        // Cache hits need no fetcher.
        let fetcher = OnceLock::new();
        let fetch = || {
            let fetcher = Arc::clone(fetcher.get_or_init(|| Arc::new(self.fetcher(&read, policies))));
            // Boxed: otherwise each layer of futures stores a copy.
            Box::pin(async move { fetcher.fetch().await })
        };
        let answer = if policies.cache.is_on() || policies.coalesce.is_on() {
            let keeping = if policies.cache.is_on() {
                // While Clerk is unavailable, an expired response is better than an error.
                cache::CachePolicy::fresh_for(policies.ttl).stale_if_error(policies.ttl)
            } else {
                cache::CachePolicy::coalesce_only()
            };
            let keeping = keeping.sender(self.turn.sharing(policies));
            let step = self.record.span.as_ref().map(|span| span.step("cache"));
            let answer = self.instance.state.cache.get_or_fetch(read.key, &read.tags, keeping, fetch).await;
            if let Some(step) = step {
                step.finish("clerk_exporter.cache.result", answer.as_ref().map_or("error", |(_, hit)| result_of(*hit)));
            }
            answer
        } else {
            fetch().await.map(|answer| (answer, Hit::Fetched)).map_err(Arc::new)
        };
        self.respond_shared(answer, fetcher.get(), &Bytes::new()).await
    }

    fn fetcher(&self, read: &ReadRequest, policies: RoutePolicies) -> Fetcher {
        Fetcher {
            instance: Arc::clone(&self.instance),
            request: self.request.clone(),
            body: Bytes::new(),
            route: self.route,
            credentials: self.credentials,
            caller: self.record.caller,
            policies,
            turn: self.turn,
            user: read.user.clone().filter(|_| policies.batch.is_on()),
            key: read.key,
            is_spared_in_shadow: self.record.dry_run.is_spared(),
            stats: Mutex::default(),
            large: Mutex::default(),
        }
    }
}

/// Where a response came from, as the span of the lookup says it.
const fn result_of(hit: Hit) -> &'static str {
    match hit {
        Hit::Memory { .. } => "memory",
        Hit::Redis { .. } => "redis",
        Hit::Stale { .. } => "stale",
        Hit::Coalesced => "coalesced",
        Hit::Fetched => "fetched",
    }
}
