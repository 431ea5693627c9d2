//! The span of a request.

use std::sync::Arc;

use http::{Extensions, HeaderMap};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanBuilder, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracer;

use crate::gateway::accounting::decision::Decision;
use crate::otlp::{OWN_MARK, SpanCounts, SpanStats};
use clerk_quota::MethodLabel;

/// Makes the spans of requests.
#[derive(Debug, Clone)]
pub struct RequestTracer {
    tracer: SdkTracer,
    stats: Arc<SpanStats>,
}

impl RequestTracer {
    /// Returns a tracer on that of the SDK, with the counters of what becomes of its spans.
    #[must_use]
    pub const fn new(tracer: SdkTracer, stats: Arc<SpanStats>) -> Self {
        Self { tracer, stats }
    }

    /// What became of the spans.
    pub(in crate::gateway) fn counts(&self) -> SpanCounts {
        self.stats.counts()
    }

    /// Begins the span of a request with these headers, as a child of the span that they name.
    pub(in crate::gateway) fn begin(&self, method: MethodLabel, headers: &HeaderMap) -> RequestSpan {
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers));
        let attributes = vec![KeyValue::new(OWN_MARK, true), KeyValue::new("http.request.method", method.as_str())];
        let builder = SpanBuilder::from_name(method.as_str()).with_kind(SpanKind::Server).with_attributes(attributes);
        let span = self.tracer.build_with_context(builder, &parent);
        RequestSpan { tracer: self.tracer.clone(), context: Context::new().with_span(span) }
    }

    pub(super) fn tracer(&self) -> &SdkTracer {
        &self.tracer
    }
}

/// The span of a request, as the parent of others: an extension of the request's head.
#[derive(Debug, Clone)]
pub(in crate::gateway) struct ParentSpan(pub(super) Context);

impl ParentSpan {
    /// Extensions with nothing else than the parent in `extensions`, if there is one.
    pub(in crate::gateway) fn only(extensions: &Extensions) -> Extensions {
        let mut only = Extensions::new();
        if let Some(parent) = extensions.get::<Self>() {
            only.insert(parent.clone());
        }
        only
    }
}

/// The span of a request. Ended with [`finish`](Self::finish), or when it is dropped.
#[derive(Debug)]
pub(in crate::gateway) struct RequestSpan {
    tracer: SdkTracer,
    context: Context,
}

/// The facts about a request that its span says at its end.
#[derive(Debug)]
pub(in crate::gateway) struct SpanFacts<'a> {
    pub(in crate::gateway) instance: Arc<str>,
    pub(in crate::gateway) caller: Arc<str>,
    pub(in crate::gateway) method: &'a str,
    pub(in crate::gateway) template: &'static str,
    pub(in crate::gateway) code: u16,
    pub(in crate::gateway) decision: Decision,
}

impl RequestSpan {
    /// Whether this request is sampled and has not ended.
    pub(in crate::gateway) fn is_recording(&self) -> bool {
        self.context.span().is_recording()
    }

    /// The parent of further spans; `None` if this request is not sampled.
    pub(in crate::gateway) fn parent(&self) -> Option<ParentSpan> {
        self.is_recording().then(|| ParentSpan(self.context.clone()))
    }

    /// Begins the span of a step within the process. It ends when it is dropped.
    pub(in crate::gateway) fn step(&self, name: &'static str) -> StepSpan {
        let builder = SpanBuilder::from_name(name).with_attributes([KeyValue::new(OWN_MARK, true)]);
        StepSpan(Context::new().with_span(self.tracer.build_with_context(builder, &self.context)))
    }

    /// Ends the span with what is known of the request.
    pub(in crate::gateway) fn finish(&self, facts: SpanFacts<'_>) {
        let span = self.context.span();
        span.update_name(format!("{} {}", facts.method, facts.template));
        span.set_attribute(KeyValue::new("http.route", facts.template));
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(facts.code)));
        span.set_attribute(KeyValue::new("clerk_exporter.instance", facts.instance));
        span.set_attribute(KeyValue::new("clerk_exporter.caller", facts.caller));
        span.set_attribute(KeyValue::new("clerk_exporter.decision", facts.decision.as_str()));
        // A server span is an error only for what is not the client's fault (conventions for HTTP, "Status").
        if facts.code >= 500 {
            span.set_attribute(KeyValue::new("error.type", facts.code.to_string()));
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

/// The span of a step within the process.
#[derive(Debug)]
pub(in crate::gateway) struct StepSpan(Context);

impl StepSpan {
    /// Ends the span with one attribute.
    pub(in crate::gateway) fn finish(&self, name: &'static str, value: &'static str) {
        self.0.span().set_attribute(KeyValue::new(name, value));
        self.0.span().end();
    }
}
