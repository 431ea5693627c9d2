//! The keys of one instance.

use std::sync::Arc;
use std::time::Duration;

use super::ApiUrl;
use super::error::Position;
use super::file::{Context, Defaults, INSTANCE, LIMIT, ReadInstance, SCHEMA, probe, users};
use super::model::{InstanceConfig, LimitSetting};
use super::reader::{Field, Report, Section};
use super::{metered, validate};
use clerk_client::secret::{ClerkKey, Secret, SecretSource};
use clerk_quota::Environment;

const WINDOWS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// Reads the list.
pub(super) fn read_all(
    field: Field,
    defaults: &Defaults,
    context: &Context<'_>,
    report: &mut Report,
) -> Vec<ReadInstance> {
    let (place, path) = (field.place(), field.path.clone());
    let Some(items) = field.into_list(report) else {
        return Vec::new();
    };
    if items.is_empty() {
        report.problem(Some(place), &path, "the list is empty; write at least one instance");
    }
    items.into_iter().filter_map(|item| read(item, defaults, context, report)).collect()
}

fn read(field: Field, defaults: &Defaults, context: &Context<'_>, report: &mut Report) -> Option<ReadInstance> {
    let mut section = Section::open(field, &INSTANCE, SCHEMA, report)?;
    // Everything is read before the first `?`, so that every problem of the instance is reported.
    let name = name(&mut section, report);
    let mut keys = Vec::new();
    let key = main_key(&mut section, context, &mut keys, report);
    let environment = keys.first().map_or(Environment::Unknown, |(key, ..)| key.environment());
    let further_keys = further_keys(&mut section, context, environment, &mut keys, report);
    let machine_keys = machine_keys(&mut section, context, &mut keys, report);
    let api_url = match section.take("api_url") {
        Some(field) => api_url(&field, report),
        None => Some(ApiUrl::default()),
    };
    let limit = limit(&mut section, report);
    let users_limit =
        section.take("users_limit").and_then(|field| field.check(report, |value| validate::count(value, 100)));
    let draft = match section.take("probe") {
        Some(field) => probe(field, &defaults.probe, report),
        None => defaults.probe.clone(),
    };
    let users = match section.take("users") {
        Some(field) => users(field, report),
        None => defaults.users.clone(),
    };
    let metered = match section.take("metered") {
        Some(field) => metered::read(field, defaults.metered, report),
        None => defaults.metered,
    };
    let (probe_place, prober) = (draft.place, draft.prober.clone());
    let Section { path, place, .. } = section;
    let complete = || {
        Some(InstanceConfig {
            name: Arc::clone(&name.as_ref()?.0),
            key: key?,
            further_keys,
            machine_keys,
            environment,
            api_url: api_url?,
            limit: limit?,
            users_limit,
            probe: draft.finish(),
            users,
            metered,
        })
    };
    Some(ReadInstance { instance: complete(), path, place, name, probe_place, prober, keys })
}

fn name(section: &mut Section, report: &mut Report) -> Option<(Arc<str>, Position)> {
    let Some(field) = section.take("name") else {
        let message = "the instance has no name; write `name: prod`, the alias that metrics carry";
        report.problem(Some(section.place), &section.name_of("name"), message);
        return None;
    };
    let name = field.check_text(report, |text| validate::name(text).map(|()| Arc::from(text)))?;
    Some((name, field.place()))
}

/// The key, given in exactly one of three ways.
fn main_key(
    section: &mut Section,
    context: &Context<'_>,
    keys: &mut Vec<(ClerkKey, String, Position)>,
    report: &mut Report,
) -> Option<SecretSource> {
    let mut given: Vec<(&str, Field)> = ["secret_key_file", "secret_key_env", "secret_key"]
        .into_iter()
        .filter_map(|key| section.take(key).map(|field| (key, field)))
        .collect();
    given.sort_by_key(|(_, field)| field.place());
    let mut given = given.into_iter();
    let Some((key, field)) = given.next() else {
        let message = "the instance has no key; write `secret_key_file: /run/secrets/clerk` or `secret_key_env: NAME`";
        report.problem(Some(section.place), &section.name_of("secret_key_file"), message);
        return None;
    };
    let mut is_single = true;
    for (_, other) in given {
        let message = "more than one key; keep one of secret_key_file, secret_key_env and secret_key";
        report.problem(Some(other.place()), &other.path, message);
        is_single = false;
    }
    let (path, place) = (field.path.clone(), field.place());
    let source = match key {
        "secret_key_file" => {
            let file = |text: &str| validate::secret_file(text).map(|()| SecretSource::File(context.path(text)));
            field.check_text(report, file)
        }
        "secret_key_env" => {
            field.check_text(report, |text| validate::env_name(text).map(|()| SecretSource::Env(text.to_owned())))
        }
        _ => field.into_text(report).map(|text| SecretSource::Inline(Secret::new(text))),
    }?;
    keys.push((read_key(&source, &path, place, context, report)?, path, place));
    is_single.then_some(source)
}

fn further_keys(
    section: &mut Section,
    context: &Context<'_>,
    environment: Environment,
    keys: &mut Vec<(ClerkKey, String, Position)>,
    report: &mut Report,
) -> Vec<SecretSource> {
    let fields = section.take("further_secret_key_files").and_then(|field| field.into_list(report)).unwrap_or_default();
    let mut sources = Vec::new();
    for field in fields {
        let file = |text: &str| validate::secret_file(text).map(|()| SecretSource::File(context.path(text)));
        let Some(source) = field.check_text(report, file) else { continue };
        let Some(key) = read_key(&source, &field.path, field.place(), context, report) else { continue };
        if environment != Environment::Unknown && key.environment() != environment {
            let message = format!(
                "a {} key beside a {environment} key belongs to another instance; write a separate instance for it",
                key.environment()
            );
            report.problem(Some(field.place()), &field.path, message);
        }
        keys.push((key, field.path.clone(), field.place()));
        sources.push(source);
    }
    sources
}

/// Secret keys of machines.
fn machine_keys(
    section: &mut Section,
    context: &Context<'_>,
    keys: &mut Vec<(ClerkKey, String, Position)>,
    report: &mut Report,
) -> Vec<SecretSource> {
    let fields = section.take("machine_secret_key_files").and_then(|field| field.into_list(report)).unwrap_or_default();
    let mut sources = Vec::new();
    for field in fields {
        let file = |text: &str| validate::secret_file(text).map(|()| SecretSource::File(context.path(text)));
        let Some(source) = field.check_text(report, file) else { continue };
        let read = source.read_machine_key_with(context.env);
        let Some(key) = field.check(report, |_| read.map_err(|error| error.to_string())) else { continue };
        keys.push((key, field.path.clone(), field.place()));
        sources.push(source);
    }
    sources
}

/// Reads a key, so that an unusable one is reported at load time.
fn read_key(
    source: &SecretSource,
    path: &str,
    place: Position,
    context: &Context<'_>,
    report: &mut Report,
) -> Option<ClerkKey> {
    let message = match source.read_key_with(context.env) {
        Ok(key) => return Some(key),
        Err(error) if matches!(source, SecretSource::Inline(_)) => error.fault.to_string(),
        Err(error) => error.to_string(),
    };
    report.problem(Some(place), path, message);
    None
}

fn api_url(field: &Field, report: &mut Report) -> Option<ApiUrl> {
    let url = field.check_text(report, |text| ApiUrl::parse(text).map_err(|error| error.to_string()))?;
    if url.sends_key_in_the_clear() {
        report.warning(Some(field.place()), &field.path, CLEAR_TEXT_WARNING);
    }
    Some(url)
}

/// The warning for addresses for which [`ApiUrl::sends_key_in_the_clear`] holds.
pub(super) const CLEAR_TEXT_WARNING: &str = "the key travels through the network without encryption; use https";

/// `limit`, `plan`, or neither.
fn limit(section: &mut Section, report: &mut Report) -> Option<LimitSetting> {
    let (limit, plan) = (section.take("limit"), section.take("plan"));
    let field = match (limit, plan) {
        (None, None) => return Some(LimitSetting::FromKeyPrefix),
        (None, Some(field)) => return field.check_text(report, validate::plan).map(LimitSetting::Plan),
        (Some(field), None) => field,
        (Some(limit), Some(plan)) => {
            let later = if limit.place() > plan.place() { limit } else { plan };
            report.problem(Some(later.place()), &later.path, "limit and plan exclude each other; keep one");
            return None;
        }
    };
    let mut section = Section::open(field, &LIMIT, SCHEMA, report)?;
    let mut part = |key: &str| {
        let field = section.take(key);
        if field.is_none() {
            let message = "missing; write both, as in `limit: { requests: 1000, window: 10s }`";
            report.problem(Some(section.place), &section.name_of(key), message);
        }
        field
    };
    let (requests, window) = (part("requests"), part("window"));
    let requests = requests.and_then(|field| field.check(report, |value| validate::count(value, 1000)));
    let window = window.and_then(|field| field.check(report, |value| validate::duration(value, WINDOWS)));
    Some(LimitSetting::Fixed { requests: requests?, window: window? })
}
