//! `/-/reload`: loads the configuration again.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::{mpsc, oneshot};

use super::Admin;

/// The configuration was not taken over; the one before stays in force.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ReloadError(pub String);

/// Somebody wants the configuration to be loaded again, and waits for what comes of it.
pub type ReloadRequest = oneshot::Sender<Result<(), ReloadError>>;

/// Asks whoever owns the configuration to load it again.
#[derive(Debug, Clone)]
pub struct Reloader(pub mpsc::Sender<ReloadRequest>);

impl Reloader {
    /// Loads the configuration again.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn reload(&self) -> Result<(), ReloadError> {
        let gone = || ReloadError("shutting down".to_owned());
        let (request, answer) = oneshot::channel();
        self.0.send(request).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

pub(super) async fn reload(State(site): State<Arc<Admin>>, method: Method) -> Response {
    if method != Method::POST && method != Method::PUT {
        let allow = [(header::ALLOW, "POST, PUT")];
        return (StatusCode::METHOD_NOT_ALLOWED, allow, "This endpoint requires a POST request.\n").into_response();
    }
    let Some(reloader) = &site.reloader else {
        let text = "Lifecycle API is not enabled: start with --web.enable-lifecycle, or send SIGHUP.\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    };
    match reloader.reload().await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("failed to reload config: {error}\n")).into_response()
        }
    }
}
