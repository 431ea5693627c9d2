//! An application that overuses Clerk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::interval;

use crate::client;

/// Requests at a constant rate until dropped.
pub(crate) struct Load {
    requests: Arc<AtomicU32>,
    refused: Arc<AtomicU32>,
    tasks: JoinSet<()>,
}

impl Load {
    /// Starts to call `url` once every `pause`.
    pub(crate) fn start(url: String, key: &'static str, pause: Duration) -> Self {
        let mut load = Self { requests: Arc::default(), refused: Arc::default(), tasks: JoinSet::new() };
        let (requests, refused, client) = (Arc::clone(&load.requests), Arc::clone(&load.refused), client());
        load.tasks.spawn(async move {
            let mut ticks = interval(pause);
            loop {
                ticks.tick().await;
                let response = client.get(&url).bearer_auth(key).send().await.unwrap();
                requests.fetch_add(1, Ordering::Relaxed);
                if response.status() == reqwest::StatusCode::TOO_MANY_REQUESTS {
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        load
    }

    /// Stops it; returns the number of requests, and of 429 responses.
    pub(crate) async fn stop(mut self) -> (u32, u32) {
        self.tasks.abort_all();
        while let Some(ended) = self.tasks.join_next().await {
            assert!(ended.is_err_and(|error| error.is_cancelled()), "the load failed");
        }
        (self.requests.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }
}
