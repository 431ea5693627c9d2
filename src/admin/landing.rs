//! The landing page: the state of every instance. HTML that refreshes itself, without scripts; maud escapes every value.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Admin, AdminOptions, STANDBY, top};
use crate::gateway::{ActiveOverride, OverrideAction};
use crate::metrics::build;
use clerk_quota::condition::{Condition, Trouble};
use clerk_quota::snapshot::{Basis, BucketSnapshot, ClosedWindow, InstanceSnapshot};
use clerk_quota::{Bucket, Moment};

/// Seconds between refreshes: half of Clerk's window.
const REFRESH_SECONDS: u32 = 5;

const STYLE: &str = include_str!("landing.css");

/// No scripts, nothing from elsewhere, no framing.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";

pub(super) async fn page(State(site): State<Arc<Admin>>) -> Response {
    let now = site.clock.now();
    let instances = site.ledger.snapshot(now);
    let recent = |instance: &InstanceSnapshot, bucket: Bucket| {
        let ledger = site.ledger.instance(&instance.name);
        ledger.map(|ledger| ledger.lock().recent_windows(bucket)).unwrap_or_default()
    };
    let (active, wall) = (site.sources.gateway.as_ref().map(|gateway| gateway.overrides()), site.clock.wall());
    let overrides = |instance: &InstanceSnapshot| {
        let own = active.iter().flatten().filter(|it| it.instance == instance.name);
        own.map(|it| override_line(it, wall)).collect()
    };
    let top = site.sources.know_callers().then(|| top::table(&site.sources.top(&site.ledger, now)));
    let html = render(&site.options, &instances, recent, overrides, top, now).into_string();
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=UTF-8"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, html).into_response()
}

fn render(
    options: &AdminOptions,
    instances: &[InstanceSnapshot],
    recent: impl Fn(&InstanceSnapshot, Bucket) -> Vec<ClosedWindow>,
    overrides: impl Fn(&InstanceSnapshot) -> Vec<String>,
    top: Option<Markup>,
    now: Moment,
) -> Markup {
    let mut judged: Vec<_> = instances.iter().map(|instance| (Condition::of(instance, now), instance)).collect();
    // The worst first; within a kind the one with the least remaining quota, then in the order of the configuration.
    let rank_of = |(condition, instance): &(Condition, &InstanceSnapshot)| rank(kind(instance, condition));
    judged.sort_by(|a, b| rank_of(a).cmp(&rank_of(b)).then_with(|| least(a.1).total_cmp(&least(b.1))));
    let summary = summary(judged.iter().map(rank_of));
    let mut links = vec![
        (options.telemetry_path.as_str(), "Metrics", "for Prometheus"),
        ("/api/v1/status", "Status", "this page as JSON"),
        ("/config", "Configuration", "in force, without secrets"),
        ("/-/healthy", "Healthy", "the process runs"),
        ("/-/ready", "Ready", "a probe has finished"),
    ];
    if top.is_some() {
        links.insert(2, ("/api/v1/top", "Top", "who uses the budgets, as JSON"));
    }
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="UTF-8";
                title { "Clerk Exporter" }
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="refresh" content=(REFRESH_SECONDS);
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "Clerk Exporter" }
                    p { "Rate limits of Clerk's Backend API. Version " (build::VERSION) }
                }
                main {
                    p class="summary" { (summary) }
                    table {
                        thead {
                            tr {
                                th { "Instance" }
                                th { "State" }
                                th { (LEFT) }
                                th { (RESETS) }
                                th { (LAST_429) }
                                th { (WINDOWS) }
                                th { (LAST_PROBE) }
                            }
                        }
                        @for (condition, instance) in &judged {
                            (row(instance, condition, &recent, &overrides(instance), now))
                        }
                    }
                    @if let Some(top) = top {
                        (top)
                    }
                    ul {
                        @for (path, name, what) in links {
                            li {
                                a href={ (options.external_prefix) (path) } { (name) }
                                " " (what)
                            }
                        }
                    }
                }
            }
        }
    }
}

/// How long a closed window describes the present.
const RECENT_WINDOW: Duration = Duration::from_secs(120);

/// Maximum number of overrides shown for an instance.
const MAX_OVERRIDE_LINES: usize = 5;

/// Headings of the table, and labels of its cells on narrow screens.
const LEFT: &str = "Left of the limit";
const RESETS: &str = "Window resets";
const LAST_429: &str = "Last 429";
const WINDOWS: &str = "Closed windows";
const LAST_PROBE: &str = "Last probe";

/// Kinds of conditions, the worst first.
const KINDS: [&str; 10] = [
    "key refused",
    "blocked",
    "throttled",
    "Clerk is failing",
    "network",
    "low",
    "use unknown",
    "fine",
    STANDBY,
    "other",
];

/// The kind of a condition, of any bucket.
fn kind(instance: &InstanceSnapshot, condition: &Condition) -> &'static str {
    if !instance.is_observed() {
        return STANDBY;
    }
    match (condition.trouble, condition.verdict) {
        (Some(trouble @ (Trouble::Key | Trouble::Network | Trouble::Clerk)), _) => trouble.as_str(),
        (None | Some(Trouble::Throttled), verdict) => verdict.as_str(),
    }
}

fn rank(kind: &str) -> usize {
    KINDS.iter().position(|known| *known == kind).unwrap_or(KINDS.len() - 1)
}

/// The smallest remaining ratio among the buckets of the instance; above 1 where none is known.
fn least(instance: &InstanceSnapshot) -> f64 {
    let limited = instance.buckets.iter().filter(|bucket| bucket.bucket.is_limited());
    limited.filter_map(|bucket| bucket.remaining_ratio()).fold(2.0, f64::min)
}

/// "30 instances: 1 key refused, 2 throttled, 27 fine", in the order of the table.
fn summary(ranks: impl Iterator<Item = usize>) -> Markup {
    let mut counts = [0; KINDS.len()];
    for rank in ranks {
        counts[rank] += 1;
    }
    let all: usize = counts.iter().sum();
    let parts = KINDS.iter().zip(counts).filter(|(_, count)| *count > 0);
    html! {
        (all) " " (if all == 1 { "instance" } else { "instances" }) ": "
        @for (index, (kind, count)) in parts.enumerate() {
            @if index > 0 { ", " }
            span class=(class_of(kind)) { (count) " " (kind) }
        }
    }
}

/// The colour of a kind.
fn class_of(kind: &str) -> &'static str {
    match kind {
        "fine" => "good",
        "low" => "low",
        "use unknown" | STANDBY => "unknown",
        _ => "bad",
    }
}

/// The instance bucket first, then the others that were used. On a narrow screen each cell is a line with its label.
fn row(
    instance: &InstanceSnapshot,
    condition: &Condition,
    recent: &impl Fn(&InstanceSnapshot, Bucket) -> Vec<ClosedWindow>,
    overrides: &[String],
    now: Moment,
) -> Markup {
    let others =
        instance.buckets.iter().filter(|bucket| bucket.bucket != Bucket::Unlimited && bucket.sampled_at.is_some());
    let buckets: Vec<_> = instance
        .bucket(Bucket::Instance)
        .into_iter()
        .chain(others.map(|bucket| &**bucket).filter(|bucket| bucket.bucket != Bucket::Instance))
        .collect();
    let span = buckets.len();
    if !instance.is_observed() {
        return html! {
            tbody {
                tr {
                    td { (instance_name(instance)) }
                    td colspan="6" class=(class_of(STANDBY)) { strong { (STANDBY) } br; small { "another exporter probes it" } }
                }
            }
        };
    }
    html! {
        tbody {
            @for (index, bucket) in buckets.into_iter().enumerate() {
                tr {
                    @if index == 0 {
                        td rowspan=(span) { (instance_name(instance)) }
                        td rowspan=(span) class=(class_of(kind(instance, condition))) { (state(instance, condition, overrides)) }
                    }
                    td data-label=(LEFT) { (left(bucket, instance.low_threshold, now)) }
                    td data-label=(RESETS) { (reset(bucket, now)) }
                    @if index == 0 {
                        td rowspan=(span) data-label=(LAST_429) { (ago(last_429(instance), now)) }
                    }
                    td data-label=(WINDOWS) { (windows(bucket, &recent(instance, bucket.bucket))) }
                    @if index == 0 {
                        td rowspan=(span) data-label=(LAST_PROBE) { (ago(instance.probes.last_success, now)) }
                    }
                }
            }
        }
    }
}

fn instance_name(instance: &InstanceSnapshot) -> Markup {
    html! {
        strong { (instance.name) }
        br;
        small { (instance.environment.as_str()) ", " (instance.api_host) }
    }
}

/// An override in words, with the time that is left.
fn override_line(it: &ActiveOverride, wall: SystemTime) -> String {
    let left = span(it.until.duration_since(wall).unwrap_or_default());
    let what = match it.action {
        OverrideAction::Pause => "paused".to_owned(),
        OverrideAction::Cap { max_share } => {
            let percent = format!("{:.3}", max_share * 100.0);
            format!("capped at {} %", percent.trim_end_matches('0').trim_end_matches('.'))
        }
    };
    format!("{} {what}, {left} left", it.caller)
}

/// The condition of the instance, the state of its key, and who is paused or capped.
fn state(instance: &InstanceSnapshot, condition: &Condition, overrides: &[String]) -> Markup {
    let key = match (instance.up, instance.key_valid) {
        (None, _) if !instance.is_probed() => "no request seen yet",
        (None, _) => "not probed yet",
        (Some(_), Some(true)) => "key valid",
        (Some(_), Some(false)) => "replace the key",
        (Some(_), None) => "key not judged yet",
    };
    html! {
        strong { (condition.describe()) }
        br;
        small { (key) }
        @for line in overrides.iter().take(MAX_OVERRIDE_LINES) {
            br;
            small { (line) }
        }
        @if overrides.len() > MAX_OVERRIDE_LINES {
            br;
            small { "and " (overrides.len() - MAX_OVERRIDE_LINES) " more overrides" }
        }
    }
}

fn left(bucket: &BucketSnapshot, low_threshold: f64, now: Moment) -> Markup {
    let name = html! {
        @if bucket.bucket != Bucket::Instance {
            small { (bucket.bucket) }
            " "
        }
    };
    let basis = |basis: Option<Basis>| html! { @if let Some(basis) = basis { " " small { (basis.describe()) } } };
    let blocked = html! {
        @if let Some(until) = bucket.blocked_until {
            " " small { "blocked for " (span(until.since(now))) }
        }
    };
    let (Some(limit), Some(remaining)) = (bucket.limit, bucket.remaining) else {
        if let Some(lowest) = lowest(bucket, low_threshold, now) {
            return html! { (name) (lowest) (basis(bucket.basis)) (blocked) };
        }
        let limit = bucket.limit.map_or_else(|| "limit unknown".to_owned(), |limit| format!("of {limit}"));
        return html! { (name) span class="unknown" { "unknown " (limit) } (basis(bucket.basis)) (blocked) };
    };
    let ratio = bucket.remaining_ratio().unwrap_or_default().min(1.0);
    let class = if bucket.blocked_until.is_some() || remaining == 0 {
        "bad"
    } else if ratio < low_threshold {
        "low"
    } else {
        "good"
    };
    let forecast = bucket.to_exhaustion.filter(|_| remaining > 0 && bucket.blocked_until.is_none()).map(|wait| {
        let when = if wait.as_secs() == 0 { "by now".to_owned() } else { format!("in {}", span(wait)) };
        html! { " " small { "used up " (when) " at this pace" } }
    });
    html! {
        (name)
        div class="bar" { div class=(class) style=(format!("width:{:.1}%", ratio * 100.0)) {} }
        (remaining) " of " (limit)
        (basis(bucket.basis.filter(|basis| *basis != Basis::Headers)))
        (blocked)
        @if let Some(forecast) = forecast { (forecast) }
    }
}

/// The last window, where the remaining quota is known only after the window: from traces.
fn lowest(bucket: &BucketSnapshot, low_threshold: f64, now: Moment) -> Option<Markup> {
    let window = bucket.last_window.filter(|window| now.since(window.ended) <= RECENT_WINDOW)?;
    let (limit, used) = bucket.limit.filter(|_| bucket.basis.is_some_and(Basis::knows_use)).zip(window.usage)?;
    let ratio = (1.0 - used).max(0.0);
    let class = if window.exhausted {
        "bad"
    } else if ratio < low_threshold {
        "low"
    } else {
        "good"
    };
    Some(html! {
        div class="bar" { div class=(class) style=(format!("width:{:.1}%", ratio * 100.0)) {} }
        (format!("{:.0}", limit as f64 * ratio)) " of " (limit)
        " " small { "lowest in the window that ended " (span(now.since(window.ended))) " ago" }
    })
}

fn reset(bucket: &BucketSnapshot, now: Moment) -> Markup {
    match bucket.reset_at {
        Some(at) if at > now => html! { "in " (span(at.since(now))) },
        Some(at) => html! { (span(now.since(at))) " ago" },
        None => html! { span class="unknown" { "unknown" } },
    }
}

/// The last windows as a strip, newest at the right, and their counts.
fn windows(bucket: &BucketSnapshot, recent: &[ClosedWindow]) -> Markup {
    let class = |window: &ClosedWindow| match (window.exhausted, window.low) {
        (true, _) => "bad",
        (false, true) => "low",
        (false, false) => "good",
    };
    let percent = |window: &ClosedWindow| window.usage.unwrap_or_default() * 100.0;
    html! {
        div class="strip" {
            @for window in recent {
                i class=(class(window)) style=(format!("height:{:.0}%", percent(window).max(4.0)))
                    title=(format!("{:.0}% used", percent(window))) {}
            }
        }
        (bucket.low_windows) " low, " (bucket.exhausted_windows) " exhausted of " (bucket.windows)
    }
}

/// The last 429, also of requests that only traces show.
fn last_429(instance: &InstanceSnapshot) -> Option<Moment> {
    instance.buckets.iter().filter_map(|bucket| bucket.refused_at).max().max(instance.throttled_at)
}

fn ago(at: Option<Moment>, now: Moment) -> String {
    at.map_or_else(|| "never".to_owned(), |at| format!("{} ago", span(now.since(at))))
}

/// A time for people: whole seconds, minutes, hours or days.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
