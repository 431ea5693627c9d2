//! A webhook receiver for Alertmanager. It also serves the exporter's text format to a Prometheus that would request
//! OpenMetrics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client;

/// One alert of a notification.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Alert {
    pub(crate) status: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    /// The receiver of Alertmanager that it was sent to.
    #[serde(skip)]
    pub(crate) receiver: String,
    /// When it arrived.
    #[serde(skip, default = "SystemTime::now")]
    pub(crate) at: SystemTime,
}

#[derive(Deserialize)]
struct Notification {
    receiver: String,
    alerts: Vec<Alert>,
}

#[derive(Clone)]
struct Shared {
    received: watch::Sender<Vec<Alert>>,
    metrics_url: String,
}

/// A running sink.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    received: watch::Receiver<Vec<Alert>>,
    _serving: JoinSet<()>,
}

impl Sink {
    /// Starts on a free port; `metrics_url` is the source of the text format.
    pub(crate) async fn start(metrics_url: String) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, received) = watch::channel(Vec::new());
        let router = Router::new()
            .route("/notify", post(notify))
            .route("/metrics", get(text_format))
            .with_state(Shared { received: sender, metrics_url });
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, received, _serving: serving }
    }

    /// All alerts of all notifications so far.
    pub(crate) fn received(&self) -> Vec<Alert> {
        self.received.borrow().clone()
    }

    /// The first alert with this status.
    pub(crate) fn first(&self, status: &str) -> Option<Alert> {
        self.received.borrow().iter().find(|alert| alert.status == status).cloned()
    }
}

async fn notify(State(shared): State<Shared>, body: String) -> StatusCode {
    let Notification { receiver, alerts } = serde_json::from_str(&body).unwrap();
    let alerts = alerts.into_iter().map(|alert| Alert { receiver: receiver.clone(), ..alert });
    shared.received.send_modify(|received| received.extend(alerts));
    StatusCode::NO_CONTENT
}

async fn text_format(State(shared): State<Shared>) -> Response {
    let response = client().get(shared.metrics_url).header(ACCEPT, "text/plain;version=0.0.4").send().await;
    let Ok(response) = response else { return StatusCode::BAD_GATEWAY.into_response() };
    let content_type = response.headers()[CONTENT_TYPE].clone();
    ([(CONTENT_TYPE, content_type)], response.text().await.unwrap()).into_response()
}
