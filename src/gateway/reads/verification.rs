//! Verifications of tokens: one request for many that ask the same.
//!
//! A success answers the same credential that asks again with the same body. The key is a keyed hash, so that tokens are in
//! no memory but that of requests in flight.

use std::sync::{Arc, OnceLock};

use axum::body::Body;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Response};
use http_body_util::BodyExt;
use parking_lot::Mutex;

use super::shareable::RequestDirectives;
use super::upstream_fetch::{Fetcher, body_of};
use crate::gateway::config::policy::{Mode, RoutePolicies};
use crate::gateway::request::error_response::ErrorResponse;
use crate::gateway::request::transaction::{Transaction, local_response};
use clerk_client::cache::{Cache, CacheKey, CachePolicy};
use clerk_client::outbound::Credentials;
use clerk_client::transport::RequestBody;
use clerk_client::webhook::Tag;

/// Larger bodies are forwarded, in bytes. A token has some 100.
const MAX_BODY: u64 = 16 * 1024;

/// A fetch can be outdated by any revocation, since it does not know its token's ID.
const TAGS: [Tag; 3] = [Tag::Everything, Tag::AnyVerification, Tag::UnknownVerification];

impl Transaction {
    /// Whether a policy is for this verification.
    pub(in crate::gateway) fn verifies(&self) -> bool {
        self.policies.verify != Mode::Off
    }

    /// Answers a verification under its policy.
    pub(in crate::gateway) async fn verify(mut self: Box<Self>, body: RequestBody) -> Response<Body> {
        let is_small = http_body::Body::size_hint(&body).exact().is_some_and(|length| length <= MAX_BODY);
        if !is_small {
            return self.forward(body).await;
        }
        let Ok(body) = body.collect().await else {
            return local_response(ErrorResponse::incomplete_request(self.upload_error.blame()), self.record);
        };
        let body = body.to_bytes();
        let instance = Arc::clone(&self.instance);
        let state = &instance.state;
        let cache = state.verifications.as_ref().unwrap_or(&state.cache);
        let Some(key) = self.verification_key(&body, cache) else {
            return self.forward(body_of(&body)).await;
        };
        let policies = self.policies;
        let sender = self.turn.sharing(policies);
        if policies.verify.is_on() {
            let keeping = CachePolicy::fresh_for(policies.verify_ttl).sender(sender);
            // Hits need no fetcher.
            let fetcher = OnceLock::new();
            let fetch = || {
                let fetcher = Arc::clone(fetcher.get_or_init(|| Arc::new(self.verification_fetcher(&body, key))));
                // Boxed: otherwise each layer of futures stores a copy.
                Box::pin(async move { fetcher.fetch().await })
            };
            let answer = cache.get_or_fetch(key, &TAGS, keeping, fetch).await;
            return self.respond_shared(answer, fetcher.get(), &body).await;
        }
        let as_read = RoutePolicies {
            cache: policies.verify,
            coalesce: policies.verify,
            ttl: policies.verify_ttl,
            ..RoutePolicies::default()
        };
        let ahead = state.dry_run(&key, &TAGS, &as_read, sender, &mut self.record.dry_run).await;
        let response = self.forward(body_of(&body)).await;
        ahead.keep(response.status(), response.headers(), instance.outbound.clock.wall()).await;
        response
    }

    /// `None` if the response may depend on more than the key contains.
    fn verification_key(&self, body: &Bytes, cache: &Cache) -> Option<CacheKey> {
        let headers = self.request.headers();
        let directives = RequestDirectives::of_body(headers)?;
        let (key, caller);
        let who = match self.credentials {
            Credentials::Client => [Some(headers.get(AUTHORIZATION)?.as_bytes()), None],
            // The key replaces the token. Its holder is told apart all the same.
            Credentials::Instance => {
                key = self.instance.outbound.key.current().ok()?.authorization_header();
                caller = self.record.callers.name(self.record.caller);
                [Some(key.as_bytes()), Some(caller.as_bytes())]
            }
        };
        let path = self.request.path();
        Some(cache.secret_key(&[
            who[0],
            who[1],
            Some(self.request.method().as_str().as_bytes()),
            Some(path.strip_prefix("/v1").unwrap_or(path).as_bytes()),
            self.request.query().map(str::as_bytes),
            directives.accept.map(HeaderValue::as_bytes),
            directives.api_version.map(HeaderValue::as_bytes),
            headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes),
            Some(body),
        ]))
    }

    fn verification_fetcher(&self, body: &Bytes, key: CacheKey) -> Fetcher {
        Fetcher {
            instance: Arc::clone(&self.instance),
            request: self.request.clone(),
            body: body.clone(),
            route: self.route,
            credentials: self.credentials,
            caller: self.record.caller,
            policies: self.policies,
            turn: self.turn,
            user: None,
            key,
            is_spared_in_shadow: false,
            stats: Mutex::default(),
            large: Mutex::default(),
        }
    }
}
