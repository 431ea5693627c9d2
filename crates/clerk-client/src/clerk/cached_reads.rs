//! Reads that the client's cache serves.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response};

use super::request::{Fetched, success};
use super::{Clerk, Error};
use crate::cache::{Cache, CacheKeyParts, CachePolicy, CachedResponse};
use crate::limiter::Priority;
use crate::outbound::ApiRequest;
use crate::webhook::{Tag, tags_of_read};

/// The routes whose responses are cached: single resources. Lists change with every write and are requested in many forms.
const CACHED: [&str; 3] = ["/v1/users/{user_id}", "/v1/instance", "/v1/jwks"];

const API_VERSION: HeaderName = HeaderName::from_static("clerk-api-version");
const TRACE_ID: HeaderName = HeaderName::from_static("x-clerk-trace-id");

/// The cache of a client, and how long it may serve a response.
#[derive(Debug)]
pub(super) struct ReadCache {
    pub(super) cache: Cache,
    pub(super) policy: CachePolicy,
}

/// Whether the cache may serve this request: only a header that is part of the key may differ.
pub(super) fn is_cached(request: &ApiRequest) -> bool {
    request.method == Method::GET
        && CACHED.contains(&request.route().template)
        && !request.path.contains('?')
        && request.headers.keys().all(|name| *name == API_VERSION)
}

impl Clerk {
    /// A response from the cache, else from Clerk, shared with concurrent calls for the same resource.
    pub(super) async fn read_through(
        &self,
        cache: &Arc<ReadCache>,
        request: ApiRequest,
    ) -> Result<Response<Bytes>, Error> {
        let api_version = request.headers.get(API_VERSION).cloned();
        let parts = CacheKeyParts {
            method: "GET",
            path: &request.path,
            api_version: api_version.as_ref().map(HeaderValue::as_bytes),
            ..CacheKeyParts::default()
        };
        let key = cache.cache.key(&parts);
        let tags = tags(&request);
        let priority = self.options.pace.map_or(Priority::High, |queue| queue.priority);
        let policy = CachePolicy { sender: priority.into(), ..cache.policy };
        let request = Arc::new(request);
        let fetch = || {
            let (clerk, request) = (self.clone(), Arc::clone(&request));
            async move { clerk.fetch(&request).await.map(|fetched| clerk.cacheable(fetched)) }
        };
        let fetched = cache.cache.get_or_fetch(key, &tags, policy, fetch).await;
        let (status, headers, body) = fetched.map_err(|error: Arc<Error>| (*error).clone())?.0.into_parts();
        let retry_after = ratelimit_headers::parse(status, &headers, None).retry_after;
        success(status, headers, body, retry_after)
    }

    /// A response without the headers that belong to one exchange, but for those that an error reports.
    fn cacheable(&self, fetched: Fetched) -> CachedResponse {
        let Fetched { status, headers, body, observation } = fetched;
        let mut kept = HeaderMap::new();
        if !status.is_success() {
            kept.extend(headers.get(TRACE_ID).map(|id| (TRACE_ID, id.clone())));
            kept.extend(observation.quota.retry_after.map(|wait| (RETRY_AFTER, seconds(wait))));
        }
        CachedResponse::new(status, kept, body, self.outbound.clock.wall())
    }
}

/// What a response shows. Every response can be invalidated, at least by a write of a kind that may change anything.
fn tags(request: &ApiRequest) -> Vec<Tag> {
    tags_of_read(request.route().template, &request.path).map_or_else(|| vec![Tag::Everything], |read| read.tags)
}

/// `Retry-After` in whole seconds (RFC 9110, section 10.2.3), rounded up.
fn seconds(wait: Duration) -> HeaderValue {
    HeaderValue::from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
}
