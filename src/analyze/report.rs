//! The result of an analysis: plain data, the same for the table, the page and JSON.
//!
//! The JSON form is documented in `docs/analyze.md`; members are added, but neither renamed nor removed, within a version.

mod build;

use serde::Serialize;

pub(crate) use build::{LimitSource, build};

/// The version of the JSON form.
pub(crate) const VERSION: u32 = 1;

/// The result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Report {
    pub(crate) version: u32,
    pub(crate) logs: LogsReport,
    pub(crate) limit: LimitReport,
    /// Buckets that were used, the instance's first.
    pub(crate) buckets: Vec<BucketReport>,
    /// The most requests first, in all four.
    pub(crate) callers: Vec<CallerReport>,
    pub(crate) routes: Vec<RouteReport>,
    pub(crate) spenders: Vec<SpenderReport>,
    /// The busiest first.
    pub(crate) busiest_windows: Vec<WindowReport>,
    pub(crate) timeline: TimelineReport,
    pub(crate) reads: ReadsReport,
    pub(crate) savings: Vec<SavingReport>,
    pub(crate) pacing: PacingReport,
    /// YAML for the configuration file.
    pub(crate) configuration: String,
    /// What a reader of the numbers has to know.
    pub(crate) notes: Vec<String>,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct LogsReport {
    pub(crate) files: usize,
    /// Requests to Clerk.
    pub(crate) requests: u64,
    /// Of these, requests that no limit counts.
    pub(crate) unlimited_requests: u64,
    /// RFC 3339, UTC; null without requests.
    pub(crate) first: Option<String>,
    pub(crate) last: Option<String>,
    pub(crate) seconds: f64,
    /// Requests that are in no window, since they started too long before those of earlier lines.
    pub(crate) out_of_order: u64,
    pub(crate) without_host: u64,
    pub(crate) without_duration: u64,
    /// Lines that are no request to Clerk, by kind.
    pub(crate) skipped: Vec<SkippedReport>,
    /// Logs that ended early.
    pub(crate) incomplete: Vec<IncompleteReport>,
}

/// Lines that were skipped.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct SkippedReport {
    pub(crate) kind: &'static str,
    pub(crate) lines: u64,
    /// Whether they may be requests that are missing in the result.
    pub(crate) is_fault: bool,
    pub(crate) meaning: &'static str,
    pub(crate) examples: Vec<PlaceReport>,
}

/// A place in a log.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct PlaceReport {
    pub(crate) file: String,
    pub(crate) line: u64,
}

/// A log that ended early.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct IncompleteReport {
    pub(crate) file: String,
    pub(crate) cause: String,
}

/// The limit that the windows are held against.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct LimitReport {
    pub(crate) requests: u64,
    pub(crate) window_seconds: f64,
    /// Windows with a smaller share left are low.
    pub(crate) low_threshold: f64,
    pub(crate) source: String,
}

/// Closed windows of a bucket.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct BucketReport {
    pub(crate) bucket: String,
    pub(crate) limit: Option<u64>,
    pub(crate) window_seconds: f64,
    /// Those in its windows, without the ones that are out of order.
    pub(crate) requests: u64,
    pub(crate) throttled: u64,
    pub(crate) windows: u64,
    pub(crate) low_windows: u64,
    pub(crate) exhausted_windows: u64,
}

/// Requests of a caller. `share` is that of the requests that a limit counts, here and below.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct CallerReport {
    pub(crate) caller: String,
    #[serde(flatten)]
    pub(crate) counts: CountsReport,
}

/// Requests of a route.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct RouteReport {
    pub(crate) method: &'static str,
    pub(crate) route: &'static str,
    pub(crate) bucket: String,
    #[serde(flatten)]
    pub(crate) counts: CountsReport,
}

/// Requests of a caller to a route.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct SpenderReport {
    pub(crate) caller: String,
    pub(crate) method: &'static str,
    pub(crate) route: &'static str,
    pub(crate) bucket: String,
    #[serde(flatten)]
    pub(crate) counts: CountsReport,
}

/// Requests by how they ended.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct CountsReport {
    pub(crate) requests: u64,
    /// Null for routes that no limit counts.
    pub(crate) share: Option<f64>,
    pub(crate) throttled: u64,
    pub(crate) failed: u64,
    pub(crate) unanswered: u64,
}

/// A window of the instance's bucket.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct WindowReport {
    pub(crate) start: String,
    pub(crate) seconds: f64,
    /// From 0 to 1.
    pub(crate) usage: Option<f64>,
    pub(crate) low: bool,
    pub(crate) exhausted: bool,
    /// Null for a window whose end a server named.
    pub(crate) requests: Option<u64>,
    /// The senders of most of them.
    pub(crate) senders: Vec<SenderReport>,
}

/// A sender in a window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct SenderReport {
    pub(crate) caller: String,
    pub(crate) method: &'static str,
    pub(crate) route: &'static str,
    pub(crate) requests: u64,
}

/// Windows over time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct TimelineReport {
    /// Length of a part.
    pub(crate) seconds: f64,
    pub(crate) parts: Vec<PartReport>,
}

/// The windows of a part of the time; parts without requests are left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct PartReport {
    pub(crate) start: String,
    #[serde(skip)]
    pub(crate) start_seconds: f64,
    pub(crate) windows: u64,
    pub(crate) low: u64,
    pub(crate) exhausted: u64,
    pub(crate) peak_usage: f64,
}

/// Reads.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct ReadsReport {
    /// Reads whose response others may share.
    pub(crate) shareable: u64,
    /// Of these, reads of what was read within the longest lifetime before.
    pub(crate) repeated: u64,
    /// Writes in the logs that outdate what was read.
    pub(crate) writes: u64,
}

/// What a policy would have saved, at most.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct SavingReport {
    pub(crate) policy: &'static str,
    pub(crate) ttl_seconds: Option<u64>,
    pub(crate) requests: u64,
    pub(crate) share: f64,
    /// `at_most`: the logs do not show everything that keeps responses from being shared.
    pub(crate) bound: &'static str,
    /// The routes that save most.
    pub(crate) routes: Vec<RouteSaving>,
}

/// What a policy would have saved on a route.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct RouteSaving {
    pub(crate) method: &'static str,
    pub(crate) route: &'static str,
    pub(crate) requests: u64,
}

/// What pacing would have done.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct PacingReport {
    pub(crate) delayed: u64,
    /// Rejected by the gateway, since their wait would have been longer than `max_wait_seconds`.
    pub(crate) shed: u64,
    /// Null if none was delayed.
    pub(crate) mean_wait_seconds: Option<f64>,
    pub(crate) longest_wait_seconds: Option<f64>,
    pub(crate) max_wait_seconds: f64,
}
