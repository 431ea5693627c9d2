//! Reads logs of any format into requests to Clerk.
//!
//! The format is known by the content: a line's members say what it is. Several logs are merged by time, since each
//! server writes its own, and rotated files are rarely named in order.

mod access_log;
mod call;
mod field;
mod har;
mod json;
mod line;
mod otlp;
mod request;
mod skip;
mod source;
mod time;

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

pub(crate) use call::{LogCall, LogEvent};
pub(crate) use field::FieldName;
#[cfg(test)]
pub(crate) use field::LogField;
pub(crate) use line::LineParser;
pub(in crate::analyze) use request::http_method;
pub(crate) use skip::{SkipKind, Skips};
pub(crate) use source::Input;

use source::Source;

/// Requests that are handed over at once.
const BATCH: usize = 1024;

/// Logs that are read at the same time: each holds a file open.
pub(crate) const MAX_INPUTS: usize = 500;

/// What was read of all logs, besides the requests.
#[derive(Debug, Default)]
pub(crate) struct ReadTotals {
    /// Lines that are no request to Clerk.
    pub(crate) skips: Skips,
    /// Requests of formats without a host, which count as Clerk's.
    pub(crate) without_host: u64,
    /// Requests whose duration is unknown.
    pub(crate) without_duration: u64,
    /// Instances of which there are requests in the gateway's access log.
    pub(crate) instances: usize,
    /// Logs that ended early, and why.
    pub(crate) incomplete: Vec<(Arc<str>, String)>,
}

/// Logs that are being read.
pub(crate) struct Logs {
    sources: Vec<Source>,
    parser: LineParser,
    totals: ReadTotals,
}

impl Logs {
    /// Opens all logs. `bytes` counts what is read of them, as stored.
    ///
    /// # Errors
    /// Returns an error, with the log's name, if one cannot be opened or read.
    pub(crate) fn open(
        inputs: &[Input],
        parser: LineParser,
        bytes: &Arc<AtomicU64>,
    ) -> Result<Self, (Arc<str>, io::Error)> {
        let open = |input: &Input| Source::open(input, Arc::clone(bytes)).map_err(|error| (input.name(), error));
        let sources = inputs.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { sources, parser, totals: ReadTotals::default() })
    }

    /// Logs in memory, named `log 0`, `log 1` and so on.
    ///
    /// # Errors
    /// Returns an error if one cannot be read.
    pub(crate) fn in_memory(
        logs: impl IntoIterator<Item = impl AsRef<[u8]> + Send + 'static>,
        parser: LineParser,
    ) -> io::Result<Self> {
        let open = |(place, log)| Source::new(Arc::from(format!("log {place}")), io::Cursor::new(log));
        let sources = logs.into_iter().enumerate().map(open).collect::<io::Result<_>>()?;
        Ok(Self { sources, parser, totals: ReadTotals::default() })
    }

    /// Reads everything and passes the requests, merged by time, to `sink` until it returns false.
    pub(crate) fn read(mut self, mut sink: impl FnMut(Vec<LogEvent>) -> bool) -> ReadTotals {
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(behind) = self.behind() {
            // Up to where the next log is.
            let others = self.sources.iter().enumerate().filter(|(place, _)| *place != behind);
            let until = others.map(|(_, source)| source.position).min();
            let Some(source) = self.sources.get_mut(behind) else { break };
            while until.is_none_or(|until| source.position <= until) {
                if source.ready.is_empty() && !source.fill(&mut self.parser) {
                    let source = self.sources.swap_remove(behind);
                    self.close(source);
                    break;
                }
                batch.extend(source.take());
                if batch.len() == BATCH && !sink(std::mem::replace(&mut batch, Vec::with_capacity(BATCH))) {
                    return self.totals;
                }
            }
        }
        if !batch.is_empty() {
            sink(batch);
        }
        self.totals.without_host = self.parser.requests.without_host;
        self.totals.instances = self.parser.requests.instances.len();
        self.totals.without_duration = self.parser.requests.without_duration;
        self.totals
    }

    /// The log whose position is the earliest. A log's first request tells its position.
    fn behind(&mut self) -> Option<usize> {
        for place in (0..self.sources.len()).rev() {
            let source = &mut self.sources[place];
            if source.position != Default::default() {
                continue;
            }
            if source.fill(&mut self.parser) {
                source.position = source.ready.front().map(LogEvent::ended).unwrap_or_default();
            } else {
                let source = self.sources.swap_remove(place);
                self.close(source);
            }
        }
        let positions = self.sources.iter().enumerate();
        positions.min_by_key(|(_, source)| source.position).map(|(place, _)| place)
    }

    fn close(&mut self, source: Source) {
        if let Some(error) = &source.failure {
            self.totals.incomplete.push((Arc::clone(source.name()), error.to_string()));
        }
        self.totals.skips.merge(source.skips);
    }
}
