//! Messages of other processes, and when some may have been missed.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use redis::aio::{PubSubSink, PubSubStream};
use tokio::time::{sleep, timeout};

use super::permissions::Command;
use super::refusals::Operation;
use super::{RedisClient, RedisClientError};

/// Interval of pings: a broken network closes no connection.
const PING_EVERY: Duration = Duration::from_secs(1);
/// First and longest delay before the next attempt to subscribe.
const RETRY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// An event of a [`Subscription`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscriptionEvent {
    /// Subscribed: no message is missed from now on. The first event, and the one after each [`Lost`](Self::Lost).
    Restored,
    /// A message.
    Message(Bytes),
    /// Messages may have been missed, since at most 1 s plus the connect timeout ago.
    Lost,
}

/// The messages of one channel. Resubscribes by itself, with growing delays up to 5 s, forever.
///
/// Must be polled continuously: polling monitors the connection.
pub struct Subscription(Pin<Box<dyn Stream<Item = SubscriptionEvent> + Send>>);

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

impl Subscription {
    pub(super) fn new(store: RedisClient, channel: String) -> Self {
        let state = State::Off { attempts: 0 };
        Self(Box::pin(stream::unfold((store, channel, state), |(store, channel, state)| async move {
            let (event, state) = state.next(&store, &channel).await;
            Some((event, (store, channel, state)))
        })))
    }

    /// Returns the next event. Dropping the future loses nothing.
    pub async fn next(&mut self) -> SubscriptionEvent {
        match self.0.next().await {
            Some(event) => event,
            // The stream has no end.
            None => std::future::pending().await,
        }
    }
}

enum State {
    /// Not subscribed, after this number of attempts.
    Off { attempts: u32 },
    /// Subscribed.
    On { sink: PubSubSink, messages: PubSubStream },
}

impl State {
    async fn next(self, store: &RedisClient, channel: &str) -> (SubscriptionEvent, Self) {
        match self {
            Self::Off { mut attempts } => loop {
                if attempts > 0 {
                    sleep(wait(attempts)).await;
                }
                attempts = attempts.saturating_add(1);
                match subscribe(store, channel).await {
                    Ok((sink, messages)) => {
                        store.reached();
                        store.note(&Operation::Command(Command::Subscribe), Ok(()));
                        return (SubscriptionEvent::Restored, Self::On { sink, messages });
                    }
                    Err(error) => {
                        tracing::debug!(%error, attempts, "cannot subscribe to messages in Redis");
                        store.note(&Operation::Command(Command::Subscribe), Err(&error));
                    }
                }
            },
            Self::On { mut sink, mut messages } => {
                let message = tokio::select! {
                    biased;
                    message = messages.next() => message,
                    () = silence(&mut sink, store) => None,
                };
                match message {
                    Some(message) => {
                        let payload = Bytes::copy_from_slice(message.get_payload_bytes());
                        (SubscriptionEvent::Message(payload), Self::On { sink, messages })
                    }
                    None => (SubscriptionEvent::Lost, Self::Off { attempts: 0 }),
                }
            }
        }
    }
}

/// Returns when the server no longer responds.
async fn silence(sink: &mut PubSubSink, store: &RedisClient) {
    let limit = store.connect_timeout();
    loop {
        sleep(PING_EVERY).await;
        // The client returns an error reply as a value.
        let answer = timeout(limit, sink.ping::<redis::Value>()).await;
        match answer.map(|answer| answer.and_then(redis::Value::extract_error)) {
            Ok(Ok(_)) => store.note(&Operation::Command(Command::Ping), Ok(())),
            Ok(Err(error)) => {
                let error = RedisClientError::from(error);
                store.note(&Operation::Command(Command::Ping), Err(&error));
                // A refusal is a response too: a full disk or a missing right does not end the subscription.
                if !matches!(error, RedisClientError::Refused(_)) {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

async fn subscribe(store: &RedisClient, channel: &str) -> Result<(PubSubSink, PubSubStream), RedisClientError> {
    let limit = store.connect_timeout();
    let subscribed = timeout(limit, async {
        let mut connection = store.target().open_for_messages().await?;
        connection.subscribe(channel).await?;
        Ok(connection.split())
    });
    subscribed.await.unwrap_or(Err(RedisClientError::Timeout { after: limit }))
}

/// Delay before an attempt. Grows with the attempts; the jitter spreads processes that lost the server together.
fn wait(attempts: u32) -> Duration {
    let [first, longest] = RETRY;
    let longest = first.saturating_mul(1 << attempts.min(10).saturating_sub(1)).min(longest);
    longest.mul_f64(fastrand::f64().mul_add(0.5, 0.5))
}
