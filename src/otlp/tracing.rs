//! The SDK, set up to send through a [`SpanQueue`].

use std::sync::Arc;

use opentelemetry::trace::TracerProvider;
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanExporter as _};

use super::client::CollectorClient;
use super::settings::{OtlpError, TraceSettings};
use super::span_queue::{SpanQueue, SpanSender, SpanStats};
use clerk_client::transport::Transport;

/// The name of this service unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` has another.
const SERVICE: &str = "clerk-exporter";

/// Returns a tracer, what sends its spans over `transport`, and their counters. The SDK reads endpoint, headers, resource
/// and sampler from the environment; `endpoint` replaces that of the environment.
///
/// # Errors
/// Returns an error if the SDK cannot use the environment's values.
pub fn tracer(
    settings: TraceSettings,
    endpoint: Option<String>,
    transport: Arc<dyn Transport>,
    version: &'static str,
) -> Result<(SdkTracer, SpanSender<SpanExporter>, Arc<SpanStats>), OtlpError> {
    let client = CollectorClient { transport, timeout: settings.timeout };
    let builder = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(settings.timeout);
    let builder = match endpoint {
        Some(endpoint) => builder.with_endpoint(endpoint),
        None => builder,
    };
    let mut exporter = builder.build().map_err(|error| OtlpError::Exporting(error.to_string()))?;
    let resource = resource(version);
    exporter.set_resource(&resource);
    let (queue, sender, stats) = SpanQueue::new(exporter, settings);
    // Without an exporter of its own the provider needs no shutdown: the queue is emptied by its sender.
    let provider = SdkTracerProvider::builder().with_span_processor(queue).with_resource(resource).build();
    Ok((provider.tracer(SERVICE), sender, stats))
}

fn resource(version: &'static str) -> Resource {
    let found = Resource::builder().with_attribute(KeyValue::new("service.version", version)).build();
    let name = found.get(&Key::new("service.name")).map(|name| name.as_str().into_owned());
    if name.is_some_and(|name| !name.starts_with("unknown_service")) {
        return found;
    }
    let named = Resource::builder().with_attribute(KeyValue::new("service.version", version));
    named.with_service_name(SERVICE).build()
}
