//! One request from its head to the end of its response: counted and logged exactly once, however it ends.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::caller_registry::CallerRegistry;
use super::counters::{CompletedRequest, DryRunCounts, RequestCounters};
use super::decision::Decision;
use crate::gateway::spans::{RequestSpan, SpanFacts};
use clerk_client::limiter::{Priority, ShedReason};
use clerk_client::outbound::UpstreamBody;
use clerk_client::transport::{ErrorKind, TransportError};
use clerk_quota::{CallerId, MethodLabel};

/// The status of requests whose client disconnected early. Servers never send it; nginx logs it, too.
pub const CLIENT_GONE: u16 = 499;

/// The facts about a request. Dropping the record counts the request.
#[derive(Debug)]
pub(in crate::gateway) struct RequestRecord {
    pub(in crate::gateway) instance: Arc<str>,
    pub(in crate::gateway) counters: Arc<RequestCounters>,
    pub(in crate::gateway) callers: Arc<CallerRegistry>,
    pub(in crate::gateway) from: Instant,
    pub(in crate::gateway) template: &'static str,
    pub(in crate::gateway) caller: CallerId,
    pub(in crate::gateway) method: MethodLabel,
    pub(in crate::gateway) priority: Priority,
    pub(in crate::gateway) code: u16,
    pub(in crate::gateway) decision: Decision,
    /// Why the limiter shed the request, if it did.
    pub(in crate::gateway) shed: Option<ShedReason>,
    pub(in crate::gateway) upstream: Option<Duration>,
    pub(in crate::gateway) dry_run: DryRunCounts,
    /// Its span, if the gateway traces.
    pub(in crate::gateway) span: Option<RequestSpan>,
}

impl RequestRecord {
    pub(in crate::gateway) fn caller_name(&self) -> Arc<str> {
        self.callers.name(self.caller)
    }

    /// Sets the outcome.
    pub(in crate::gateway) const fn finish(&mut self, status: StatusCode, decision: Decision) {
        self.code = status.as_u16();
        self.decision = decision;
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        let duration = self.from.elapsed();
        self.counters.record(&CompletedRequest {
            template: self.template,
            caller: self.caller,
            method: self.method,
            code: self.code,
            decision: self.decision,
            shed: self.shed,
            priority: self.priority,
            duration,
            upstream: self.upstream,
            dry_run: self.dry_run,
        });
        // Others need no facts, which take a lock.
        if let Some(span) = self.span.as_ref().filter(|span| span.is_recording()) {
            span.finish(SpanFacts {
                instance: Arc::clone(&self.instance),
                caller: self.callers.name(self.caller),
                method: self.method.as_str(),
                template: self.template,
                code: self.code,
                decision: self.decision,
            });
        }
        // The template, never the path: paths contain user IDs.
        tracing::debug!(
            clerk_instance = &*self.instance,
            caller = &*self.callers.name(self.caller),
            method = self.method.as_str(),
            route = self.template,
            status = self.code,
            duration_seconds = duration.as_secs_f64(),
            decision = self.decision.as_str(),
            "request"
        );
    }
}

/// The body of a response on its way to the client, with an idle timeout.
#[derive(Debug)]
pub(in crate::gateway) struct RecordingBody {
    body: UpstreamBody,
    patience: Duration,
    silence: Option<Pin<Box<Sleep>>>,
    /// Dropped with the body, which ends the request.
    _seen: RequestRecord,
}

impl RecordingBody {
    pub(in crate::gateway) const fn new(body: UpstreamBody, patience: Duration, seen: RequestRecord) -> Self {
        Self { body, patience, silence: None, _seen: seen }
    }
}

impl http_body::Body for RecordingBody {
    type Data = Bytes;
    type Error = TransportError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TransportError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.silence = None;
            return Poll::Ready(frame);
        }
        let patience = self.patience;
        let silence = self.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        match silence.as_mut().poll(context) {
            Poll::Ready(()) => {
                let why = format!("no part of the body came within {}", humantime::format_duration(patience));
                Poll::Ready(Some(Err(TransportError::new(ErrorKind::Timeout, why))))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
