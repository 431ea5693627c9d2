//! Keeps the metered operations of the billing month: in the state folder, and in the Redis that gateways share.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::state::{Journal, KeptMonths, MonthFile, SharedMonths};
use clerk_client::redis::RedisClient;
use clerk_quota::Moment;
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use clerk_quota::metered::MonthOfOthers;

/// Time between writes of the file: a process that is killed loses the operations since the last one.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// Writes of the file for each exchange with Redis.
const SAVES_PER_SYNC: u32 = 10;

/// Maximum wait for Redis at shutdown.
const LAST_SYNC: Duration = Duration::from_secs(2);

/// Sets the free parts, prices and billing days of all instances.
pub(super) fn set_plans(config: &Config, ledger: &Ledger, now: Moment) {
    for instance in &config.instances {
        if let Some(handle) = ledger.instance(&instance.name) {
            handle.lock().set_metered_plan(instance.metered, now);
        }
    }
}

/// Keeps the months of all instances.
#[derive(Debug)]
pub(super) struct MonthKeeper {
    clock: Arc<Clock>,
    ledger: Arc<Ledger>,
    shared: Option<SharedMonths>,
    local: Mutex<Local>,
}

#[derive(Debug)]
struct Local {
    file: Option<MonthFile>,
    /// Also has instances that left the configuration, until their month is over: they may come back.
    kept: KeptMonths,
    /// Whether the last exchange with Redis failed and was logged.
    is_disconnected: bool,
}

impl MonthKeeper {
    /// Reads what was kept. Returns `None` without a folder and without Redis: then months are not known.
    pub(super) fn open(
        clock: Arc<Clock>,
        ledger: Arc<Ledger>,
        storage: Option<(&Path, Arc<Journal>)>,
        store: Option<RedisClient>,
    ) -> Option<Self> {
        let (file, kept) = match storage {
            Some((folder, journal)) => {
                let (file, kept) = MonthFile::open(folder, journal);
                (Some(file), kept)
            }
            None => (None, KeptMonths::unknown()),
        };
        let shared = store.map(|store| SharedMonths::new(store, &kept.process));
        if file.is_none() && shared.is_none() {
            return None;
        }
        let keeper = Self { clock, ledger, shared, local: Mutex::new(Local { file, kept, is_disconnected: false }) };
        keeper.adopt();
        Some(keeper)
    }

    /// Begins to count the months of instances that are new in the ledger, after their plans were set.
    pub(super) fn adopt(&self) {
        let (now, step, local) = (self.clock.now(), self.clock.step_seconds(), self.local.lock());
        for (name, handle) in self.ledger.instances() {
            let mut handle = handle.lock();
            if handle.own_month(now).is_none() {
                handle.count_months(now, step, local.kept.instances.get(&name).copied(), self.shared.is_some());
            }
        }
    }

    /// Keeps the months until `stop`.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = interval(SAVE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for tick in (0..SAVES_PER_SYNC).cycle() {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.save(),
            }
            if tick == 0 {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.sync() => {}
                }
            }
        }
    }

    /// Keeps what was counted until the end of the program.
    pub(super) async fn finish(&self) {
        let now = self.clock.now();
        for (_, handle) in self.ledger.instances() {
            handle.lock().release_all(now);
        }
        self.save();
        if timeout(LAST_SYNC, self.sync()).await.is_err() && self.shared.is_some() {
            tracing::warn!("failed to add the last metered operations in Redis: no response; they are missing there");
        }
    }

    /// Writes the file.
    fn save(&self) {
        let (now, step, mut local) = (self.clock.now(), self.clock.step_seconds(), self.local.lock());
        let wall = self.clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        let Local { file, kept, .. } = &mut *local;
        kept.instances.retain(|_, usage| wall < usage.month.end);
        for (name, handle) in self.ledger.instances() {
            let mut handle = handle.lock();
            handle.set_clock_step(step);
            kept.instances.extend(handle.own_month(now).map(|usage| (name, usage)));
        }
        if let Some(file) = file {
            file.write(kept);
        }
    }

    /// Exchanges the months with other gateways.
    async fn sync(&self) {
        let Some(shared) = &self.shared else { return };
        let mut failure = None;
        for (name, handle) in self.ledger.instances() {
            let now = self.clock.now();
            let Some(own) = handle.lock().own_month(now) else { continue };
            match shared.sync(&name, &own).await {
                Ok(usage) => handle.lock().set_month_of_others(MonthOfOthers { at: now, usage }),
                Err(error) => failure = Some(error),
            }
        }
        let was_disconnected = std::mem::replace(&mut self.local.lock().is_disconnected, failure.is_some());
        match failure {
            Some(error) if !was_disconnected => tracing::warn!(
                %error,
                "failed to add up the metered operations of all gateways; retrying, those of the month are not shown"
            ),
            None if was_disconnected => tracing::info!("the metered operations of all gateways are added up again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tokio::task::JoinSet;

    use super::*;
    use clerk_quota::metered::{MeteredPlan, MonthUsage};
    use clerk_quota::{
        AttemptEnd, CallerId, Coverage, Environment, MethodLabel, RequestStart, Settings, Source, route,
    };

    /// 2026-11-30 23:59:00 UTC.
    const LATE_NOVEMBER: u64 = 1_796_083_140;
    const DECEMBER: u64 = 1_796_083_200;

    fn settings() -> Settings {
        Settings {
            name: "prod".into(),
            environment: Environment::Production,
            api_host: "clerk.test".into(),
            limit: None,
            users_limit: None,
            low_threshold: 0.1,
            stale_after: Duration::from_secs(45),
            sources: vec![Source::Gateway],
            coverage: Coverage::Sole,
            lateness: None,
        }
    }

    /// A process that starts on this folder at this time of the wall clock.
    fn process(folder: &Path, seconds: u64) -> (Arc<MonthKeeper>, Arc<Clock>) {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let clock = Arc::new(Clock::simulated(start));
        let (journal, _) = Journal::open(folder, Arc::clone(&clock)).unwrap();
        let ledger = Arc::new(Ledger::new([settings()]));
        let keeper = MonthKeeper::open(Arc::clone(&clock), ledger, Some((folder, Arc::new(journal))), None);
        (Arc::new(keeper.unwrap()), clock)
    }

    fn verify(keeper: &MonthKeeper, requests: usize) {
        let handle = keeper.ledger.instance("prod").unwrap();
        for _ in 0..requests {
            let (at, source, caller) = (keeper.clock.now(), Source::Gateway, CallerId::UNNAMED);
            let (route, method) = (route::find("POST", b"/v1/api_keys/verify"), MethodLabel::Post);
            let attempt = handle.lock().begin(&RequestStart { at, source, caller, route, method });
            handle.lock().end(attempt, at, AttemptEnd::Unanswered);
        }
    }

    fn month(keeper: &MonthKeeper) -> MonthUsage {
        let handle = keeper.ledger.instance("prod").unwrap();
        let month = handle.lock().snapshot(keeper.clock.now()).metered.month;
        month.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn month_is_kept_across_restarts_and_ends_with_the_month() {
        let folder = tempfile::tempdir().unwrap();
        let (first, _) = process(folder.path(), LATE_NOVEMBER);
        verify(&first, 3);
        first.finish().await;
        let since = month(&first).since;
        drop(first);
        let (second, _) = process(folder.path(), LATE_NOVEMBER + 10);
        verify(&second, 2);
        assert_eq!((month(&second).operations[0], month(&second).since), (5, since));
        // It runs into the next month, and saves by itself.
        let mut running = JoinSet::new();
        running.spawn(Arc::clone(&second).run(CancellationToken::new()));
        tokio::time::sleep(Duration::from_secs(55)).await;
        assert_eq!((month(&second).operations[0], month(&second).since), (0, Duration::from_secs(DECEMBER)));
        verify(&second, 4);
        tokio::time::sleep(SAVE_INTERVAL * 2).await;
        running.shutdown().await;
        drop(second);
        let (third, _) = process(folder.path(), DECEMBER + 3600);
        assert_eq!((month(&third).operations[0], month(&third).since), (4, Duration::from_secs(DECEMBER)));
    }

    #[tokio::test(start_paused = true)]
    async fn damaged_or_foreign_file_counts_from_now() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("months");
        let (first, _) = process(folder.path(), LATE_NOVEMBER);
        verify(&first, 3);
        first.finish().await;
        drop(first);
        let text = std::fs::read_to_string(&path).unwrap();
        let changed = text.replace("[3,0,0,0]", "[9,0,0,0]");
        assert_ne!(text, changed);
        for content in [&changed, &text.replace("metered 1", "metered 2"), &text[..text.len() - 2], "", "\u{fffd}"] {
            std::fs::write(&path, content).unwrap();
            let (next, _) = process(folder.path(), LATE_NOVEMBER + 5);
            let expected = Duration::from_secs(LATE_NOVEMBER + 5);
            assert_eq!((month(&next).operations[0], month(&next).since), (0, expected), "{content}");
        }
        std::fs::write(&path, text).unwrap();
        let (next, _) = process(folder.path(), LATE_NOVEMBER + 5);
        assert_eq!(month(&next).operations[0], 3);
    }

    #[tokio::test(start_paused = true)]
    async fn clock_that_was_set_moves_the_month() {
        let folder = tempfile::tempdir().unwrap();
        let (keeper, clock) = process(folder.path(), LATE_NOVEMBER);
        verify(&keeper, 3);
        clock.simulate_step(3600);
        keeper.save();
        let usage = month(&keeper);
        assert_eq!((usage.operations[0], usage.month.start.as_secs()), (0, DECEMBER));
    }

    #[tokio::test(start_paused = true)]
    async fn instance_that_returns_keeps_its_month() {
        let folder = tempfile::tempdir().unwrap();
        let (keeper, clock) = process(folder.path(), LATE_NOVEMBER);
        verify(&keeper, 3);
        keeper.save();
        keeper.ledger.configure([]);
        keeper.save();
        keeper.ledger.configure([settings()]);
        let handle = keeper.ledger.instance("prod").unwrap();
        handle.lock().set_metered_plan(MeteredPlan::PUBLISHED, clock.now());
        keeper.adopt();
        assert_eq!(month(&keeper).operations[0], 3);
    }
}
