//! The ledger's numbers as metrics: a collector over one snapshot for each scrape.
//!
//! Nothing here is set or kept. A value that is no longer true, or an instance that was removed, is simply not in the
//! next snapshot.

use std::collections::HashMap;
use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::catalogue as families;
use super::encode::{LabelValue, Number, counter, gauge, histogram};
use crate::gateway::Gateway;
use clerk_quota::clock::Clock;
use clerk_quota::condition::Condition;
use clerk_quota::ledger::Ledger;
use clerk_quota::snapshot::{BucketSnapshot, InstanceSnapshot};
use clerk_quota::spending::Spender;
use clerk_quota::{Bucket, CallerId, HeaderError, Moment, ProbeFailure, ProbeSkip, QuotaCode, Source};

/// The ledger's numbers at the moment of a scrape.
#[derive(Debug)]
pub(super) struct View {
    instances: Vec<InstanceSnapshot>,
    /// Names of those who spend the quota.
    callers: HashMap<(Source, CallerId), Arc<str>>,
    now: Moment,
    /// What is added to all times, in seconds.
    step: f64,
}

impl View {
    pub(super) fn new(ledger: &Ledger, clock: &Clock, gateway: Option<&Gateway>) -> Self {
        let now = clock.now();
        let instances = ledger.snapshot(now);
        let mut callers = HashMap::new();
        for (key, _) in instances.iter().flat_map(|instance| &instance.spent) {
            let Spender { source, caller, .. } = key.spender;
            callers.entry((source, caller)).or_insert_with(|| match gateway {
                Some(gateway) => gateway.caller_name(caller, source),
                None => Arc::from(source.as_str()),
            });
        }
        Self { instances, callers, now, step: clock.step_seconds() }
    }

    pub(super) const fn instances(&self) -> usize {
        self.instances.len()
    }
}

/// A part of the families, about as long as each other part: with thousands of instances they are written side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QuotaPart {
    InstancesAndGauges,
    Windows,
    Traffic,
    Probes,
}

impl QuotaPart {
    pub(super) const ALL: [Self; 4] = [Self::InstancesAndGauges, Self::Windows, Self::Traffic, Self::Probes];
}

/// Encodes a part of a view.
#[derive(Debug)]
pub(super) struct QuotaCollector {
    pub view: Arc<View>,
    pub part: QuotaPart,
}

impl Collector for QuotaCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let View { instances, callers, now, step } = &*self.view;
        let timestamp = |moment: Moment| Number::Real(moment.unix_seconds() + step);
        let encoder = &mut encoder;
        match self.part {
            QuotaPart::InstancesAndGauges => {
                encode_instances(encoder, instances, *now)?;
                encode_gauges(encoder, instances, timestamp)
            }
            QuotaPart::Windows => encode_windows(encoder, instances),
            QuotaPart::Traffic => {
                encode_spending(encoder, instances, callers)?;
                encode_traffic(encoder, instances)
            }
            QuotaPart::Probes => encode_probes(encoder, instances, timestamp),
        }
    }
}

/// One sample for each instance that has a value.
fn each<'a, T>(
    instances: &'a [InstanceSnapshot],
    value: impl Fn(&'a InstanceSnapshot) -> Option<T>,
) -> impl Iterator<Item = ([LabelValue<'a>; 1], T)> {
    instances.iter().filter_map(move |instance| Some(([LabelValue::Text(&instance.name)], value(instance)?)))
}

/// One sample for each bucket with a budget that has a value.
fn each_bucket<'a, T>(
    instances: &'a [InstanceSnapshot],
    value: impl Fn(&'a BucketSnapshot) -> Option<T>,
) -> impl Iterator<Item = ([LabelValue<'a>; 2], T)> {
    let buckets = instances.iter().flat_map(|instance| instance.buckets.iter().map(move |bucket| (instance, bucket)));
    buckets.filter(|(_, bucket)| bucket.bucket != Bucket::Unlimited).filter_map(move |(instance, bucket)| {
        Some(([LabelValue::Text(&instance.name), bucket.bucket.as_str().into()], value(bucket)?))
    })
}

/// One sample for each instance and each name of a closed set.
fn each_of<'a, const N: usize>(
    instances: &'a [InstanceSnapshot],
    names: [&'static str; N],
    counts: impl Fn(&'a InstanceSnapshot) -> &'a [u64; N],
) -> impl Iterator<Item = ([LabelValue<'a>; 2], u64)> {
    instances.iter().flat_map(move |instance| {
        let counts = *counts(instance);
        names.into_iter().zip(counts).map(|(name, count)| ([LabelValue::Text(&instance.name), name.into()], count))
    })
}

fn encode_instances(
    encoder: &mut DescriptorEncoder<'_>,
    instances: &[InstanceSnapshot],
    now: Moment,
) -> Result<(), Error> {
    gauge(encoder, families::UP, each(instances, |instance| instance.up.map(Number::from)))?;
    gauge(encoder, families::KEY_VALID, each(instances, |instance| instance.key_valid.map(Number::from)))?;
    let info = instances.iter().map(|instance| {
        let environment = instance.environment.as_str().into();
        ([LabelValue::Text(&instance.name), environment, LabelValue::Text(&instance.api_host)], Number::Whole(1))
    });
    gauge(encoder, families::INSTANCE_INFO, info)?;
    let trouble = instances.iter().filter_map(|instance| {
        let trouble = Condition::of(instance, now).trouble?;
        Some(([LabelValue::Text(&instance.name), trouble.label().into()], Number::Whole(1)))
    });
    gauge(encoder, families::TROUBLE_INFO, trouble)?;
    gauge(encoder, families::USERS, each(instances, |instance| instance.users.map(Number::Whole)))?;
    gauge(
        encoder,
        families::USERS_ACTIVE_30D,
        each(instances, |instance| instance.users_active_30d.map(Number::Whole)),
    )?;
    gauge(encoder, families::USERS_LIMIT, each(instances, |instance| instance.users_limit.map(Number::Whole)))?;
    gauge(encoder, families::CLOCK_OFFSET, each(instances, |instance| instance.clock_offset_seconds.map(Number::Real)))
}

fn encode_gauges(
    encoder: &mut DescriptorEncoder<'_>,
    instances: &[InstanceSnapshot],
    timestamp: impl Fn(Moment) -> Number + Copy,
) -> Result<(), Error> {
    gauge(encoder, families::LIMIT, each_bucket(instances, |bucket| bucket.limit.map(Number::Whole)))?;
    gauge(encoder, families::REMAINING, each_bucket(instances, |bucket| bucket.remaining.map(Number::Whole)))?;
    gauge(encoder, families::RESET_TIMESTAMP, each_bucket(instances, |bucket| bucket.reset_at.map(timestamp)))?;
    let window = each_bucket(instances, |bucket| Some(Number::Real(bucket.window.as_secs_f64())));
    gauge(encoder, families::WINDOW, window)?;
    let basis = instances.iter().flat_map(|instance| {
        instance.buckets.iter().filter(|bucket| bucket.bucket != Bucket::Unlimited).filter_map(move |bucket| {
            let labels =
                [LabelValue::Text(&instance.name), bucket.bucket.as_str().into(), bucket.basis?.as_str().into()];
            Some((labels, Number::Whole(1)))
        })
    });
    gauge(encoder, families::BASIS_INFO, basis)?;
    gauge(encoder, families::SAMPLE_TIMESTAMP, each_bucket(instances, |bucket| bucket.sampled_at.map(timestamp)))?;
    gauge(encoder, families::USAGE_PEAK, each_bucket(instances, |bucket| bucket.usage_peak.map(Number::Real)))?;
    // Of instances whose traffic passes here; beside probes alone, all traffic would be that of others.
    let unseen = instances.iter().filter(|instance| instance.has_source(Source::Gateway)).flat_map(|instance| {
        instance.buckets.iter().filter_map(move |bucket| {
            let labels = [LabelValue::Text(&instance.name), bucket.bucket.as_str().into()];
            Some((labels, Number::Whole(bucket.unseen?)))
        })
    });
    gauge(encoder, families::UNSEEN, unseen)?;
    let blocked = each_bucket(instances, |bucket| bucket.blocked_until.map(timestamp));
    gauge(encoder, families::BLOCKED_UNTIL, blocked)?;
    let forecast = each_bucket(instances, |bucket| Some(Number::Real(bucket.to_exhaustion?.as_secs_f64())));
    gauge(encoder, families::SECONDS_TO_EXHAUSTION, forecast)
}

fn encode_windows(encoder: &mut DescriptorEncoder<'_>, instances: &[InstanceSnapshot]) -> Result<(), Error> {
    histogram(encoder, families::WINDOW_USAGE, each_bucket(instances, |bucket| bucket.window_usage.as_ref()))?;
    counter(encoder, families::WINDOWS, each_bucket(instances, |bucket| Some(bucket.windows)))?;
    counter(encoder, families::LOW_WINDOWS, each_bucket(instances, |bucket| Some(bucket.low_windows)))?;
    counter(encoder, families::EXHAUSTED_WINDOWS, each_bucket(instances, |bucket| Some(bucket.exhausted_windows)))
}

/// Who spends the quota.
fn encode_spending(
    encoder: &mut DescriptorEncoder<'_>,
    instances: &[InstanceSnapshot],
    callers: &HashMap<(Source, CallerId), Arc<str>>,
) -> Result<(), Error> {
    let spent = instances.iter().flat_map(|instance| {
        instance.spent.iter().filter_map(move |(key, count)| {
            let Spender { caller, source, route, method } = key.spender;
            let labels = [
                LabelValue::Text(&instance.name),
                key.bucket.as_str().into(),
                LabelValue::Text(callers.get(&(source, caller))?),
                route.template().into(),
                method.as_str().into(),
                source.as_str().into(),
                key.result.as_str().into(),
            ];
            Some((labels, *count))
        })
    });
    counter(encoder, families::SPENT, spent)
}

fn encode_traffic(encoder: &mut DescriptorEncoder<'_>, instances: &[InstanceSnapshot]) -> Result<(), Error> {
    let throttled = instances.iter().flat_map(|instance| {
        instance.buckets.iter().flat_map(move |bucket| {
            let sources = Source::ALL.into_iter().filter(|source| instance.has_source(*source));
            sources.map(move |source| {
                let labels = [LabelValue::Text(&instance.name), bucket.bucket.as_str().into(), source.as_str().into()];
                (labels, bucket.throttled[source.index()])
            })
        })
    });
    counter(encoder, families::THROTTLED, throttled)?;
    let errors = HeaderError::ALL.map(HeaderError::as_str);
    counter(encoder, families::HEADER_ERRORS, each_of(instances, errors, |instance| &instance.header_errors))?;
    let codes = QuotaCode::ALL.map(QuotaCode::as_str);
    counter(encoder, families::QUOTA_EXCEEDED, each_of(instances, codes, |instance| &instance.quota_exceeded))?;
    let responses = instances.iter().flat_map(|instance| {
        instance.responses.iter().map(move |((source, status), count)| {
            ([LabelValue::Text(&instance.name), source.as_str().into(), LabelValue::Code(*status)], *count)
        })
    });
    counter(encoder, families::RESPONSES, responses)
}

fn encode_probes(
    encoder: &mut DescriptorEncoder<'_>,
    instances: &[InstanceSnapshot],
    timestamp: impl Fn(Moment) -> Number + Copy,
) -> Result<(), Error> {
    counter(encoder, families::PROBES, each(instances, |instance| Some(instance.probes.total)))?;
    let reasons = ProbeFailure::ALL.map(ProbeFailure::as_str);
    counter(encoder, families::PROBE_FAILURES, each_of(instances, reasons, |instance| &instance.probes.failures))?;
    let reasons = ProbeSkip::ALL.map(ProbeSkip::as_str);
    counter(encoder, families::PROBES_SKIPPED, each_of(instances, reasons, |instance| &instance.probes.skipped))?;
    let durations = each(instances, |instance| Some(&instance.probes.duration_seconds));
    histogram(encoder, families::PROBE_DURATION, durations)?;
    let successes = each(instances, |instance| instance.probes.last_success.map(timestamp));
    gauge(encoder, families::PROBE_LAST_SUCCESS, successes)
}
