//! Signed deliveries, and a sink that records its calls.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use clerk_client::secret::{Secret, SecretSource};
use clerk_client::webhook::{Invalidate, InvalidateError, SigningSecret, Tag, WebhookOptions, Webhooks};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::BodyExt;
use parking_lot::Mutex;

/// A signing secret for tests.
pub(crate) const SECRET: &str = "whsec_CANARYf7SKAZopvozCjHEFxTrktz+dM+";
/// A second signing secret for tests.
pub(crate) const OTHER_SECRET: &str = "whsec_CANARYxdKeofRNb65DSXrBD6GTE1MbBa";

/// Timestamp of the deliveries, in UNIX seconds.
pub(crate) const NOW: u64 = 1_795_608_000;

pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

pub(crate) fn signed_headers(secret: &str, id: &str, timestamp: u64, body: &[u8]) -> HeaderMap {
    let signature = SigningSecret::parse(secret).unwrap().sign(id, timestamp, body);
    let mut headers = HeaderMap::new();
    headers.insert("svix-id", HeaderValue::from_str(id).unwrap());
    headers.insert("svix-timestamp", HeaderValue::from(timestamp));
    headers.insert("svix-signature", HeaderValue::from_str(&signature).unwrap());
    headers
}

/// A POST of `body`, signed with `secret`.
pub(crate) fn delivery(secret: &str, id: &str, body: &str) -> Request<Body> {
    let mut request = Request::post("/webhooks/clerk").body(Body::from(body.to_owned())).unwrap();
    *request.headers_mut() = signed_headers(secret, id, NOW, body.as_bytes());
    request
}

/// The body of an event.
pub(crate) fn event(event_type: &str, data: &str) -> String {
    format!(r#"{{"data":{data},"object":"event","type":"{event_type}","timestamp":{NOW}000,"instance_id":"ins_1"}}"#)
}

pub(crate) fn user_updated() -> String {
    event("user.updated", r#"{"id":"user_1"}"#)
}

pub(crate) fn inline(secret: &str) -> SecretSource {
    SecretSource::Inline(Secret::new(secret.to_owned()))
}

pub(crate) fn options(sources: Vec<SecretSource>) -> WebhookOptions {
    WebhookOptions::new(sources).wall_clock(Arc::new(now))
}

/// Behaviour of the sink.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Mood {
    #[default]
    Willing,
    Failing,
    /// Takes this long.
    Slow(Duration),
}

#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) mood: Mutex<Mood>,
    pub(crate) calls: Mutex<Vec<Vec<Tag>>>,
}

impl Recorder {
    pub(crate) fn call_count(&self) -> usize {
        self.calls.lock().len()
    }
}

impl Invalidate for Recorder {
    async fn invalidate(&self, tags: &[Tag]) -> Result<(), InvalidateError> {
        let mood = *self.mood.lock();
        match mood {
            Mood::Willing => {}
            Mood::Failing => return Err("Redis is away".into()),
            Mood::Slow(duration) => tokio::time::sleep(duration).await,
        }
        self.calls.lock().push(tags.to_vec());
        Ok(())
    }
}

/// An endpoint with one secret, and its sink.
pub(crate) fn endpoint() -> (Webhooks<Arc<Recorder>>, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    (Webhooks::new(options(vec![inline(SECRET)]), Arc::clone(&recorder)).unwrap(), recorder)
}

/// Delivers, and returns status and text of the response.
pub(crate) async fn deliver(webhooks: &Webhooks<Arc<Recorder>>, request: Request<Body>) -> (StatusCode, String) {
    let response = webhooks.handle(request).await;
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}
