//! The families of operations that Clerk bills.

use std::fmt::Error;
use std::time::Duration;

use prometheus_client::encoding::DescriptorEncoder;

use super::catalogue as families;
use super::encode::{LabelValue, Number, counter, gauge};
use super::quota::{View, each};
use clerk_quota::metered::{MeteredKey, MeteredOperation, MeteredSnapshot, MonthUsage};
use clerk_quota::snapshot::InstanceSnapshot;

pub(super) fn free(to: &mut DescriptorEncoder<'_>, _: &View, of: &[InstanceSnapshot]) -> Result<(), Error> {
    gauge(to, families::METERED_FREE, each_operation(of, |metered| Some(metered.plan.free.map(Number::Whole))))
}

pub(super) fn prices(to: &mut DescriptorEncoder<'_>, _: &View, of: &[InstanceSnapshot]) -> Result<(), Error> {
    gauge(to, families::METERED_PRICE, each_operation(of, |metered| Some(metered.plan.price_usd.map(Number::Real))))
}

pub(super) fn month(to: &mut DescriptorEncoder<'_>, _: &View, of: &[InstanceSnapshot]) -> Result<(), Error> {
    let month = each_operation(of, |metered| Some(metered.month?.operations.map(Number::Whole)));
    gauge(to, families::METERED_MONTH, month)
}

pub(super) fn month_start(to: &mut DescriptorEncoder<'_>, _: &View, of: &[InstanceSnapshot]) -> Result<(), Error> {
    gauge(to, families::METERED_MONTH_START, each_month(of, |usage| usage.since))
}

pub(super) fn month_end(to: &mut DescriptorEncoder<'_>, _: &View, of: &[InstanceSnapshot]) -> Result<(), Error> {
    gauge(to, families::METERED_MONTH_END, each_month(of, |usage| usage.month.end))
}

/// By caller.
pub(super) fn operations(to: &mut DescriptorEncoder<'_>, view: &View, of: &[InstanceSnapshot]) -> Result<(), Error> {
    let counts = of.iter().flat_map(|instance| {
        instance.metered.operations.iter().filter_map(move |(key, count)| {
            let MeteredKey { operation, caller, source } = *key;
            let labels = [
                LabelValue::Text(&instance.name),
                operation.as_str().into(),
                LabelValue::Text(view.caller(source, caller)?),
                source.as_str().into(),
            ];
            Some((labels, *count))
        })
    });
    counter(to, families::METERED_OPERATIONS, counts)
}

/// One sample per instance and operation, of instances that have values.
fn each_operation<'a>(
    instances: &'a [InstanceSnapshot],
    values: impl Fn(&MeteredSnapshot) -> Option<[Number; MeteredOperation::ALL.len()]>,
) -> impl Iterator<Item = ([LabelValue<'a>; 2], Number)> {
    let known = instances.iter().filter_map(move |instance| Some((instance, values(&instance.metered)?)));
    known.flat_map(|(instance, values)| {
        let named = MeteredOperation::ALL.into_iter().zip(values);
        named.map(|(operation, value)| ([LabelValue::Text(&instance.name), operation.as_str().into()], value))
    })
}

/// A time of the month of each instance that has one. These are times of the wall clock already.
fn each_month<'a>(
    instances: &'a [InstanceSnapshot],
    time: impl Fn(&MonthUsage) -> Duration,
) -> impl Iterator<Item = ([LabelValue<'a>; 1], Number)> {
    each(instances, move |instance| Some(Number::Real(time(instance.metered.month.as_ref()?).as_secs_f64())))
}
