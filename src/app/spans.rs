//! Switches the gateway's spans on, if the environment asks for them.

use anyhow::Context;
use opentelemetry_otlp::SpanExporter;

use crate::gateway::RequestTracer;
use crate::metrics::build;
use crate::otlp::{self, SpanSender, TraceSettings};
use clerk_client::transport::{ReqwestOptions, ReqwestTransport};

/// What makes spans, and what sends them.
pub(super) type Spans = (RequestTracer, SpanSender<SpanExporter>);

/// Reads OpenTelemetry's variables; `None` if they ask for no spans.
///
/// # Errors
/// Returns an error if a value cannot be used, or the connection cannot be set up.
pub(super) fn from_environment() -> anyhow::Result<Option<Spans>> {
    let Some(settings) = TraceSettings::from_environment()? else { return Ok(None) };
    let options = ReqwestOptions::default().ca_file(settings.ca_file.clone());
    let transport = ReqwestTransport::new(options).context("the connection to the collector of spans")?;
    let (tracer, sender, stats) = otlp::tracer(settings, None, transport, build::VERSION)?;
    tracing::info!("the gateway sends spans of its requests");
    Ok(Some((RequestTracer::new(tracer, stats), sender)))
}
