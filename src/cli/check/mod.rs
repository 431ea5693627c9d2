//! `check`: one probe per instance, and what it means.

pub(super) mod args;
mod hints;
mod table;

pub(super) use table::{cut, width, wrapped};

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;
use tokio::task::JoinSet;

use super::{config_source, print};
use crate::app::{Instances, settings};
use crate::config::{Config, LimitSetting};
use crate::probe::{self, Finding, probe_once, probe_recorded};
use args::{CheckArgs, CheckFormat};
use clerk_quota::clock::Clock;
use clerk_quota::condition::{self, Condition, Trouble};
use clerk_quota::ledger::Ledger;
use clerk_quota::{HeaderDialect, ProbeFailure};

/// State of an instance, from one probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Fine,
    Low,
    Throttled,
    /// The key is valid; the remaining quota is unknown.
    UseUnknown,
    /// No usable response.
    Unknown,
}

impl Verdict {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Low => "low",
            Self::Throttled => "throttled",
            Self::UseUnknown => "use unknown",
            Self::Unknown => "unknown",
        }
    }

    /// From the condition that pages and the log show.
    const fn of(condition: Condition, failure: Option<ProbeFailure>) -> Self {
        match (failure, condition.verdict) {
            (_, condition::Verdict::Throttled | condition::Verdict::Blocked) => Self::Throttled,
            (Some(_), _) => Self::Unknown,
            (None, condition::Verdict::Low) => Self::Low,
            (None, condition::Verdict::Fine) => Self::Fine,
            (None, condition::Verdict::UseUnknown) => Self::UseUnknown,
        }
    }
}

/// Result for one instance. Unknown is null.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) instance: Arc<str>,
    pub(super) verdict: Verdict,
    /// Why requests fail, if they do: this side or Clerk.
    pub(super) trouble: Option<&'static str>,
    pub(super) environment: &'static str,
    pub(super) api_host: String,
    pub(super) key_valid: Option<bool>,
    pub(super) status: Option<u16>,
    /// `none` for a response without quota headers.
    pub(super) quota_headers: Option<&'static str>,
    pub(super) limit: Option<u64>,
    pub(super) limit_source: &'static str,
    pub(super) remaining: Option<u64>,
    pub(super) reset_seconds: Option<f64>,
    pub(super) retry_after_seconds: Option<f64>,
    pub(super) clock_offset_seconds: Option<f64>,
    pub(super) latency_seconds: f64,
    pub(super) header_errors: Vec<&'static str>,
    pub(super) failure: Option<&'static str>,
    pub(super) hints: Vec<String>,
    /// The probe step by step, with `--verbose`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) steps: Option<Vec<String>>,
}

/// Clock offset in seconds from which numbers are wrong.
const CLOCK_OFFSET_MATTERS: f64 = 5.0;

/// Exit status when no instance is low or throttled, but the state of some is unknown.
pub(super) const UNKNOWN: u8 = 2;

/// Probes each instance once, all at the same time, and prints the result.
///
/// The exit status is 0 if all is well, 1 if an instance is low or throttled, 2 if the state of one is unknown.
///
/// # Errors
/// Returns an error if the configuration is invalid or the HTTP client cannot be set up.
pub(super) async fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let config = config_source(&args.config).load()?;
    let rows = probe_all(&config, args.verbose).await?;
    print(&match args.format {
        CheckFormat::Json => format!("{}\n", serde_json::to_string_pretty(&rows)?),
        CheckFormat::Table => table::table(&rows, width(), std::io::stdout().is_terminal()) + &stories(&rows),
    })?;
    Ok(ExitCode::from(exit_status(&rows)))
}

/// The probes step by step, each below its instance's name.
fn stories(rows: &[Row]) -> String {
    let told = rows.iter().filter_map(|row| Some((&row.instance, row.steps.as_ref()?)));
    told.map(|(name, steps)| format!("\nInstance: {name}\n{}\n", steps.join("\n"))).collect()
}

fn exit_status(rows: &[Row]) -> u8 {
    let has = |verdict| rows.iter().any(|row| row.verdict == verdict);
    if has(Verdict::Low) || has(Verdict::Throttled) {
        1
    } else if has(Verdict::Unknown) || has(Verdict::UseUnknown) {
        UNKNOWN
    } else {
        0
    }
}

async fn probe_all(config: &Config, verbose: bool) -> anyhow::Result<Vec<Row>> {
    let clock = Arc::new(Clock::new());
    let ledger = Ledger::new(config.instances.iter().map(|it| settings(it, config.low_threshold)));
    let options = Instances::new(clock).probes(config, &ledger)?;
    let mut probes = JoinSet::new();
    for (index, options) in options.into_iter().enumerate() {
        probes.spawn(async move {
            let (outbound, path, timeout) = (&options.outbound, &options.path, options.timeout);
            let (finding, steps) = if verbose {
                let (finding, story) = probe_recorded(outbound, path, timeout).await;
                (finding, Some(story.lines))
            } else {
                (probe_once(outbound, path, timeout).await, None)
            };
            (index, options, finding, steps)
        });
    }
    let mut rows = Vec::new();
    while let Some(probed) = probes.join_next().await {
        let (index, options, finding, steps) = probed?;
        rows.push((index, row(config, index, &options, &finding, steps)));
    }
    rows.sort_by_key(|(index, _)| *index);
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

fn row(
    config: &Config,
    index: usize,
    options: &probe::ProbeOptions,
    finding: &Finding,
    steps: Option<Vec<String>>,
) -> Row {
    let instance = &config.instances[index];
    let now = options.outbound.clock.now();
    let snapshot = options.outbound.ledger.lock().snapshot(now);
    let condition = Condition::of(&snapshot, now);
    let answer = finding.answer.as_ref().ok();
    let quota = answer.map(|answer| answer.observation.quota).unwrap_or_default();
    let family = quota.dialect.filter(|family| *family != HeaderDialect::RetryAfter);
    let limit_source = match (quota.limit, instance.limit) {
        (Some(_), _) => "Clerk's headers",
        (None, LimitSetting::FromKeyPrefix) => "Clerk's documentation, by the key's prefix",
        (None, LimitSetting::Plan(_) | LimitSetting::Fixed { .. }) => "the configuration",
    };
    let limit = quota.limit.or_else(|| instance.limit().map(|(requests, _)| requests));
    let verdict = Verdict::of(condition, finding.failure);
    let mut row = Row {
        instance: Arc::clone(&instance.name),
        verdict,
        trouble: condition.trouble.map(Trouble::as_str),
        environment: instance.environment.as_str(),
        api_host: instance.api_url.host().to_owned(),
        key_valid: snapshot.key_valid,
        status: answer.map(|answer| answer.status.as_u16()),
        quota_headers: answer.map(|_| family.map_or("none", HeaderDialect::as_str)),
        limit,
        limit_source,
        remaining: quota.remaining,
        reset_seconds: quota.reset.map(|reset| reset.as_secs_f64()),
        retry_after_seconds: quota.retry_after.map(|wait| wait.as_secs_f64()),
        clock_offset_seconds: snapshot.clock_offset_seconds,
        latency_seconds: finding.duration.as_secs_f64(),
        header_errors: quota.errors.iter().map(|error| error.as_str()).collect(),
        failure: finding.failure.map(ProbeFailure::as_str),
        hints: Vec::new(),
        steps,
    };
    row.hints = hints::hints(config, &row, finding);
    row
}
