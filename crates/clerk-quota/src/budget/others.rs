//! Use by other clients: the evidence in responses, and what the other processes of the fleet report.

use std::time::Duration;

use super::{Begun, Budget, Context, LimitConfig};
use crate::fleet::FleetUsage;
use crate::window::{Evidence, Window};
use crate::{Moment, Observation, Quota};

/// Windows that the fleet's log covers ([`FleetUsage`]).
const LOG_WINDOWS: u32 = 3;

/// Requests of other processes reach Clerk within this time.
const MAX_DELIVERY_TIME: Duration = Duration::from_secs(1);

/// What the other processes of the fleet used.
#[derive(Debug, Clone, Default)]
pub(super) struct Fleet {
    pub(super) at: Moment,
    pub(super) used_by_others: u64,
    /// Begin and end of each slot, and the requests of the whole fleet that started in it.
    pub(super) starts: Vec<(Moment, Moment, u64)>,
}

impl Budget {
    /// Returns the evidence of other clients' use in a response: what the server counted, less what this process sent.
    ///
    /// `known` is the use that the window's evidence shows already: weaker evidence is not returned.
    pub(super) fn evidence(
        &self,
        begun: Begun,
        observation: &Observation,
        limit: Option<u64>,
        length: Duration,
        context: &Context,
        known: Option<u64>,
    ) -> Option<Evidence> {
        let (at, quota) = (observation.at, &observation.quota);
        let took = at.since(begun.started);
        let windows = if self.timeline.may_be_sliding_counter() { 2 } else { 1 };
        let (limit, remaining, stretch) = match quota.remaining.or_else(|| observation.is_throttled().then_some(0)) {
            // A limiter with a longer reset remembers that much.
            Some(remaining) if quota.limit.is_some() => {
                (quota.limit?, remaining, length.max(self.timeline.longest_reset()))
            }
            // A sliding counter remembers two windows.
            Some(_) if observation.is_throttled() && observation.is_rate_limit => (
                limit.filter(|_| context.config.is_documented || self.limit.is_some())?,
                0,
                length.saturating_mul(windows),
            ),
            _ => return None,
        };
        // Clocks drift, and the number should rather be too low than invented.
        let look_back = stretch.saturating_add(stretch / 100).saturating_add(took);
        let (from, ours) = (begun.started.before(stretch), self.usage.used(at, look_back));
        let most = limit.saturating_sub(remaining).saturating_sub(ours);
        if known.is_some_and(|known| most <= known) {
            // The estimate of a sliding counter can only lower it.
            return None;
        }
        let (from, ours) = match self.by_counter(begun, observation, length) {
            Some((since, more)) => (from.min(since), ours.max(more)),
            None => (from, ours),
        };
        let others = limit.saturating_sub(remaining).saturating_sub(ours);
        let is_empty = quota.limit.is_none() && others == 0;
        (!is_empty).then_some(Evidence { others, is_named: quota.limit.is_some(), from, to: at, theirs: None })
    }

    /// Returns what a sliding counter may have counted of this process' requests, and since when.
    ///
    /// Such a limiter's reset is the end of a window of its grid. It counts all of that window, and the part of the
    /// previous one that lies within the last window length.
    fn by_counter(&self, begun: Begun, observation: &Observation, length: Duration) -> Option<(Moment, u64)> {
        let Quota { reset, reset_resolution, .. } = observation.quota;
        let reset = reset.filter(|reset| *reset <= length && self.timeline.may_be_sliding_counter())?;
        // The reset is rounded and was true at some time between start and response.
        let start = begun.started.after(reset).before(length.saturating_add(reset_resolution));
        let weight = reset.saturating_add(reset_resolution).min(length);
        Some((start.before(length), self.usage.used_by_counter(observation.at, length, start, weight)))
    }

    /// Takes in what the whole fleet used.
    pub(crate) fn record_fleet(&mut self, at: Moment, usage: &FleetUsage, config: LimitConfig) {
        let ours = self.usage.told(at, self.length(config));
        let starts = usage.starts.iter().map(|slot| {
            let begin = at.before(slot.began_ago);
            (begin, begin.after(slot.length), slot.requests)
        });
        self.fleet = Some(Fleet { at, used_by_others: usage.used.saturating_sub(ours), starts: starts.collect() });
        // The fleet's log drops old slots: attribute what it covers as soon as possible.
        let length = self.length(config);
        let open = [self.timeline.previous(), self.timeline.current()].into_iter().flatten();
        let signs: Vec<_> = open.filter_map(|window| Some((window.number, window.evidence?))).collect();
        for (number, evidence) in signs {
            let theirs = evidence.theirs.or_else(|| self.theirs(&evidence, length));
            if let Some(evidence) = self.timeline.numbered(number).and_then(|window| window.evidence.as_mut()) {
                evidence.theirs = theirs;
            }
        }
    }

    /// Returns the fleet's requests that may be part of the evidence; `None` if the log does not cover its time.
    fn theirs(&self, evidence: &Evidence, length: Duration) -> Option<u64> {
        // A request that was sent a little earlier may have been counted later.
        let (from, to) = (evidence.from.before(MAX_DELIVERY_TIME), evidence.to);
        let fleet =
            self.fleet.as_ref().filter(|fleet| fleet.at >= to && fleet.at.before(length * LOG_WINDOWS) <= from)?;
        let reaching = |(begin, end, _): &&(Moment, Moment, u64)| *end > from && *begin <= to;
        let all: u64 = fleet.starts.iter().filter(reaching).map(|(_, _, requests)| requests).sum();
        Some(all.saturating_sub(self.usage.started(from, to)))
    }

    /// Returns whether other processes of the fleet used anything recently.
    pub(crate) fn is_used_by_fleet(&self) -> bool {
        self.fleet.as_ref().is_some_and(|fleet| fleet.used_by_others > 0)
    }

    /// Returns the requests of the whole fleet that started in a window; `None` if the log does not cover it.
    pub(crate) fn fleet_counted(&self, window: &Window) -> Option<u64> {
        let fleet = self.fleet.as_ref().filter(|fleet| fleet.at >= window.end)?;
        let inside = |(begin, end, _): &&(Moment, Moment, u64)| {
            let middle = begin.after(end.since(*begin) / 2);
            middle >= window.start && middle < window.end
        };
        Some(fleet.starts.iter().filter(inside).map(|(_, _, requests)| requests).sum::<u64>().max(window.counted))
    }

    /// Returns the use by other clients that a window's evidence shows, without the fleet's own.
    pub(crate) fn unseen(&self, window: &Window, context: &Context) -> Option<u64> {
        // A rejection without headers shows nothing where other processes' requests may have been counted.
        let evidence = window.evidence.filter(|evidence| context.is_whole || evidence.is_named)?;
        if !context.is_fleet {
            return Some(evidence.others);
        }
        let theirs = evidence.theirs.or_else(|| self.theirs(&evidence, self.length(context.config)))?;
        Some(evidence.others.saturating_sub(theirs))
    }
}
