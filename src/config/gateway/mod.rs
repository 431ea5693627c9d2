//! The keys of the section `gateway`.

mod callers;
mod model;
mod policies;
pub(super) mod redacted;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use model::{
    CachePolicyConfig, CacheStoreConfig, CallerConfig, GatewayConfig, PacePolicyConfig, PolicyConfig, UnknownKeyMode,
    VerifyPolicyConfig, WebhooksConfig,
};

use super::file::{Context, SCHEMA};
use super::reader::{Field, Keys, Report, Section};
use super::redis::{self, ReadRedis};
use super::tree::Value;
use super::validate;
use crate::gateway::{DEFAULT_WEBHOOK_PATH, Mode};
use clerk_client::cache::Encryption;
use clerk_client::limiter::MAX_IN_FLIGHT;
use clerk_client::secret::SecretSource;
use clerk_client::webhook::check_secret;
use prometheus_web::{ListenAddress, WebConfigSource};

pub(super) static GATEWAY: Keys = Keys {
    section: "gateway",
    known: &[
        "listen_address",
        "web_config_file",
        "allow_clear_text",
        "unknown_keys",
        "upstream_http2",
        "sole",
        "max_wait",
        "max_in_flight",
        "callers",
        "policies",
        "cache",
        "webhooks",
        "access_log",
        "forward_trace_context",
    ],
};
pub(super) static CACHE: Keys = Keys {
    section: "gateway.cache",
    known: &[
        "memory",
        "redis_url_file",
        "redis_password_file",
        "redis_password_command",
        "redis_prefix",
        "encryption_key_file",
    ],
};
pub(super) static WEBHOOKS: Keys = Keys { section: "webhooks", known: &["path", "signing_secret_files"] };
pub(super) use callers::CALLER;
pub(super) use policies::{CACHE_POLICY, PACE, POLICIES, VERIFY};

/// The default listen address of the gateway.
pub const DEFAULT_LISTEN_ADDRESS: &str = "127.0.0.1:10430";
const DEFAULT_MEMORY_BYTES: u64 = 64 * 1024 * 1024;

/// Each request in flight takes a connection.
const MOST_IN_FLIGHT: usize = 65_536;

const MAX_WAITS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
const MEMORY_BYTES: RangeInclusive<u64> = 1024 * 1024..=64 * 1024 * 1024 * 1024;

/// What the section needs to know of the rest of the file.
pub(super) struct RestOfFile<'a> {
    /// Names of the configured instances.
    pub(super) names: &'a [Arc<str>],
    /// The longest window of their limits.
    pub(super) longest_window: Duration,
    /// Whether the top of the file names a Redis.
    pub(super) has_redis: bool,
}

/// Reads the section. A Redis that it names goes into `redis`.
pub(super) fn read(
    field: Field,
    around: &RestOfFile<'_>,
    redis: &mut Option<ReadRedis>,
    context: &Context<'_>,
    report: &mut Report,
) -> Option<GatewayConfig> {
    let mut section = Section::open(field, &GATEWAY, SCHEMA, report)?;
    let clear_text = section.take("allow_clear_text").and_then(|field| field.check(report, validate::boolean));
    let web_config = section.take("web_config_file").map(|field| web_config_file(&field, context, report));
    // For an unusable file, one problem is enough.
    let has_tls = web_config.as_ref().is_some_and(|file| file.as_ref().is_none_or(|(_, has_tls)| *has_tls));
    let web_config_file = web_config.flatten().map(|(path, _)| path);
    let listen = listen_address(&mut section, has_tls || clear_text == Some(true), report);
    let unknown_keys = match section.take("unknown_keys") {
        Some(field) => field.check_text(report, unknown_keys).map(Some),
        None => Some(None),
    };
    let http2 = match section.take("upstream_http2") {
        Some(field) => field.check(report, validate::boolean),
        None => Some(false),
    };
    let sole = match section.take("sole") {
        Some(field) => field.check(report, validate::boolean),
        None => Some(false),
    };
    let max_wait = section.take("max_wait");
    let max_in_flight = match section.take("max_in_flight") {
        Some(field) => field.check(report, max_in_flight),
        None => Some(MAX_IN_FLIGHT),
    };
    let callers = callers::read(&mut section, around.names, context, report);
    let (policies, routes) = match section.take("policies") {
        Some(field) => policies::read(field, report),
        None => (PolicyConfig::default(), BTreeMap::new()),
    };
    let paces = routes.values().chain([&policies]).any(|policies| policies.pace.mode != Mode::Off);
    let max_wait = max_wait_of(max_wait, around.longest_window, paces, report);
    let surroundings =
        callers::Surroundings { paces, reserve: policies.pace.reserve, longest_window: around.longest_window };
    let callers = callers::check(callers, &surroundings, report);
    // Forwarding would send a revoked or mistyped token to Clerk.
    let default = if callers.is_empty() { UnknownKeyMode::Forward } else { UnknownKeyMode::Reject };
    let cache = match section.take("cache") {
        Some(field) => cache(field, around.has_redis, redis, context, report),
        None => Some(CacheStoreConfig { memory_bytes: DEFAULT_MEMORY_BYTES, encryption_key: None }),
    };
    let webhooks = section.take("webhooks").and_then(|field| webhooks(field, context, report));
    let access_log = section.take("access_log").and_then(|field| access_log(&field, context, report));
    let forward_trace_context = match section.take("forward_trace_context") {
        Some(field) => field.check(report, validate::boolean),
        None => Some(false),
    };
    Some(GatewayConfig {
        listen: listen?,
        web_config_file,
        unknown_keys: unknown_keys?.unwrap_or(default),
        upstream_http2: http2?,
        sole: sole?,
        max_wait: max_wait?,
        max_in_flight: max_in_flight?,
        callers,
        policies,
        routes,
        cache: cache?,
        webhooks,
        access_log,
        forward_trace_context: forward_trace_context?,
    })
}

/// Maximum queue time of requests. Requests over the limit wait for the next window, plus jitter; the default allows
/// for both.
fn max_wait_of(field: Option<Field>, window: Duration, paces: bool, report: &mut Report) -> Option<Duration> {
    let fitting = (window + window / 10).min(*MAX_WAITS.end());
    let Some(field) = field else { return Some(fitting) };
    let max_wait = field.check(report, |value| validate::duration(value, MAX_WAITS))?;
    if paces && max_wait < window.min(*MAX_WAITS.end()) {
        let [window, fitting] = [window, fitting].map(humantime::format_duration);
        let message = format!(
            "shorter than the window of {window}, so that requests over the limit get 429 instead of waiting for \
             the next window; write `{fitting}` or longer"
        );
        report.warning(Some(field.place()), &field.path, message);
    }
    Some(max_wait)
}

fn max_in_flight(value: &Value) -> Result<usize, String> {
    let requests = validate::count(value, MAX_IN_FLIGHT as u64)?;
    usize::try_from(requests)
        .ok()
        .filter(|requests| *requests <= MOST_IN_FLIGHT)
        .ok_or_else(|| format!("more than {MOST_IN_FLIGHT}; write a number such as `{MAX_IN_FLIGHT}`"))
}

/// The file, and whether it enables TLS.
fn web_config_file(field: &Field, context: &Context<'_>, report: &mut Report) -> Option<(PathBuf, bool)> {
    let path = field.check_text(report, |text| validate::file_name(text).map(|()| context.path(text)))?;
    field.check(report, |_| {
        let source = WebConfigSource::open(&path).map_err(|error| error.to_string())?;
        if source.wants_passwords() {
            return Err("it has basic_auth_users, but applications send Clerk's key in Authorization; remove \
                        them, and give applications tokens (`callers`)"
                .to_owned());
        }
        Ok((path.clone(), source.uses_tls()))
    })
}

/// Loopback, a Unix socket, or an address with encrypted traffic: Clerk's keys travel over it.
fn listen_address(section: &mut Section, is_protected: bool, report: &mut Report) -> Option<ListenAddress> {
    let Some(field) = section.take("listen_address") else {
        return DEFAULT_LISTEN_ADDRESS.parse().ok();
    };
    field.check_text(report, |text| validate::listen_address(text, is_protected, EXPOSED))
}

/// Why a port without TLS is only for this machine.
const EXPOSED: &str = "other hosts can reach this address, and keys would travel in clear text; write an address of this \
                       machine such as `127.0.0.1:10430`, `unix:/run/clerk-exporter.sock`, a `web_config_file` with TLS, \
                       or `allow_clear_text: true` if something else encrypts the traffic";

fn unknown_keys(text: &str) -> Result<UnknownKeyMode, String> {
    match text {
        "forward" => Ok(UnknownKeyMode::Forward),
        "reject" => Ok(UnknownKeyMode::Reject),
        _ => Err("neither forward nor reject; write `forward` or `reject`".to_owned()),
    }
}

fn secret_file(field: &Field, context: &Context<'_>, report: &mut Report) -> Option<SecretSource> {
    field.check_text(report, |text| validate::secret_file(text).map(|()| SecretSource::File(context.path(text))))
}

fn cache(
    field: Field,
    has_redis: bool,
    redis: &mut Option<ReadRedis>,
    context: &Context<'_>,
    report: &mut Report,
) -> Option<CacheStoreConfig> {
    let mut section = Section::open(field, &CACHE, SCHEMA, report)?;
    let memory_bytes = match section.take("memory") {
        Some(field) => field.check(report, |value| validate::bytes(value, MEMORY_BYTES)),
        None => Some(DEFAULT_MEMORY_BYTES),
    };
    *redis = redis::take(&mut section, context, report);
    let encryption_key = section.take("encryption_key_file").and_then(|field| {
        let source = secret_file(&field, context, report)?;
        field.check(report, |_| encryption_key(&source))?;
        if redis.is_none() && !has_redis {
            let message = "no effect without redis_url_file: only values in Redis are encrypted";
            report.warning(Some(field.place()), &field.path, message);
        }
        Some(source)
    });
    Some(CacheStoreConfig { memory_bytes: memory_bytes?, encryption_key })
}

/// A file in a folder that exists.
fn access_log(field: &Field, context: &Context<'_>, report: &mut Report) -> Option<PathBuf> {
    let path = field.check_text(report, |text| validate::file_name(text).map(|()| context.path(text)))?;
    field.check(report, |_| match path.parent() {
        _ if path.is_dir() => Err("a folder; write the name of a file".to_owned()),
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            Err(format!("there is no folder {}; create it, or write another path", folder.display()))
        }
        _ => Ok(path.clone()),
    })
}

fn encryption_key(source: &SecretSource) -> Result<(), String> {
    Encryption::new(source, &[]).map(drop).map_err(|error| error.to_string())
}

fn webhooks(field: Field, context: &Context<'_>, report: &mut Report) -> Option<WebhooksConfig> {
    let mut section = Section::open(field, &WEBHOOKS, SCHEMA, report)?;
    let path = match section.take("path") {
        Some(field) => field.check_text(report, webhook_path),
        None => Some(DEFAULT_WEBHOOK_PATH.to_owned()),
    };
    let Some(files) = section.take("signing_secret_files") else {
        let message = "missing; write the files that hold the endpoint's signing secrets (Clerk dashboard, \
                       Webhooks, signing secret)";
        report.problem(Some(section.place), &section.name_of("signing_secret_files"), message);
        return None;
    };
    let (place, name) = (files.place(), files.path.clone());
    let fields = files.into_list(report)?;
    if fields.is_empty() {
        report.problem(Some(place), &name, "the list is empty; write at least one file");
    }
    let signing_secrets = fields
        .iter()
        .filter_map(|field| {
            let source = secret_file(field, context, report)?;
            field.check(report, |_| check_secret(&source).map_err(|error| error.to_string()))?;
            Some(source)
        })
        .collect();
    Some(WebhooksConfig { path: path?, signing_secrets })
}

/// A path that is not one of Clerk's routes.
fn webhook_path(text: &str) -> Result<String, String> {
    let is_plain = text.len() > 1
        && text.starts_with('/')
        && text.split('/').skip(1).all(|part| {
            !matches!(part, "" | "." | "..")
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte))
        });
    if !is_plain {
        return Err(format!("not a plain path; write one such as `{DEFAULT_WEBHOOK_PATH}`"));
    }
    if text == "/v1" || text.starts_with("/v1/") {
        return Err(format!("paths below /v1 are Clerk's; write one such as `{DEFAULT_WEBHOOK_PATH}`"));
    }
    Ok(text.to_owned())
}
