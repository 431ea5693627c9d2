//! When cron expressions are due: pure, the wall clock is passed in, whatever becomes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds};

use super::timetable::{Due, TaskKey};

/// A clock that goes back by less is slewed or read at two places, not set.
const SET_BACK: TimeDelta = TimeDelta::seconds(1);

/// Due times that are counted as missed at one look, at most: a clock that began in 1970 may be set 50 years ahead.
const MAX_MISSED: u64 = 10_000;

/// The expressions in force, in UTC.
#[derive(Debug, Default)]
pub(super) struct CronTable {
    groups: BTreeMap<Arc<str>, Group>,
    looked_at: Option<DateTime<Utc>>,
}

/// Those that share an expression.
#[derive(Debug)]
struct Group {
    cron: Cron,
    keys: BTreeSet<TaskKey>,
    /// None: never.
    next: Option<DateTime<Utc>>,
}

/// What a look found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Looked {
    pub(super) due: Vec<Due>,
    /// The clock was set back since the look before.
    pub(super) was_set_back: bool,
}

impl CronTable {
    /// Makes these the entries. Expressions that stay keep their next time. Gives what is new, and expressions that are none.
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

    /// Time until something is due, if the clock is not set.
    pub(super) fn until_next(&self, wall: SystemTime) -> Option<Duration> {
        let wall = DateTime::<Utc>::from(wall);
        let next = self.groups.values().filter_map(|group| group.next).min()?;
        Some((next - wall).to_std().unwrap_or_default())
    }

    /// What is due by now. A clock that was set back begins again from where it is: what it then comes to is due again. Times
    /// that passed unnoticed, since the clock was set ahead or nobody looked, are counted with the one that is due.
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

/// As the configuration is checked: six fields, and days of month and week must both match.
fn parse(expression: &str) -> Option<Cron> {
    CronParser::builder().seconds(Seconds::Required).dom_and_dow(true).build().parse(expression).ok()
}

/// The parser carries parts of a second along, which cron has not.
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

    /// Looks twice a second over a stretch of time: how often it was due, and how many times were missed.
    fn run(table: &mut CronTable, from: f64, seconds: u32) -> (usize, u64) {
        let looks = (0..=2 * seconds).map(|half| from + f64::from(half) * 0.5);
        let found: Vec<Due> = looks.flat_map(|time| table.look(at(time)).due).collect();
        (found.len(), found.iter().map(|due| due.missed).sum())
    }

    #[test]
    fn each_time_is_due_once_however_often_it_is_looked_at() {
        let mut table = table("*/2 * * * * *");
        assert_eq!(run(&mut table, 0.1, 60), (30, 0));
        assert_eq!(table.until_next(at(60.5)), Some(Duration::from_millis(1500)));
        assert_eq!(table.until_next(at(70.0)), Some(Duration::ZERO));
    }

    #[test]
    fn a_clock_that_is_set_back_goes_on_within_a_period() {
        for back in [2.0, 30.0, 3600.0, 86_400.0, 1e9] {
            let mut table = table("*/2 * * * * *");
            run(&mut table, 0.1, 60);
            let looked = table.look(at(60.6 - back));
            assert!(looked.was_set_back && looked.due.is_empty(), "{back}");
            let (due, missed) = run(&mut table, 61.1 - back, 3);
            assert!((1..=2).contains(&due) && missed == 0, "{back}: {due}");
            // Read at two places, or slewed: nothing is due again.
            let looked = table.look(at(64.1 - back - 0.4));
            assert_eq!(looked, Looked::default(), "{back}");
        }
    }

    #[test]
    fn a_clock_that_is_set_ahead_is_due_once_and_what_it_skips_is_counted() {
        for (ahead, missed) in [(1.0, 0), (30.0, 14), (3600.0, 1799), (1e8, MAX_MISSED)] {
            let mut table = table("*/2 * * * * *");
            assert_eq!(run(&mut table, 0.1, 10), (5, 0));
            let looked = table.look(at(11.0 + ahead));
            assert_eq!(looked.due, [Due { key: key("a"), missed }], "{ahead}");
            assert_eq!(run(&mut table, 11.1 + ahead, 10).1, 0, "{ahead}: it goes on from there");
        }
        // There and back again.
        let mut table = table("0 0 * * * *");
        assert_eq!(table.look(at(7200.5)).due.len(), 1);
        assert!(table.look(at(1.0)).was_set_back);
        assert_eq!(run(&mut table, 1.0, 3600).0, 1);
    }

    #[test]
    fn a_reload_keeps_the_next_time_and_tells_what_is_new_or_none() {
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
    fn an_expression_that_is_never_due_is_not() {
        let mut table = table("0 0 0 30 2 *");
        assert_eq!((table.look(at(1e7)).due.len(), table.until_next(at(0.0))), (0, None));
    }
}
