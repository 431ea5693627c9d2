//! Use by others: what responses tell of it, and what the rest of the fleet says.

use std::time::Duration;

use super::{Begun, Budget, Context, LimitConfig};
use crate::fleet::FleetUsage;
use crate::window::{Evidence, Window};
use crate::{Moment, Observation, Quota};

/// Windows that the common log remembers ([`FleetUsage`]).
const LOG_WINDOWS: u32 = 3;

/// Requests of others of the fleet are taken to reach Clerk within this time.
const LONGEST_WAY: Duration = Duration::from_secs(1);

/// What others of the fleet used.
#[derive(Debug, Clone, Default)]
pub(super) struct Fleet {
    pub(super) at: Moment,
    pub(super) used_by_others: u64,
    /// Begin and end of each stretch, and requests of the whole fleet that were started in it.
    pub(super) starts: Vec<(Moment, Moment, u64)>,
}

impl Budget {
    /// What a response tells of others' use: the server's count, or a refusal, less all that may be ours.
    pub(super) fn evidence(
        &self,
        begun: Begun,
        observation: &Observation,
        limit: Option<u64>,
        length: Duration,
        context: &Context,
    ) -> Option<Evidence> {
        let (at, quota) = (observation.at, &observation.quota);
        let took = at.since(begun.started);
        let windows = if self.timeline.may_be_sliding_counter() { 2 } else { 1 };
        let (limit, remaining, stretch) = match quota.remaining.or_else(|| observation.is_throttled().then_some(0)) {
            // A limiter whose reset takes longer remembers as much.
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
        // Clocks do not run alike, and what is told is rather too little than made up.
        let look_back = stretch.saturating_add(stretch / 100).saturating_add(took);
        let (from, ours) = (begun.started.before(stretch), self.usage.used(at, look_back));
        let (from, ours) = match self.by_counter(begun, observation, length) {
            Some((since, more)) => (from.min(since), ours.max(more)),
            None => (from, ours),
        };
        let others = limit.saturating_sub(remaining).saturating_sub(ours);
        let is_silent = quota.limit.is_none() && others == 0;
        (!is_silent).then_some(Evidence { others, is_named: quota.limit.is_some(), from, to: at, theirs: None })
    }

    /// What a sliding counter may count of ours at a response that names its reset, which then is the end of a window of its
    /// grid: all of that window, and of the one before it the part that still lies within the last window. And since when.
    fn by_counter(&self, begun: Begun, observation: &Observation, length: Duration) -> Option<(Moment, u64)> {
        let Quota { reset, reset_resolution, .. } = observation.quota;
        let reset = reset.filter(|reset| *reset <= length && self.timeline.may_be_sliding_counter())?;
        // The reset is rounded, and was true at some time between start and response.
        let start = begun.started.after(reset).before(length.saturating_add(reset_resolution));
        let weight = reset.saturating_add(reset_resolution).min(length);
        Some((start.before(length), self.usage.used_by_counter(observation.at, length, start, weight)))
    }

    /// Others of the fleet used so much.
    pub(crate) fn record_fleet(&mut self, at: Moment, usage: &FleetUsage, config: LimitConfig) {
        let ours = self.usage.told(at, self.length(config));
        let starts = usage.starts.iter().map(|slot| {
            let begin = at.before(slot.began_ago);
            (begin, begin.after(slot.length), slot.requests)
        });
        self.fleet = Some(Fleet { at, used_by_others: usage.used.saturating_sub(ours), starts: starts.collect() });
        // The common log forgets: what it tells of a sign of others is taken from it as soon as it can.
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

    /// Requests of others of the fleet that may be in what a sign tells of; none where the common log does not say.
    fn theirs(&self, evidence: &Evidence, length: Duration) -> Option<u64> {
        // What was sent a little earlier may have been counted later.
        let (from, to) = (evidence.from.before(LONGEST_WAY), evidence.to);
        let fleet =
            self.fleet.as_ref().filter(|fleet| fleet.at >= to && fleet.at.before(length * LOG_WINDOWS) <= from)?;
        let reaching = |(begin, end, _): &&(Moment, Moment, u64)| *end > from && *begin <= to;
        let all: u64 = fleet.starts.iter().filter(reaching).map(|(_, _, requests)| requests).sum();
        Some(all.saturating_sub(self.usage.started(from, to)))
    }

    /// Whether others of the fleet used anything lately.
    pub(crate) fn is_used_by_fleet(&self) -> bool {
        self.fleet.as_ref().is_some_and(|fleet| fleet.used_by_others > 0)
    }

    /// Requests of the whole fleet that were started in a window; none where the common log does not tell.
    pub(crate) fn fleet_counted(&self, window: &Window) -> Option<u64> {
        let fleet = self.fleet.as_ref().filter(|fleet| fleet.at >= window.end)?;
        let inside = |(begin, end, _): &&(Moment, Moment, u64)| {
            let middle = begin.after(end.since(*begin) / 2);
            middle >= window.start && middle < window.end
        };
        Some(fleet.starts.iter().filter(inside).map(|(_, _, requests)| requests).sum::<u64>().max(window.counted))
    }

    /// Others' use that a window's evidence tells of, without what others of the fleet may have used.
    pub(crate) fn unseen(&self, window: &Window, context: &Context) -> Option<u64> {
        // A refusal alone tells nothing where others of ours may have been counted.
        let evidence = window.evidence.filter(|evidence| context.is_whole || evidence.is_named)?;
        if !context.is_fleet {
            return Some(evidence.others);
        }
        let theirs = evidence.theirs.or_else(|| self.theirs(&evidence, self.length(context.config)))?;
        Some(evidence.others.saturating_sub(theirs))
    }
}
