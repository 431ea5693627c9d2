//! From the sums to the result.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use super::{
    AnalysisReport, BucketReport, CallerReport, CountsReport, IncompleteReport, LimitReport, LogsReport, PacingReport,
    PartReport, PlaceReport, ReadsReport, RouteReport, RouteSaving, SavingReport, SenderReport, SkippedReport,
    SpenderReport, TimelineReport, VERSION, WindowReport,
};
use crate::analyze::account::{BusyWindow, Counts, MAX_SENDERS, SpenderKey};
use crate::analyze::what_if::{Savings, TTLS};
use crate::analyze::{AssumedLimit, SkipKind, Sums, advice, notes};
use crate::gateway::CallerRegistry;
use clerk_quota::spending::SpendResult;
use clerk_quota::{Bucket, CallerId, MethodLabel, Moment};

/// Spenders and routes that are listed; the others are in the sums of callers and routes.
const MAX_LISTED: usize = 100;

/// Routes that are listed of a saving.
const MAX_SAVING_ROUTES: usize = 10;

/// Where the limit comes from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum LimitSource {
    /// No flag names one.
    Default,
    /// `--plan`.
    Plan(&'static str),
    /// `--limit`.
    Flag,
}

impl LimitSource {
    fn describe(&self) -> String {
        match self {
            Self::Default => "Clerk's documentation, for production instances".to_owned(),
            Self::Plan(plan) => format!("--plan {plan}"),
            Self::Flag => "--limit".to_owned(),
        }
    }
}

/// Makes the result of `files` logs.
pub(crate) fn build(mut sums: Sums, files: usize, assumed: &AssumedLimit, source: &LimitSource) -> AnalysisReport {
    let snapshot = sums.account.snapshot();
    let mut all = sums.account.spenders.all();
    let counted: u64 = all.iter().filter(|(key, _)| key.bucket.is_limited()).map(|(_, counts)| counts.requests).sum();
    let buckets: Vec<BucketReport> = snapshot
        .buckets
        .iter()
        .filter(|bucket| bucket.bucket.is_limited())
        .filter_map(|bucket| {
            let spent = snapshot.spent.iter().filter(|(key, _)| key.bucket == bucket.bucket);
            let requests: u64 = spent.clone().map(|(_, requests)| requests).sum();
            let refused = spent.filter(|(key, _)| key.result == SpendResult::Refused);
            (bucket.bucket == Bucket::Instance || bucket.windows > 0 || requests > 0).then(|| BucketReport {
                bucket: bucket.bucket.as_str().to_owned(),
                limit: bucket.limit,
                window_seconds: bucket.window.as_secs_f64(),
                requests,
                throttled: refused.map(|(_, requests)| requests).sum(),
                windows: bucket.windows,
                low_windows: bucket.low_windows,
                exhausted_windows: bucket.exhausted_windows,
            })
        })
        .collect();
    let mut limited: BTreeMap<CallerId, u64> = BTreeMap::new();
    for (key, counts) in all.iter().filter(|(key, _)| key.bucket.is_limited()) {
        *limited.entry(key.caller).or_default() += counts.requests;
    }
    let mut callers: Vec<_> = sum_by(&all, |key| key.caller)
        .into_iter()
        .map(|(caller, counts)| CallerReport {
            caller: sums.callers.name(caller).to_string(),
            // Requests without a limit are no part of what is shared.
            counts: CountsReport {
                share: Some(share(limited.get(&caller).copied().unwrap_or_default(), counted)),
                ..report(&counts, None)
            },
        })
        .collect();
    // Ids of callers follow the order of the logs.
    callers.sort_by(|a, b| b.counts.requests.cmp(&a.counts.requests).then_with(|| a.caller.cmp(&b.caller)));
    let routes = sum_by(&all, |key| (key.method, key.route, key.bucket)).into_iter().take(MAX_LISTED);
    let routes = routes.map(|((method, route, bucket), counts)| RouteReport {
        method: method.as_str(),
        route,
        bucket: bucket.as_str().to_owned(),
        counts: report(&counts, bucket.is_limited().then_some(counted)),
    });
    all.sort_by_cached_key(|(key, counts)| {
        (Reverse(counts.requests), sums.callers.name(key.caller), key.route, key.method, key.bucket)
    });
    let spenders = all.iter().take(MAX_LISTED).map(|(key, counts)| SpenderReport {
        caller: sums.callers.name(key.caller).to_string(),
        method: key.method.as_str(),
        route: key.route,
        bucket: key.bucket.as_str().to_owned(),
        counts: report(counts, key.bucket.is_limited().then_some(counted)),
    });
    let requests = all.iter().map(|(_, counts)| counts.requests).sum();
    let mut report = AnalysisReport {
        version: VERSION,
        logs: logs(&sums, files, requests, counted),
        limit: LimitReport {
            requests: assumed.limit.requests,
            window_seconds: assumed.limit.window.as_secs_f64(),
            low_threshold: assumed.low_threshold,
            source: source.describe(),
        },
        buckets,
        callers,
        routes: routes.collect(),
        spenders: spenders.collect(),
        busiest_windows: sums
            .account
            .busiest
            .windows()
            .iter()
            .map(|busy| window(busy, assumed.limit.window, &sums.callers))
            .collect(),
        timeline: TimelineReport {
            seconds: sums.account.series.length().as_secs_f64(),
            parts: sums
                .account
                .series
                .bins()
                .map(|(start, bin)| PartReport {
                    start: rfc3339(start),
                    start_seconds: start.unix_seconds(),
                    windows: bin.windows,
                    low: bin.low,
                    exhausted: bin.exhausted,
                    peak_usage: bin.peak,
                })
                .collect(),
        },
        reads: ReadsReport {
            shareable: sums.savings.shareable,
            repeated: sums.savings.repeated,
            writes: sums.savings.writes,
        },
        savings: savings(&sums.savings, counted),
        pacing: pacing(&sums.savings),
        configuration: String::new(),
        notes: Vec::new(),
    };
    report.configuration = advice::configuration(&report, source);
    report.notes = notes::notes(&report, source, &sums);
    report
}

fn logs(sums: &Sums, files: usize, requests: u64, counted: u64) -> LogsReport {
    let span = sums.account.span();
    let skips = &sums.read.skips;
    let skipped = SkipKind::ALL.into_iter().filter(|kind| skips.count(*kind) > 0).map(|kind| SkippedReport {
        kind: kind.as_str(),
        lines: skips.count(kind),
        is_fault: kind.is_fault(),
        meaning: kind.describe(),
        examples: skips
            .examples(kind)
            .iter()
            .map(|place| PlaceReport { file: place.file.to_string(), line: place.line })
            .collect(),
    });
    let incomplete = sums.read.incomplete.iter();
    LogsReport {
        files,
        requests,
        unlimited_requests: requests - counted,
        first: span.map(|(first, _)| rfc3339(first)),
        last: span.map(|(_, last)| rfc3339(last)),
        seconds: span.map(|(first, last)| last.since(first)).unwrap_or_default().as_secs_f64(),
        out_of_order: sums.account.out_of_order,
        without_host: sums.read.without_host,
        without_duration: sums.read.without_duration,
        skipped: skipped.collect(),
        incomplete: incomplete
            .map(|(file, cause)| IncompleteReport { file: file.to_string(), cause: cause.clone() })
            .collect(),
    }
}

/// Sums by a part of the key, the most requests first.
fn sum_by<K: Ord + Copy>(all: &[(SpenderKey, Counts)], part: impl Fn(&SpenderKey) -> K) -> Vec<(K, Counts)> {
    let mut sums: BTreeMap<K, Counts> = BTreeMap::new();
    for (key, counts) in all {
        sums.entry(part(key)).or_default().add(counts);
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, counts)| Reverse(counts.requests));
    sums
}

fn report(counts: &Counts, counted: Option<u64>) -> CountsReport {
    CountsReport {
        requests: counts.requests,
        share: counted.map(|counted| share(counts.requests, counted)),
        throttled: counts.throttled,
        failed: counts.failed,
        unanswered: counts.unanswered,
    }
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn window(busy: &BusyWindow, length: Duration, callers: &CallerRegistry) -> WindowReport {
    let mut senders: Vec<_> = busy
        .senders
        .iter()
        .map(|(key, requests)| SenderReport {
            caller: callers.name(key.caller).to_string(),
            method: key.method.as_str(),
            route: key.route,
            requests: *requests,
        })
        .collect();
    let rank = |it: &SenderReport| (Reverse(it.requests), it.caller.clone(), it.route, it.method);
    senders.sort_by_cached_key(rank);
    senders.truncate(MAX_SENDERS);
    WindowReport {
        start: rfc3339(busy.start),
        seconds: length.as_secs_f64(),
        usage: busy.window.usage,
        low: busy.window.low,
        exhausted: busy.window.exhausted,
        requests: busy.requests,
        senders,
    }
}

fn savings(savings: &Savings, counted: u64) -> Vec<SavingReport> {
    let ttls = TTLS.map(|ttl| ("cache", Some(ttl.as_secs())));
    let policies = std::iter::once(("coalesce", None)).chain(ttls).chain([("batch", None)]);
    let of = |(place, (policy, ttl_seconds)): (usize, (&'static str, Option<u64>))| {
        let requests = savings.total.get(place).copied().unwrap_or_default();
        let mut routes: Vec<_> = savings
            .by_route
            .iter()
            .map(|(method, route, saved)| RouteSaving {
                method: MethodLabel::as_str(*method),
                route,
                requests: saved.get(place).copied().unwrap_or_default(),
            })
            .filter(|route| route.requests > 0)
            .collect();
        routes.sort_by_key(|route| Reverse(route.requests));
        routes.truncate(MAX_SAVING_ROUTES);
        SavingReport { policy, ttl_seconds, requests, share: share(requests, counted), bound: "at_most", routes }
    };
    policies.enumerate().map(of).collect()
}

fn pacing(savings: &Savings) -> PacingReport {
    let totals = &savings.throttle;
    let has_waits = totals.delayed > 0;
    PacingReport {
        delayed: totals.delayed,
        shed: totals.shed,
        mean_wait_seconds: has_waits.then(|| totals.total_wait.as_secs_f64() / totals.delayed as f64),
        longest_wait_seconds: has_waits.then_some(totals.longest_wait.as_secs_f64()),
        max_wait_seconds: savings.max_wait.as_secs_f64(),
    }
}

fn rfc3339(moment: Moment) -> String {
    humantime::format_rfc3339_millis(moment.to_system_time()).to_string()
}
