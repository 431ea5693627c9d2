//! Spans between the requests that end them and the collector.
//!
//! The SDK's own batch processor has a thread of its own and does not say how many spans it dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::settings::TraceSettings;

/// What became of the spans.
#[derive(Debug, Default)]
pub struct SpanStats {
    sent: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

/// Spans since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpanCounts {
    /// Accepted by the collector.
    pub sent: u64,
    /// Not accepted by the collector, after the exporter's retries.
    pub failed: u64,
    /// Not kept, since too many waited.
    pub dropped: u64,
}

impl SpanStats {
    /// Returns the counts.
    #[must_use]
    pub fn counts(&self) -> SpanCounts {
        let [sent, failed, dropped] =
            [&self.sent, &self.failed, &self.dropped].map(|count| count.load(Ordering::Relaxed));
        SpanCounts { sent, failed, dropped }
    }
}

/// Takes the spans that end. Never blocks.
#[derive(Debug)]
pub struct SpanQueue {
    spans: mpsc::Sender<SpanData>,
    stats: Arc<SpanStats>,
}

impl SpanProcessor for SpanQueue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.spans.try_send(span).is_err() {
            self.stats.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Sends the spans of a [`SpanQueue`].
#[derive(Debug)]
pub struct SpanSender<E> {
    spans: mpsc::Receiver<SpanData>,
    stats: Arc<SpanStats>,
    exporter: E,
    settings: TraceSettings,
    is_failing: bool,
}

impl SpanQueue {
    /// Returns a queue, what sends from it, and their counters.
    #[must_use]
    pub fn new<E: SpanExporter>(exporter: E, settings: TraceSettings) -> (Self, SpanSender<E>, Arc<SpanStats>) {
        let (sender, spans) = mpsc::channel(settings.max_waiting);
        let stats = Arc::new(SpanStats::default());
        let queue = Self { spans: sender, stats: Arc::clone(&stats) };
        (queue, SpanSender { spans, stats: Arc::clone(&stats), exporter, settings, is_failing: false }, stats)
    }
}

impl<E: SpanExporter> SpanSender<E> {
    /// Sends spans until `stop`, and then what waits, for at most `grace`.
    pub async fn run(mut self, stop: CancellationToken, grace: Duration) {
        while !stop.is_cancelled() {
            let next = async {
                let mut batch = Vec::new();
                self.spans.recv_many(&mut batch, 1).await;
                let full = async {
                    while batch.len() < self.settings.max_batch && !self.spans.is_closed() {
                        let left = self.settings.max_batch - batch.len();
                        self.spans.recv_many(&mut batch, left).await;
                    }
                };
                // The stop must not lose what was taken from the queue.
                let _ = stop.run_until_cancelled(timeout(self.settings.delay, full)).await;
                batch
            };
            let Some(batch) = stop.run_until_cancelled(next).await else { break };
            self.send(batch).await;
        }
        let _ = timeout(grace, async {
            self.spans.close();
            let mut batch = Vec::new();
            while self.spans.recv_many(&mut batch, self.settings.max_batch).await > 0 {
                self.send(std::mem::take(&mut batch)).await;
            }
        })
        .await;
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        if batch.is_empty() {
            return;
        }
        let spans = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        match self.exporter.export(batch).await {
            Ok(()) => {
                self.stats.sent.fetch_add(spans, Ordering::Relaxed);
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("the collector accepts spans again");
                }
            }
            Err(error) => {
                self.stats.failed.fetch_add(spans, Ordering::Relaxed);
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::warn!(%error, "the collector does not accept spans; they are lost until it does");
                }
            }
        }
    }
}
