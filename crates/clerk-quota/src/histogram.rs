//! Classic Prometheus histograms as plain data, so that the ledger does not depend on a metrics library.

/// Counts of values in buckets with fixed bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One count per bound and one for larger values; not cumulative.
    counts: Box<[u64]>,
    sum: f64,
}

impl Histogram {
    /// Creates an empty histogram. `bounds` are inclusive upper bounds in rising order, without +Inf.
    #[must_use]
    pub fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1].into_boxed_slice(), sum: 0.0 }
    }

    /// Adds one value.
    pub fn observe(&mut self, value: f64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(place) {
            *count += 1;
        }
        self.sum += value;
    }

    /// Adds all values of a histogram with the same bounds.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum += other.sum;
    }

    /// Returns the sum of all values.
    #[must_use]
    pub const fn sum(&self) -> f64 {
        self.sum
    }

    /// Returns the number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns `(upper bound, values in this bucket alone)`; the last bound is +Inf.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.bounds.iter().copied().chain([f64::INFINITY]).zip(self.counts.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_on_a_bound_counts_in_that_bucket() {
        let mut histogram = Histogram::new(&[0.5, 0.9]);
        for value in [0.0, 0.5, 0.6, 0.9, 0.95] {
            histogram.observe(value);
        }
        let counts: Vec<_> = histogram.buckets().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 2, 1]);
        assert_eq!(histogram.count(), 5);
        assert!((histogram.sum() - 2.95).abs() < 1e-9);
    }
}
