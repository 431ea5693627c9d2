//! The metrics that Prometheus scrapes.
//!
//! Names, types and help texts are in the [`catalogue`]. Values come from a snapshot of the ledger: a scrape never
//! waits and never calls Clerk.

pub mod catalogue;
mod client;
mod encode;
mod exporter;
mod exposition;
mod gateway;
mod metered;
mod negotiate;
mod quota;
mod reloads;
mod telemetry;

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;

pub use exporter::{ConfigStatus, LeaseCounts, build};
pub use exposition::Exposition;
pub use negotiate::Format;
pub use reloads::{ReloadKind, Reloads};

use arc_swap::ArcSwap;

use client::ClientLimits;
use exporter::ExporterCollector;
use gateway::GatewayCollector;
use quota::View;
use telemetry::TelemetryCollector;

use crate::sources::Sources;
use clerk_client::outbound::InstanceLimits;
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;

/// All metrics of the program.
#[derive(Debug)]
pub struct Metrics {
    ledger: Arc<Ledger>,
    clock: Arc<Clock>,
    exporter: Registry,
    clients: Arc<ArcSwap<ClientLimits>>,
    /// Resolve caller names.
    sources: Sources,
}

impl Metrics {
    /// Returns the metrics of this ledger.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>, clock: Arc<Clock>, status: Arc<ConfigStatus>) -> Self {
        Self::with_sources(ledger, clock, status, Sources::default())
    }

    /// Returns the metrics of this ledger and of these sources.
    #[must_use]
    pub fn with_sources(ledger: Arc<Ledger>, clock: Arc<Clock>, status: Arc<ConfigStatus>, sources: Sources) -> Self {
        let mut exporter = Registry::default();
        exporter.register_collector(Box::new(ExporterCollector { status, clock: Arc::clone(&clock) }));
        exporter.register_collector(Box::new(GatewayCollector(sources.gateway.clone())));
        exporter.register_collector(Box::new(TelemetryCollector(sources.telemetry.clone())));
        let clients = Arc::new(ArcSwap::default());
        exporter.register_collector(Box::new(ClientCollector(Arc::clone(&clients))));
        Self { ledger, clock, exporter, clients, sources }
    }

    /// Adds metrics of client libraries: for each instance the alias and the `limits` of its
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

    /// Returns all current metrics, to be encoded in this format.
    ///
    /// # Errors
    /// Returns an error if a metric cannot be encoded.
    pub fn expose(&self, format: Format) -> Result<Exposition, fmt::Error> {
        let view = View::new(&self.ledger, &self.clock, &self.sources);
        let mut last = String::new();
        encode(&mut last, &self.exporter, format)?;
        if format == Format::OpenMetrics {
            text::encode_eof(&mut last)?;
        }
        Ok(Exposition::new(view, last, format))
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
