//! The metrics that Prometheus scrapes.
//!
//! Names, types and help texts live in the [`catalogue`]. Numbers come from a snapshot of the ledger: a scrape never
//! waits for anything and never calls Clerk.

pub mod catalogue;
mod encode;
mod exporter;
mod negotiate;
mod quota;

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::registry::Registry;

pub use exporter::{ConfigStatus, build};
pub use negotiate::Format;

use crate::clock::Clock;
use crate::quota::ledger::Ledger;

/// All metrics of the program.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// Metrics of this ledger.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>, clock: Arc<Clock>, status: Arc<ConfigStatus>) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(quota::QuotaCollector { ledger, clock: Arc::clone(&clock) }));
        registry.register_collector(Box::new(exporter::ExporterCollector { status, clock }));
        Self { registry }
    }

    /// All metrics in one format.
    ///
    /// # Errors
    /// When a metric cannot be written in it; nothing of what was written is valid then.
    pub fn encode(&self, format: Format) -> Result<String, fmt::Error> {
        let mut body = String::new();
        match format {
            Format::Text => prometheus_text::encode(&mut body, &self.registry)?,
            Format::OpenMetrics => text::encode(&mut body, &self.registry)?,
        }
        Ok(body)
    }
}
