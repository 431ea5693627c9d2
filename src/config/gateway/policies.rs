//! The keys of `policies`: defaults, and policies of single routes.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::file::SCHEMA;
use super::super::reader::{Field, Keys, Report, Section};
use super::super::tree::Value;
use super::super::validate;
use super::model::PolicyConfig;
use crate::gateway::{Mode, VERIFICATIONS};
use clerk_quota::route;

pub(in super::super) static POLICIES: Keys =
    Keys { section: "policies", known: &["retry", "coalesce", "cache", "batch", "pace", "verify", "routes"] };
pub(in super::super) static CACHE_POLICY: Keys = Keys { section: "policies.cache", known: &["mode", "ttl"] };
pub(in super::super) static PACE: Keys = Keys { section: "policies.pace", known: &["mode", "reserve"] };

pub(in super::super) static VERIFY: Keys = Keys { section: "policies.verify", known: &["mode", "ttl"] };

const TTLS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

const VERIFY_TTLS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(5 * 60);

/// The route that looks up single users: the only one that can be batched.
const USER: (&str, &str) = ("GET", "/v1/users/{user_id}");

type Routes = BTreeMap<(&'static str, &'static str), PolicyConfig>;

/// Reads the section.
pub(super) fn read(field: Field, report: &mut Report) -> (PolicyConfig, Routes) {
    let mut defaults = PolicyConfig::default();
    let Some(mut section) = Section::open(field, &POLICIES, SCHEMA, report) else {
        return (defaults, Routes::new());
    };
    let routes = section.take("routes");
    apply(&mut section, &mut defaults, report);
    let routes = routes.map_or_else(Routes::new, |field| read_routes(field, &defaults, report));
    (defaults, routes)
}

fn read_routes(field: Field, defaults: &PolicyConfig, report: &mut Report) -> Routes {
    let (path, place) = (field.path.clone(), field.place());
    let Value::Map(entries) = field.node.value else {
        let message = "not a section; write routes below it, as in `\"GET /v1/users/{user_id}\": { cache: on }`";
        report.problem(Some(place), &path, message);
        return Routes::new();
    };
    let mut routes = Routes::new();
    for (key, node) in entries {
        let name = Field { path: path.clone(), node: key };
        let Some(route) = name.check_text(report, find) else { continue };
        let (method, template) = route;
        let field = Field { path: format!("{path}.\"{method} {template}\""), node };
        let Some(mut section) = Section::open(field, &ROUTE, SCHEMA, report) else { continue };
        let (name, place) = (section.path.clone(), section.place);
        let mut policies = *defaults;
        let (says_retry, says_verify) = (section.has("retry"), section.has("verify"));
        let asks_for = asks_for(&mut section, &mut policies, report);
        if policies.pace.reserve != defaults.pace.reserve {
            let message = "all routes share one reserve; write it below `policies.pace`";
            report.problem(Some(place), &format!("{name}.pace.reserve"), message);
        }
        if method != "GET" {
            for (_, what) in asks_for.iter().filter(|(acts, _)| *acts) {
                let message = format!("{what} is for reads (GET) only; remove it");
                report.problem(Some(place), &name, message);
            }
            policies.coalesce = Mode::Off;
            policies.cache.mode = Mode::Off;
            // Writes are retried only where their route enables it by name.
            if !says_retry {
                policies.retry = Mode::Off;
            }
        }
        if !is_verification(route) {
            if says_verify && policies.verify.mode != Mode::Off {
                let message =
                    format!("nothing is verified here; write `verify` below POST {}", VERIFICATIONS.join(", "));
                report.problem(Some(place), &name, &message);
            }
            policies.verify.mode = Mode::Off;
        }
        if route != USER {
            if asks_for[2].0 {
                let message = format!("only `{} {}` can be batched; remove `batch`", USER.0, USER.1);
                report.problem(Some(place), &name, message);
            }
            policies.batch = Mode::Off;
        }
        if routes.insert(route, policies).is_some() {
            report.problem(Some(place), &name, "the route is listed twice; keep one of them");
        }
    }
    routes
}

static ROUTE: Keys = Keys { section: "policies", known: &["retry", "coalesce", "cache", "batch", "pace", "verify"] };

/// Whether a route verifies a token.
pub(super) fn is_verification((method, template): (&str, &str)) -> bool {
    method == "POST" && VERIFICATIONS.contains(&template)
}

/// Applies a route's keys, and returns which of `coalesce`, `cache` and `batch` it sets itself.
fn asks_for(section: &mut Section, policies: &mut PolicyConfig, report: &mut Report) -> [(bool, &'static str); 3] {
    let has = |key| section.has(key);
    let [coalesce, cache, batch] = [has("coalesce"), has("cache"), has("batch")];
    apply(section, policies, report);
    [
        (coalesce && policies.coalesce != Mode::Off, "coalescing"),
        (cache && policies.cache.mode != Mode::Off, "caching"),
        (batch && policies.batch != Mode::Off, "batching"),
    ]
}

fn apply(section: &mut Section, policies: &mut PolicyConfig, report: &mut Report) {
    for (key, target) in
        [("retry", &mut policies.retry), ("coalesce", &mut policies.coalesce), ("batch", &mut policies.batch)]
    {
        if let Some(field) = section.take(key) {
            *target = field.check(report, mode).unwrap_or(*target);
        }
    }
    if let Some(field) = section.take("cache")
        && let Some(mut section) = with_mode(field, &CACHE_POLICY, &mut policies.cache.mode, report)
        && let Some(field) = section.take("ttl")
    {
        let ttl = field.check(report, |value| validate::duration(value, TTLS));
        policies.cache.ttl = ttl.unwrap_or(policies.cache.ttl);
    }
    if let Some(field) = section.take("pace")
        && let Some(mut section) = with_mode(field, &PACE, &mut policies.pace.mode, report)
        && let Some(field) = section.take("reserve")
    {
        let reserve = field.check(report, validate::reserve);
        policies.pace.reserve = reserve.unwrap_or(policies.pace.reserve);
    }
    if let Some(field) = section.take("verify")
        && let Some(mut section) = with_mode(field, &VERIFY, &mut policies.verify.mode, report)
        && let Some(field) = section.take("ttl")
    {
        let ttl = field.check(report, |value| validate::duration(value, VERIFY_TTLS));
        policies.verify.ttl = ttl.unwrap_or(policies.verify.ttl);
    }
}

/// A mode alone (`cache: on`), or a section with `mode` in it, which is returned.
fn with_mode(field: Field, keys: &Keys, target: &mut Mode, report: &mut Report) -> Option<Section> {
    if !matches!(field.node.value, Value::Map(_) | Value::Null) {
        *target = field.check(report, mode).unwrap_or(*target);
        return None;
    }
    let mut section = Section::open(field, keys, SCHEMA, report)?;
    if let Some(field) = section.take("mode") {
        *target = field.check(report, mode).unwrap_or(*target);
    }
    Some(section)
}

fn mode(value: &Value) -> Result<Mode, String> {
    let found = match value {
        Value::Text(text) => Mode::ALL.into_iter().find(|mode| mode.as_str() == text),
        // Other YAML tools write `on` as true.
        Value::Bool(true) => Some(Mode::On),
        Value::Bool(false) => Some(Mode::Off),
        _ => None,
    };
    found.ok_or_else(|| "not a mode; write `off`, `shadow` or `on`".to_owned())
}

/// A route of the catalogue, written `METHOD /v1/path/{parameter}`.
fn find(text: &str) -> Result<(&'static str, &'static str), String> {
    let mut words = text.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    route::templates()
        .find(|(known, template)| *known == method && *template == path)
        .ok_or_else(|| "not a route of the Backend API; write one such as `GET /v1/users/{user_id}`".to_owned())
}
