//! The ledger's numbers as metric families, from one snapshot per scrape.
//!
//! No metric is set or stored. Values that no longer apply and removed instances are missing from the next snapshot.

use std::collections::HashMap;
use std::fmt::Error;
use std::ops::Range;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::catalogue as families;
use super::encode::{LabelValue, Number, counter, gauge, histogram};
use super::metered;
use crate::sources::Sources;
use clerk_quota::clock::Clock;
use clerk_quota::condition::Condition;
use clerk_quota::ledger::Ledger;
use clerk_quota::snapshot::{BucketSnapshot, InstanceSnapshot};
use clerk_quota::spending::Spender;
use clerk_quota::{Bucket, CallerId, HeaderError, Moment, ProbeFailure, ProbeSkip, ProbeStats, QuotaCode, Source};

/// The ledger's numbers at the moment of a scrape.
#[derive(Debug)]
pub(super) struct View {
    instances: Vec<InstanceSnapshot>,
    /// Names of the consumers of the quota.
    callers: HashMap<(Source, CallerId), Arc<str>>,
    now: Moment,
    /// Added to all times, in seconds.
    step: f64,
}

impl View {
    pub(super) fn new(ledger: &Ledger, clock: &Clock, sources: &Sources) -> Self {
        let now = clock.now();
        let mut instances = ledger.snapshot(now);
        instances.retain(InstanceSnapshot::is_observed);
        let mut callers = HashMap::new();
        let spenders = instances.iter().flat_map(|instance| &instance.spent).map(|(key, _)| key.spender);
        let metered = instances.iter().flat_map(|instance| &instance.metered.operations);
        let metered = metered.map(|(key, _)| (key.source, key.caller));
        for (source, caller) in spenders.map(|spender| (spender.source, spender.caller)).chain(metered) {
            callers.entry((source, caller)).or_insert_with(|| sources.caller_name(caller, source));
        }
        Self { instances, callers, now, step: clock.step_seconds() }
    }

    /// The name of a caller in one of these snapshots.
    pub(super) fn caller(&self, source: Source, caller: CallerId) -> Option<&str> {
        self.callers.get(&(source, caller)).map(|name| &**name)
    }

    pub(super) const fn instances(&self) -> usize {
        self.instances.len()
    }

    /// Approximate memory in use, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let of_one = |instance: &InstanceSnapshot| {
            let buckets = instance.buckets.iter().filter(|bucket| bucket.sampled_at.is_some());
            let buckets = buckets.count() * (size_of::<BucketSnapshot>() + HISTOGRAM_BYTES);
            let callers = size_of_val(&*instance.spent) + size_of_val(&*instance.metered.operations);
            size_of::<InstanceSnapshot>() + buckets + callers
        };
        self.instances.iter().map(of_one).sum()
    }

    fn timestamp(&self, moment: Moment) -> Number {
        Number::Real(moment.unix_seconds() + self.step)
    }
}

/// Approximate size of a bucket's histogram, in bytes.
const HISTOGRAM_BYTES: usize = 128;

/// Encodes one family of some instances.
#[derive(Debug)]
pub(super) struct QuotaCollector {
    pub view: Arc<View>,
    /// Index in [`FAMILIES`].
    pub family: usize,
    /// Indices of the instances.
    pub instances: Range<usize>,
}

impl Collector for QuotaCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let instances = self.view.instances.get(self.instances.clone()).unwrap_or_default();
        let Some(write) = FAMILIES.get(self.family) else { return Ok(()) };
        write(&mut encoder, &self.view, instances)
    }
}

/// Writes one family of these instances, which belong to the view.
type WriteFamily = fn(&mut DescriptorEncoder<'_>, &View, &[InstanceSnapshot]) -> Result<(), Error>;

/// All families of the ledger, in the order in which they are exposed.
pub(super) const FAMILIES: &[WriteFamily] = &[
    |to, _, of| gauge(to, families::UP, each(of, |instance| instance.up.map(Number::from))),
    |to, _, of| gauge(to, families::KEY_VALID, each(of, |instance| instance.key_valid.map(Number::from))),
    instance_info,
    trouble_info,
    |to, _, of| gauge(to, families::USERS, each(of, |instance| instance.users.map(Number::Whole))),
    |to, _, of| {
        gauge(to, families::USERS_ACTIVE_30D, each(of, |instance| instance.users_active_30d.map(Number::Whole)))
    },
    |to, _, of| gauge(to, families::USERS_LIMIT, each(of, |instance| instance.users_limit.map(Number::Whole))),
    |to, _, of| gauge(to, families::CLOCK_OFFSET, each(of, |instance| instance.clock_offset_seconds.map(Number::Real))),
    |to, _, of| gauge(to, families::LIMIT, each_bucket(of, |bucket| bucket.limit.map(Number::Whole))),
    |to, _, of| gauge(to, families::REMAINING, each_bucket(of, |bucket| bucket.remaining.map(Number::Whole))),
    |to, view, of| {
        let resets = each_bucket(of, |bucket| bucket.reset_at.map(|moment| view.timestamp(moment)));
        gauge(to, families::RESET_TIMESTAMP, resets)
    },
    |to, _, of| gauge(to, families::WINDOW, each_bucket(of, |bucket| Some(Number::Real(bucket.window.as_secs_f64())))),
    basis_info,
    |to, view, of| {
        let samples = each_bucket(of, |bucket| bucket.sampled_at.map(|moment| view.timestamp(moment)));
        gauge(to, families::SAMPLE_TIMESTAMP, samples)
    },
    |to, _, of| gauge(to, families::USAGE_PEAK, each_bucket(of, |bucket| bucket.usage_peak.map(Number::Real))),
    unseen,
    |to, view, of| {
        let blocked = each_bucket(of, |bucket| bucket.blocked_until.map(|moment| view.timestamp(moment)));
        gauge(to, families::BLOCKED_UNTIL, blocked)
    },
    |to, _, of| {
        let forecast = each_bucket(of, |bucket| Some(Number::Real(bucket.to_exhaustion?.as_secs_f64())));
        gauge(to, families::SECONDS_TO_EXHAUSTION, forecast)
    },
    |to, _, of| histogram(to, families::WINDOW_USAGE, each_bucket(of, |bucket| bucket.window_usage.as_ref())),
    |to, _, of| counter(to, families::WINDOWS, each_bucket(of, |bucket| Some(bucket.windows))),
    |to, _, of| counter(to, families::LOW_WINDOWS, each_bucket(of, |bucket| Some(bucket.low_windows))),
    |to, _, of| counter(to, families::EXHAUSTED_WINDOWS, each_bucket(of, |bucket| Some(bucket.exhausted_windows))),
    spent,
    metered::operations,
    metered::free,
    metered::prices,
    metered::month,
    metered::month_start,
    metered::month_end,
    throttled,
    |to, _, of| {
        let errors = HeaderError::ALL.map(HeaderError::as_str);
        counter(to, families::HEADER_ERRORS, each_of(of, errors, |instance| &instance.header_errors))
    },
    |to, _, of| {
        let codes = QuotaCode::ALL.map(QuotaCode::as_str);
        counter(to, families::QUOTA_EXCEEDED, each_of(of, codes, |instance| &instance.quota_exceeded))
    },
    responses,
    |to, _, of| counter(to, families::PROBES, each(of, |instance| Some(probes(instance)?.total))),
    |to, _, of| {
        let reasons = ProbeFailure::ALL.map(ProbeFailure::as_str);
        counter(to, families::PROBE_FAILURES, each_of_some(of, reasons, |instance| Some(&probes(instance)?.failures)))
    },
    |to, _, of| {
        let reasons = ProbeSkip::ALL.map(ProbeSkip::as_str);
        counter(to, families::PROBES_SKIPPED, each_of_some(of, reasons, |instance| Some(&probes(instance)?.skipped)))
    },
    |to, _, of| {
        let durations = each(of, |instance| Some(&probes(instance)?.duration_seconds));
        histogram(to, families::PROBE_DURATION, durations)
    },
    |to, view, of| {
        let successes = each(of, |instance| Some(view.timestamp(probes(instance)?.last_success?)));
        gauge(to, families::PROBE_LAST_SUCCESS, successes)
    },
];

/// One sample per instance that has a value.
pub(super) fn each<'a, T>(
    instances: &'a [InstanceSnapshot],
    value: impl Fn(&'a InstanceSnapshot) -> Option<T>,
) -> impl Iterator<Item = ([LabelValue<'a>; 1], T)> {
    instances.iter().filter_map(move |instance| Some(([LabelValue::Text(&instance.name)], value(instance)?)))
}

/// One sample per limited bucket that has a value.
fn each_bucket<'a, T>(
    instances: &'a [InstanceSnapshot],
    value: impl Fn(&'a BucketSnapshot) -> Option<T>,
) -> impl Iterator<Item = ([LabelValue<'a>; 2], T)> {
    let buckets = instances.iter().flat_map(|instance| instance.buckets.iter().map(move |bucket| (instance, bucket)));
    buckets.filter(|(_, bucket)| bucket.bucket != Bucket::Unlimited).filter_map(move |(instance, bucket)| {
        Some(([LabelValue::Text(&instance.name), bucket.bucket.as_str().into()], value(bucket)?))
    })
}

/// The numbers of an instance's probes, if this process makes them.
fn probes(instance: &InstanceSnapshot) -> Option<&ProbeStats> {
    instance.is_probed().then_some(&instance.probes)
}

/// One sample per instance and name of a closed set.
fn each_of<'a, const N: usize>(
    instances: &'a [InstanceSnapshot],
    names: [&'static str; N],
    counts: impl Fn(&'a InstanceSnapshot) -> &'a [u64; N],
) -> impl Iterator<Item = ([LabelValue<'a>; 2], u64)> {
    each_of_some(instances, names, move |instance| Some(counts(instance)))
}

/// The same for the instances that have counts.
fn each_of_some<'a, const N: usize>(
    instances: &'a [InstanceSnapshot],
    names: [&'static str; N],
    counts: impl Fn(&'a InstanceSnapshot) -> Option<&'a [u64; N]>,
) -> impl Iterator<Item = ([LabelValue<'a>; 2], u64)> {
    let known = instances.iter().filter_map(move |instance| Some((instance, *counts(instance)?)));
    known.flat_map(move |(instance, counts)| {
        names.into_iter().zip(counts).map(|(name, count)| ([LabelValue::Text(&instance.name), name.into()], count))
    })
}

fn instance_info(to: &mut DescriptorEncoder<'_>, _: &View, of: &[InstanceSnapshot]) -> Result<(), Error> {
    let info = of.iter().map(|instance| {
        let environment = instance.environment.as_str().into();
        ([LabelValue::Text(&instance.name), environment, LabelValue::Text(&instance.api_host)], Number::Whole(1))
    });
    gauge(to, families::INSTANCE_INFO, info)
}

fn trouble_info(to: &mut DescriptorEncoder<'_>, view: &View, of: &[InstanceSnapshot]) -> Result<(), Error> {
    let trouble = of.iter().filter_map(|instance| {
        let trouble = Condition::of(instance, view.now).trouble?;
        Some(([LabelValue::Text(&instance.name), trouble.label().into()], Number::Whole(1)))
    });
    gauge(to, families::TROUBLE_INFO, trouble)
}

fn basis_info(to: &mut DescriptorEncoder<'_>, _: &View, of: &[InstanceSnapshot]) -> Result<(), Error> {
    let basis = of.iter().flat_map(|instance| {
        instance.buckets.iter().filter(|bucket| bucket.bucket != Bucket::Unlimited).filter_map(move |bucket| {
            let labels =
                [LabelValue::Text(&instance.name), bucket.bucket.as_str().into(), bucket.basis?.as_str().into()];
            Some((labels, Number::Whole(1)))
        })
    });
    gauge(to, families::BASIS_INFO, basis)
}

/// Only for instances whose traffic passes through this gateway: with probes alone, all traffic would count as unseen.
fn unseen(to: &mut DescriptorEncoder<'_>, _: &View, of: &[InstanceSnapshot]) -> Result<(), Error> {
    let unseen = of.iter().filter(|instance| instance.has_source(Source::Gateway)).flat_map(|instance| {
        instance.buckets.iter().filter_map(move |bucket| {
            let labels = [LabelValue::Text(&instance.name), bucket.bucket.as_str().into()];
            Some((labels, Number::Whole(bucket.unseen?)))
        })
    });
    gauge(to, families::UNSEEN, unseen)
}

/// The consumers of the quota.
fn spent(to: &mut DescriptorEncoder<'_>, view: &View, of: &[InstanceSnapshot]) -> Result<(), Error> {
    let spent = of.iter().flat_map(|instance| {
        instance.spent.iter().filter_map(move |(key, count)| {
            let Spender { caller, source, route, method } = key.spender;
            let labels = [
                LabelValue::Text(&instance.name),
                key.bucket.as_str().into(),
                LabelValue::Text(view.caller(source, caller)?),
                route.template().into(),
                method.as_str().into(),
                source.as_str().into(),
                key.result.as_str().into(),
            ];
            Some((labels, *count))
        })
    });
    counter(to, families::SPENT, spent)
}

fn throttled(to: &mut DescriptorEncoder<'_>, _: &View, of: &[InstanceSnapshot]) -> Result<(), Error> {
    let throttled = of.iter().flat_map(|instance| {
        instance.buckets.iter().flat_map(move |bucket| {
            let sources = Source::ALL.into_iter().filter(|source| instance.has_source(*source));
            sources.map(move |source| {
                let labels = [LabelValue::Text(&instance.name), bucket.bucket.as_str().into(), source.as_str().into()];
                (labels, bucket.throttled[source.index()])
            })
        })
    });
    counter(to, families::THROTTLED, throttled)
}

fn responses(to: &mut DescriptorEncoder<'_>, _: &View, of: &[InstanceSnapshot]) -> Result<(), Error> {
    let responses = of.iter().flat_map(|instance| {
        instance.responses.iter().map(move |((source, status), count)| {
            ([LabelValue::Text(&instance.name), source.as_str().into(), LabelValue::Code(*status)], *count)
        })
    });
    counter(to, families::RESPONSES, responses)
}
