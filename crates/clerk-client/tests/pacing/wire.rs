//! A transport with its own delays in both directions, which records requests and 429s.

use std::sync::Arc;
use std::time::Duration;

use clerk_client::transport::{RequestBody, ResponseFuture, Transport};
use http::StatusCode;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

/// Longest delay in either direction.
const SLOWEST: u64 = 60;

/// What one gateway sent, in time since the start of the test.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// When each attempt was sent.
    pub(crate) attempts: Vec<Duration>,
    /// When each 429 arrived, and its `Retry-After`.
    pub(crate) refused: Vec<(Duration, Duration)>,
}

impl Sent {
    pub(crate) fn refused_between(&self, from: Duration, to: Duration) -> usize {
        self.refused.iter().filter(|(at, _)| (from..to).contains(at)).count()
    }

    /// Attempts sent during the `Retry-After` of this or another gateway's 429. `delay`: the time it takes to inform
    /// the others.
    pub(crate) fn sent_against(&self, refused: &[(Duration, Duration)], delay: Duration) -> usize {
        let is_against =
            |sent: &&Duration| refused.iter().any(|(at, wait)| **sent > *at + delay && **sent < *at + *wait);
        self.attempts.iter().filter(is_against).count()
    }
}

/// The transport of one gateway.
#[derive(Debug)]
pub(crate) struct Wire {
    upstream: Arc<dyn Transport>,
    start: Instant,
    rng: Mutex<fastrand::Rng>,
    sent: Arc<Mutex<Sent>>,
}

impl Wire {
    pub(crate) fn new(upstream: Arc<dyn Transport>, seed: u64) -> (Arc<Self>, Arc<Mutex<Sent>>) {
        let sent = Arc::default();
        let rng = Mutex::new(fastrand::Rng::with_seed(seed));
        (Arc::new(Self { upstream, start: Instant::now(), rng, sent: Arc::clone(&sent) }), sent)
    }

    fn delay(&self) -> Duration {
        Duration::from_millis(self.rng.lock().u64(1..SLOWEST))
    }
}

impl Transport for Wire {
    fn send(&self, request: http::Request<RequestBody>) -> ResponseFuture {
        let (there, back) = (self.delay(), self.delay());
        let (start, sent, upstream) = (self.start, Arc::clone(&self.sent), Arc::clone(&self.upstream));
        sent.lock().attempts.push(start.elapsed());
        Box::pin(async move {
            sleep(there).await;
            let answer = upstream.send(request).await;
            sleep(back).await;
            if let Some(answer) = answer.as_ref().ok().filter(|answer| answer.status() == StatusCode::TOO_MANY_REQUESTS)
            {
                let wait = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
                sent.lock().refused.push((start.elapsed(), Duration::from_secs(wait)));
            }
            answer
        })
    }
}
