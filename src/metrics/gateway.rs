//! Metrics of the gateway.

use std::fmt::Error;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::catalogue as families;
use super::encode::{LabelValue, Number, counter, gauge, histogram};
use crate::gateway::{Decision, Gateway, GatewayStats, InstanceStats, RoutePolicies, Saving};
use clerk_client::cache::TierStats;
use clerk_client::limiter::{CallerUsage, Priority, ShedReason};
use clerk_client::redis::{RedisStats, RefusalClass};

/// Encodes the gateway's statistics; nothing without a gateway.
#[derive(Debug)]
pub(super) struct GatewayCollector(pub Option<Arc<Gateway>>);

impl Collector for GatewayCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Some(gateway) = &self.0 else { return Ok(()) };
        let numbers = gateway.stats();
        let (instances, encoder) = (&numbers.instances[..], &mut encoder);
        encode_requests(encoder, instances)?;
        encode_queues(encoder, instances)?;
        encode_callers(encoder, &numbers)?;
        let policies = instances.iter().flat_map(|(name, numbers)| {
            let modes = numbers.policies.iter().flat_map(RoutePolicies::modes);
            modes.map(move |(policy, mode)| {
                ([LabelValue::Text(name), policy.into(), mode.as_str().into()], Number::Whole(1))
            })
        });
        gauge(encoder, families::GATEWAY_POLICY_INFO, policies)?;
        let dropped: u64 = instances.iter().map(|(_, numbers)| numbers.dropped).sum();
        let dropped = [("caller", numbers.dropped_callers), ("route", dropped)];
        let dropped = dropped.into_iter().map(|(label, count)| ([label.into()], count));
        counter(encoder, families::GATEWAY_DROPPED, dropped)?;
        let unknown = numbers.unknown_credentials.iter().flat_map(|it| {
            let shape = it.shape.as_str();
            [("forwarded", it.forwarded), ("rejected", it.rejected)]
                .map(|(result, count)| ([LabelValue::from(shape), result.into()], count))
        });
        counter(encoder, families::GATEWAY_UNKNOWN_CREDENTIALS, unknown)?;
        let lines = numbers.access_log.iter().flat_map(|log| [("written", log.written), ("lost", log.lost)]);
        counter(encoder, families::GATEWAY_ACCESS_LOG, lines.map(|(result, count)| ([result.into()], count)))?;
        let spans = numbers.spans.iter();
        let spans = spans.flat_map(|it| [("sent", it.sent), ("failed", it.failed), ("dropped", it.dropped)]);
        counter(encoder, families::GATEWAY_SPANS, spans.map(|(result, count)| ([result.into()], count)))?;
        if let Some(cache) = numbers.cache {
            let tiers = |count: fn(&TierStats) -> u64| {
                let redis = cache.redis.map(|tier| (["redis".into()], count(&tier)));
                [(["memory".into()], count(&cache.memory))].into_iter().chain(redis)
            };
            counter(encoder, families::CACHE_HITS, tiers(|tier| tier.hits))?;
            counter(encoder, families::CACHE_MISSES, tiers(|tier| tier.misses))?;
            counter(encoder, families::CACHE_ERRORS, tiers(|tier| tier.errors))?;
            gauge(encoder, families::CACHE_ENTRIES, [([], Number::Whole(cache.entries))].into_iter())?;
            gauge(encoder, families::CACHE_BYTES, [([], Number::Whole(cache.bytes))].into_iter())?;
            counter(encoder, families::CACHE_INVALIDATIONS, [([], cache.invalidations)].into_iter())?;
        }
        redis_refused(encoder, numbers.redis.as_ref())?;
        let deliveries = numbers.webhooks.iter().flat_map(|counts| &counts.deliveries);
        let deliveries =
            deliveries.map(|(family, outcome, count)| ([family.as_str().into(), outcome.as_str().into()], *count));
        counter(encoder, families::WEBHOOK_EVENTS, deliveries)
    }
}

/// What Redis refuses.
pub(super) fn redis_refused(encoder: &mut DescriptorEncoder<'_>, redis: Option<&RedisStats>) -> Result<(), Error> {
    let refuses = redis.into_iter().flat_map(|redis| {
        RefusalClass::ALL
            .into_iter()
            .map(|class| ([LabelValue::from(class.as_str())], Number::from(redis.refuses[class as usize])))
    });
    gauge(encoder, families::REDIS_REFUSED, refuses)
}

type Instances<'a> = &'a [(Arc<str>, InstanceStats)];

fn encode_requests(encoder: &mut DescriptorEncoder<'_>, instances: Instances<'_>) -> Result<(), Error> {
    let requests = instances.iter().flat_map(|(name, numbers)| {
        numbers.requests.iter().map(move |it| {
            let labels = [
                LabelValue::Text(name),
                LabelValue::Text(&it.caller),
                it.route.into(),
                it.method.as_str().into(),
                LabelValue::Code(it.code),
            ];
            (labels, it.count)
        })
    });
    counter(encoder, families::GATEWAY_REQUESTS, requests)?;
    let durations = || {
        instances.iter().flat_map(|(name, numbers)| {
            numbers.durations.iter().map(move |it| ([LabelValue::Text(name), it.route.into()], it))
        })
    };
    histogram(encoder, families::GATEWAY_DURATION, durations().map(|(labels, it)| (labels, &it.request)))?;
    histogram(encoder, families::GATEWAY_UPSTREAM_DURATION, durations().map(|(labels, it)| (labels, &it.upstream)))?;
    counter(encoder, families::GATEWAY_DECISIONS, decisions(instances, |numbers| &numbers.decisions))?;
    let shed = instances.iter().flat_map(|(name, numbers)| {
        Priority::ALL.into_iter().flat_map(move |priority| {
            ShedReason::ALL.into_iter().map(move |reason| {
                let labels = [LabelValue::Text(name), priority.as_str().into(), reason.as_str().into()];
                (labels, numbers.shed[priority as usize][reason.index()])
            })
        })
    });
    counter(encoder, families::GATEWAY_SHED, shed)?;
    counter(encoder, families::GATEWAY_SHADOW_DECISIONS, decisions(instances, |numbers| &numbers.shadowed))?;
    let saved = instances.iter().flat_map(|(name, numbers)| {
        Saving::ALL
            .into_iter()
            .map(move |by| ([LabelValue::Text(name), by.as_str().into()], numbers.saved[by as usize]))
    });
    counter(encoder, families::GATEWAY_SAVED, saved)
}

fn decisions<'a>(
    instances: Instances<'a>,
    counts: impl Fn(&'a InstanceStats) -> &'a [u64; Decision::ALL.len()],
) -> impl Iterator<Item = ([LabelValue<'a>; 2], u64)> {
    instances.iter().flat_map(move |(name, numbers)| {
        let counts = counts(numbers);
        Decision::ALL.into_iter().map(move |it| ([LabelValue::Text(name), it.as_str().into()], counts[it.index()]))
    })
}

/// Shares of callers, and what operators changed.
fn encode_callers(encoder: &mut DescriptorEncoder<'_>, numbers: &GatewayStats) -> Result<(), Error> {
    let of_each = |requests: fn(&CallerUsage) -> Option<u64>| {
        numbers.instances.iter().flat_map(move |(name, numbers)| {
            numbers.callers.iter().filter_map(move |(caller, usage)| {
                Some(([LabelValue::Text(name), LabelValue::Text(caller)], Number::Whole(requests(usage)?)))
            })
        })
    };
    gauge(encoder, families::GATEWAY_GUARANTEE, of_each(|usage| usage.guarantee))?;
    gauge(encoder, families::GATEWAY_CAP, of_each(|usage| usage.cap))?;
    let ends = numbers.overrides.iter().map(|it| {
        let end = it.until.duration_since(UNIX_EPOCH).unwrap_or_default();
        let labels = [LabelValue::Text(&it.instance), LabelValue::Text(&it.caller), it.action.as_str().into()];
        (labels, Number::Real(end.as_secs_f64()))
    });
    gauge(encoder, families::GATEWAY_OVERRIDE_END, ends)
}

/// Only for configured instances: requests with unknown keys are not paced.
fn encode_queues(encoder: &mut DescriptorEncoder<'_>, instances: Instances<'_>) -> Result<(), Error> {
    let paced = || {
        instances.iter().filter_map(|(name, numbers)| Some((LabelValue::Text(name), &numbers.outbound.as_ref()?.pace)))
    };
    let waiting = paced().map(|(name, pace)| ([name], Number::Whole(pace.waiting as u64)));
    gauge(encoder, families::GATEWAY_QUEUE_DEPTH, waiting)?;
    histogram(encoder, families::GATEWAY_QUEUE_WAIT, paced().map(|(name, pace)| ([name], &pace.waited_seconds)))?;
    let shared = paced().filter_map(|(name, pace)| Some(([name], Number::from(pace.sharing?.reachable))));
    gauge(encoder, families::GATEWAY_BUDGET_SHARED, shared)
}
