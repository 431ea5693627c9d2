//! The quick check: one probe of each instance, and what it means.

use std::io::IsTerminal;
use std::sync::Arc;

use serde::Serialize;
use tokio::task::JoinSet;

use super::args::CheckFormat;
use super::check_table;
use crate::app::{Instances, settings};
use crate::config::{Config, LimitSetting};
use crate::probe::{self, Finding, probe_once};
use clerk_client::outbound::RequestError;
use clerk_client::transport::ErrorKind;
use clerk_quota::clock::Clock;
use clerk_quota::condition::{self, Condition, Trouble};
use clerk_quota::ledger::Ledger;
use clerk_quota::{HeaderDialect, ProbeFailure};

/// How an instance stands, by one probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Fine,
    Low,
    Throttled,
    /// The key is valid, and how much is left is not known.
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

    /// Of the condition that pages and the log know, too.
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

/// What the check found of one instance. Unknown is null.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) instance: Arc<str>,
    pub(super) verdict: Verdict,
    /// Is it us or Clerk: why requests fail, if they do.
    pub(super) trouble: Option<&'static str>,
    pub(super) environment: &'static str,
    pub(super) api_host: String,
    pub(super) key_valid: Option<bool>,
    pub(super) status: Option<u16>,
    /// `none` if an answer came without quota headers.
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
}

/// From here on a clock that is off makes numbers wrong.
pub(super) const CLOCK_MATTERS_SECONDS: f64 = 5.0;

/// Exit status when no instance is low or throttled, but not all could be told of.
pub(super) const CANNOT_TELL: u8 = 2;

/// The result and the exit status that goes with it: 0 fine, 1 low or throttled, 2 cannot tell.
pub(super) struct Checked {
    pub text: String,
    pub exit_status: u8,
}

/// Probes each instance once, all at the same time.
///
/// # Errors
/// When the HTTP client cannot be set up.
pub(super) async fn check(config: &Config, format: CheckFormat) -> anyhow::Result<Checked> {
    let clock = Arc::new(Clock::new());
    let ledger = Ledger::new(config.instances.iter().map(|it| settings(it, config.low_threshold)));
    let options = Instances::new(clock).probes(config, &ledger)?;
    let mut probes = JoinSet::new();
    for (index, options) in options.into_iter().enumerate() {
        probes.spawn(async move {
            let finding = probe_once(&options.outbound, &options.path, options.timeout).await;
            (index, options, finding)
        });
    }
    let mut rows = Vec::new();
    while let Some(probed) = probes.join_next().await {
        let (index, options, finding) = probed?;
        rows.push((index, row(config, index, &options, &finding)));
    }
    rows.sort_by_key(|(index, _)| *index);
    let rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
    let has = |verdict| rows.iter().any(|row| row.verdict == verdict);
    let exit_status = if has(Verdict::Low) || has(Verdict::Throttled) {
        1
    } else if has(Verdict::Unknown) || has(Verdict::UseUnknown) {
        CANNOT_TELL
    } else {
        0
    };
    let text = match format {
        CheckFormat::Json => format!("{}\n", serde_json::to_string_pretty(&rows)?),
        CheckFormat::Table => {
            let styled = std::io::stdout().is_terminal();
            check_table::table(&rows, check_table::width(), styled)
        }
    };
    Ok(Checked { text, exit_status })
}

fn row(config: &Config, index: usize, options: &probe::ProbeOptions, finding: &Finding) -> Row {
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
    };
    row.hints = hints(config, &row, finding);
    row
}

/// What to do about each thing that is not as it should be.
fn hints(config: &Config, row: &Row, finding: &Finding) -> Vec<String> {
    let mut hints = Vec::new();
    match (&finding.answer, finding.failure) {
        (Ok(answer), Some(failure)) => hints.push(format!(
            "status {}{}: {}",
            answer.status.as_u16(),
            answer.errors.code().map(|code| format!(" ({code})")).unwrap_or_default(),
            probe::hint(failure, answer)
        )),
        (Err(error), _) => hints.push(format!("{error}: {}", call_hint(error))),
        (Ok(_), None) => {}
    }
    if row.verdict == Verdict::UseUnknown {
        hints.push(format!(
            "key valid, use unknown: Clerk sends no quota headers, and a probe sees no requests but its own. To see the \
             use, let the applications call Clerk through the gateway (section `gateway`). The limit is taken from {}",
            row.limit_source
        ));
    }
    if row.verdict == Verdict::Low {
        let percent = (config.low_threshold * 1000.0).round() / 10.0;
        hints.push(format!("less than {percent} % of the limit is left: see what calls Clerk most"));
    }
    if !row.header_errors.is_empty() {
        hints.push(format!("malformed quota headers: {}; is there a proxy in between?", row.header_errors.join(", ")));
    }
    if let Some(offset) = row.clock_offset_seconds.filter(|offset| offset.abs() > CLOCK_MATTERS_SECONDS) {
        hints.push(format!("this machine's clock is off by {:.0} s: check its time synchronisation", -offset));
    }
    hints
}

fn call_hint(error: &RequestError) -> &'static str {
    match error {
        RequestError::Key(_) => "the key must be readable by this process",
        RequestError::Request(_) => "check api_url and the probe's path",
        RequestError::Timeout(_) => "check the network and any proxy, or give the probe a longer timeout",
        RequestError::BodyTooLarge { .. } => "check the probe's path: it should give a small answer",
        RequestError::Upstream(error) => match error.kind() {
            ErrorKind::Dns => "check api_url and this machine's name servers",
            ErrorKind::Timeout => "check the network and any proxy",
            ErrorKind::Connect => "check api_url, the network, and HTTPS_PROXY",
            ErrorKind::Tls => "is there a proxy that inspects TLS? Then give its certificate as tls_config.ca_file",
            ErrorKind::Broken => "the connection broke: try again",
            ErrorKind::Decode => "not valid HTTP: check api_url",
            ErrorKind::Other => "check the network",
        },
    }
}
