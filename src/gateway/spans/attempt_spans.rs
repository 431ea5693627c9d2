//! The spans of attempts, and of their waits for the limit.

use std::sync::Arc;

use http::Extensions;
use opentelemetry::trace::{Link, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;

use super::request_span::{ParentSpan, RequestTracer};
use crate::otlp::OWN_MARK;
use clerk_client::outbound::{AttemptAnswer, AttemptEntry, AttemptLog, AttemptStart};
use clerk_quota::Moment;

/// Makes a span for each attempt of a sampled request, and passes all attempts on.
#[derive(Debug)]
pub(in crate::gateway) struct TracedAttempts {
    tracer: SdkTracer,
    /// Clerk's host, and its port if it is not the scheme's.
    server: (String, Option<u16>),
    next: Option<Arc<dyn AttemptLog>>,
}

impl TracedAttempts {
    pub(in crate::gateway) fn new(
        tracer: &RequestTracer,
        server: (&str, Option<u16>),
        next: Option<Arc<dyn AttemptLog>>,
    ) -> Self {
        Self { tracer: tracer.tracer().clone(), server: (server.0.to_owned(), server.1), next }
    }

    fn begin_span(&self, attempt: &AttemptStart<'_>) -> Option<Context> {
        let parent_of =
            |extensions: &Extensions| extensions.get::<ParentSpan>().map(|ParentSpan(parent)| parent.clone());
        let members: Vec<Context> = attempt.members.iter().filter_map(parent_of).collect();
        // A request that several share is a child of the first, and linked to all.
        let parent = attempt.extensions.and_then(parent_of).or_else(|| members.first().cloned())?;
        let now = opentelemetry::time::now();
        if !attempt.waited.is_zero() {
            let builder = SpanBuilder::from_name("queue").with_attributes([KeyValue::new(OWN_MARK, true)]);
            let builder = builder.with_start_time(now.checked_sub(attempt.waited).unwrap_or(now));
            let queue = self.tracer.build_with_context(builder, &parent);
            Context::new().with_span(queue).span().end_with_timestamp(now);
        }
        let method = attempt.request.method.as_str();
        let mut attributes = vec![
            KeyValue::new(OWN_MARK, true),
            KeyValue::new("http.request.method", method),
            KeyValue::new("url.template", attempt.request.route.template),
            KeyValue::new("server.address", self.server.0.clone()),
        ];
        if let Some(port) = self.server.1 {
            attributes.push(KeyValue::new("server.port", i64::from(port)));
        }
        if attempt.number > 1 {
            attributes.push(KeyValue::new("http.request.resend_count", i64::from(attempt.number - 1)));
        }
        let name = format!("{method} {}", attempt.request.route.template);
        let links = members.iter().map(|member| Link::with_context(member.span().span_context().clone())).collect();
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Client).with_start_time(now);
        let builder = builder.with_attributes(attributes).with_links(links);
        Some(Context::new().with_span(self.tracer.build_with_context(builder, &parent)))
    }
}

impl AttemptLog for TracedAttempts {
    fn begin(self: Arc<Self>, attempt: &AttemptStart<'_>) -> Box<dyn AttemptEntry> {
        let entry = self.next.as_ref().map(|next| Arc::clone(next).begin(attempt));
        match self.begin_span(attempt) {
            Some(span) => Box::new(TracedAttempt { span: AttemptSpan(span), entry }),
            None => entry.unwrap_or_else(|| Box::new(NotTraced)),
        }
    }
}

/// An attempt without span and log.
#[derive(Debug)]
struct NotTraced;

impl AttemptEntry for NotTraced {
    fn end(self: Box<Self>, _: Moment, _: Option<AttemptAnswer<'_>>) {}
}

/// An attempt in flight.
#[derive(Debug)]
struct TracedAttempt {
    span: AttemptSpan,
    entry: Option<Box<dyn AttemptEntry>>,
}

impl AttemptEntry for TracedAttempt {
    fn end(self: Box<Self>, at: Moment, answer: Option<AttemptAnswer<'_>>) {
        let span = self.span.0.span();
        match answer {
            Some(AttemptAnswer { status, clerk_trace_id }) => {
                span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
                if let Some(id) = clerk_trace_id.filter(|id| is_trace_id(id)) {
                    span.set_attribute(KeyValue::new("clerk.trace_id", id.to_owned()));
                }
                // A client span is an error from 400 on (conventions for HTTP, "Status").
                if status.is_client_error() || status.is_server_error() {
                    span.set_attribute(KeyValue::new("error.type", status.as_str().to_owned()));
                    span.set_status(Status::error(""));
                }
            }
            None => {
                span.set_attribute(KeyValue::new("error.type", "no_response"));
                span.set_status(Status::error("no response"));
            }
        }
        span.end();
        if let Some(entry) = self.entry {
            entry.end(at, answer);
        }
    }
}

/// A span that, dropped without an end, says that nothing was sent.
#[derive(Debug)]
struct AttemptSpan(Context);

impl Drop for AttemptSpan {
    fn drop(&mut self) {
        let span = self.0.span();
        if span.is_recording() {
            span.set_attribute(KeyValue::new("error.type", "not_sent"));
            span.set_status(Status::error("not sent"));
            span.end();
        }
    }
}

/// Whether a text is an id as Clerk's are, and nothing that a proxy could have put there.
fn is_trace_id(id: &str) -> bool {
    (8..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}
