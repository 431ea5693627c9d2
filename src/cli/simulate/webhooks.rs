//! Delivers the simulator's events to a webhook endpoint, as Svix delivers Clerk's.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use http::header::CONTENT_TYPE;
use http::uri::{Scheme, Uri};
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::args::WebhookFlags;
use clerk_client::secret::EnvLookup;
use clerk_client::transport::{RequestBody, Transport};
use clerk_simulator::{DeliveryOutcome, EventStream, SimulatedEvent, Simulator, WebhookSecret};

/// The variable that Clerk's SDKs read.
const SECRET_VARIABLE: &str = "CLERK_WEBHOOK_SIGNING_SECRET";

/// Svix waits this long for a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);

/// Attempts of one event. Svix retries for about a day; a test should not.
const ATTEMPTS: u32 = 8;
/// The wait after the first attempt; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Events that wait for older ones of the same entity, or for a free connection. Beyond, the stream holds them.
const MAX_WAITING: usize = 4_096;
const MAX_CONCURRENT: usize = 16;

/// Where to deliver, and the secret to sign with.
#[derive(Debug)]
pub(super) struct WebhookTarget {
    url: Uri,
    secret: WebhookSecret,
}

impl WebhookTarget {
    /// Returns the target of the flags; `None` without `--webhook-url`.
    ///
    /// # Errors
    /// Returns an error if the URL or the secret is malformed, or the secret is missing.
    pub(super) fn of(flags: &WebhookFlags, env: EnvLookup<'_>) -> anyhow::Result<Option<Self>> {
        let Some(url) = &flags.url else {
            if flags.secret.is_some() || flags.secret_file.is_some() {
                bail!("a webhook secret needs an endpoint: add --webhook-url");
            }
            return Ok(None);
        };
        let url: Uri = url.parse().context("--webhook-url")?;
        if ![Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&url.scheme()) || url.host().is_none() {
            bail!("--webhook-url: not a URL; write one such as http://127.0.0.1:3000/api/webhooks");
        }
        let secret = match (&flags.secret, &flags.secret_file) {
            (Some(secret), _) => secret.parse().context("--webhook-secret")?,
            (None, Some(path)) => {
                let place = || format!("--webhook-secret-file {}", path.display());
                let text = std::fs::read_to_string(path).with_context(place)?;
                text.trim().parse().with_context(place)?
            }
            (None, None) => {
                let value = env(SECRET_VARIABLE).filter(|value| !value.is_empty());
                let value = value.with_context(|| {
                    format!("--webhook-url needs a secret: add --webhook-secret-file, or set {SECRET_VARIABLE}")
                })?;
                value.to_string_lossy().trim().parse().context(SECRET_VARIABLE)?
            }
        };
        Ok(Some(Self { url, secret }))
    }
}

/// Delivers events until `stop`. Those of one entity arrive in order: one that fails holds back the later ones until it is
/// delivered or given up.
pub(super) async fn deliver(
    simulator: Simulator,
    mut events: EventStream,
    target: WebhookTarget,
    transport: Arc<dyn Transport>,
    stop: CancellationToken,
) {
    let sender = Arc::new(Sender { simulator, target, transport, permits: Semaphore::new(MAX_CONCURRENT) });
    let mut waiting: HashMap<String, VecDeque<SimulatedEvent>> = HashMap::new();
    let mut count = 0_usize;
    let mut lost = 0;
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            event = events.next(), if count < MAX_WAITING => {
                let Some(event) = event else { break };
                (lost..events.lost()).for_each(|_| sender.simulator.count_delivery(DeliveryOutcome::Lost));
                lost = events.lost();
                count += 1;
                match waiting.get_mut(&event.entity) {
                    Some(queue) => queue.push_back(event),
                    None => {
                        waiting.insert(event.entity.clone(), VecDeque::new());
                        tasks.spawn(Arc::clone(&sender).send(event));
                    }
                }
            }
            Some(Ok(entity)) = tasks.join_next() => {
                count -= 1;
                match waiting.get_mut(&entity).and_then(VecDeque::pop_front) {
                    Some(event) => {
                        tasks.spawn(Arc::clone(&sender).send(event));
                    }
                    None => {
                        waiting.remove(&entity);
                    }
                }
            }
        }
    }
    tasks.shutdown().await;
}

#[derive(Debug)]
struct Sender {
    simulator: Simulator,
    target: WebhookTarget,
    transport: Arc<dyn Transport>,
    permits: Semaphore,
}

impl Sender {
    /// Sends an event until it is delivered or given up. Returns its entity.
    async fn send(self: Arc<Self>, event: SimulatedEvent) -> String {
        let mut wait = FIRST_WAIT;
        for attempt in 1..=ATTEMPTS {
            let result = self.attempt(&event).await;
            let (kind, id) = (event.kind, event.id.as_str());
            let error = match result {
                Ok(()) => {
                    tracing::debug!(kind, id, attempt, "webhook delivered");
                    self.simulator.count_delivery(DeliveryOutcome::Delivered);
                    return event.entity;
                }
                Err(error) => error,
            };
            if attempt == ATTEMPTS {
                tracing::warn!(kind, id, attempt, error, "webhook given up");
                self.simulator.count_delivery(DeliveryOutcome::GivenUp);
                break;
            }
            tracing::warn!(kind, id, attempt, error, "webhook failed; it is sent again");
            self.simulator.count_delivery(DeliveryOutcome::FailedAttempt);
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        event.entity
    }

    async fn attempt(&self, event: &SimulatedEvent) -> Result<(), String> {
        // Never closed.
        let _permit = self.permits.acquire().await;
        let mut request = http::Request::post(&self.target.url).header(CONTENT_TYPE, "application/json");
        for (name, value) in event.signature_headers(&self.target.secret, self.simulator.now()) {
            request = request.header(name, value);
        }
        let request = request.body(RequestBody::from(event.body.clone())).map_err(|error| error.to_string())?;
        let exchange = async {
            let response = self.transport.send(request).await.map_err(|error| error.to_string())?;
            let status = response.status();
            // Read to the end, so that the connection can be used again. What it says does not matter.
            let _ = response.into_body().collect().await;
            if status.is_success() { Ok(()) } else { Err(format!("response {status}")) }
        };
        let late = |_| Err(format!("no response within {} s", RESPONSE_TIMEOUT.as_secs()));
        tokio::time::timeout(RESPONSE_TIMEOUT, exchange).await.unwrap_or_else(late)
    }
}
