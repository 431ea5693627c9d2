//! Analysis of recorded logs: who spends the quota, which windows were low, and what each policy would have saved.
//!
//! - `input` reads logs of any format into requests to Clerk;
//! - `order` puts them in the order in which they started;
//! - `account` counts them, with the ledger that the exporter keeps of a live instance;
//! - `what_if` runs the gateway's policies on them, in the time of the logs;
//! - `stage` lets a step run in a thread of its own;
//! - `report` is the result, `advice` the configuration that follows from it.

mod account;
mod advice;
mod input;
mod notes;
mod order;
mod report;
mod stage;
mod what_if;

pub(crate) use account::{Account, AssumedLimit};
#[cfg(test)]
pub(crate) use input::LogField;
pub(crate) use input::{FieldName, Input, LineParser, MAX_INPUTS, SkipKind};
pub(crate) use report::{AnalysisReport, CountsReport, LimitSource, SavingReport, SkippedReport, build as report};

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use crate::gateway::CallerRegistry;
use crate::telemetry::span::Hosts;
use clerk_quota::MethodLabel;
use input::{LogEvent, Logs, ReadTotals};
use order::Reorder;
use what_if::{Savings, WhatIf};

/// The host of Clerk's Backend API.
const CLERK_HOST: &str = "api.clerk.com";

/// Reads a host, with or without a port.
///
/// # Errors
/// Returns an error that says what to write.
pub(crate) fn parse_host(text: &str) -> Result<String, String> {
    let host = text.trim().to_ascii_lowercase();
    Hosts::new([host.as_str()]).map_err(|error| error.to_string())?;
    Ok(host)
}

/// Callers that are named; further ones are `other`.
const MAX_CALLERS: usize = 100;

/// Batches of requests that wait to be counted.
const MAX_BATCHES: usize = 16;

/// What to analyze, and how.
#[derive(Debug, Clone)]
pub(crate) struct AnalysisOptions {
    /// Hosts that Clerk's API is called by, in lower case.
    pub(crate) hosts: Vec<String>,
    /// The instance whose requests count, in the gateway's access log; `None` for all.
    pub(crate) instance: Option<String>,
    /// Members of log lines that the user names.
    pub(crate) fields: Vec<FieldName>,
    /// The limit.
    pub(crate) limit: AssumedLimit,
    /// How long a paced request may wait.
    pub(crate) max_wait: Duration,
}

/// The sums of an analysis.
#[derive(Debug)]
pub(crate) struct Sums {
    pub(crate) account: Account,
    pub(crate) savings: Savings,
    pub(crate) read: ReadTotals,
    pub(crate) callers: Arc<CallerRegistry>,
    /// Whether requests were counted before all earlier ones had come, since too many waited.
    pub(crate) was_full: bool,
}

/// Takes in requests in any order.
#[derive(Debug)]
struct Analysis {
    order: Reorder,
    account: Account,
    what_if: WhatIf,
}

impl Analysis {
    fn new(options: &AnalysisOptions) -> Self {
        Self {
            order: Reorder::default(),
            account: Account::new(&options.limit),
            what_if: WhatIf::new(&options.limit, options.max_wait),
        }
    }

    fn push(&mut self, event: LogEvent) {
        match self.order.push(event) {
            Some(LogEvent::Request(late)) => self.account.late(&late),
            // What was read in the meantime is kept too long; what comes is right.
            Some(LogEvent::Webhook { at, changes }) => self.what_if.webhook(&changes, at),
            None => {}
        }
        while let Some(events) = self.order.pop() {
            self.count(events);
        }
    }

    fn count(&mut self, events: Vec<LogEvent>) {
        for event in events {
            // What ended before invalidates first.
            self.account.end_until(event.started(), &mut self.what_if);
            match event {
                LogEvent::Request(mut call) => {
                    if !self.what_if.start(&call) && call.method == MethodLabel::Get {
                        // The gateway would not have seen this response.
                        call.changes = None;
                    }
                    self.account.start(call);
                }
                LogEvent::Webhook { at, changes } => self.what_if.webhook(&changes, at),
            }
        }
    }

    fn finish(mut self, read: ReadTotals, callers: Arc<CallerRegistry>, max_wait: Duration) -> Sums {
        while let Some(events) = self.order.finish() {
            self.count(events);
        }
        self.account.finish(&mut self.what_if);
        let last = self.account.span().map(|(_, last)| last).unwrap_or_default();
        let (account, was_full) = (self.account, self.order.was_full);
        Sums { account, savings: self.what_if.finish(last, max_wait), read, callers, was_full }
    }
}

/// Analyzes logs. `bytes` counts what is read of them, as stored. Blocks; one thread reads, one paces, this one does the
/// rest.
///
/// # Errors
/// Returns an error, with the log's name, if one cannot be opened or read.
pub(crate) fn analyze(
    inputs: &[Input],
    options: &AnalysisOptions,
    bytes: &Arc<AtomicU64>,
) -> Result<Sums, (Arc<str>, std::io::Error)> {
    let callers = Arc::new(CallerRegistry::new(MAX_CALLERS));
    let parser = LineParser::new(&options.hosts, &options.fields, Arc::clone(&callers));
    let parser = parser.of_instance(options.instance.as_deref());
    let logs = Logs::open(inputs, parser, bytes)?;
    sum(logs, options, callers).map_err(|error| (Arc::from("the logs"), error))
}

/// Returns the number of requests to Clerk in a log, and of lines that are none.
///
/// The log has any format that the command `analyze` reads, compressed or not. Bytes that are no log are counted as
/// lines that are no requests.
#[must_use]
pub fn count(log: Vec<u8>) -> (u64, u64) {
    let parser = LineParser::new(&[CLERK_HOST.to_owned()], &[], Arc::new(CallerRegistry::new(MAX_CALLERS)));
    let mut requests = 0;
    let read = Logs::in_memory([log], parser).map(|logs| {
        logs.read(|batch| {
            requests += batch.iter().filter(|event| matches!(event, LogEvent::Request(_))).count() as u64;
            true
        })
    });
    (requests, read.map(|read| read.skips.total()).unwrap_or_default())
}

fn sum(logs: Logs, options: &AnalysisOptions, callers: Arc<CallerRegistry>) -> std::io::Result<Sums> {
    let (sender, receiver) = sync_channel::<Vec<LogEvent>>(MAX_BATCHES);
    let mut analysis = Analysis::new(options);
    let read = std::thread::scope(|scope| {
        let reader = scope.spawn(move || logs.read(|batch| sender.send(batch).is_ok()));
        for event in receiver.into_iter().flatten() {
            analysis.push(event);
        }
        reader.join()
    });
    let read = read.map_err(|_| std::io::Error::other("the reader failed"))?;
    Ok(analysis.finish(read, callers, options.max_wait))
}

#[cfg(test)]
mod tests;
