//! What is looked at every second: a suspension of the machine is noticed, windows are closed, what all gateways used is read, and a bucket that becomes low or
//! blocked is one line in the log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::gateway::Gateway;
use clerk_quota::clock::Clock;
use clerk_quota::condition::{Condition, Trouble, Verdict};
use clerk_quota::ledger::{Handle, Ledger};
use clerk_quota::{Bucket, Moment, Span};

/// Between looks: less than the grace for which windows wait for late responses, so that all are known when one closes.
const EVERY: Duration = Duration::from_secs(1);

/// Looks between those at the buckets of an hour, of which little changes in a second.
const HOURLY_EVERY: u32 = 10;

/// Looks at all instances.
pub(super) struct Watch {
    pub ledger: Arc<Ledger>,
    pub clock: Arc<Clock>,
    pub gateway: Option<Arc<Gateway>>,
    /// The buckets that are low or blocked, by instance.
    told: BTreeMap<Arc<str>, Bucket>,
}

impl Watch {
    pub(super) const fn new(ledger: Arc<Ledger>, clock: Arc<Clock>, gateway: Option<Arc<Gateway>>) -> Self {
        Self { ledger, clock, gateway, told: BTreeMap::new() }
    }

    /// Looks until `stop`.
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
                let duration_seconds = suspended.as_secs();
                tracing::info!(duration_seconds, "this machine was suspended: what was known before is older by that");
            }
            if let Some(gateway) = &self.gateway {
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

    /// With the client that spends most now, since that is what is asked next.
    fn warn(&self, name: &str, handle: &Handle, condition: Condition, now: Moment) {
        let bucket = condition.bucket.as_str();
        let what = match condition.verdict {
            Verdict::Low => "less than the threshold of the limit is left",
            _ if condition.trouble == Some(Trouble::Throttled) => "Clerk refuses requests: the limit is used up",
            _ => "the limit is used up",
        };
        let Some((spender, share)) = top(handle, now) else {
            tracing::warn!(clerk_instance = name, bucket, "{what}; who spends it is not seen here");
            return;
        };
        let caller = match &self.gateway {
            Some(gateway) => gateway.caller_name(spender.caller, spender.source),
            None => Arc::from(spender.source.as_str()),
        };
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
    async fn a_low_limit_is_one_warning_and_its_end_one_line() {
        log::listen();
        let clock = Arc::new(Clock::simulated(clerk_test_support::start()));
        let mut watch = Watch::new(Arc::new(Ledger::new([clerk_test_support::settings("prod")])), clock, None);
        respond(&watch, 60);
        watch.look();
        assert_eq!(log::everything(), "");
        for left in [5, 4, 3] {
            respond(&watch, left);
            watch.look();
        }
        let warned = log::everything();
        assert_eq!(warned.lines().count(), 1, "{warned}");
        for part in ["WARN", "less than the threshold", "top_route=\"/v1/users\"", "bucket=\"instance\""] {
            assert!(warned.contains(part), "{part}: {warned}");
        }
        tokio::time::advance(Duration::from_secs(90)).await;
        watch.look();
        watch.look();
        let all = log::everything();
        assert!(all.lines().count() == 2 && all.contains("no longer low or throttled"), "{all}");
    }
}
