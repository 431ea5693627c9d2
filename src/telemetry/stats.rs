//! The counters of the telemetry source as plain data.

use clerk_quota::Histogram;

/// Bounds of the delay between a call's end and its arrival here, in seconds. Exporters send every 5 s by default.
pub(super) const DELAY_BOUNDS: &[f64] = &[0.5, 1.0, 2.5, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 300.0];

/// What became of a span. A closed set, because it is a label. Each span has exactly one result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SpanResult {
    /// A call to Clerk that is counted.
    Accepted,
    /// A call to another host.
    OtherHost,
    /// Not an HTTP client span.
    OtherKind,
    /// One of several spans of the same call; another one is counted.
    Nested,
    /// A span of this product: its request is already counted.
    Own,
    /// A span that was received before.
    Duplicate,
    /// A call that arrived after its window had closed: only totals count it.
    Late,
    /// A call from the future: only totals count it.
    Future,
    /// A call whose resource names no configured instance.
    Unattributed,
    /// A call to Clerk without valid ids or times.
    Malformed,
    /// A call beyond the limit on calls that wait for their window: only totals count it.
    Dropped,
}

impl SpanResult {
    /// All results, in the order of [`SpanResult::index`].
    pub const ALL: [Self; 11] = [
        Self::Accepted,
        Self::OtherHost,
        Self::OtherKind,
        Self::Nested,
        Self::Own,
        Self::Duplicate,
        Self::Late,
        Self::Future,
        Self::Unattributed,
        Self::Malformed,
        Self::Dropped,
    ];

    /// Returns the value of the label `result`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::OtherHost => "other_host",
            Self::OtherKind => "other_kind",
            Self::Nested => "nested",
            Self::Own => "own",
            Self::Duplicate => "duplicate",
            Self::Late => "late",
            Self::Future => "future",
            Self::Unattributed => "unattributed",
            Self::Malformed => "malformed",
            Self::Dropped => "dropped",
        }
    }

    /// Returns the position in [`SpanResult::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Why a whole request was refused. A closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// 400: the body is not a valid OTLP request.
    Invalid,
    /// 413: the body, or what it decodes to, is too large.
    TooLarge,
    /// 415: the content type or the encoding is not supported.
    Unsupported,
    /// 503: too many bytes wait to be decoded.
    Overloaded,
}

impl Refusal {
    /// All reasons, in the order of [`Refusal::index`].
    pub const ALL: [Self; 4] = [Self::Invalid, Self::TooLarge, Self::Unsupported, Self::Overloaded];

    /// Returns the name for labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::Unsupported => "unsupported",
            Self::Overloaded => "overloaded",
        }
    }

    /// Returns the position in [`Refusal::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// The statistics of the telemetry source.
#[derive(Debug, Clone, PartialEq)]
pub struct TelemetryStats {
    /// Spans by result, in the order of [`SpanResult::ALL`].
    pub spans: [u64; SpanResult::ALL.len()],
    /// Refused requests, in the order of [`Refusal::ALL`].
    pub refused: [u64; Refusal::ALL.len()],
    /// Seconds from the end of a call, by its sender's corrected clock, to its arrival; at most a day.
    pub delay_seconds: Histogram,
    /// Counted calls that may have been answered by the cache of Next.js: Clerk saw at most these.
    pub at_most: u64,
    /// Calls whose caller became `other` because its name was invalid or exceeded the limit on names.
    pub dropped_callers: u64,
    /// Remembered spans that were forgotten early because the memory was full. A repeated one counts twice.
    pub forgotten_spans: u64,
    /// Corrections of a sender's clock that were not remembered because there were too many senders.
    pub forgotten_senders: u64,
}

impl TelemetryStats {
    pub(super) fn new() -> Self {
        Self {
            spans: [0; SpanResult::ALL.len()],
            refused: [0; Refusal::ALL.len()],
            delay_seconds: Histogram::new(DELAY_BOUNDS),
            at_most: 0,
            dropped_callers: 0,
            forgotten_spans: 0,
            forgotten_senders: 0,
        }
    }

    /// Returns the number of spans with this result.
    #[must_use]
    pub const fn spans_with(&self, result: SpanResult) -> u64 {
        self.spans[result.index()]
    }
}
