//! Metrics of the client library: retries and queue times.

use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::encoding::DescriptorEncoder;

use super::catalogue as families;
use super::encode::{LabelValue, Number, counter, gauge, histogram};
use clerk_client::limiter::ShedReason;
use clerk_client::outbound::retry::{RetryableError, StopReason};
use clerk_client::outbound::{InstanceLimits, RequestStats};

/// The limits of the outbound clients, with the alias of each instance.
#[derive(Debug, Clone, Default)]
pub(super) struct ClientLimits(pub Vec<(Arc<str>, Arc<InstanceLimits>)>);

impl ClientLimits {
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let flows: Vec<_> = self.0.iter().map(|(name, flow)| (&**name, flow.stats())).collect();
        let flows = &flows[..];
        counter(encoder, families::CLIENT_REQUESTS, each(flows, |numbers| numbers.requests))?;
        counter(encoder, families::CLIENT_ATTEMPTS, each(flows, |numbers| numbers.attempts))?;
        let troubles = RetryableError::ALL.map(RetryableError::as_str);
        counter(encoder, families::CLIENT_RETRIES, each_of(flows, troubles, |numbers| &numbers.retried))?;
        let reasons = StopReason::ALL.map(StopReason::as_str);
        counter(encoder, families::CLIENT_RETRY_OUTCOMES, each_of(flows, reasons, |numbers| &numbers.stopped))?;
        let reasons = ShedReason::ALL.map(ShedReason::as_str);
        counter(encoder, families::CLIENT_SHED, each_of(flows, reasons, |numbers| &numbers.pace.shed))?;
        let waiting = each(flows, |numbers| Number::Whole(numbers.pace.waiting as u64));
        gauge(encoder, families::CLIENT_QUEUE_DEPTH, waiting)?;
        let in_flight = each(flows, |numbers| Number::Whole(numbers.pace.in_flight as u64));
        gauge(encoder, families::CLIENT_IN_FLIGHT, in_flight)?;
        let shared = flows.iter().filter_map(|(name, numbers)| {
            Some(([LabelValue::Text(name)], Number::from(numbers.pace.sharing?.reachable)))
        });
        gauge(encoder, families::CLIENT_BUDGET_SHARED, shared)?;
        histogram(encoder, families::CLIENT_QUEUE_WAIT, each(flows, |numbers| &numbers.pace.waited_seconds))
    }
}

fn each<'a, T>(
    flows: &'a [(&'a str, RequestStats)],
    value: impl Fn(&'a RequestStats) -> T,
) -> impl Iterator<Item = ([LabelValue<'a>; 1], T)> {
    flows.iter().map(move |(name, numbers)| ([LabelValue::Text(name)], value(numbers)))
}

/// One sample per name of a closed set.
fn each_of<'a, const N: usize>(
    flows: &'a [(&'a str, RequestStats)],
    names: [&'static str; N],
    counts: impl Fn(&'a RequestStats) -> &'a [u64; N],
) -> impl Iterator<Item = ([LabelValue<'a>; 2], u64)> {
    flows.iter().flat_map(move |(name, numbers)| {
        names.into_iter().zip(*counts(numbers)).map(|(word, count)| ([LabelValue::Text(name), word.into()], count))
    })
}
