//! What is due when: intervals on tokio's clock, cron expressions on tokio-cron-scheduler. This file alone knows it.
//!
//! The scheduler only triggers: its jobs put a word into a queue that cannot be full, and nothing else. There is one job
//! for each distinct expression, however many instances share it, since the scheduler's own channels lose runs when
//! many jobs are due in one second; a job that is started twice for one tick is noticed. Expressions are read in UTC:
//! its time zones are offsets fixed at the start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;

use super::timetable::{Due, TaskKey, Timetable};

/// Two ticks of one expression closer than this are one: cron has whole seconds, and the scheduler looks twice in each.
const SAME_TICK: Duration = Duration::from_millis(300);

/// When something is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trigger {
    /// Again and again after this time.
    Interval(Duration),
    /// At the times of this cron expression of six fields, seconds first, in UTC.
    Cron(Arc<str>),
}

/// Something to be done on a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleEntry {
    /// For whom, and what.
    pub key: TaskKey,
    /// When.
    pub trigger: Trigger,
}

/// Puts what is due into `queue`, by the newest of `plans`, until `stop`.
///
/// Everything new is due once at the start, then as its trigger says.
pub(super) async fn run(
    mut plans: watch::Receiver<Arc<Vec<ScheduleEntry>>>,
    queue: mpsc::Sender<Due>,
    stop: CancellationToken,
) {
    let (ticks_in, mut ticks) = mpsc::unbounded_channel();
    let mut timetable = Timetable::default();
    let mut cron = Cron::default();
    plans.mark_changed();
    loop {
        let next = timetable.next();
        let due = tokio::select! {
            () = stop.cancelled() => break,
            changed = plans.changed() => {
                if changed.is_err() {
                    break;
                }
                let plan = Arc::clone(&plans.borrow_and_update());
                timetable.replace(plan.iter().filter_map(interval_of), Instant::now());
                cron.replace(&plan, &ticks_in).await
            }
            Some(expression) = ticks.recv() => cron.tick(&expression, Instant::now()),
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                timetable.due(Instant::now(), fastrand::f64)
            }
        };
        for due in due {
            tokio::select! {
                sent = queue.send(due) => if sent.is_err() { return },
                () = stop.cancelled() => break,
            }
        }
    }
    cron.shut_down().await;
}

fn interval_of(entry: &ScheduleEntry) -> Option<(TaskKey, Duration)> {
    match &entry.trigger {
        Trigger::Interval(interval) => Some((entry.key.clone(), *interval)),
        Trigger::Cron(_) => None,
    }
}

/// The cron expressions in force.
#[derive(Default)]
struct Cron {
    scheduler: Option<JobScheduler>,
    groups: BTreeMap<Arc<str>, Group>,
}

#[derive(Default)]
struct Group {
    keys: BTreeSet<TaskKey>,
    last_tick: Option<Instant>,
}

impl Cron {
    /// Takes over a plan. Returns what is new in it, which is due at once.
    async fn replace(&mut self, plan: &[ScheduleEntry], ticks: &mpsc::UnboundedSender<Arc<str>>) -> Vec<Due> {
        let mut groups: BTreeMap<Arc<str>, Group> = BTreeMap::new();
        for entry in plan {
            if let Trigger::Cron(expression) = &entry.trigger {
                groups.entry(Arc::clone(expression)).or_default().keys.insert(entry.key.clone());
            }
        }
        let known: BTreeSet<TaskKey> = self.groups.values().flat_map(|group| group.keys.iter().cloned()).collect();
        let keys = groups.values().flat_map(|group| &group.keys);
        let new = keys.filter(|key| !known.contains(key)).map(|key| Due { key: key.clone(), missed: 0 }).collect();
        if !groups.keys().eq(self.groups.keys()) {
            self.shut_down().await;
            match start(groups.keys(), ticks).await {
                Ok(scheduler) => self.scheduler = scheduler,
                // Expressions are checked when the configuration is read.
                Err(error) => tracing::error!(%error, "cron schedules do not run; intervals do"),
            }
        }
        self.groups = groups;
        new
    }

    fn tick(&mut self, expression: &Arc<str>, now: Instant) -> Vec<Due> {
        let Some(group) = self.groups.get_mut(expression) else { return Vec::new() };
        if group.last_tick.is_some_and(|last| now.duration_since(last) < SAME_TICK) {
            return Vec::new();
        }
        group.last_tick = Some(now);
        group.keys.iter().map(|key| Due { key: key.clone(), missed: 0 }).collect()
    }

    async fn shut_down(&mut self) {
        if let Some(mut scheduler) = self.scheduler.take()
            && let Err(error) = scheduler.shutdown().await
        {
            tracing::debug!(%error, "the cron scheduler did not shut down");
        }
    }
}

/// Starts one job for each expression; no scheduler at all where there is none.
async fn start(
    expressions: impl Iterator<Item = &Arc<str>>,
    ticks: &mpsc::UnboundedSender<Arc<str>>,
) -> Result<Option<JobScheduler>, JobSchedulerError> {
    let mut jobs = Vec::new();
    for expression in expressions {
        let (expression, ticks) = (Arc::clone(expression), ticks.clone());
        jobs.push(Job::new_async(Arc::clone(&expression), move |_, _| {
            // Fails only when nobody listens any more.
            let _ = ticks.send(Arc::clone(&expression));
            Box::pin(std::future::ready(()))
        })?);
    }
    if jobs.is_empty() {
        return Ok(None);
    }
    let scheduler = JobScheduler::new_with_channel_size(jobs.len().saturating_mul(4).max(200)).await?;
    for job in jobs {
        scheduler.add(job).await?;
    }
    scheduler.start().await?;
    Ok(Some(scheduler))
}

#[cfg(test)]
mod tests {
    use super::super::timetable::Task;
    use super::*;

    fn entry(index: usize, trigger: Trigger) -> ScheduleEntry {
        ScheduleEntry { key: TaskKey { instance: format!("i{index}").into(), task: Task::Probe }, trigger }
    }

    /// Runs a schedule of these entries until each was due `times` times, and says how often each was.
    async fn collect(entries: Vec<ScheduleEntry>, times: usize) -> BTreeMap<TaskKey, usize> {
        let count = entries.len();
        let (_plans, plan) = watch::channel(Arc::new(entries));
        let (queue, mut due) = mpsc::channel(16);
        let stop = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(run(plan, queue, stop.clone()));
        let (mut seen, mut done) = (BTreeMap::new(), 0);
        while done < count {
            let seen = seen.entry(due.recv().await.unwrap().key).or_insert(0);
            *seen += 1;
            done += usize::from(*seen == times);
        }
        stop.cancel();
        while due.recv().await.is_some() {}
        tasks.join_next().await.unwrap().unwrap();
        seen
    }

    #[tokio::test]
    async fn a_thousand_instances_due_in_one_second_lose_nothing() {
        let every_second = Trigger::Cron("* * * * * *".into());
        let entries = (0..1000).map(|index| entry(index, every_second.clone())).collect();
        // Once at the start, then two ticks of the scheduler.
        let seen = collect(entries, 3).await;
        assert_eq!(seen.len(), 1000);
        assert!(seen.values().all(|count| *count == 3), "each instance is due as often as every other");
    }

    #[tokio::test]
    async fn a_thousand_distinct_expressions_due_in_one_second_lose_nothing() {
        // All different, all due every second.
        let entries = (0..1000)
            .map(|index| {
                let (minutes, hours) = (index % 60, index / 60);
                let expression = format!("* {minutes}-59,0-{minutes} {hours}-23,0-{hours} * * *");
                entry(index, Trigger::Cron(expression.into()))
            })
            .collect();
        // How many ticks that takes is a matter of how busy the machine is.
        let seen = collect(entries, 3).await;
        assert_eq!(seen.len(), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn intervals_run_on_tokio_s_clock() {
        let entries = (0..10).map(|index| entry(index, Trigger::Interval(Duration::from_secs(15)))).collect();
        let start = Instant::now();
        let seen = collect(entries, 10).await;
        // Neighbours are 1.5 s apart and jitter is as much: some may be due for the eleventh time before the last for its tenth.
        assert!(seen.values().all(|count| (10..=11).contains(count)), "{seen:?}");
        let seconds = (Instant::now() - start).as_secs_f64();
        assert!((147.0..=150.01).contains(&seconds), "{seconds}");
    }
}
