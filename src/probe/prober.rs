//! The probing of one instance.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::Instant;

use super::ProbeOptions;
use super::advice::hint;
use super::lease::LeaseRole;
use super::recording::Recording;
use super::schedule::Trigger;
use super::state::{ProbeContext, ProbeOutcome, ProbeState};
use super::story::{self, StoryParts};
use super::timetable::Task;
use clerk_client::outbound::{ApiRequest, BufferedResponse, Outbound, RequestError};
use clerk_client::secret::ClerkKey;
use clerk_client::transport::ErrorKind;
use clerk_quota::clock::Clock;
use clerk_quota::{HeaderDialect, KeyVerdict, Moment, ProbeFailure, ProbeSkip, Source, route};

/// Maximum time for which a 429 to other traffic suspends probes, whatever its Retry-After.
const MAX_HOLD: Duration = Duration::from_secs(300);

/// Users active within this number of days count as active.
const ACTIVE_DAYS: u64 = 30;

#[derive(Debug)]
pub(super) struct Prober {
    options: ProbeOptions,
    shared: Arc<Shared>,
}

/// State that survives a reload of the configuration.
#[derive(Debug)]
struct Shared {
    policy: Mutex<ProbeState>,
    probing: AtomicBool,
    counting_users: AtomicBool,
    /// The last probe step by step, if it is kept.
    story: Mutex<Option<Arc<ProbeStory>>>,
    /// The key at the previous check; the inner `None` means that there was no key.
    key: Mutex<Option<Option<Arc<ClerkKey>>>>,
}

/// Held while a task runs. Dropping it lets the next one start.
pub(super) struct ProbeSlot {
    shared: Arc<Shared>,
    task: Task,
}

impl Drop for ProbeSlot {
    fn drop(&mut self) {
        self.shared.flag(self.task).store(false, Ordering::Release);
    }
}

impl Shared {
    const fn flag(&self, task: Task) -> &AtomicBool {
        match task {
            Task::Probe => &self.probing,
            Task::CountUsers => &self.counting_users,
        }
    }
}

/// The result of a probe.
#[derive(Debug)]
pub struct Finding {
    /// The response, if one arrived.
    pub answer: Result<BufferedResponse, RequestError>,
    /// Why the probe failed, if it did. A 429 is a failure here, although it reports the quota.
    pub failure: Option<ProbeFailure>,
    /// Time from the start of the request to the last byte of the response.
    pub duration: Duration,
    outcome: ProbeOutcome,
}

/// Probes once within `deadline` and records the result. If Clerk rejects the key, reloads it and tries again.
pub async fn probe_once(outbound: &Outbound, path: &str, deadline: Duration) -> Finding {
    let started = Instant::now();
    let call = ApiRequest::get(path, Source::Probe);
    let key = outbound.key.current();
    let mut answer = outbound.request(&call, deadline).await;
    let mut outcome = classify(&answer);
    if outcome == ProbeOutcome::Failure(ProbeFailure::Key) && key.is_ok_and(|refused| outbound.key.replaces(&refused)) {
        answer = outbound.request(&call, deadline.saturating_sub(started.elapsed())).await;
        outcome = classify(&answer);
    }
    let duration = started.elapsed();
    let failure = outcome.failure();
    outbound.ledger.lock().record_probe(duration, failure.map_or(Ok(outbound.clock.now()), Err));
    Finding { answer, failure, duration, outcome }
}

/// One probe step by step, without secrets.
#[derive(Debug, Clone)]
pub struct ProbeStory {
    /// When it ended.
    pub at: Moment,
    /// When it ended, on the wall clock.
    pub wall: SystemTime,
    /// A line for each step, with the milliseconds since the start.
    pub lines: Vec<String>,
}

/// Probes like [`probe_once`], over a connection of its own, and returns what happened step by step.
pub async fn probe_recorded(outbound: &Outbound, path: &str, deadline: Duration) -> (Finding, ProbeStory) {
    let recording = Recording::default();
    let finding = probe_once(&recording.of(outbound), path, deadline).await;
    let (now, wall) = (outbound.clock.now(), outbound.clock.wall());
    let (snapshot, bucket) = {
        let mut ledger = outbound.ledger.lock();
        let bucket = ledger.bucket_of(&route::find("GET", path.as_bytes()));
        (ledger.snapshot(now), bucket)
    };
    let exchanges = recording.exchanges();
    let bucket = snapshot.bucket(bucket);
    let parts = StoryParts { exchanges: &exchanges, finding: &finding, snapshot: &snapshot, bucket, now };
    let lines = story::lines(&parts);
    (finding, ProbeStory { at: now, wall, lines })
}

impl Prober {
    /// `before` is the prober of the same instance in the previous configuration.
    pub(super) fn new(options: ProbeOptions, before: Option<&Self>) -> Self {
        let shared = before.map_or_else(
            || {
                Arc::new(Shared {
                    policy: Mutex::new(ProbeState::new(options.interval)),
                    probing: AtomicBool::new(false),
                    counting_users: AtomicBool::new(false),
                    story: Mutex::default(),
                    key: Mutex::default(),
                })
            },
            |before| Arc::clone(&before.shared),
        );
        let mut policy = shared.policy.lock();
        policy.set_interval(options.interval);
        if before.is_some_and(|before| !before.has_target_of(&options)) {
            policy.clear_backoff();
        }
        drop(policy);
        Self { options, shared }
    }

    /// The clock.
    pub(super) fn clock(&self) -> Arc<Clock> {
        Arc::clone(&self.options.outbound.clock)
    }

    /// Whether the schedule has probes.
    pub(super) const fn ever_probes(&self) -> bool {
        self.options.trigger.is_some()
    }

    /// The tasks of the schedule.
    pub(super) fn tasks(&self) -> impl Iterator<Item = Task> {
        let probe = self.options.trigger.as_ref().map(|_| Task::Probe);
        probe.into_iter().chain(self.options.count_users.as_ref().map(|_| Task::CountUsers))
    }

    /// Whether this process is the one that probes.
    pub(super) fn has_lease(&self) -> bool {
        let Some(lease) = &self.options.lease else { return true };
        let clock = &self.options.outbound.clock;
        if let Some(suspended) = clock.notice_suspend() {
            log_suspension(suspended);
        }
        matches!(lease.role(clock.now()), LeaseRole::Holder | LeaseRole::Alone)
    }

    /// Whether these options use the same server and key, so that earlier responses still apply.
    fn has_target_of(&self, options: &ProbeOptions) -> bool {
        let (ours, theirs) = (&self.options.outbound, &options.outbound);
        ours.base == theirs.base && matches!((ours.key.current(), theirs.key.current()), (Ok(a), Ok(b)) if a == b)
    }

    /// The last probe step by step, below what is known of the next one.
    pub(super) fn story(&self) -> String {
        let outbound = &self.options.outbound;
        let now = outbound.clock.now();
        let waiting = self.shared.policy.lock().waiting(now);
        let next = match (&self.options.trigger, waiting) {
            (None, _) => "this exporter does not probe the instance (when: never)".to_owned(),
            _ if !self.has_lease() => {
                "this exporter does not probe now: it does not have the lease (standby)".to_owned()
            }
            (_, Some((wait, reason))) => {
                let why = if reason == ProbeSkip::Blocked { "after a 429" } else { "after failed probes" };
                format!("none for another {} s {why}", wait.as_secs())
            }
            (Some(Trigger::Interval(interval)), _) => {
                let idle =
                    if self.options.only_when_idle { ", unless other responses are seen (when: idle)" } else { "" };
                format!("every {}{idle}", humantime::format_duration(*interval))
            }
            (Some(Trigger::Cron(expression)), _) => format!("by the cron expression {expression} (UTC)"),
        };
        let mut text = format!("Instance: {}\nNext probe: {next}\n", self.options.name);
        let story = self.shared.story.lock().clone();
        match story {
            None => text.push_str("No probe has ended since the start, or since its story is kept.\n"),
            Some(story) => {
                let (wall, age) = (humantime::format_rfc3339_seconds(story.wall), now.since(story.at).as_secs());
                text.push_str(&format!("Last probe: ended {wall}, {age} s ago\n\n{}\n", story.lines.join("\n")));
            }
        }
        text
    }

    /// Counts missed due times of probes.
    pub(super) fn missed(&self, task: Task, count: u64) {
        if task == Task::Probe && count > 0 {
            self.options.outbound.ledger.lock().record_skipped_probes(ProbeSkip::Missed, count);
        }
    }

    /// Whether the due task may start now. Counts a probe that may not as skipped.
    ///
    /// # Errors
    /// Returns the reason as an error if it may not start.
    pub(super) fn admit(&self, task: Task) -> Result<ProbeSlot, ProbeSkip> {
        if self.shared.flag(task).swap(true, Ordering::Acquire) {
            self.skip(task, ProbeSkip::InFlight);
            return Err(ProbeSkip::InFlight);
        }
        let turn = ProbeSlot { shared: Arc::clone(&self.shared), task };
        match self.shared.policy.lock().admit(self.options.outbound.clock.now(), self.surroundings(task)) {
            Ok(()) => Ok(turn),
            Err(reason) => {
                self.skip(task, reason);
                Err(reason)
            }
        }
    }

    fn surroundings(&self, task: Task) -> ProbeContext {
        let ProbeOptions { name, outbound, path, .. } = &self.options;
        if let Err(error) = outbound.key.refresh() {
            tracing::warn!(
                clerk_instance = %name, %error, "failed to reload the secret key; using the previous one and retrying"
            );
        }
        let key_changed = self.has_other_key();
        if key_changed {
            tracing::info!(clerk_instance = %name, "reloaded the secret key");
        }
        let now = outbound.clock.now();
        let bucket = route::find("GET", path.as_bytes()).bucket;
        let ledger = outbound.ledger.lock();
        let idle_only = self.options.only_when_idle && task == Task::Probe;
        ProbeContext {
            observed_at: ledger.sampled_by_others_at(bucket).filter(|_| idle_only),
            held_until: ledger.held_until(bucket, now, MAX_HOLD),
            key_changed,
        }
    }

    /// Whether the key differs from the one at the previous call, including reloads elsewhere.
    fn has_other_key(&self) -> bool {
        let key = self.options.outbound.key.current().ok();
        let before = self.shared.key.lock().replace(key.clone());
        before.is_some_and(|before| before != key)
    }

    fn skip(&self, task: Task, reason: ProbeSkip) {
        if task == Task::Probe {
            self.options.outbound.ledger.lock().record_skipped_probes(reason, 1);
        }
        tracing::debug!(clerk_instance = %self.options.name, ?task, reason = reason.as_str(), "skipped");
    }

    /// Probes once. The time since `queued_at` counts against the deadline.
    pub(super) async fn probe(&self, queued_at: Instant) {
        let ProbeOptions { name, outbound, path, timeout, .. } = &self.options;
        let deadline = timeout.saturating_sub(queued_at.elapsed());
        let finding = if self.options.keeps_story {
            let (finding, story) = probe_recorded(outbound, path, deadline).await;
            *self.shared.story.lock() = Some(Arc::new(story));
            finding
        } else {
            probe_once(outbound, path, deadline).await
        };
        let now = outbound.clock.now();
        if self.shared.policy.lock().finished(now, finding.outcome, fastrand::f64()) {
            log_change(name, &finding);
        }
        log_finding(name, &finding);
    }

    /// Counts the users, and those active in the last 30 days.
    pub(super) async fn count_users(&self) {
        let ProbeOptions { name, outbound, timeout, .. } = &self.options;
        let now = outbound.clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = now.saturating_sub(Duration::from_secs(ACTIVE_DAYS * 24 * 3600)).as_millis();
        let users = self.count("/v1/users/count".to_owned(), *timeout).await;
        let active = self.count(format!("/v1/users/count?last_active_at_since={since}"), *timeout).await;
        outbound.ledger.lock().record_users(users, active);
        tracing::debug!(clerk_instance = %name, users, active, "counted users");
    }

    async fn count(&self, path: String, deadline: Duration) -> Option<u64> {
        #[derive(Deserialize)]
        struct Count {
            total_count: u64,
        }
        let call = ApiRequest::get(path, Source::Probe);
        match self.options.outbound.request(&call, deadline).await {
            Ok(answer) if answer.status.is_success() => {
                serde_json::from_slice::<Count>(&answer.body).ok().map(|count| count.total_count)
            }
            Ok(answer) => {
                let status = answer.status.as_u16();
                tracing::debug!(clerk_instance = %self.options.name, status, "failed to count users");
                None
            }
            Err(error) => {
                tracing::debug!(clerk_instance = %self.options.name, %error, "failed to count users");
                None
            }
        }
    }
}

fn classify(answer: &Result<BufferedResponse, RequestError>) -> ProbeOutcome {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            return ProbeOutcome::Failure(match error {
                RequestError::Key(_) => ProbeFailure::Secret,
                RequestError::Request(_) => ProbeFailure::Other,
                RequestError::Timeout(_) => ProbeFailure::Timeout,
                RequestError::BodyTooLarge { .. } => ProbeFailure::BodyTooLarge,
                RequestError::Upstream(error) => match error.kind() {
                    ErrorKind::Dns => ProbeFailure::Dns,
                    ErrorKind::Connect | ErrorKind::Broken => ProbeFailure::Connect,
                    ErrorKind::Tls => ProbeFailure::Tls,
                    ErrorKind::Timeout => ProbeFailure::Timeout,
                    ErrorKind::Decode => ProbeFailure::Decode,
                    ErrorKind::Other => ProbeFailure::Other,
                },
            });
        }
    };
    let quota = &answer.observation.quota;
    let status = answer.status;
    if status.as_u16() == 429 {
        return ProbeOutcome::Throttled(quota.retry_after.or(quota.reset));
    }
    ProbeOutcome::Failure(if answer.observation.key == KeyVerdict::Invalid {
        ProbeFailure::Key
    } else if status.is_redirection() {
        ProbeFailure::Redirect
    } else if !status.is_success() {
        ProbeFailure::Status
    } else if !answer.is_json() {
        ProbeFailure::UnexpectedContent
    } else if serde_json::from_slice::<IgnoredAny>(&answer.body).is_err() {
        ProbeFailure::Decode
    } else {
        return ProbeOutcome::Success;
    })
}

/// Logs that the machine was suspended for this long.
pub(crate) fn log_suspension(suspended: Duration) {
    let duration_seconds = suspended.as_secs();
    tracing::info!(duration_seconds, "the machine was suspended; earlier observations are older by this duration");
}

/// Logs when the condition of an instance changes, with a hint.
fn log_change(name: &str, finding: &Finding) {
    let Some(failure) = finding.failure else {
        let quota = finding.answer.as_ref().map(|answer| answer.observation.quota).unwrap_or_default();
        let quota_headers = quota.dialect.map_or("none", HeaderDialect::as_str);
        tracing::info!(
            clerk_instance = %name, quota_headers, quota_limit = quota.limit, quota_remaining = quota.remaining,
            "probes succeed"
        );
        return;
    };
    let reason = failure.as_str();
    match &finding.answer {
        Err(error) => tracing::warn!(clerk_instance = %name, reason, %error, "probes fail"),
        Ok(answer) => {
            let status = answer.status.as_u16();
            let code = answer.errors.code();
            let trace_id = answer.errors.trace_id.as_deref();
            let content_type = answer.headers.get("content-type").and_then(|value| value.to_str().ok());
            let hint = hint(failure, answer);
            tracing::warn!(
                clerk_instance = %name, reason, status, code, trace_id, content_type, body_bytes = answer.body.len(), hint,
                "probes fail"
            );
        }
    }
}

fn log_finding(name: &str, finding: &Finding) {
    let duration_seconds = finding.duration.as_secs_f64();
    match &finding.answer {
        Ok(answer) => {
            let quota = &answer.observation.quota;
            let status = answer.status.as_u16();
            tracing::debug!(
                clerk_instance = %name, status, duration_seconds, quota_limit = quota.limit,
                quota_remaining = quota.remaining, "probed"
            );
        }
        Err(error) => tracing::debug!(clerk_instance = %name, %error, duration_seconds, "probed"),
    }
}
