//! `/-/reload`: reloads the configuration.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::{mpsc, oneshot};

use super::Admin;

/// The configuration was rejected; the previous one stays in use.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ReloadError(pub String);

/// A request to reload the configuration; the sender takes the result.
pub type ReloadRequest = oneshot::Sender<Result<(), ReloadError>>;

/// Sends reload requests to the owner of the configuration.
#[derive(Debug, Clone)]
pub struct Reloader(pub mpsc::Sender<ReloadRequest>);

impl Reloader {
    /// Reloads the configuration.
    ///
    /// # Errors
    /// Returns an error with the problems of the configuration.
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
