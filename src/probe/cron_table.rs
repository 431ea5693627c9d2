//! Due times of cron expressions. Pure: the wall clock is passed in, and may be set at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds};

use super::timetable::{Due, TaskKey};

/// Smaller steps back are slewing or jitter between readings, not a clock that was set.
const SET_BACK: TimeDelta = TimeDelta::seconds(1);

/// Maximum number of due times counted as missed per check: a clock that starts in 1970 may be set 50 years ahead.
const MAX_MISSED: u64 = 10_000;

/// The current expressions, in UTC.
#[derive(Debug, Default)]
pub(super) struct CronTable {
    groups: BTreeMap<Arc<str>, Group>,
    looked_at: Option<DateTime<Utc>>,
}

/// Entries that share an expression.
#[derive(Debug)]
struct Group {
    cron: Cron,
    keys: BTreeSet<TaskKey>,
    /// `None`: never due.
    next: Option<DateTime<Utc>>,
}

/// The result of a check.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Looked {
    pub(super) due: Vec<Due>,
    /// Whether the clock was set back since the previous check.
    pub(super) was_set_back: bool,
}

impl CronTable {
    /// Replaces the entries. Unchanged expressions keep their next due time. Returns new entries and invalid
    /// expressions.
    pub(super) fn replace(
        &mut self,
        entries: impl IntoIterator<Item = (Arc<str>, TaskKey)>,
        wall: SystemTime,
    ) -> (Vec<TaskKey>, Vec<Arc<str>>) {
        let (wall, mut old, mut refused) = (DateTime::from(wall), std::mem::take(&mut self.groups), Vec::new());
        let known: BTreeSet<TaskKey> = old.values().flat_map(|group| group.keys.iter().cloned()).collect();
        let mut new = Vec::new();
        for (expression, key) in entries {
            if !self.groups.contains_key(&expression) {
                let next = old.remove(&expression).map(|group| (group.cron, group.next));
                let parsed = next.or_else(|| {
                    parse(&expression).map(|cron| {
                        let next = next_after(&cron, wall);
                        (cron, next)
                    })
                });
                let Some((cron, next)) = parsed else {
                    refused.push(expression);
                    continue;
                };
                self.groups.insert(Arc::clone(&expression), Group { cron, keys: BTreeSet::new(), next });
            }
            if let Some(group) = self.groups.get_mut(&expression) {
                if !known.contains(&key) {
                    new.push(key.clone());
                }
                group.keys.insert(key);
            }
        }
        (new, refused)
    }

    /// The expressions.
    pub(super) fn expressions(&self) -> impl Iterator<Item = &Arc<str>> {
        self.groups.keys()
    }

    /// Time until an entry is due, if the clock is not set.
    pub(super) fn until_next(&self, wall: SystemTime) -> Option<Duration> {
        let wall = DateTime::<Utc>::from(wall);
        let next = self.groups.values().filter_map(|group| group.next).min()?;
        Some((next - wall).to_std().unwrap_or_default())
    }

    /// Returns what is due by now. If the clock was set back, schedules continue from the new time, so that due times
    /// repeat. Due times that were passed over are counted with the entry that is due.
    pub(super) fn look(&mut self, wall: SystemTime) -> Looked {
        let wall = DateTime::<Utc>::from(wall);
        let was_set_back = self.looked_at.is_some_and(|before| before - wall > SET_BACK);
        self.looked_at = Some(wall);
        let mut due = Vec::new();
        for group in self.groups.values_mut() {
            if was_set_back {
                group.next = next_after(&group.cron, wall);
            }
            let Some(next) = group.next.filter(|next| *next <= wall) else { continue };
            let (mut last, mut missed) = (next, 0);
            group.next = loop {
                match next_after(&group.cron, last) {
                    Some(later) if later <= wall && missed < MAX_MISSED => (last, missed) = (later, missed + 1),
                    Some(later) if later <= wall => break next_after(&group.cron, wall),
                    other => break other,
                }
            };
            due.extend(group.keys.iter().map(|key| Due { key: key.clone(), missed }));
        }
        Looked { due, was_set_back }
    }
}

/// Same rules as the configuration check: six fields, and both day of month and weekday must match.
fn parse(expression: &str) -> Option<Cron> {
    CronParser::builder().seconds(Seconds::Required).dom_and_dow(true).build().parse(expression).ok()
}

/// The parser keeps fractions of a second, which cron does not have.
fn next_after(cron: &Cron, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
    cron.find_next_occurrence(&time.trunc_subsecs(0), false).ok()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::super::timetable::Task;
    use super::*;

    fn at(seconds: f64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs_f64(1_795_608_000.0 + seconds)
    }

    fn key(name: &str) -> TaskKey {
        TaskKey { instance: name.into(), task: Task::Probe }
    }

    fn table(expression: &str) -> CronTable {
        let mut table = CronTable::default();
        let (new, refused) = table.replace([(expression.into(), key("a"))], at(0.1));
        assert_eq!((new, refused), (vec![key("a")], vec![]));
        table
    }

    /// Checks twice a second over a period: returns the number of due times, and of missed ones.
    fn run(table: &mut CronTable, from: f64, seconds: u32) -> (usize, u64) {
        let looks = (0..=2 * seconds).map(|half| from + f64::from(half) * 0.5);
        let found: Vec<Due> = looks.flat_map(|time| table.look(at(time)).due).collect();
        (found.len(), found.iter().map(|due| due.missed).sum())
    }

    #[test]
    fn due_time_is_due_once_however_often_checked() {
        let mut table = table("*/2 * * * * *");
        assert_eq!(run(&mut table, 0.1, 60), (30, 0));
        assert_eq!(table.until_next(at(60.5)), Some(Duration::from_millis(1500)));
        assert_eq!(table.until_next(at(70.0)), Some(Duration::ZERO));
    }

    #[test]
    fn clock_set_back_resumes_within_a_period() {
        for back in [2.0, 30.0, 3600.0, 86_400.0, 1e9] {
            let mut table = table("*/2 * * * * *");
            run(&mut table, 0.1, 60);
            let looked = table.look(at(60.6 - back));
            assert!(looked.was_set_back && looked.due.is_empty(), "{back}");
            let (due, missed) = run(&mut table, 61.1 - back, 3);
            assert!((1..=2).contains(&due) && missed == 0, "{back}: {due}");
            // Slewing or jitter: nothing is due again.
            let looked = table.look(at(64.1 - back - 0.4));
            assert_eq!(looked, Looked::default(), "{back}");
        }
    }

    #[test]
    fn clock_set_ahead_is_due_once_and_counts_skipped_times() {
        for (ahead, missed) in [(1.0, 0), (30.0, 14), (3600.0, 1799), (1e8, MAX_MISSED)] {
            let mut table = table("*/2 * * * * *");
            assert_eq!(run(&mut table, 0.1, 10), (5, 0));
            let looked = table.look(at(11.0 + ahead));
            assert_eq!(looked.due, [Due { key: key("a"), missed }], "{ahead}");
            assert_eq!(run(&mut table, 11.1 + ahead, 10).1, 0, "{ahead}: schedules continue from there");
        }
        // Ahead and back again.
        let mut table = table("0 0 * * * *");
        assert_eq!(table.look(at(7200.5)).due.len(), 1);
        assert!(table.look(at(1.0)).was_set_back);
        assert_eq!(run(&mut table, 1.0, 3600).0, 1);
    }

    #[test]
    fn reload_keeps_next_time_and_reports_new_and_invalid() {
        let mut table = table("*/10 * * * * *");
        let entries =
            [("*/10 * * * * *".into(), key("a")), ("*/10 * * * * *".into(), key("b")), ("x".into(), key("c"))];
        let (new, refused) = table.replace(entries, at(25.0));
        assert_eq!((new, refused), (vec![key("b")], vec![Arc::from("x")]));
        let due = table.look(at(25.0)).due;
        assert_eq!(due, [Due { key: key("a"), missed: 1 }, Due { key: key("b"), missed: 1 }]);
        assert_eq!(table.expressions().count(), 1);
    }

    #[test]
    fn expression_without_due_times_is_never_due() {
        let mut table = table("0 0 0 30 2 *");
        assert_eq!((table.look(at(1e7)).due.len(), table.until_next(at(0.0))), (0, None));
    }
}
