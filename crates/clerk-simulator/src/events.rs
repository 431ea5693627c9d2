//! The changes that Clerk would send webhooks for, as a stream.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::broadcast::{self, error::RecvError};

use super::Shared;
use super::context::{Context, Emitted};

/// Events that a slow reader can be behind. Older ones are lost to it.
const CAPACITY: usize = 4_096;

/// A change of a user, an organization, a membership, an invitation or a session.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SimulatedEvent {
    /// The identifier of the message, `msg_…`. The same for every attempt to deliver it.
    pub id: String,
    /// The name of the instance, as in the [`Truth`](super::Truth).
    pub instance: String,
    /// The type, such as `user.created`.
    pub kind: &'static str,
    /// The identifier of the user, organization or session that changed. Deliver the events of one entity in order.
    pub entity: String,
    /// The JSON body of the webhook.
    pub body: Bytes,
}

/// The events of a simulator from the moment of [`Simulator::events`](super::Simulator::events) on.
#[derive(Debug)]
pub struct EventStream {
    receiver: broadcast::Receiver<SimulatedEvent>,
    lost: u64,
}

impl EventStream {
    /// Returns the next event; `None` if the simulator and its routers are gone.
    ///
    /// Cancel safe. The stream holds 4096 events; a reader that is further behind loses the oldest, see [`Self::lost`].
    pub async fn next(&mut self) -> Option<SimulatedEvent> {
        loop {
            match self.receiver.recv().await {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(count)) => self.lost += count,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Returns the number of events that were lost because they were not read in time.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

/// Where events go. Without a listener they are not made.
#[derive(Debug)]
pub(super) struct EventSender(broadcast::Sender<SimulatedEvent>);

impl EventSender {
    pub(super) fn new() -> Self {
        Self(broadcast::Sender::new(CAPACITY))
    }

    pub(super) fn is_listened_to(&self) -> bool {
        self.0.receiver_count() > 0
    }

    pub(super) fn subscribe(&self) -> EventStream {
        EventStream { receiver: self.0.subscribe(), lost: 0 }
    }
}

/// The body of a webhook.
#[derive(Serialize)]
struct Body<'a> {
    data: &'a RawValue,
    event_attributes: Attributes,
    instance_id: &'a str,
    object: &'static str,
    timestamp: i64,
    r#type: &'static str,
}

/// Who caused an event: nothing is known of it.
#[derive(Serialize)]
struct Attributes {
    http_request: HttpRequest,
}

#[derive(Serialize)]
struct HttpRequest {
    client_ip: &'static str,
    user_agent: &'static str,
}

impl Shared {
    /// Sends the events of a request.
    pub(super) fn send_events(&self, instance: usize, mut context: Context<'_>) {
        let emitted = context.take_events();
        if emitted.is_empty() {
            return;
        }
        let keys = self.keys.lock();
        let Some(instance) = keys.instances().get(instance) else { return };
        for Emitted { kind, entity, data } in emitted {
            let body = Body {
                data: &data,
                event_attributes: Attributes { http_request: HttpRequest { client_ip: "", user_agent: "" } },
                instance_id: &instance.id,
                object: "event",
                timestamp: context.now,
                r#type: kind,
            };
            let Ok(body) = serde_json::to_vec(&body) else { continue };
            let event = SimulatedEvent {
                id: context.new_id("msg_"),
                instance: instance.name.clone(),
                kind,
                entity,
                body: Bytes::from(body),
            };
            // An error says that nothing listens any more.
            let _ = self.events.0.send(event);
        }
    }
}
