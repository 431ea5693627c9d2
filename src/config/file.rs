//! The keys of the file, from the top down; [`instance`] has those of an instance.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::error::Position;
use super::model::{Config, InstanceConfig, ProbeConfig, ProbeWhen, ScheduleConfig, UsersConfig};
use super::reader::{Field, Keys, Report, Section};
use super::tree::Value;
use super::{MAX_PROBE_INTERVAL, budget, cron, gateway, instance, metered, redis, telemetry, tree, validate};
use crate::gateway::UNKNOWN_KEYS;
use clerk_client::secret::{ClerkKey, EnvLookup};
use clerk_quota::metered::MeteredPlan;

static TOP: Keys = Keys {
    section: "",
    known: &[
        "low_threshold",
        "tls_config",
        "redis_url_file",
        "redis_password_file",
        "redis_password_command",
        "redis_prefix",
        "probe",
        "users",
        "metered",
        "instances",
        "gateway",
        "telemetry",
    ],
};
static TLS_CONFIG: Keys = Keys { section: "tls_config", known: &["ca_file"] };
static PROBE: Keys = Keys { section: "probe", known: &["interval", "schedule", "timeout", "path", "when", "lease"] };
static USERS: Keys = Keys { section: "users", known: &["interval", "schedule"] };
pub(super) static INSTANCE: Keys = Keys {
    section: "instances",
    known: &[
        "name",
        "secret_key",
        "secret_key_file",
        "secret_key_env",
        "further_secret_key_files",
        "machine_secret_key_files",
        "api_url",
        "limit",
        "plan",
        "users_limit",
        "probe",
        "users",
        "metered",
    ],
};
pub(super) static LIMIT: Keys = Keys { section: "limit", known: &["requests", "window"] };

/// Every section, for the documentation and for hints about misplaced keys.
pub(super) static SCHEMA: &[&Keys] = &[
    &TOP,
    &TLS_CONFIG,
    &PROBE,
    &USERS,
    &INSTANCE,
    &LIMIT,
    &metered::METERED,
    &metered::FREE,
    &metered::PRICE,
    &gateway::GATEWAY,
    &gateway::CALLER,
    &gateway::POLICIES,
    &gateway::CACHE_POLICY,
    &gateway::VERIFY,
    &gateway::PACE,
    &gateway::CACHE,
    &gateway::WEBHOOKS,
    &telemetry::TELEMETRY,
];

pub(super) const DEFAULT_LOW_THRESHOLD: f64 = 0.1;
const DEFAULT_PROBE_INTERVAL: Duration = Duration::from_secs(15);
const DEFAULT_PROBE_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_PROBE_PATH: &str = "/v1/users/count";
const DEFAULT_USERS_SCHEDULE: &str = "0 0 * * * *";
/// The window of an instance whose limit is unknown.
const USUAL_WINDOW: Duration = Duration::from_secs(10);

const PROBE_INTERVALS: RangeInclusive<Duration> = Duration::from_secs(1)..=MAX_PROBE_INTERVAL;
const PROBE_TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);
const LEASES: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(300);
const USERS_INTERVALS: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(24 * 3600);

/// External inputs of reading.
pub(super) struct Context<'a> {
    /// The base directory of relative file names.
    pub(super) directory: &'a Path,
    pub(super) env: EnvLookup<'a>,
    files: RefCell<Vec<PathBuf>>,
}

impl<'a> Context<'a> {
    pub(super) const fn new(directory: &'a Path, env: EnvLookup<'a>) -> Self {
        Self { directory, env, files: RefCell::new(Vec::new()) }
    }
}

impl Context<'_> {
    /// Resolves a file name in the configuration. Every name goes through here, because the files are watched.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        let path = self.directory.join(name);
        self.files.borrow_mut().push(path.clone());
        path
    }
}

/// An instance as far as it could be read, with what is needed to compare it with the others.
pub(super) struct ReadInstance {
    /// `None` if a problem was reported.
    pub(super) instance: Option<InstanceConfig>,
    pub(super) path: String,
    pub(super) place: Position,
    pub(super) name: Option<(Arc<str>, Position)>,
    /// Position of the probe's trigger, if present.
    pub(super) probe_place: Option<Position>,
    /// Name and position of the last key that says which process probes.
    pub(super) prober: Option<(String, Position)>,
    /// Every readable key of the instance, with its full name and position.
    pub(super) keys: Vec<(ClerkKey, String, Position)>,
}

/// Settings that instances inherit.
pub(super) struct Defaults {
    pub(super) probe: ProbeDraft,
    pub(super) users: Option<UsersConfig>,
    pub(super) metered: MeteredPlan,
}

/// Reads the whole file. Returns `None` if an error was reported; problems may also be reported with a result.
pub(super) fn read(text: &str, context: &Context<'_>, report: &mut Report) -> Option<Config> {
    let root = match tree::parse(text) {
        Ok(root) => root,
        Err(error) => {
            report.problem(error.place, "", error.message);
            return None;
        }
    };
    if matches!(root.value, Value::Null) {
        report.problem(None, "", "the file is empty; write `instances:` with at least one instance");
        return None;
    }
    let mut top = Section::open(Field { path: String::new(), node: root }, &TOP, SCHEMA, report)?;
    let low_threshold = match top.take("low_threshold") {
        Some(field) => field.check(report, validate::low_threshold),
        None => Some(DEFAULT_LOW_THRESHOLD),
    };
    let ca_file = top.take("tls_config").and_then(|field| tls_config(field, context, report));
    let top_redis = redis::take(&mut top, context, report);
    let mut defaults = Defaults { probe: ProbeDraft::default(), users: None, metered: MeteredPlan::PUBLISHED };
    if let Some(field) = top.take("probe") {
        defaults.probe = probe(field, &defaults.probe, report);
    }
    if let Some(field) = top.take("users") {
        defaults.users = users(field, report);
    }
    if let Some(field) = top.take("metered") {
        defaults.metered = metered::read(field, defaults.metered, report);
    }
    let instances = match top.take("instances") {
        Some(field) => instance::read_all(field, &defaults, context, report),
        None => {
            let message = "no instance is configured; write `instances:` with a `name` and a `secret_key_file`";
            report.problem(Some(top.place), "instances", message);
            Vec::new()
        }
    };
    check_against_each_other(&instances, report);
    for read in &instances {
        if let Some(instance) = &read.instance {
            check_budget(instance, read.probe_place.unwrap_or(read.place), &read.path, report);
        }
    }
    let names: Vec<_> = instances.iter().filter_map(|read| Some(Arc::clone(&read.name.as_ref()?.0))).collect();
    let windows = instances.iter().filter_map(|read| Some(read.instance.as_ref()?.limit()?.1));
    let known = gateway::RestOfFile {
        names: &names,
        longest_window: windows.max().unwrap_or(USUAL_WINDOW),
        has_redis: top_redis.is_some(),
    };
    let mut cache_redis = None;
    let gateway = top.take("gateway").map(|field| {
        check_reserved_name(&instances, report);
        gateway::read(field, &known, &mut cache_redis, context, report)
    });
    let has_redis = top_redis.is_some() || cache_redis.is_some();
    let redis = redis::only(top_redis, cache_redis, report);
    let telemetry = top.take("telemetry").map(|field| {
        let readable: Vec<&InstanceConfig> = instances.iter().filter_map(|read| read.instance.as_ref()).collect();
        telemetry::read(field, &readable, context, report)
    });
    let is_observed = gateway.is_some() || telemetry.is_some();
    for read in &instances {
        check_prober(read, has_redis, is_observed, report);
    }
    let instances = instances.into_iter().filter_map(|read| read.instance).collect();
    let files = context.files.take();
    let (low_threshold, gateway, telemetry) = (low_threshold?, gateway.flatten(), telemetry.flatten());
    Some(Config { low_threshold, ca_file, instances, redis, gateway, telemetry, files, warnings: Vec::new() })
}

fn tls_config(field: Field, context: &Context<'_>, report: &mut Report) -> Option<PathBuf> {
    let mut section = Section::open(field, &TLS_CONFIG, SCHEMA, report)?;
    section.take("ca_file")?.check_text(report, |name| {
        let path = context.path(name);
        validate::ca_file(&path).map(|()| path)
    })
}

/// A [`Probe`] whose timeout may still depend on the interval of an instance.
#[derive(Clone)]
pub(super) struct ProbeDraft {
    trigger: ScheduleConfig,
    /// Position of the trigger, if present.
    pub(super) place: Option<Position>,
    timeout: Option<Duration>,
    path: String,
    when: ProbeWhen,
    lease: Option<Duration>,
    /// Name and position of the key that asks for a lease or for no probes, if present.
    pub(super) prober: Option<(String, Position)>,
}

impl Default for ProbeDraft {
    fn default() -> Self {
        Self {
            trigger: ScheduleConfig::Interval(DEFAULT_PROBE_INTERVAL),
            place: None,
            timeout: None,
            path: DEFAULT_PROBE_PATH.to_owned(),
            when: ProbeWhen::Idle,
            lease: None,
            prober: None,
        }
    }
}

impl ProbeDraft {
    pub(super) fn finish(self) -> ProbeConfig {
        let Self { trigger, timeout, path, when, lease, .. } = self;
        let timeout = timeout.unwrap_or_else(|| match &trigger {
            ScheduleConfig::Interval(interval) => DEFAULT_PROBE_TIMEOUT.min(*interval),
            ScheduleConfig::Cron(_) => DEFAULT_PROBE_TIMEOUT,
        });
        ProbeConfig { trigger, timeout, path, when, lease }
    }
}

/// A `probe` section; missing keys are taken from `base`.
pub(super) fn probe(field: Field, base: &ProbeDraft, report: &mut Report) -> ProbeDraft {
    let mut draft = base.clone();
    let Some(mut section) = Section::open(field, &PROBE, SCHEMA, report) else {
        return draft;
    };
    if let Some((trigger, place)) = trigger(&mut section, PROBE_INTERVALS, report) {
        draft.trigger = trigger;
        draft.place = Some(place);
    }
    if let Some(field) = section.take("timeout") {
        draft.timeout = field.check(report, |value| validate::duration(value, PROBE_TIMEOUTS)).or(draft.timeout);
        if let (Some(timeout), ScheduleConfig::Interval(interval)) = (draft.timeout, &draft.trigger)
            && timeout > *interval
        {
            let message = "longer than the interval; probes that become due during another one are skipped";
            report.warning(Some(field.place()), &field.path, message);
        }
    }
    if let Some(field) = section.take("path")
        && let Some(path) = field.check_text(report, |text| validate::probe_path(text).map(|()| text.to_owned()))
    {
        if let Some(warning) = validate::probe_path_warning(&path) {
            report.warning(Some(field.place()), &field.path, warning);
        }
        draft.path = path;
    }
    if let Some(field) = section.take("when") {
        draft.when = field.check_text(report, validate::when).unwrap_or(draft.when);
        draft.prober = Some((field.path, field.node.place));
    }
    if let Some(field) = section.take("lease") {
        draft.lease = field.check(report, |value| validate::lease(value, LEASES)).unwrap_or(draft.lease);
        draft.prober = Some((field.path, field.node.place));
    }
    draft
}

/// A `users` section, or `off`.
pub(super) fn users(field: Field, report: &mut Report) -> Option<UsersConfig> {
    match &field.node.value {
        Value::Text(text) if text == "off" => return None,
        Value::Bool(false) => return None,
        Value::Map(_) => {}
        _ => {
            let message = "neither a section nor `off`; write `schedule: \"0 0 * * * *\"` below it, or `off`";
            report.problem(Some(field.place()), &field.path, message);
            return None;
        }
    }
    let mut section = Section::open(field, &USERS, SCHEMA, report)?;
    let default = || ScheduleConfig::Cron(DEFAULT_USERS_SCHEDULE.to_owned());
    let trigger = trigger(&mut section, USERS_INTERVALS, report).map_or_else(default, |(trigger, _)| trigger);
    Some(UsersConfig { trigger })
}

/// `interval` or `schedule`, with its position.
fn trigger(
    section: &mut Section,
    intervals: RangeInclusive<Duration>,
    report: &mut Report,
) -> Option<(ScheduleConfig, Position)> {
    match (section.take("interval"), section.take("schedule")) {
        (Some(_), Some(schedule)) => {
            let message = "interval and schedule exclude each other; keep one";
            report.problem(Some(schedule.place()), &schedule.path, message);
            None
        }
        (Some(field), None) => {
            let interval = field.check(report, |value| validate::duration(value, intervals))?;
            Some((ScheduleConfig::Interval(interval), field.place()))
        }
        (None, Some(field)) => {
            let expression = field.check_text(report, cron::normalize)?;
            Some((ScheduleConfig::Cron(expression), field.place()))
        }
        (None, None) => None,
    }
}

/// Names must be unique. A key must not be in two instances: they would be one Clerk instance with one budget.
fn check_against_each_other(instances: &[ReadInstance], report: &mut Report) {
    let mut names: BTreeMap<&Arc<str>, &String> = BTreeMap::new();
    let mut keys: Vec<(&ClerkKey, &str)> = Vec::new();
    for read in instances {
        if let Some((name, place)) = &read.name {
            if let Some(first) = names.get(name) {
                let message = format!("the name `{name}` is already used by {first}; choose another one");
                report.problem(Some(*place), &format!("{}.name", read.path), message);
            } else {
                names.insert(name, &read.path);
            }
        }
        for (key, setting, place) in &read.keys {
            if let Some((_, first)) = keys.iter().find(|(known, _)| known == &key) {
                let message = format!("the same key as {first}; keep one, since both share one rate limit");
                report.problem(Some(*place), setting, message);
            } else {
                keys.push((key, setting));
            }
        }
    }
}

/// An instance must have a prober, or another source.
fn check_prober(read: &ReadInstance, has_redis: bool, is_observed: bool, report: &mut Report) {
    let (Some(instance), Some((path, place))) = (&read.instance, &read.prober) else { return };
    let probe = &instance.probe;
    if probe.when == ProbeWhen::Never && !is_observed {
        let message = format!(
            "nothing would observe the instance `{}`; remove `never`, or add `gateway` or `telemetry`",
            instance.name
        );
        report.problem(Some(*place), path, message);
    } else if probe.lease.is_some() && !has_redis {
        let message = "a lease needs a Redis that all exporters share; write `redis_url_file` at the top of the file";
        report.problem(Some(*place), path, message);
    } else if probe.lease.is_some() && probe.when == ProbeWhen::Never {
        report.warning(Some(*place), path, "a lease has no effect with `when: never`");
    }
}

/// A gateway reserves a name for requests with unknown keys.
fn check_reserved_name(instances: &[ReadInstance], report: &mut Report) {
    let names = instances.iter().filter_map(|read| Some((read, read.name.as_ref()?)));
    for (read, (_, place)) in names.filter(|(_, (name, _))| **name == *UNKNOWN_KEYS) {
        let message = format!(
            "no instance can be called `{UNKNOWN_KEYS}` beside a gateway: the name is reserved for unknown keys; \
             choose another name"
        );
        report.problem(Some(*place), &format!("{}.name", read.path), message);
    }
}

/// The exporter's own requests must use only a small part of the limit.
fn check_budget(instance: &InstanceConfig, place: Position, path: &str, report: &mut Report) {
    let (Some(share), Some((requests, window))) = (instance.budget_share(), instance.limit()) else {
        return;
    };
    if share <= budget::WARN_ABOVE {
        return;
    }
    let remedy = instance.fitting_interval().map_or_else(
        || "probe less often, or count users less often".to_owned(),
        |interval| format!("write `interval: {}` or longer", humantime::format_duration(interval)),
    );
    let message = format!(
        "this exporter's requests use {:.1} % of the limit of {requests} requests per {}; {remedy}",
        share * 100.0,
        humantime::format_duration(window),
    );
    let key = format!("{path}.probe");
    if share > budget::REFUSE_ABOVE {
        report.problem(Some(place), &key, message);
    } else {
        report.warning(Some(place), &key, message);
    }
}
