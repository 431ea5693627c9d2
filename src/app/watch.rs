//! Checks once per second: detects suspensions of the machine, closes windows, reads the usage of all gateways, and
//! logs when a bucket becomes low or blocked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::probe::log_suspension;
use crate::sources::Sources;
use clerk_quota::clock::Clock;
use clerk_quota::condition::{Condition, Trouble, Verdict};
use clerk_quota::ledger::{Handle, Ledger};
use clerk_quota::{Bucket, Moment, Span};

/// Shorter than the grace period in which windows wait for late responses, so that all are recorded when a window
/// closes.
const EVERY: Duration = Duration::from_secs(1);

/// Hourly buckets are checked once in this many checks: they change little in a second.
const HOURLY_EVERY: u32 = 10;

/// The periodic check of all instances.
pub(super) struct Watch {
    pub ledger: Arc<Ledger>,
    pub clock: Arc<Clock>,
    pub sources: Sources,
    /// The logged buckets that are low or blocked, by instance.
    told: BTreeMap<Arc<str>, Bucket>,
}

impl Watch {
    pub(super) const fn new(ledger: Arc<Ledger>, clock: Arc<Clock>, sources: Sources) -> Self {
        Self { ledger, clock, sources, told: BTreeMap::new() }
    }

    /// Checks periodically until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = 0_u32;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if let Some(suspended) = self.clock.notice_suspend() {
                log_suspension(suspended);
            }
            if let Some(gateway) = &self.sources.gateway {
                let is_due = looks.is_multiple_of(HOURLY_EVERY);
                gateway.read_fleet(if is_due { &Bucket::LIMITED } else { &[Bucket::Instance] }).await;
                gateway.tell_counting();
                looks += 1;
            }
            self.look();
        }
    }

    fn look(&mut self) {
        let now = self.clock.now();
        let instances = self.ledger.instances();
        self.told.retain(|name, _| self.ledger.instance(name).is_some());
        for (name, handle) in &instances {
            let condition = handle.lock().condition(now);
            match (self.told.get(name), condition.verdict.is_bad()) {
                (None, true) => {
                    self.told.insert(Arc::clone(name), condition.bucket);
                    self.warn(name, handle, condition, now);
                }
                (Some(bucket), false) => {
                    tracing::info!(clerk_instance = &**name, bucket = bucket.as_str(), "no longer low or throttled");
                    self.told.remove(name);
                }
                _ => {}
            }
        }
    }

    /// Includes the largest consumer, since that is the next question.
    fn warn(&self, name: &str, handle: &Handle, condition: Condition, now: Moment) {
        let bucket = condition.bucket.as_str();
        let what = match condition.verdict {
            Verdict::Low => "remaining quota is below the threshold",
            _ if condition.trouble == Some(Trouble::Throttled) => "Clerk rejects requests: the limit is exhausted",
            _ => "the limit is exhausted",
        };
        let Some((spender, share)) = top(handle, now) else {
            tracing::warn!(clerk_instance = name, bucket, "{what}; its consumers are not visible here");
            return;
        };
        let caller = self.sources.caller_name(spender.caller, spender.source);
        let percent = (share * 100.0).round();
        tracing::warn!(
            clerk_instance = name,
            bucket,
            top_caller = &*caller,
            top_method = spender.method.as_str(),
            top_route = spender.route.template(),
            top_share_percent = percent,
            "{what}"
        );
    }
}

fn top(ledger: &Handle, now: Moment) -> Option<(clerk_quota::spending::Spender, f64)> {
    let shares = ledger.lock().top(now, Span::Window);
    shares.first().map(|share| (share.spender, share.ratio))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clerk_quota::{AttemptEnd, HeaderDialect, KeyVerdict, Observation, Quota};
    use clerk_quota::{CallerId, MethodLabel, RequestStart, Source, route};
    use clerk_test_support::log;

    fn respond(watch: &Watch, remaining: u64) {
        let (at, route) = (watch.clock.now(), route::find("GET", b"/v1/users"));
        let quota = Quota {
            limit: Some(100),
            remaining: Some(remaining),
            reset: Some(Duration::from_secs(5)),
            dialect: Some(HeaderDialect::XRateLimit),
            ..Quota::default()
        };
        let observation = Observation {
            at,
            source: Source::Gateway,
            route: route.id,
            bucket: route.bucket,
            entity: None,
            status: 200,
            usable: true,
            key: KeyVerdict::Valid,
            quota_code: None,
            is_rate_limit: false,
            quota,
            clock_offset_seconds: None,
        };
        let handle = watch.ledger.instance("prod").unwrap();
        let mut ledger = handle.lock();
        let (caller, method) = (CallerId::OTHER, MethodLabel::Get);
        let attempt = ledger.begin(&RequestStart { at, source: Source::Gateway, caller, route, method });
        ledger.end(attempt, at, AttemptEnd::Answered(&observation));
    }

    #[tokio::test(start_paused = true)]
    async fn low_limit_logs_one_warning_and_one_recovery() {
        log::listen();
        let clock = Arc::new(Clock::simulated(clerk_test_support::start()));
        let mut watch =
            Watch::new(Arc::new(Ledger::new([clerk_test_support::settings("prod")])), clock, Sources::default());
        respond(&watch, 60);
        watch.look();
        assert_eq!(log::everything(), "");
        for left in [5, 4, 3] {
            respond(&watch, left);
            watch.look();
        }
        let warned = log::everything();
        assert_eq!(warned.lines().count(), 1, "{warned}");
        for part in ["WARN", "below the threshold", "top_route=\"/v1/users\"", "bucket=\"instance\""] {
            assert!(warned.contains(part), "{part}: {warned}");
        }
        tokio::time::advance(Duration::from_secs(90)).await;
        watch.look();
        watch.look();
        let all = log::everything();
        assert!(all.lines().count() == 2 && all.contains("no longer low or throttled"), "{all}");
    }
}
