//! Windows over time, in few enough parts for a picture.

use std::collections::BTreeMap;
use std::time::Duration;

use clerk_quota::Moment;
use clerk_quota::snapshot::ClosedWindow;

/// Most parts.
const MAX_BINS: usize = 400;

/// The windows of a part of the time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Bin {
    /// Windows with at least one request.
    pub(crate) windows: u64,
    pub(crate) low: u64,
    pub(crate) exhausted: u64,
    /// The highest use of a window, as a ratio.
    pub(crate) peak: f64,
}

impl Bin {
    fn add(&mut self, other: &Self) {
        self.windows += other.windows;
        self.low += other.low;
        self.exhausted += other.exhausted;
        self.peak = self.peak.max(other.peak);
    }
}

/// The windows in parts of equal length, which grow with the logs.
#[derive(Debug)]
pub(crate) struct Series {
    length: Duration,
    bins: BTreeMap<Moment, Bin>,
}

impl Series {
    pub(super) const fn new(length: Duration) -> Self {
        Self { length, bins: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, start: Moment, window: &ClosedWindow) {
        let bin = Bin {
            windows: 1,
            low: u64::from(window.low),
            exhausted: u64::from(window.exhausted),
            peak: window.usage.unwrap_or_default(),
        };
        self.bins.entry(start.rounded_down(self.length)).or_default().add(&bin);
        while self.bins.len() > MAX_BINS {
            self.length = self.length.saturating_mul(2);
            for (start, bin) in std::mem::take(&mut self.bins) {
                self.bins.entry(start.rounded_down(self.length)).or_default().add(&bin);
            }
        }
    }

    /// Length of a part.
    pub(crate) const fn length(&self) -> Duration {
        self.length
    }

    /// The parts with windows in them, by their start.
    pub(crate) fn bins(&self) -> impl ExactSizeIterator<Item = (Moment, Bin)> + '_ {
        self.bins.iter().map(|(start, bin)| (*start, *bin))
    }
}
