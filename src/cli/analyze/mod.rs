//! `analyze`: what recorded logs say of the quota.

pub(super) mod args;
mod chart;
mod page;
mod progress;
mod table;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context, bail};

use super::print;
use crate::analyze::{self, AnalysisOptions, AssumedLimit, Input, LimitSource, MAX_INPUTS, Report};
use crate::config::Plan;
use args::{AnalyzeArgs, AnalyzeFormat};
use clerk_quota::{Environment, Limit};

/// The longest wait that the configuration accepts.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Reads the logs and prints the result.
///
/// # Errors
/// Returns an error if a log cannot be opened, or if none has a request to Clerk.
pub(super) async fn run(args: &AnalyzeArgs) -> anyhow::Result<ExitCode> {
    let inputs: Vec<Input> = args.files.iter().map(|path| Input::of(path)).collect();
    if inputs.len() > MAX_INPUTS {
        bail!("{} files, but at most {MAX_INPUTS} are read at once: concatenate some", inputs.len());
    }
    if inputs.iter().filter(|input| **input == Input::Stdin).count() > 1 {
        bail!("standard input is named twice: write - once");
    }
    let (options, source) = options(args);
    let bytes = Arc::new(AtomicU64::new(0));
    let total = inputs.iter().map(Input::bytes).sum();
    let files = inputs.len();
    let work = {
        let (options, bytes) = (options.clone(), Arc::clone(&bytes));
        tokio::task::spawn_blocking(move || analyze::analyze(&inputs, &options, &bytes))
    };
    let sums = progress::during(total, &bytes, work).await?;
    let sums = sums.map_err(|(name, error)| anyhow::Error::new(error).context(format!("{name}: cannot be read")))?;
    let report = analyze::report(sums, files, &options.limit, &source);
    if report.logs.requests == 0 {
        bail!("no request to Clerk found: {}", table::what_was_found(&report));
    }
    print(&render(&report, args.format)?)?;
    Ok(ExitCode::SUCCESS)
}

fn render(report: &Report, format: AnalyzeFormat) -> anyhow::Result<String> {
    Ok(match format {
        AnalyzeFormat::Table => table::table(report, crate::cli::check::width()),
        AnalyzeFormat::Json => format!("{}\n", serde_json::to_string_pretty(report).context("the result")?),
        AnalyzeFormat::Html => page::page(report),
    })
}

fn options(args: &AnalyzeArgs) -> (AnalysisOptions, LimitSource) {
    let of_plan = |plan: Plan| Limit { requests: plan.requests(), window: plan.window() };
    let (limit, source) = match (args.limit, args.plan) {
        (Some(limit), _) => (limit, LimitSource::Flag),
        (None, Some(plan)) => (of_plan(plan), LimitSource::Plan(plan.as_str())),
        (None, None) => (of_plan(Plan::Production), LimitSource::Default),
    };
    let environment = match args.plan {
        Some(Plan::Development) => Environment::Development,
        _ => Environment::Production,
    };
    let fitting = (limit.window + limit.window / 10).min(LONGEST_WAIT);
    let options = AnalysisOptions {
        hosts: args.hosts.clone(),
        instance: args.instance.clone(),
        fields: args.fields.clone(),
        limit: AssumedLimit { limit, environment, low_threshold: args.low_threshold },
        max_wait: args.max_wait.unwrap_or(fitting),
    };
    (options, source)
}
