//! Determines what is due: intervals by tokio's clock, cron expressions by the wall clock. Only this file uses
//! tokio-cron-scheduler.
//!
//! The scheduler only triggers: its jobs put a message into a queue that cannot be full. It loses and repeats runs
//! under load, and stops for as long as the wall clock was set back. So the table in `cron_table` decides what is due;
//! a scheduler job only causes a check. A heartbeat, which does not depend on the wall clock, checks at least once a
//! second. Expressions are in UTC: the scheduler's time zones are offsets fixed at the start.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;

use super::cron_table::CronTable;
use super::timetable::{Due, TaskKey, Timetable};
use clerk_quota::clock::Clock;

/// Maximum time between checks of cron expressions, and so until a changed clock is detected.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// When a task is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trigger {
    /// At this interval.
    Interval(Duration),
    /// At the times of this cron expression of six fields, seconds first, in UTC.
    Cron(Arc<str>),
}

/// A task on a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleEntry {
    /// The instance and the task.
    pub key: TaskKey,
    /// When it is due.
    pub trigger: Trigger,
}

/// Puts due tasks into `queue`, by the newest of `plans`, until `stop`.
///
/// A new entry is due immediately, then as its trigger says.
pub(super) async fn run(
    mut plans: watch::Receiver<Arc<Vec<ScheduleEntry>>>,
    queue: mpsc::Sender<Due>,
    clock: Arc<Clock>,
    stop: CancellationToken,
) {
    let (nudges_in, mut nudges) = mpsc::unbounded_channel();
    let mut timetable = Timetable::default();
    let mut cron = CronSchedule { table: CronTable::default(), scheduler: None, nudges: nudges_in, clock };
    plans.mark_changed();
    loop {
        let next = timetable.next();
        let heartbeat = cron.heartbeat();
        let due = tokio::select! {
            () = stop.cancelled() => break,
            changed = plans.changed() => {
                if changed.is_err() {
                    break;
                }
                let plan = Arc::clone(&plans.borrow_and_update());
                timetable.replace(plan.iter().filter_map(interval_of), Instant::now());
                cron.replace(&plan).await
            }
            Some(()) = nudges.recv() => {
                // Many jobs are due in the same second: one check is enough.
                while nudges.try_recv().is_ok() {}
                cron.look().await
            }
            () = sleep_until(heartbeat.unwrap_or_else(Instant::now)), if heartbeat.is_some() => cron.look().await,
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

/// The current cron expressions.
struct CronSchedule {
    table: CronTable,
    scheduler: Option<JobScheduler>,
    nudges: mpsc::UnboundedSender<()>,
    clock: Arc<Clock>,
}

impl CronSchedule {
    /// Replaces the entries. Returns the new ones, which are due immediately.
    async fn replace(&mut self, plan: &[ScheduleEntry]) -> Vec<Due> {
        let entries = plan.iter().filter_map(|entry| match &entry.trigger {
            Trigger::Cron(expression) => Some((Arc::clone(expression), entry.key.clone())),
            Trigger::Interval(_) => None,
        });
        let before: Vec<_> = self.table.expressions().cloned().collect();
        let (new, refused) = self.table.replace(entries, self.clock.wall());
        for expression in refused {
            // Expressions are validated when the configuration is read.
            tracing::error!(%expression, "not a cron expression; its task does not run");
        }
        if !before.iter().eq(self.table.expressions()) {
            self.restart().await;
        }
        new.into_iter().map(|key| Due { key, missed: 0 }).collect()
    }

    /// When to check regardless of the scheduler.
    fn heartbeat(&self) -> Option<Instant> {
        let until_next = self.table.until_next(self.clock.wall())?;
        Some(Instant::now() + until_next.clamp(Duration::from_millis(1), HEARTBEAT))
    }

    async fn look(&mut self) -> Vec<Due> {
        let looked = self.table.look(self.clock.wall());
        if looked.was_set_back {
            tracing::warn!("the wall clock was set back; cron schedules continue from the new time");
            self.restart().await;
        }
        looked.due
    }

    /// Restarts the scheduler with the current time.
    async fn restart(&mut self) {
        self.shut_down().await;
        match start(self.table.expressions(), &self.nudges).await {
            Ok(scheduler) => self.scheduler = scheduler,
            Err(error) => tracing::warn!(%error, "failed to start the cron scheduler; the heartbeat replaces it"),
        }
    }

    async fn shut_down(&mut self) {
        if let Some(mut scheduler) = self.scheduler.take()
            && let Err(error) = scheduler.shutdown().await
        {
            tracing::debug!(%error, "failed to shut down the cron scheduler");
        }
    }
}

/// Starts one job per expression; no scheduler if there are no expressions.
async fn start(
    expressions: impl Iterator<Item = &Arc<str>>,
    nudges: &mpsc::UnboundedSender<()>,
) -> Result<Option<JobScheduler>, JobSchedulerError> {
    let mut jobs = Vec::new();
    for expression in expressions {
        let nudges = nudges.clone();
        jobs.push(Job::new_async(Arc::clone(expression), move |_, _| {
            // Fails only if the receiver was dropped.
            let _ = nudges.send(());
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
    use std::collections::BTreeMap;

    use super::super::timetable::Task;
    use super::*;

    fn entry(index: usize, trigger: Trigger) -> ScheduleEntry {
        ScheduleEntry { key: TaskKey { instance: format!("i{index}").into(), task: Task::Probe }, trigger }
    }

    /// Runs a schedule of these entries until each was due `times` times; returns how often each was due.
    async fn collect(entries: Vec<ScheduleEntry>, times: usize) -> BTreeMap<TaskKey, usize> {
        let clock = Arc::new(Clock::new());
        let count = entries.len();
        let (_plans, plan) = watch::channel(Arc::new(entries));
        let (queue, mut due) = mpsc::channel(16);
        let stop = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(run(plan, queue, clock, stop.clone()));
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
    async fn thousand_instances_due_in_one_second_all_run() {
        let every_second = Trigger::Cron("* * * * * *".into());
        let entries = (0..1000).map(|index| entry(index, every_second.clone())).collect();
        // Once at the start, then two ticks of the scheduler.
        let seen = collect(entries, 3).await;
        assert_eq!(seen.len(), 1000);
        assert!(seen.values().all(|count| *count == 3), "all instances are due equally often");
    }

    #[tokio::test]
    async fn thousand_expressions_due_in_one_second_all_run() {
        // All different, all due every second.
        let entries = (0..1000)
            .map(|index| {
                let (minutes, hours) = (index % 60, index / 60);
                let expression = format!("* {minutes}-59,0-{minutes} {hours}-23,0-{hours} * * *");
                entry(index, Trigger::Cron(expression.into()))
            })
            .collect();
        // The number of ticks depends on the load of the machine.
        let seen = collect(entries, 3).await;
        assert_eq!(seen.len(), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn intervals_run_on_tokio_s_clock() {
        let entries = (0..10).map(|index| entry(index, Trigger::Interval(Duration::from_secs(15)))).collect();
        let start = Instant::now();
        let seen = collect(entries, 10).await;
        // Neighbours are 1.5 s apart, and so is the jitter: some may be due for the eleventh time before the last one's
        // tenth.
        assert!(seen.values().all(|count| (10..=11).contains(count)), "{seen:?}");
        let seconds = (Instant::now() - start).as_secs_f64();
        assert!((147.0..=150.01).contains(&seconds), "{seconds}");
    }
}
