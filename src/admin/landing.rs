//! The landing page: every instance's state at a glance. Plain HTML that refreshes itself, without scripts.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::{Admin, AdminOptions, top};
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
    let top = site.gateway.as_ref().map(|gateway| top::table(&gateway.stats()));
    let html = render(&site.options, &instances, recent, top.as_deref(), now);
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
    top: Option<&str>,
    now: Moment,
) -> String {
    let mut judged: Vec<_> = instances.iter().map(|instance| (Condition::of(instance, now), instance)).collect();
    // The worst first, of the same kind the one with the least left, else as they are configured.
    judged.sort_by(|(a, one), (b, other)| rank(a).cmp(&rank(b)).then_with(|| least(one).total_cmp(&least(other))));
    let summary = summary(judged.iter().map(|(condition, _)| condition));
    let mut rows = String::new();
    for (condition, instance) in &judged {
        row(&mut rows, instance, condition, &recent, now);
    }
    let prefix = escape(&options.external_prefix);
    let metrics = escape(&options.telemetry_path);
    let mut links = vec![
        (metrics.as_str(), "Metrics", "for Prometheus"),
        ("/api/v1/status", "Status", "this page as JSON"),
        ("/config", "Configuration", "in force, without secrets"),
        ("/-/healthy", "Healthy", "the process runs"),
        ("/-/ready", "Ready", "a probe has finished"),
    ];
    if top.is_some() {
        links.insert(2, ("/api/v1/top", "Top", "who uses the budgets, as JSON"));
    }
    let mut list = String::new();
    for (path, name, what) in links {
        let _ = write!(list, "<li><a href=\"{prefix}{path}\">{name}</a> {what}</li>");
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"UTF-8\"><title>Clerk Exporter</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <meta http-equiv=\"refresh\" content=\"{REFRESH_SECONDS}\"><style>{STYLE}</style></head><body>\
         <header><h1>Clerk Exporter</h1><p>Rate limits of Clerk's Backend API. Version {version}</p></header><main>\
         <p class=\"summary\">{summary}</p><table><thead><tr><th>Instance</th><th>State</th><th>Left of the limit</th><th>Window resets</th>\
         <th>Last 429</th><th>Closed windows</th><th>Last probe</th></tr></thead>\
         {rows}</table>{top}<ul>{list}</ul></main></body></html>\n",
        version = build::VERSION,
        top = top.unwrap_or_default(),
    )
}

/// What is wrong, if something is, and else how much is left: the worst first.
const KINDS: [&str; 9] =
    ["key refused", "blocked", "throttled", "Clerk is failing", "network", "low", "use unknown", "fine", "other"];

/// The kind of a condition, whichever bucket it is of.
const fn kind(condition: &Condition) -> &'static str {
    match (condition.trouble, condition.verdict) {
        (Some(trouble @ (Trouble::Key | Trouble::Network | Trouble::Clerk)), _) => trouble.as_str(),
        (None | Some(Trouble::Throttled), verdict) => verdict.as_str(),
    }
}

fn rank(condition: &Condition) -> usize {
    let kind = kind(condition);
    KINDS.iter().position(|known| *known == kind).unwrap_or(KINDS.len() - 1)
}

/// The smallest share that is left of a budget of the instance; more than all where none is known.
fn least(instance: &InstanceSnapshot) -> f64 {
    let limited = instance.buckets.iter().filter(|bucket| bucket.bucket.is_limited());
    limited.filter_map(|bucket| bucket.remaining_ratio()).fold(2.0, f64::min)
}

/// "30 instances: 1 key refused, 2 throttled, 27 fine", the worst first as they are below.
fn summary<'a>(conditions: impl Iterator<Item = &'a Condition>) -> String {
    let mut counts = [0; KINDS.len()];
    for condition in conditions {
        counts[rank(condition)] += 1;
    }
    let all: usize = counts.iter().sum();
    let parts = KINDS.iter().zip(counts).filter(|(_, count)| *count > 0);
    let parts: Vec<_> =
        parts.map(|(kind, count)| format!("<span class=\"{}\">{count} {kind}</span>", class_of(kind))).collect();
    format!("{all} {}: {}", if all == 1 { "instance" } else { "instances" }, parts.join(", "))
}

/// The colour of a kind.
fn class_of(kind: &str) -> &'static str {
    match kind {
        "fine" => "good",
        "low" => "low",
        "use unknown" => "unknown",
        _ => "bad",
    }
}

/// The default bucket in full, then the others that were used. On a narrow screen each cell is a line of its own, which
/// says what it is.
fn row(
    html: &mut String,
    instance: &InstanceSnapshot,
    condition: &Condition,
    recent: &impl Fn(&InstanceSnapshot, Bucket) -> Vec<ClosedWindow>,
    now: Moment,
) {
    let others =
        instance.buckets.iter().filter(|bucket| bucket.bucket != Bucket::Unlimited && bucket.sampled_at.is_some());
    let buckets: Vec<_> = instance
        .bucket(Bucket::Instance)
        .into_iter()
        .chain(others.map(|bucket| &**bucket).filter(|bucket| bucket.bucket != Bucket::Instance))
        .collect();
    let span = buckets.len();
    html.push_str("<tbody>");
    for (index, bucket) in buckets.into_iter().enumerate() {
        html.push_str("<tr>");
        if index == 0 {
            let (name, host) = (escape(&instance.name), escape(&instance.api_host));
            let environment = instance.environment.as_str();
            let _ = write!(
                html,
                "<td rowspan=\"{span}\"><strong>{name}</strong><br><small>{environment}, {host}</small></td>\
                 <td rowspan=\"{span}\" class=\"{}\">{}</td>",
                class_of(kind(condition)),
                state(instance, condition)
            );
        }
        let (reset, windows) = (reset(bucket, now), windows(bucket, &recent(instance, bucket.bucket)));
        let _ = write!(
            html,
            "<td data-label=\"Left of the limit\">{}</td><td data-label=\"Window resets\">{reset}</td>",
            left(bucket, instance.low_threshold, now)
        );
        if index == 0 {
            let throttled = ago(instance.throttled_at, now);
            let _ = write!(
                html,
                "<td rowspan=\"{span}\" data-label=\"Last 429\">{throttled}</td>\
                 <td data-label=\"Closed windows\">{windows}</td>\
                 <td rowspan=\"{span}\" data-label=\"Last probe\">{}</td>",
                ago(instance.probes.last_success, now)
            );
        } else {
            let _ = write!(html, "<td data-label=\"Closed windows\">{windows}</td>");
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>");
}

/// How the instance stands, and if requests fail, whose fault it is.
fn state(instance: &InstanceSnapshot, condition: &Condition) -> String {
    let key = match (instance.up, instance.key_valid) {
        (None, _) => "not probed yet",
        (Some(_), Some(true)) => "key valid",
        (Some(_), Some(false)) => "replace the key",
        (Some(_), None) => "key not judged yet",
    };
    format!("<strong>{}</strong><br><small>{key}</small>", condition.describe())
}

fn left(bucket: &BucketSnapshot, low_threshold: f64, now: Moment) -> String {
    let name = match bucket.bucket {
        Bucket::Instance => String::new(),
        other => format!("<small>{other}</small> "),
    };
    let (Some(limit), Some(remaining)) = (bucket.limit, bucket.remaining) else {
        let limit = bucket.limit.map_or_else(|| "limit unknown".to_owned(), |limit| format!("of {limit}"));
        let why = bucket.basis.map(|basis| format!(" <small>{}</small>", basis.describe())).unwrap_or_default();
        let blocked =
            bucket.blocked_until.map(|until| format!(" <small>blocked for {}</small>", span(until.since(now))));
        let blocked = blocked.unwrap_or_default();
        return format!("{name}<span class=\"unknown\">unknown {limit}</span>{why}{blocked}");
    };
    let ratio = bucket.remaining_ratio().unwrap_or_default().min(1.0);
    let percent = ratio * 100.0;
    let class = if bucket.blocked_until.is_some() || remaining == 0 {
        "bad"
    } else if ratio < low_threshold {
        "low"
    } else {
        "good"
    };
    let mut note = String::new();
    if let Some(basis) = bucket.basis.filter(|basis| *basis != Basis::Headers) {
        let _ = write!(note, " <small>{}</small>", basis.describe());
    }
    if let Some(until) = bucket.blocked_until {
        let _ = write!(note, " <small>blocked for {}</small>", span(until.since(now)));
    } else if let Some(wait) = bucket.to_exhaustion.filter(|_| remaining > 0) {
        let _ = if wait.as_secs() == 0 {
            write!(note, " <small>used up by now at this pace</small>")
        } else {
            write!(note, " <small>used up in {} at this pace</small>", span(wait))
        };
    }
    format!(
        "{name}<div class=\"bar\"><div class=\"{class}\" style=\"width:{percent:.1}%\"></div></div>\
         {remaining} of {limit}{note}"
    )
}

fn reset(bucket: &BucketSnapshot, now: Moment) -> String {
    match bucket.reset_at {
        Some(at) if at > now => format!("in {}", span(at.since(now))),
        Some(at) => format!("{} ago", span(now.since(at))),
        None => "<span class=\"unknown\">unknown</span>".to_owned(),
    }
}

/// The last windows as a strip, newest at the right, and their counts.
fn windows(bucket: &BucketSnapshot, recent: &[ClosedWindow]) -> String {
    let mut html = String::from("<div class=\"strip\">");
    for window in recent {
        let class = match (window.exhausted, window.low) {
            (true, _) => "bad",
            (false, true) => "low",
            (false, false) => "good",
        };
        let percent = window.usage.unwrap_or_default() * 100.0;
        let _ = write!(
            html,
            "<i class=\"{class}\" style=\"height:{:.0}%\" title=\"{percent:.0}% used\"></i>",
            percent.max(4.0)
        );
    }
    let _ =
        write!(html, "</div>{} low, {} exhausted of {}", bucket.low_windows, bucket.exhausted_windows, bucket.windows);
    html
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

pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
