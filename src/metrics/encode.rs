//! Encodes plain numbers as metric families.

use std::fmt::{Error, Write};

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, LabelSetEncoder, LabelValueEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;

use super::catalogue::{Kind, MetricFamily};
use clerk_quota::Histogram;

/// A label value.
#[derive(Debug, Clone, Copy)]
pub(super) enum LabelValue<'a> {
    Text(&'a str),
    /// An HTTP status.
    Code(u16),
}

impl<'a> From<&'a str> for LabelValue<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl EncodeLabelValue for LabelValue<'_> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), Error> {
        match self {
            Self::Text(text) => encoder.write_str(text),
            Self::Code(code) => write!(encoder, "{code}"),
        }
    }
}

/// The labels of a sample: names from the catalogue, values in the same order.
#[derive(Debug)]
struct Labels<'a> {
    names: &'static [&'static str],
    values: &'a [LabelValue<'a>],
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        for (name, value) in self.names.iter().zip(self.values) {
            let mut label = encoder.encode_label();
            let mut key = label.encode_label_key()?;
            key.write_str(name)?;
            let mut encoded = key.encode_label_value()?;
            value.encode(&mut encoded)?;
            encoded.finish()?;
        }
        Ok(())
    }
}

/// The value of a gauge. Integers are written as such.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Whole(u64),
    Real(f64),
}

impl From<bool> for Number {
    fn from(value: bool) -> Self {
        Self::Whole(u64::from(value))
    }
}

/// Writes a gauge family, or nothing if there is no sample. Values that are not finite are left out.
pub(super) fn gauge<'a, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    family: MetricFamily,
    samples: impl Iterator<Item = ([LabelValue<'a>; N], Number)>,
) -> Result<(), Error> {
    let mut samples =
        samples.filter(|(_, number)| !matches!(number, Number::Real(value) if !value.is_finite())).peekable();
    if samples.peek().is_none() {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(family.name, family.help, None, MetricType::Gauge)?;
    for (values, number) in samples {
        let labels = Labels { names: family.labels, values: &values };
        let mut sample = metric.encode_family(&labels)?;
        match number {
            Number::Whole(value) => sample.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))?,
            Number::Real(value) => sample.encode_gauge(&value)?,
        }
    }
    Ok(())
}

/// Writes a counter family.
pub(super) fn counter<'a, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    family: MetricFamily,
    samples: impl Iterator<Item = ([LabelValue<'a>; N], u64)>,
) -> Result<(), Error> {
    let mut samples = samples.peekable();
    if samples.peek().is_none() {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(counter_name(family), family.help, None, MetricType::Counter)?;
    for (values, count) in samples {
        let labels = Labels { names: family.labels, values: &values };
        metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
    }
    Ok(())
}

/// Writes a counter of seconds, without labels.
pub(super) fn seconds_counter(
    encoder: &mut DescriptorEncoder<'_>,
    family: MetricFamily,
    value: f64,
) -> Result<(), Error> {
    let mut metric = encoder.encode_descriptor(counter_name(family), family.help, None, MetricType::Counter)?;
    metric.encode_counter::<NoLabelSet, _, f64>(&value, None)
}

/// Writes a histogram family.
pub(super) fn histogram<'a, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    family: MetricFamily,
    samples: impl Iterator<Item = ([LabelValue<'a>; N], &'a Histogram)>,
) -> Result<(), Error> {
    let mut samples = samples.peekable();
    if samples.peek().is_none() {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(family.name, family.help, None, MetricType::Histogram)?;
    let mut buckets = Vec::new();
    for (values, histogram) in samples {
        buckets.clear();
        buckets.extend(histogram.buckets());
        let labels = Labels { names: family.labels, values: &values };
        metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
            histogram.sum(),
            histogram.count(),
            &buckets,
            None,
        )?;
    }
    Ok(())
}

/// The encoders append `_total` themselves.
fn counter_name(family: MetricFamily) -> &'static str {
    debug_assert_eq!(family.kind, Kind::Counter);
    family.name.strip_suffix("_total").unwrap_or(family.name)
}
