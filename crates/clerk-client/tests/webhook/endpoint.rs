//! The endpoint as Svix sees it.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use clerk_client::secret::SecretSource;
use clerk_client::webhook::{
    ANSWER_WITHIN, DeliveryOutcome, Event, EventKind, MAX_BODY_BYTES, Tag, WebhookConfigError, WebhookOptions, Webhooks,
};
use http::{Request, StatusCode, header};
use tokio::time::Instant;
use tower::ServiceExt;

use crate::support::{
    Mood, NOW, OTHER_SECRET, Recorder, SECRET, deliver, delivery, endpoint, event, inline, options, signed_headers,
    user_updated,
};

#[tokio::test(start_paused = true)]
async fn genuine_event_reaches_the_sink_and_returns_200() {
    let (webhooks, recorder) = endpoint();
    let app: Router = Router::new().route("/webhooks/clerk", webhooks.handler());
    let response = app.oneshot(delivery(SECRET, "msg_1", &user_updated())).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(*recorder.calls.lock(), [[Tag::UserList, Tag::UsersShown, Tag::User("user_1".into())]]);
    let counts = webhooks.stats();
    assert_eq!(counts.get(EventKind::User, DeliveryOutcome::Applied), 1);
    assert_eq!(counts.matched_secrets, [1]);
}

#[tokio::test(start_paused = true)]
async fn the_router_can_be_nested() {
    let (webhooks, recorder) = endpoint();
    let app: Router = Router::new().nest("/webhooks/clerk", webhooks.router());
    let response = app.oneshot(delivery(SECRET, "msg_1", &user_updated())).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(recorder.call_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn repeated_message_returns_200_and_counts_as_duplicate() {
    let (webhooks, recorder) = endpoint();
    for _ in 0..3 {
        assert_eq!(deliver(&webhooks, delivery(SECRET, "msg_1", &user_updated())).await.0, StatusCode::OK);
    }
    assert_eq!(recorder.call_count(), 1);
    assert_eq!(webhooks.stats().get(EventKind::User, DeliveryOutcome::Applied), 1);
    assert_eq!(webhooks.stats().get(EventKind::User, DeliveryOutcome::Duplicate), 2);
    tokio::time::advance(Duration::from_secs(602)).await;
    deliver(&webhooks, delivery(SECRET, "msg_1", &user_updated())).await;
    assert_eq!(recorder.call_count(), 2, "expired ids are processed again, which is harmless");
}

#[tokio::test(start_paused = true)]
async fn message_is_seen_only_after_processing() {
    for (mood, outcome) in [
        (Mood::Failing, DeliveryOutcome::Failed),
        (Mood::Slow(ANSWER_WITHIN + Duration::from_millis(1)), DeliveryOutcome::TimedOut),
    ] {
        let (webhooks, recorder) = endpoint();
        *recorder.mood.lock() = mood;
        let start = Instant::now();
        let (status, _) = deliver(&webhooks, delivery(SECRET, "msg_1", &user_updated())).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(start.elapsed() <= ANSWER_WITHIN + Duration::from_millis(2));
        *recorder.mood.lock() = Mood::Willing;
        let (status, _) = deliver(&webhooks, delivery(SECRET, "msg_1", &user_updated())).await;
        assert_eq!((status, recorder.call_count()), (StatusCode::OK, 1));
        assert_eq!(webhooks.stats().get(EventKind::User, outcome), 1);
        assert_eq!(webhooks.stats().get(EventKind::User, DeliveryOutcome::Applied), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn concurrent_attempts_of_one_message_count_once() {
    let (webhooks, recorder) = endpoint();
    *recorder.mood.lock() = Mood::Slow(Duration::from_secs(1));
    let attempt = || deliver(&webhooks, delivery(SECRET, "msg_1", &user_updated()));
    let ((first, _), (second, _)) = tokio::join!(attempt(), attempt());
    assert_eq!((first, second), (StatusCode::OK, StatusCode::OK));
    assert_eq!(webhooks.stats().get(EventKind::User, DeliveryOutcome::Applied), 1);
    assert_eq!(webhooks.stats().get(EventKind::User, DeliveryOutcome::Duplicate), 1);
}

#[tokio::test(start_paused = true)]
async fn order_of_events_does_not_matter() {
    let story = ["user.created", "user.updated", "user.deleted"];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let (webhooks, recorder) = endpoint();
        for index in order {
            let body = event(story[index], r#"{"id":"user_1"}"#);
            deliver(&webhooks, delivery(SECRET, story[index].trim_start_matches("user."), &body)).await;
        }
        let invalidated: BTreeSet<Tag> = recorder.calls.lock().concat().into_iter().collect();
        let deleted = Event::read(event("user.deleted", r#"{"id":"user_1"}"#).as_bytes()).unwrap();
        assert_eq!((invalidated, recorder.call_count()), (deleted.tags.into_iter().collect(), 3), "{order:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn irrelevant_and_unknown_types_return_200_and_are_counted() {
    let (webhooks, recorder) = endpoint();
    for (id, event_type) in [("msg_1", "spaceship.launched"), ("msg_2", "email.created")] {
        let (status, text) = deliver(&webhooks, delivery(SECRET, id, &event(event_type, "{}"))).await;
        assert_eq!((status, text.as_str()), (StatusCode::OK, "ignored\n"));
    }
    assert_eq!(recorder.call_count(), 0);
    assert_eq!(webhooks.stats().get(EventKind::Unknown, DeliveryOutcome::Ignored), 1);
    assert_eq!(webhooks.stats().get(EventKind::Email, DeliveryOutcome::Ignored), 1);
}

#[tokio::test(start_paused = true)]
async fn forged_delivery_returns_400_with_a_reason() {
    let (webhooks, recorder) = endpoint();
    let body = user_updated();
    let sent_at = |timestamp| {
        let mut request = Request::post("/").body(Body::from(body.clone())).unwrap();
        *request.headers_mut() = signed_headers(SECRET, "msg_1", timestamp, body.as_bytes());
        request
    };
    let mut changed = delivery(SECRET, "msg_1", &body);
    *changed.body_mut() = Body::from(body.replace("user_1", "user_2"));
    let mut word = sent_at(NOW);
    word.headers_mut().insert("svix-timestamp", "now".parse().unwrap());
    let cases = [
        (Request::post("/").body(Body::empty()).unwrap(), DeliveryOutcome::MissingHeader, "missing header svix-id"),
        (word, DeliveryOutcome::BadTimestamp, "not a UNIX time"),
        (sent_at(NOW - 301), DeliveryOutcome::TooOld, "sent 301 s ago"),
        (sent_at(NOW + 301), DeliveryOutcome::TooNew, "301 s in the future"),
        (changed, DeliveryOutcome::BadSignature, "no signature matches"),
        (delivery(OTHER_SECRET, "msg_1", &body), DeliveryOutcome::BadSignature, "signing secret"),
        (delivery(SECRET, "msg_1", ""), DeliveryOutcome::Malformed, "not JSON"),
        (delivery(SECRET, "msg_1", "{}"), DeliveryOutcome::Malformed, "no string `type`"),
    ];
    for (request, outcome, reason) in cases {
        let before = webhooks.stats().get(EventKind::Unread, outcome);
        let (status, text) = deliver(&webhooks, request).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{outcome:?}");
        assert!(text.contains(reason), "{text}");
        assert_eq!(webhooks.stats().get(EventKind::Unread, outcome), before + 1);
    }
    assert_eq!(recorder.call_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn other_methods_return_405_with_allow() {
    let (webhooks, _) = endpoint();
    let app: Router = Router::new().route("/", webhooks.handler());
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        let request = Request::builder().method(method).uri("/").body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[header::ALLOW], "POST");
    }
    assert!(webhooks.stats().deliveries.iter().all(|entry| entry.2 == 0));
}

#[tokio::test(start_paused = true)]
async fn encoded_body_is_rejected() {
    let (webhooks, recorder) = endpoint();
    let mut request = delivery(SECRET, "msg_1", &user_updated());
    request.headers_mut().insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
    assert_eq!(deliver(&webhooks, request).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(recorder.call_count(), 0);
    assert_eq!(webhooks.stats().get(EventKind::Unread, DeliveryOutcome::Encoded), 1);
}

#[tokio::test(start_paused = true)]
async fn body_above_the_limit_is_rejected() {
    let (webhooks, _) = endpoint();
    let padded = |length: usize| {
        let mut body = event("user.updated", r#"{"id":"user_1"}"#);
        body.extend(std::iter::repeat_n(' ', length - body.len()));
        body
    };
    let (status, _) = deliver(&webhooks, delivery(SECRET, "msg_1", &padded(MAX_BODY_BYTES))).await;
    assert_eq!(status, StatusCode::OK);
    let (status, text) = deliver(&webhooks, delivery(SECRET, "msg_2", &padded(MAX_BODY_BYTES + 1))).await;
    assert_eq!((status, text.contains("262144 bytes")), (StatusCode::PAYLOAD_TOO_LARGE, true));

    let stream = Request::post("/").body(Body::new(Pieces { left: 3, then: Ending::End })).unwrap();
    assert_eq!(deliver(&webhooks, stream).await.0, StatusCode::PAYLOAD_TOO_LARGE, "a stream without a length");
    assert_eq!(webhooks.stats().get(EventKind::Unread, DeliveryOutcome::TooLarge), 2);
}

#[tokio::test(start_paused = true)]
async fn stalled_or_broken_body_returns_408() {
    let (webhooks, recorder) = endpoint();
    for then in [Ending::Stall, Ending::Break] {
        let start = Instant::now();
        let mut request = delivery(SECRET, "msg_1", &user_updated());
        *request.body_mut() = Body::new(Pieces { left: 1, then });
        assert_eq!(deliver(&webhooks, request).await.0, StatusCode::REQUEST_TIMEOUT);
        assert!(start.elapsed() <= ANSWER_WITHIN + Duration::from_millis(2));
    }
    assert_eq!(recorder.call_count(), 0);
    assert_eq!(webhooks.stats().get(EventKind::Unread, DeliveryOutcome::Incomplete), 2);
}

#[derive(Clone, Copy)]
enum Ending {
    End,
    Stall,
    Break,
}

/// Some pieces of 100 000 bytes, and then an ending.
struct Pieces {
    left: usize,
    then: Ending,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        if let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            return Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from(vec![b' '; 100_000])))));
        }
        match self.then {
            Ending::End => Poll::Ready(None),
            Ending::Stall => Poll::Pending,
            Ending::Break => Poll::Ready(Some(Err(std::io::ErrorKind::UnexpectedEof.into()))),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_secrets_are_accepted_during_rotation_and_counted() {
    let recorder = Arc::new(Recorder::default());
    let webhooks = Webhooks::new(options(vec![inline(OTHER_SECRET), inline(SECRET)]), recorder).unwrap();
    for (id, secret) in [("msg_1", SECRET), ("msg_2", SECRET), ("msg_3", OTHER_SECRET)] {
        assert_eq!(deliver(&webhooks, delivery(secret, id, &user_updated())).await.0, StatusCode::OK);
    }
    assert_eq!(webhooks.stats().matched_secrets, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn replaced_secret_file_takes_effect_and_unusable_is_ignored() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    let replace = |content: &str| {
        let new = directory.path().join("new");
        std::fs::write(&new, content).unwrap();
        std::fs::rename(&new, &path).unwrap();
    };
    // Editors end files with a line break.
    replace(&format!("{SECRET}\n"));
    let sources = vec![SecretSource::File(path.clone())];
    let webhooks = Webhooks::new(options(sources), Arc::new(Recorder::default())).unwrap();
    let status = async |id, secret| deliver(&webhooks, delivery(secret, id, &user_updated())).await.0;
    assert_eq!(status("msg_1", SECRET).await, StatusCode::OK);
    replace(&format!("{OTHER_SECRET}\n"));
    assert_eq!(status("msg_2", OTHER_SECRET).await, StatusCode::OK);
    assert_eq!(status("msg_3", SECRET).await, StatusCode::BAD_REQUEST, "the old secret is rejected");
    replace("whsec_***");
    assert_eq!(status("msg_4", OTHER_SECRET).await, StatusCode::OK);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(status("msg_5", OTHER_SECRET).await, StatusCode::OK);
    replace(SECRET);
    assert_eq!(status("msg_6", SECRET).await, StatusCode::OK);
}

#[test]
fn endpoint_without_usable_secrets_is_an_error() {
    let refused = |sources| Webhooks::new(WebhookOptions::new(sources), Recorder::default()).unwrap_err();
    assert_eq!(refused(Vec::new()), WebhookConfigError::NoSecret);
    let missing = refused(vec![inline(SECRET), SecretSource::File("/nonexistent/secret".into())]);
    assert!(missing.to_string().starts_with("file /nonexistent/secret: cannot be read"), "{missing}");
    let unusable = refused(vec![inline("whsec_***")]);
    assert!(unusable.to_string().contains("is not `whsec_` and base64"), "{unusable}");
    let empty = refused(vec![inline(" \n")]);
    assert!(empty.to_string().contains("Clerk dashboard, Webhooks"), "{empty}");
}

#[tokio::test(start_paused = true)]
async fn timestamp_is_compared_with_the_current_wall_clock() {
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::time::UNIX_EPOCH;
    let ahead = Arc::new(AtomicI64::new(0));
    let clock = {
        let ahead = Arc::clone(&ahead);
        move || UNIX_EPOCH + Duration::from_secs(NOW.saturating_add_signed(ahead.load(Ordering::Relaxed)))
    };
    let options = options(vec![inline(SECRET)]).wall_clock(Arc::new(clock));
    let webhooks = Webhooks::new(options, Arc::new(Recorder::default())).unwrap();
    // The clock is set wrong and corrected: a rejected delivery is redelivered and accepted.
    for (place, (seconds, is_taken)) in
        [(299, true), (-299, true), (301, false), (-301, false), (10_800, false), (-10_800, false), (0, true)]
            .into_iter()
            .enumerate()
    {
        ahead.store(seconds, Ordering::Relaxed);
        let (status, _) = deliver(&webhooks, delivery(SECRET, &format!("msg_{place}"), &user_updated())).await;
        let expected = if is_taken { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        assert_eq!(status, expected, "{seconds} s ahead");
    }
}
