//! An axum application whose cache Clerk's webhooks invalidate.
//!
//! ```sh
//! CLERK_WEBHOOK_SIGNING_SECRET=whsec_... CLERK_SECRET_KEY=sk_test_... cargo run --features axum --example webhook_axum
//! ```
//!
//! Add the endpoint `https://<your host>/webhooks/clerk` in the Clerk dashboard. To rotate its signing secret, list the new
//! and the old one in `WebhookOptions::secrets`.

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use clerk_client::secret::SecretSource;
use clerk_client::webhook::WebhookOptions;
use clerk_client::{Cache, Clerk, ClerkBuilder, Error};
use http::StatusCode;

pub(crate) fn app(clerk: Clerk, secret: SecretSource) -> Result<Router, Error> {
    let webhooks = clerk.webhooks(WebhookOptions::new(vec![secret]))?;
    let app = Router::new().route("/users/{id}", get(first_name)).with_state(clerk);
    Ok(app.route("/webhooks/clerk", webhooks.handler()))
}

async fn first_name(State(clerk): State<Clerk>, Path(id): Path<String>) -> Result<String, StatusCode> {
    let user = clerk.users().get(&id).await.map_err(|error| error.status().unwrap_or(StatusCode::BAD_GATEWAY))?;
    Ok(user.first_name().unwrap_or_default().to_owned())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let clerk = ClerkBuilder::from_env().cache(Cache::memory(64 << 20)).build()?;
    let app = app(clerk, SecretSource::Env("CLERK_WEBHOOK_SIGNING_SECRET".to_owned()))?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    Ok(axum::serve(listener, app).await?)
}
