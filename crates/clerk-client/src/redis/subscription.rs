//! Messages of other processes, and when some may have been missed.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use redis::aio::{PubSubSink, PubSubStream};
use tokio::time::{Instant, sleep, timeout};

use super::connection::{RETRY_RENEWAL, jittered};
use super::permissions::Command;
use super::refusals::Operation;
use super::slots::Node;
use super::{RedisClient, RedisClientError};

/// Interval of pings: a broken network closes no connection.
const PING_EVERY: Duration = Duration::from_secs(1);
/// First and longest delay before the next attempt to subscribe.
const RETRY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];
/// Delay after a connection could not follow its channel to another server.
const RETRY_MOVE: Duration = Duration::from_secs(5);

/// An event of a [`Subscription`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscriptionEvent {
    /// Subscribed: no message is missed from now on. The first event, and the one after each [`Lost`](Self::Lost).
    Restored,
    /// A message. It may come twice.
    Message(Bytes),
    /// Messages may have been missed, since at most 1 s plus the connect timeout ago.
    Lost,
}

/// The messages of one channel.
///
/// Resubscribes by itself, with growing delays up to 5 s, for ever; at another server if the channel moves there; and before
/// its connection is older than [`RedisOptions::max_connection_age`](super::RedisOptions::max_connection_age).
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
    /// Subscribed. These events come before the next message.
    On { listener: Box<Listener>, first: VecDeque<SubscriptionEvent> },
}

/// A subscribed connection.
struct Listener {
    node: Node,
    sink: PubSubSink,
    messages: PubSubStream,
    /// When it is to be replaced because of its age, or may be because the channel moved.
    renew_at: Instant,
    move_at: Instant,
    replacement: Option<BoxFuture<'static, Result<Box<Listener>, RedisClientError>>>,
}

/// What happened to a subscribed connection.
enum Happened {
    Nothing,
    Message(Bytes),
    Lost,
    /// It should be replaced.
    Due,
    Replaced(Result<Box<Listener>, RedisClientError>),
}

impl State {
    async fn next(self, store: &RedisClient, channel: &str) -> (SubscriptionEvent, Self) {
        let (mut listener, mut first) = match self {
            Self::Off { attempts } => {
                let listener = subscribed(store, channel, attempts).await;
                return (SubscriptionEvent::Restored, Self::On { listener, first: VecDeque::new() });
            }
            Self::On { listener, first } => (listener, first),
        };
        loop {
            if let Some(event) = first.pop_front() {
                return (event, Self::On { listener, first });
            }
            match listener.next(store, channel).await {
                Happened::Message(message) => {
                    return (SubscriptionEvent::Message(message), Self::On { listener, first });
                }
                Happened::Lost => {
                    store.lost(&listener.node);
                    return (SubscriptionEvent::Lost, Self::Off { attempts: 0 });
                }
                Happened::Nothing => {}
                Happened::Due => {
                    let (store, channel) = (store.clone(), channel.to_owned());
                    listener.replacement = Some(Box::pin(async move { Listener::subscribe(&store, &channel).await }));
                }
                Happened::Replaced(Ok(replacement)) => {
                    first = listener.drain(store.connect_timeout()).await;
                    listener = replacement;
                }
                Happened::Replaced(Err(error)) => {
                    tracing::debug!(%error, "cannot replace an old subscription to messages in Redis");
                    listener.postpone();
                }
            }
        }
    }
}

/// Subscribes, however often it takes.
async fn subscribed(store: &RedisClient, channel: &str, mut attempts: u32) -> Box<Listener> {
    loop {
        if attempts > 0 {
            sleep(wait(attempts)).await;
        }
        attempts = attempts.saturating_add(1);
        match Listener::subscribe(store, channel).await {
            Ok(listener) => {
                store.reached();
                store.note(&Operation::Command(Command::Subscribe), Ok(()));
                return listener;
            }
            Err(error) => {
                tracing::debug!(%error, attempts, "cannot subscribe to messages in Redis");
                store.note(&Operation::Command(Command::Subscribe), Err(&error));
            }
        }
    }
}

impl Listener {
    async fn subscribe(store: &RedisClient, channel: &str) -> Result<Box<Self>, RedisClientError> {
        let node = store.locate(channel).await;
        let opened = store.target().open_for_messages(&node).await;
        let mut connection = opened.inspect_err(|_| store.lost(&node))?;
        let limit = store.connect_timeout();
        let subscribed = timeout(limit, connection.subscribe(channel)).await;
        subscribed.map_err(|_| RedisClientError::Timeout { after: limit })??;
        let (sink, messages) = connection.split();
        let now = Instant::now();
        let (renew_at, move_at) = (now + jittered(store.max_age()), now);
        Ok(Box::new(Self { node, sink, messages, renew_at, move_at, replacement: None }))
    }

    async fn next(&mut self, store: &RedisClient, channel: &str) -> Happened {
        let now = Instant::now();
        let is_due = now >= self.renew_at || (now >= self.move_at && store.has_moved(channel, &self.node));
        if is_due && self.replacement.is_none() {
            return Happened::Due;
        }
        let Self { sink, messages, replacement, .. } = self;
        let replaced = async {
            match replacement {
                Some(replacement) => replacement.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            message = messages.next() => {
                message.map_or(Happened::Lost, |message| Happened::Message(payload(&message)))
            }
            listener = replaced => {
                self.replacement = None;
                Happened::Replaced(listener)
            }
            is_alive = beat(sink, store) => if is_alive { Happened::Nothing } else { Happened::Lost },
        }
    }

    /// It could not be replaced.
    fn postpone(&mut self) {
        let now = Instant::now();
        self.renew_at = self.renew_at.max(now + RETRY_RENEWAL);
        self.move_at = now + RETRY_MOVE;
    }

    /// Returns the last messages of a connection after another one has subscribed. Those published since then arrive twice.
    async fn drain(mut self, limit: Duration) -> VecDeque<SubscriptionEvent> {
        let answer = timeout(limit, self.sink.ping::<redis::Value>()).await;
        let mut events = VecDeque::new();
        // What was sent before the response has arrived.
        while let Some(Some(message)) = self.messages.next().now_or_never() {
            events.push_back(SubscriptionEvent::Message(payload(&message)));
        }
        if !matches!(answer, Ok(Ok(_))) {
            // It may have ended before the other one began.
            events.extend([SubscriptionEvent::Lost, SubscriptionEvent::Restored]);
        }
        events
    }
}

fn payload(message: &redis::Msg) -> Bytes {
    Bytes::copy_from_slice(message.get_payload_bytes())
}

/// Waits a moment, then returns whether the server still responds.
async fn beat(sink: &mut PubSubSink, store: &RedisClient) -> bool {
    sleep(PING_EVERY).await;
    // The client returns an error reply as a value.
    let answer = timeout(store.connect_timeout(), sink.ping::<redis::Value>()).await;
    match answer.map(|answer| answer.and_then(redis::Value::extract_error)) {
        Ok(Ok(_)) => {
            store.note(&Operation::Command(Command::Ping), Ok(()));
            true
        }
        Ok(Err(error)) => {
            let error = RedisClientError::from(error);
            store.note(&Operation::Command(Command::Ping), Err(&error));
            // A refusal is a response too: a full disk or a missing right does not end the subscription.
            matches!(error, RedisClientError::Refused(_))
        }
        Err(_) => false,
    }
}

/// Delay before an attempt. Grows with the attempts; the jitter spreads processes that lost the server together.
fn wait(attempts: u32) -> Duration {
    let [first, longest] = RETRY;
    let longest = first.saturating_mul(1 << attempts.min(10).saturating_sub(1)).min(longest);
    longest.mul_f64(fastrand::f64().mul_add(0.5, 0.5))
}
