//! An application that asks Clerk for a user only if it does not know him, and lets webhooks tell it what to forget.
//!
//! ```sh
//! clerk-exporter simulate &
//! export CLERK_API_URL=http://127.0.0.1:10431 CLERK_SECRET_KEY=sk_test_...
//! CLERK_WEBHOOK_SIGNING_SECRET=whsec_... cargo run --example cache
//! curl -i http://127.0.0.1:3000/users/user_...
//! ```
//!
//! With `REDIS_URL` (`redis://127.0.0.1`) several of it share what they know, and a webhook that one of them receives is
//! heard by all. Without, each has its own memory and has to receive the webhooks itself.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use clerk_client::cache::{Cache, CacheKeyParts, CacheOptions, CachePolicy, CachedResponse};
use clerk_client::clerk::{Clerk, Error};
use clerk_client::redis::{self, RedisClient};
use clerk_client::secret::SecretSource;
use clerk_client::webhook::{self, Webhooks, tags_of_route};
use clerk_quota::clock::Clock;
use http::{HeaderMap, Method, StatusCode};

/// A minute without asking, and an hour more in case Clerk cannot be asked.
const POLICY: CachePolicy = CachePolicy {
    stale_while_revalidate: Duration::from_secs(60),
    stale_if_error: Duration::from_secs(3600),
    ..CachePolicy::fresh_for(Duration::from_secs(60))
};

/// The application: users by their id, and the endpoint for webhooks beside them.
pub(crate) fn app(clerk: Clerk, cache: Cache, secret: SecretSource) -> Result<Router, webhook::WebhookConfigError> {
    let webhooks = Webhooks::new(webhook::WebhookOptions::new(vec![secret]), cache.clone())?;
    let users = Router::new().route("/users/{id}", get(user)).with_state((clerk, cache));
    Ok(users.route("/webhooks/clerk", webhooks.handler()))
}

/// A user as JSON. The header `x-cache` says where it came from.
async fn user(
    State((clerk, cache)): State<(Clerk, Cache)>,
    Path(id): Path<String>,
) -> Result<([(&'static str, String); 2], bytes::Bytes), StatusCode> {
    if !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(StatusCode::NOT_FOUND);
    }
    let path = format!("/v1/users/{id}");
    let key = cache.key(&CacheKeyParts { method: "GET", path: &path, ..CacheKeyParts::default() });
    let tags = tags_of_route("/v1/users/{user_id}", &[&id]);
    let fetch = || {
        let request = clerk.raw(Method::GET, &path);
        async move {
            let answer = request.send().await?;
            // The body is all that is given on, so no header has to be kept.
            Ok::<_, Error>(CachedResponse::new(
                answer.status(),
                HeaderMap::new(),
                answer.into_body(),
                SystemTime::now(),
            ))
        }
    };
    let (answer, hit) = cache.get_or_fetch(key, &tags, POLICY, fetch).await.map_err(|error| match error.status() {
        Some(StatusCode::NOT_FOUND) => StatusCode::NOT_FOUND,
        _ => StatusCode::BAD_GATEWAY,
    })?;
    let headers = [("content-type", "application/json".to_owned()), ("x-cache", format!("{hit:?}"))];
    Ok((headers, answer.body().clone()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = match std::env::var_os("REDIS_URL") {
        Some(_) => Some(RedisClient::new(redis::RedisOptions::new(SecretSource::Env("REDIS_URL".to_owned()).read()?))?),
        None => None,
    };
    let cache = Cache::new(CacheOptions { redis: store, ..CacheOptions::new("example") }, Arc::new(Clock::new()));
    let app = app(Clerk::from_env()?, cache, SecretSource::Env("CLERK_WEBHOOK_SIGNING_SECRET".to_owned()))?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum::serve(listener, app).await?;
    Ok(())
}
