//! Metrics of the telemetry source.

use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::catalogue as families;
use super::encode::{LabelValue, Number, counter, gauge, histogram};
use crate::telemetry::{Refusal, SpanResult, Telemetry};

/// Encodes the statistics of the telemetry source; nothing without one.
#[derive(Debug)]
pub(super) struct TelemetryCollector(pub Option<Arc<Telemetry>>);

impl Collector for TelemetryCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Some(telemetry) = &self.0 else { return Ok(()) };
        let (stats, encoder) = (telemetry.stats(), &mut encoder);
        let spans = SpanResult::ALL.map(|result| ([LabelValue::from(result.as_str())], stats.spans_with(result)));
        counter(encoder, families::TELEMETRY_SPANS, spans.into_iter())?;
        let refused =
            Refusal::ALL.map(|refusal| ([LabelValue::from(refusal.as_str())], stats.refused[refusal.index()]));
        counter(encoder, families::TELEMETRY_REFUSED, refused.into_iter())?;
        histogram(encoder, families::TELEMETRY_DELAY, [([], &stats.delay_seconds)].into_iter())?;
        let complete = telemetry.completeness();
        let complete = complete.iter().map(|(name, is)| ([LabelValue::Text(name)], Number::from(*is)));
        gauge(encoder, families::TELEMETRY_COMPLETE, complete)?;
        let forgotten = [("span", stats.forgotten_spans), ("sender", stats.forgotten_senders)];
        let forgotten = forgotten.into_iter().map(|(what, count)| ([what.into()], count));
        counter(encoder, families::TELEMETRY_FORGOTTEN, forgotten)?;
        counter(encoder, families::TELEMETRY_AT_MOST, [([], stats.at_most)].into_iter())?;
        counter(encoder, families::TELEMETRY_DROPPED_CALLERS, [([], stats.dropped_callers)].into_iter())
    }
}
