//! Puts requests in the order in which they started.
//!
//! Servers log a request when it ends, and several servers' logs are merged by that time, so that starts are out of order
//! by as much as requests take.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use super::input::{LogCall, LogEvent};
use clerk_quota::Moment;

/// How far a request may be behind the newest one.
pub(crate) const LATENESS: Duration = Duration::from_secs(60);

/// Requests that wait. Beyond, the oldest are released early, as if the lateness were shorter.
const MAX_WAITING: usize = 1 << 17;

/// Requests that wait until no earlier one can come.
#[derive(Debug, Default)]
pub(crate) struct Reorder {
    /// By the second of their start.
    waiting: BTreeMap<u64, Vec<LogEvent>>,
    count: usize,
    /// The second before which everything is released.
    watermark: u64,
    newest: u64,
    /// Whether requests were released early.
    pub(crate) was_full: bool,
}

impl Reorder {
    /// Adds a request; returns it if it is too late.
    pub(crate) fn push(&mut self, event: LogEvent) -> Option<LogEvent> {
        let second = seconds(event.started());
        if second < self.watermark.max(self.complete()) {
            return Some(event);
        }
        self.waiting.entry(second).or_default().push(event);
        self.count += 1;
        self.newest = self.newest.max(second);
        None
    }

    /// Takes the requests of the next second that is complete, in order.
    pub(crate) fn pop(&mut self) -> Option<Vec<LogEvent>> {
        let is_full = self.count > MAX_WAITING;
        let complete = self.complete();
        let first = self.waiting.first_entry().filter(|entry| *entry.key() < complete || is_full)?;
        self.was_full |= is_full && *first.key() >= complete;
        self.watermark = first.key() + 1;
        Some(self.sorted(|waiting| waiting.pop_first().map(|(_, calls)| calls).unwrap_or_default()))
    }

    /// The second before which all requests have come.
    const fn complete(&self) -> u64 {
        self.newest.saturating_sub(LATENESS.as_secs())
    }

    /// Takes the requests of the next second at the end of the logs.
    pub(crate) fn finish(&mut self) -> Option<Vec<LogEvent>> {
        if self.waiting.is_empty() {
            return None;
        }
        Some(self.sorted(|waiting| waiting.pop_first().map(|(_, calls)| calls).unwrap_or_default()))
    }

    fn sorted(&mut self, take: impl FnOnce(&mut BTreeMap<u64, Vec<LogEvent>>) -> Vec<LogEvent>) -> Vec<LogEvent> {
        let mut calls = take(&mut self.waiting);
        self.count -= calls.len();
        calls.sort_by(compare);
        calls
    }
}

fn seconds(moment: Moment) -> u64 {
    moment.since_epoch().as_secs()
}

/// By start, webhooks first, then by all else that decides a result, so that the order of the lines does not.
fn compare(one: &LogEvent, other: &LogEvent) -> Ordering {
    let rest = |call: &LogCall| {
        let resource = call.read.as_ref().map(|read| read.resource);
        (call.took, call.caller, call.status, call.route.template, call.method, resource)
    };
    one.started().cmp(&other.started()).then_with(|| match (one, other) {
        (LogEvent::Request(one), LogEvent::Request(other)) => rest(one).cmp(&rest(other)),
        (LogEvent::Webhook { .. }, LogEvent::Request(_)) => Ordering::Less,
        (LogEvent::Request(_), LogEvent::Webhook { .. }) => Ordering::Greater,
        (LogEvent::Webhook { .. }, LogEvent::Webhook { .. }) => Ordering::Equal,
    })
}
