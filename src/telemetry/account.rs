//! Accounts for the spans of a request: what each is, and which calls go to the ledger.

use std::fmt;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};

use super::options::{PlannedInstance, SpanPlan};
use super::receiver::{ReceiverLimits, Rejected};
use super::senders::{CallerNames, Choice, Sender, SenderClocks};
use super::span::{Call, CallEnd, SpanKind, classify};
use super::span_memory::{Arrival, SpanMemory, SpanRef};
use super::stats::{SpanResult, TelemetryStats};
use clerk_quota::ledger::Handle;
use clerk_quota::{
    CallerId, KeyVerdict, Moment, Observation, ReportId, Reported, ReportedEnd, ReportedRequest, RequestStart, Source,
};

/// The source that the ledger counts these requests for.
const SOURCE: Source = Source::Telemetry;

/// The longest delay that is recorded, so that one absurd time does not spoil the sum of all.
const MAX_DELAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A report that can be taken back.
#[derive(Clone)]
struct Report {
    ledger: Handle,
    id: ReportId,
}

impl Report {
    fn cancel(&self) -> bool {
        self.ledger.lock().cancel_report(self.id)
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The whole ledger does not belong here.
        self.id.fmt(f)
    }
}

/// What outlives a request.
#[derive(Debug)]
pub(super) struct SpanAccount {
    memory: SpanMemory<Report>,
    clocks: SenderClocks,
    sender_key: RandomState,
    callers: CallerNames,
    stats: TelemetryStats,
}

/// How a time on a sender's clock becomes one on ours.
#[derive(Debug, Clone, Copy, Default)]
struct Shift {
    back: Duration,
    forth: Duration,
}

impl Shift {
    /// Our clock does not follow steps of the wall clock, by which senders go: `step_seconds` is its lead.
    fn of_wall_clock(step_seconds: f64) -> Self {
        let step = Duration::try_from_secs_f64(step_seconds.abs()).unwrap_or_default();
        if step_seconds < 0.0 {
            Self { forth: step, ..Self::default() }
        } else {
            Self { back: step, ..Self::default() }
        }
    }

    const fn apply(self, time: Moment) -> Moment {
        time.before(self.back).after(self.forth)
    }
}

/// What the spans of one resource have in common.
struct Origin<'a> {
    instance: Choice<'a>,
    caller: CallerId,
    /// How senders' times become ours.
    shift: Shift,
    weight: f64,
}

impl SpanAccount {
    pub(super) fn new(limits: &ReceiverLimits) -> Self {
        Self {
            memory: SpanMemory::new(limits.max_remembered),
            clocks: SenderClocks::new(limits.max_senders),
            sender_key: RandomState::new(),
            callers: CallerNames::new(limits.max_callers),
            stats: TelemetryStats::new(),
        }
    }

    pub(super) fn stats(&self) -> TelemetryStats {
        TelemetryStats {
            forgotten_spans: self.memory.forgotten(),
            forgotten_senders: self.clocks.forgotten(),
            ..self.stats.clone()
        }
    }

    pub(super) fn callers(&self) -> &CallerNames {
        &self.callers
    }

    /// Accounts for all spans of a request that arrived at `now`. The wall clock is ahead of it by `step_seconds`.
    pub(super) fn take(
        &mut self,
        now: Moment,
        step_seconds: f64,
        plan: &SpanPlan,
        request: &ExportTraceServiceRequest,
    ) -> Rejected {
        let wall = Shift::of_wall_clock(step_seconds);
        let mut rejected = Rejected::default();
        for resource in &request.resource_spans {
            let origin = self.origin(now, wall, plan, resource);
            for span in spans(resource) {
                let result = self.take_span(now, plan, &origin, span);
                self.stats.spans[result.index()] += 1;
                rejected.malformed += u64::from(result == SpanResult::Malformed);
                rejected.dropped += u64::from(result == SpanResult::Dropped);
            }
        }
        rejected
    }

    fn origin<'a>(&mut self, now: Moment, wall: Shift, plan: &'a SpanPlan, resource: &ResourceSpans) -> Origin<'a> {
        let attributes = resource.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
        let end = |span: &Span| wall.apply(Moment::from_unix(Duration::from_nanos(span.end_time_unix_nano)));
        let lead = self.clocks.correct(now, Sender::of(attributes, &self.sender_key), spans(resource).map(end));
        Origin {
            instance: plan.attribution.choose(attributes),
            caller: self.callers.find(attributes, &plan.caller_attributes),
            shift: Shift { back: wall.back.saturating_add(lead), ..wall },
            weight: plan.weight,
        }
    }

    fn take_span(&mut self, now: Moment, plan: &SpanPlan, origin: &Origin<'_>, span: &Span) -> SpanResult {
        let call = match classify(span, &plan.hosts) {
            SpanKind::Call(call) => call,
            SpanKind::OtherKind => return SpanResult::OtherKind,
            SpanKind::OtherHost => return SpanResult::OtherHost,
            SpanKind::Own => return SpanResult::Own,
            SpanKind::Malformed => return SpanResult::Malformed,
        };
        let Some(instance) = plan.instance(origin.instance, call.host) else {
            return SpanResult::Unattributed;
        };
        let place = SpanRef::from(&call);
        let arrival = self.memory.arrive(now, &place);
        if !matches!(arrival, Arrival::Duplicate) {
            let delay = now.since(origin.shift.apply(call.ended)).min(MAX_DELAY);
            self.stats.delay_seconds.observe(delay.as_secs_f64());
        }
        match arrival {
            Arrival::Duplicate => SpanResult::Duplicate,
            Arrival::Nested { outer } => {
                if let Some(outer) = outer {
                    outer.cancel();
                }
                SpanResult::Nested
            }
            Arrival::Innermost => self.count(now, instance, origin, &call),
            Arrival::Replaces { outer } => {
                if outer.is_some_and(|outer| outer.cancel()) {
                    // Both spans are one call, which is counted as accepted already.
                    match self.count(now, instance, origin, &call) {
                        SpanResult::Dropped => SpanResult::Dropped,
                        _ => SpanResult::Nested,
                    }
                } else {
                    self.memory.count(now, &place, None);
                    SpanResult::Nested
                }
            }
        }
    }

    /// Reports a call to the ledger.
    fn count(&mut self, now: Moment, instance: &PlannedInstance, origin: &Origin<'_>, call: &Call) -> SpanResult {
        if origin.caller == CallerId::OTHER {
            self.stats.dropped_callers += 1;
        }
        let (started, ended) = (origin.shift.apply(call.started), origin.shift.apply(call.ended));
        let end = match call.end {
            // It cost nothing. If it has an inner span, that one speaks for itself.
            CallEnd::NotSent => return SpanResult::Accepted,
            CallEnd::Unanswered => ReportedEnd::Unanswered,
            CallEnd::Answered { status, quota } => ReportedEnd::Answered(Observation {
                at: ended,
                source: SOURCE,
                route: call.route.id,
                bucket: call.route.bucket,
                entity: call.route.entity,
                status,
                usable: is_usable(status),
                key: KeyVerdict::Unknown,
                quota_code: None,
                is_rate_limit: false,
                quota,
                clock_offset_seconds: None,
            }),
        };
        let start =
            RequestStart { at: started, source: SOURCE, caller: origin.caller, route: call.route, method: call.method };
        let weight = call.sampling_ratio.map_or(origin.weight, |ratio| 1.0 / ratio);
        let reported = instance.ledger.lock().report(now, &ReportedRequest { start, ended, end, weight });
        let (result, report) = match reported {
            Reported::Pending(id) => (SpanResult::Accepted, Some(Report { ledger: Arc::clone(&instance.ledger), id })),
            Reported::Late => (SpanResult::Late, None),
            Reported::Future => (SpanResult::Future, None),
            Reported::Overflow => (SpanResult::Dropped, None),
        };
        self.stats.at_most += u64::from(call.may_be_cache);
        self.memory.count(now, &SpanRef::from(call), report);
        result
    }
}

fn spans(resource: &ResourceSpans) -> impl Iterator<Item = &Span> {
    resource.scope_spans.iter().flat_map(|scope| &scope.spans)
}

/// Whether a response comes from Clerk's API, as far as a status tells. The same rule as for responses that are seen
/// whole: errors of the edge and of proxies are none, nor is a rejected key.
const fn is_usable(status: u16) -> bool {
    matches!(status, 200..=299 | 400..=499) && !matches!(status, 401 | 403 | 407)
}
