//! Flags of `analyze`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::analyze::{FieldName, parse_host};
use crate::cli::args::LogFlags;
use crate::config::{Plan, duration};
use clerk_quota::Limit;

/// Windows that the configuration accepts, too.
const WINDOWS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// Waits that the configuration accepts, too.
const MAX_WAITS: std::ops::RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);

/// Flags of `analyze`.
#[derive(Debug, Args)]
pub(crate) struct AnalyzeArgs {
    /// Logs to analyze, in any order, gzip too; - for standard input
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,

    /// Format of the result
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: AnalyzeFormat,

    /// Limit of the instance: free, pro, development or production; by default Clerk's documented limit of production
    /// instances
    #[arg(long, value_name = "PLAN", value_parser = plan, conflicts_with = "limit")]
    pub(crate) plan: Option<Plan>,

    /// Limit of the instance as requests per window, such as 100/10s
    #[arg(long, value_name = "QUOTA", value_parser = limit)]
    pub(crate) limit: Option<Limit>,

    /// Share of the limit below which a window is low, as low_threshold in the configuration
    #[arg(long, value_name = "RATIO", default_value = "0.1", value_parser = threshold)]
    pub(crate) low_threshold: f64,

    /// Longest time that a paced request may wait; by default 1.1 windows, at most a minute, as in the configuration
    #[arg(long, value_name = "DURATION", value_parser = max_wait)]
    pub(crate) max_wait: Option<Duration>,

    /// Host that Clerk's API is called by, such as that of a proxy in front of it; may be given several times
    #[arg(long = "host", value_name = "HOST", default_value = "api.clerk.com", value_delimiter = ',')]
    #[arg(value_parser = parse_host)]
    pub(crate) hosts: Vec<String>,

    /// Instance whose requests count, in the access log of this program's gateway
    #[arg(long, value_name = "NAME")]
    pub(crate) instance: Option<String>,

    /// Member of the log's lines with a meaning, as in time=when; may be given several times. Meanings: time (of the
    /// end), start, duration (in seconds), duration_ms, method, path, request (GET /v1/users HTTP/1.1), status, host,
    /// caller, retry_after, limit, remaining, reset, cache_status, flags, response_headers
    #[arg(long = "field", value_name = "MEANING=MEMBER", value_delimiter = ',')]
    pub(crate) fields: Vec<FieldName>,

    /// The log.
    #[command(flatten)]
    pub(crate) log: LogFlags,
}

/// Format of the result of `analyze`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AnalyzeFormat {
    /// For people
    Table,
    /// For programs
    Json,
    /// One page with pictures, without scripts
    Html,
}

fn plan(text: &str) -> Result<Plan, String> {
    Plan::ALL.into_iter().find(|plan| plan.as_str() == text).ok_or_else(|| {
        let names = Plan::ALL.map(Plan::as_str).join(", ");
        format!("not a known plan; write one of {names}")
    })
}

fn limit(text: &str) -> Result<Limit, String> {
    let syntax = || "write requests per window, as in 100/10s".to_owned();
    let (requests, window) = text.split_once('/').ok_or_else(syntax)?;
    let requests = requests.trim().parse().ok().filter(|requests| *requests > 0).ok_or_else(syntax)?;
    Ok(Limit { requests, window: duration::parse(window.trim(), &WINDOWS)? })
}

fn threshold(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio: &f64| *ratio > 0.0 && *ratio < 1.0);
    ratio.ok_or_else(|| "write a ratio between 0 and 1, as in 0.1".to_owned())
}

fn max_wait(text: &str) -> Result<Duration, String> {
    duration::parse_or_seconds(text, &MAX_WAITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Field;

    #[test]
    fn limit_flag_is_requests_per_window() {
        let expected = Limit { requests: 100, window: Duration::from_secs(10) };
        assert_eq!(limit("100/10s"), Ok(expected));
        assert_eq!(limit("100 / 10s"), Ok(expected));
        for bad in ["100", "0/10s", "-1/10s", "100/10", "100/2days", "100/500ms", "/10s"] {
            assert!(limit(bad).unwrap_err().contains("write"), "{bad}");
        }
    }

    #[test]
    fn help_names_every_meaning_of_a_field() {
        let mut command = crate::cli::command();
        command.build();
        let help = command.find_subcommand_mut("analyze").unwrap().render_long_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for field in Field::ALL {
            assert!(help.contains(&format!("{}", field.as_str())), "{}", field.as_str());
        }
    }
}
