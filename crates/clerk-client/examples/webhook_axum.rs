//! An application that lets Clerk's webhooks tell it what to forget.
//!
//! ```sh
//! CLERK_WEBHOOK_SIGNING_SECRET=whsec_... cargo run --example webhook_axum
//! ```
//!
//! In the Clerk dashboard, add an endpoint with the URL `https://<your host>/webhooks/clerk`. To rotate its secret, list
//! the new and the old one in `Options::secrets`, and drop the old one when its counter stands still.

use axum::Router;
use axum::routing::get;
use clerk_client::secret::SecretSource;
use clerk_client::webhook::{Invalidate, InvalidateError, Tag, WebhookConfigError, WebhookOptions, Webhooks};

/// Stands for a cache: says what it would forget.
struct PrintTags;

impl Invalidate for PrintTags {
    #[expect(clippy::print_stdout, reason = "what this example is about")]
    async fn invalidate(&self, tags: &[Tag]) -> Result<(), InvalidateError> {
        for tag in tags {
            println!("forget every cached answer that shows {tag}");
        }
        Ok(())
    }
}

/// The application: its own pages, and the endpoint beside them.
pub(crate) fn app(secret: SecretSource) -> Result<Router, WebhookConfigError> {
    let webhooks = Webhooks::new(WebhookOptions::new(vec![secret]), PrintTags)?;
    Ok(Router::new().route("/", get(async || "hello")).route("/webhooks/clerk", webhooks.handler()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let app = app(SecretSource::Env("CLERK_WEBHOOK_SIGNING_SECRET".to_owned()))?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum::serve(listener, app).await?;
    Ok(())
}
