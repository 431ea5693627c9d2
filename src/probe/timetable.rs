//! Due times of interval probes. Pure: time is passed in.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// Jitter, as a share of the interval, so that many exporters do not synchronize.
const JITTER: f64 = 0.1;

/// User counts are rare. The first ones are spread over this time, so that values exist soon.
const FIRST_COUNTS: Duration = Duration::from_secs(60);

/// A task of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskKey {
    /// Alias of the instance.
    pub instance: Arc<str>,
    /// The task.
    pub task: Task,
}

/// A scheduled task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Task {
    /// Probe the quota.
    Probe,
    /// Count the users.
    CountUsers,
}

/// A task that is due now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The instance and the task.
    pub key: TaskKey,
    /// Earlier due times that were missed, for example during a suspension of the machine.
    pub missed: u64,
}

/// The intervals and their next due times. Each keeps its phase: neither jitter nor delays add up.
#[derive(Debug, Default)]
pub(super) struct Timetable {
    entries: BTreeMap<TaskKey, TimetableEntry>,
    /// By due time. Replaced entries leave their old items in the queue; the number identifies them.
    queue: BinaryHeap<Reverse<(Instant, u64, TaskKey)>>,
    numbers: u64,
}

#[derive(Debug)]
struct TimetableEntry {
    interval: Duration,
    /// The due time without jitter.
    nominal: Instant,
    number: u64,
}

impl Timetable {
    /// Replaces the entries. Entries with an unchanged interval keep their phase. The first due times of new ones are
    /// spread evenly over their interval (over at most a minute for user counts); the first is due immediately.
    pub(super) fn replace(&mut self, entries: impl IntoIterator<Item = (TaskKey, Duration)>, now: Instant) {
        let mut old = std::mem::take(&mut self.entries);
        let new: Vec<_> = entries.into_iter().collect();
        let (mut counts, mut indexes) = ([0_u32; 2], [0_u32; 2]);
        for (key, _) in &new {
            counts[key.task as usize] += 1;
        }
        for (key, interval) in new {
            let interval = interval.max(Duration::from_millis(1));
            let (count, index) = (counts[key.task as usize], &mut indexes[key.task as usize]);
            let spread = match key.task {
                Task::Probe => interval,
                Task::CountUsers => interval.min(FIRST_COUNTS),
            };
            let first = spread.mul_f64(f64::from(*index) / f64::from(count));
            *index += 1;
            match old.remove(&key) {
                Some(entry) if entry.interval == interval => {
                    self.entries.insert(key, entry);
                }
                _ => self.enter(key, interval, now + first, 0.0),
            }
        }
    }

    /// The next time at which a task may be due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse((at, _, _))| *at)
    }

    /// Returns what is due by now. `random` returns numbers between 0 and 1.
    pub(super) fn due(&mut self, now: Instant, mut random: impl FnMut() -> f64) -> Vec<Due> {
        let mut due = Vec::new();
        while self.next().is_some_and(|at| at <= now) {
            let Some(Reverse((_, number, key))) = self.queue.pop() else { break };
            let Some(entry) = self.entries.get(&key).filter(|entry| entry.number == number) else { continue };
            let (interval, nominal) = (entry.interval, entry.nominal);
            let late = now.saturating_duration_since(nominal);
            let missed = u64::try_from(late.as_nanos() / interval.as_nanos()).unwrap_or(u64::MAX);
            let passed = interval.mul_f64(missed as f64).min(late);
            let jitter = (random() * 2.0 - 1.0) * JITTER;
            self.enter(key.clone(), interval, nominal + passed + interval, jitter);
            due.push(Due { key, missed });
        }
        due
    }

    fn enter(&mut self, key: TaskKey, interval: Duration, nominal: Instant, jitter: f64) {
        self.numbers += 1;
        let shift = interval.mul_f64(jitter.abs());
        let at = if jitter < 0.0 { nominal.checked_sub(shift).unwrap_or(nominal) } else { nominal + shift };
        self.queue.push(Reverse((at, self.numbers, key.clone())));
        self.entries.insert(key, TimetableEntry { interval, nominal, number: self.numbers });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INTERVAL: Duration = Duration::from_secs(15);

    fn key(index: usize) -> TaskKey {
        TaskKey { instance: format!("i{index}").into(), task: Task::Probe }
    }

    fn timetable(count: usize, now: Instant) -> Timetable {
        let mut timetable = Timetable::default();
        timetable.replace((0..count).map(|index| (key(index), INTERVAL)), now);
        timetable
    }

    #[tokio::test(start_paused = true)]
    async fn first_entry_is_due_immediately_and_all_within_an_interval() {
        let start = Instant::now();
        let mut timetable = timetable(10, start);
        assert_eq!(timetable.due(start, || 0.5).len(), 1);
        let mut times = Vec::new();
        while let Some(at) = timetable.next().filter(|at| *at < start + INTERVAL) {
            times.push(at - start);
            timetable.due(at, || 0.5);
        }
        let expected: Vec<_> = (1..10).map(|index| Duration::from_millis(1500) * index).collect();
        assert_eq!(times, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_ticks_take_a_thousand_intervals() {
        let start = Instant::now();
        let mut timetable = timetable(1, start);
        let mut random = fastrand::Rng::with_seed(1);
        let mut ticks = 0_u32;
        while let Some(at) = timetable.next().filter(|at| *at < start + INTERVAL * 1000) {
            let nominal = start + INTERVAL * ticks;
            let shift = if at > nominal { at - nominal } else { nominal - at };
            assert!(shift <= INTERVAL.mul_f64(JITTER), "tick {ticks} is {shift:?} off");
            ticks += u32::try_from(timetable.due(at, || random.f64()).len()).unwrap();
        }
        assert!((999..=1001).contains(&ticks), "{ticks}");
    }

    #[tokio::test(start_paused = true)]
    async fn pause_yields_one_tick_and_keeps_the_phase() {
        let start = Instant::now();
        let mut timetable = timetable(1, start);
        timetable.due(start, || 0.5);
        let late = start + INTERVAL * 10 + Duration::from_secs(7);
        assert_eq!(timetable.due(late, || 0.5), [Due { key: key(0), missed: 9 }]);
        assert_eq!(timetable.next(), Some(start + INTERVAL * 11));
    }

    #[tokio::test(start_paused = true)]
    async fn reload_keeps_the_phase_of_unchanged_entries() {
        let start = Instant::now();
        let mut timetable = timetable(2, start);
        timetable.due(start, || 0.5);
        let later = start + Duration::from_secs(3);
        timetable.replace([(key(0), INTERVAL), (key(2), INTERVAL)], later);
        let mut seen = Vec::new();
        while let Some(at) = timetable.next().filter(|at| *at <= start + INTERVAL) {
            seen.extend(timetable.due(at, || 0.5).into_iter().map(|due| (due.key, at - start)));
        }
        assert_eq!(seen, [(key(2), Duration::from_millis(10_500)), (key(0), INTERVAL)]);
    }

    proptest! {
        #[test]
        fn a_tick_is_either_due_or_missed(steps in proptest::collection::vec(1_u64..100_000, 1..50)) {
            let runtime = tokio::runtime::Builder::new_current_thread().start_paused(true).enable_time().build().unwrap();
            let _guard = runtime.enter();
            let start = Instant::now();
            let mut timetable = timetable(1, start);
            let (mut now, mut ticks) = (start, 0);
            for step in steps {
                now += Duration::from_millis(step);
                let due = timetable.due(now, || 0.5);
                prop_assert!(due.len() <= 1);
                ticks += due.iter().map(|due| 1 + due.missed).sum::<u64>();
            }
            let expected = u64::try_from((now - start).as_millis() / INTERVAL.as_millis()).unwrap() + 1;
            prop_assert_eq!(ticks, expected);
        }
    }
}
