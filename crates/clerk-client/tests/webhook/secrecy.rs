//! The signing secret and personal data of the payload are never shown.

use std::io;
use std::sync::Arc;

use clerk_client::webhook::SigningSecret;
use http::HeaderValue;
use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{Mood, SECRET, deliver, delivery, endpoint, event, inline, options, user_updated};

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn secret_and_payload_are_not_in_responses_log_or_debug() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (webhooks, recorder) = endpoint();
    let personal = event("user.updated", r#"{"id":"user_1","email_addresses":[{"email_address":"PERSONAL@a.test"}]}"#);
    let mut forged = delivery(SECRET, "msg_2", &personal);
    forged.headers_mut().insert("svix-signature", HeaderValue::from_static("v1,CANARY v1,AAAA"));
    let mut shown = String::new();
    for request in [
        delivery(SECRET, "msg_1", &personal),
        forged,
        delivery(SECRET, "msg_3", "PERSONAL"),
        delivery(SECRET, "msg_4", r#"{"PERSONAL":1}"#),
    ] {
        shown += &deliver(&webhooks, request).await.1;
    }
    *recorder.mood.lock() = Mood::Failing;
    shown += &deliver(&webhooks, delivery(SECRET, "msg_5", &user_updated())).await.1;
    shown += &format!("{webhooks:?} {:?} {:?}", options(vec![inline(SECRET)]), SigningSecret::parse(SECRET));
    let log = String::from_utf8(log.0.lock().clone()).unwrap();
    assert!(log.contains("webhook processed") && log.contains("Redis is away"), "{log}");
    assert!(!shown.contains("Redis"), "internal failures are not shown to the sender");
    shown += &log;
    for hidden in ["CANARY", "PERSONAL", "user_1"] {
        assert!(!shown.contains(hidden), "{hidden} in {shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_signatures_in_a_row_are_logged_once() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(log.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (webhooks, _) = endpoint();
    let warnings = || String::from_utf8(log.0.lock().clone()).unwrap().matches("WARN").count();
    for id in ["msg_1", "msg_2", "msg_3"] {
        deliver(&webhooks, delivery(crate::support::OTHER_SECRET, id, &user_updated())).await;
    }
    assert_eq!(warnings(), 1);
    deliver(&webhooks, delivery(SECRET, "msg_4", &user_updated())).await;
    deliver(&webhooks, delivery(crate::support::OTHER_SECRET, "msg_5", &user_updated())).await;
    assert_eq!(warnings(), 2);
}
