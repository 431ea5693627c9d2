//! The metrics that Prometheus scrapes.
//!
//! Names, types and help texts live in the [`catalogue`]. Numbers come from a snapshot of the ledger: a scrape never
//! waits for anything and never calls Clerk.

pub mod catalogue;
mod client;
mod encode;
mod exporter;
mod gateway;
mod negotiate;
mod quota;
mod reloads;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;

pub use exporter::{ConfigStatus, build};
pub use negotiate::Format;
pub use reloads::{ReloadKind, Reloads};

use arc_swap::ArcSwap;

use client::ClientLimits;
use exporter::ExporterCollector;
use gateway::GatewayCollector;
use quota::{QuotaCollector, QuotaPart, View};

use crate::gateway::Gateway;
use clerk_client::outbound::InstanceLimits;
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;

/// From so many instances on, parts of the metrics are written side by side: fewer are done sooner than a thread starts.
const SIDE_BY_SIDE_FROM: usize = 200;

/// All metrics of the program.
#[derive(Debug)]
pub struct Metrics {
    ledger: Arc<Ledger>,
    clock: Arc<Clock>,
    exporter: Registry,
    clients: Arc<ArcSwap<ClientLimits>>,
    /// Knows the names of callers.
    gateway: Option<Arc<Gateway>>,
    /// Bytes of each part of the last exposition, so that the next one has its place from the start.
    last_bytes: [AtomicUsize; QuotaPart::ALL.len()],
}

impl Metrics {
    /// Metrics of this ledger.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>, clock: Arc<Clock>, status: Arc<ConfigStatus>) -> Self {
        Self::with_gateway(ledger, clock, status, None)
    }

    /// Metrics of this ledger and of a gateway, if there is one.
    #[must_use]
    pub fn with_gateway(
        ledger: Arc<Ledger>,
        clock: Arc<Clock>,
        status: Arc<ConfigStatus>,
        gateway: Option<Arc<Gateway>>,
    ) -> Self {
        let mut exporter = Registry::default();
        exporter.register_collector(Box::new(ExporterCollector { status, clock: Arc::clone(&clock) }));
        exporter.register_collector(Box::new(GatewayCollector(gateway.clone())));
        let clients = Arc::new(ArcSwap::default());
        exporter.register_collector(Box::new(ClientCollector(Arc::clone(&clients))));
        let last_bytes = [const { AtomicUsize::new(0) }; QuotaPart::ALL.len()];
        Self { ledger, clock, exporter, clients, gateway, last_bytes }
    }

    /// Shows what clients did beside what they learnt: of each instance the alias, and the `limits` of its
    /// [`Outbound`](clerk_client::outbound::Outbound).
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use clerk_client::clerk::Clerk;
    /// # use clerk_exporter::metrics::Metrics;
    /// fn show(metrics: &Metrics, clerk: &Clerk) {
    ///     metrics.show_clients([("prod".into(), Arc::clone(&clerk.outbound().limits))]);
    /// }
    /// ```
    pub fn show_clients(&self, flows: impl IntoIterator<Item = (Arc<str>, Arc<InstanceLimits>)>) {
        self.clients.store(Arc::new(ClientLimits(flows.into_iter().collect())));
    }

    /// All metrics in one format, in parts that belong one behind the other. They are not joined: of ten thousand
    /// instances they are more than 100 MB.
    ///
    /// # Errors
    /// When a metric cannot be written in it; nothing of what was written is valid then.
    pub fn encode(&self, format: Format) -> Result<Vec<String>, fmt::Error> {
        let view = Arc::new(View::new(&self.ledger, &self.clock, self.gateway.as_deref()));
        let write = |part| {
            let mut registry = Registry::default();
            registry.register_collector(Box::new(QuotaCollector { view: Arc::clone(&view), part }));
            let last_bytes = &self.last_bytes[part as usize];
            let mut text = String::with_capacity(last_bytes.load(Ordering::Relaxed));
            encode(&mut text, &registry, format)?;
            // A few values more must not double the buffer.
            last_bytes.store(text.len() + text.len() / 64, Ordering::Relaxed);
            Ok(text)
        };
        let mut parts = if view.instances() < SIDE_BY_SIDE_FROM {
            QuotaPart::ALL.map(write).into_iter().collect::<Result<Vec<_>, _>>()?
        } else {
            thread::scope(|scope| {
                let threads = QuotaPart::ALL.map(|part| scope.spawn(move || write(part)));
                threads.into_iter().map(|thread| thread.join().unwrap_or(Err(fmt::Error))).collect::<Result<_, _>>()
            })?
        };
        let mut last = String::new();
        encode(&mut last, &self.exporter, format)?;
        if format == Format::OpenMetrics {
            text::encode_eof(&mut last)?;
        }
        parts.push(last);
        Ok(parts)
    }
}

#[derive(Debug)]
struct ClientCollector(Arc<ArcSwap<ClientLimits>>);

impl Collector for ClientCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.load().encode(&mut encoder)
    }
}

fn encode(body: &mut String, registry: &Registry, format: Format) -> Result<(), fmt::Error> {
    match format {
        Format::Text => prometheus_text::encode(body, registry),
        Format::OpenMetrics => text::encode_registry(body, registry),
    }
}
