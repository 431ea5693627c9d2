//! The gateway's section without secrets: names of files are shown, their content is not.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::redacted::{Text, duration, path, secret_file, text};
use super::model::{CallerConfig, GatewayConfig, PolicyConfig, UnknownKeyMode};
use super::policies::is_verification;
use clerk_client::limiter::Priority;

#[derive(Serialize)]
pub(in super::super) struct GatewayView {
    listen_address: Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    web_config_file: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_clear_text: Option<bool>,
    unknown_keys: &'static str,
    upstream_http2: bool,
    sole: bool,
    max_wait: String,
    max_in_flight: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    callers: Vec<CallerView>,
    policies: PoliciesView,
    cache: CacheView,
    #[serde(skip_serializing_if = "Option::is_none")]
    webhooks: Option<WebhooksView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_log: Option<Text>,
    forward_trace_context: bool,
}

#[derive(Serialize)]
struct CallerView {
    name: Text,
    token_file: Text,
    instance: Text,
    priority: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_share: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_share: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_wait: Option<String>,
}

#[derive(Serialize)]
struct PoliciesView {
    #[serde(flatten)]
    all: PolicyView,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    routes: BTreeMap<String, PolicyView>,
}

/// What a set of policies is for.
#[derive(Debug, Clone, Copy)]
enum RouteKind {
    /// Defaults of all routes.
    Any,
    Read,
    Verification,
    Write,
}

/// Routes that write have only some of the policies.
#[derive(Serialize)]
struct PolicyView {
    retry: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    coalesce: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<CachePolicyView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<&'static str>,
    pace: PacePolicyView,
    #[serde(skip_serializing_if = "Option::is_none")]
    verify: Option<CachePolicyView>,
}

#[derive(Serialize)]
struct CachePolicyView {
    mode: &'static str,
    ttl: String,
}

#[derive(Serialize)]
struct PacePolicyView {
    mode: &'static str,
    reserve: f64,
}

#[derive(Serialize)]
struct CacheView {
    memory: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption_key_file: Option<Text>,
}

#[derive(Serialize)]
struct WebhooksView {
    path: Text,
    signing_secret_files: Vec<Text>,
}

impl GatewayView {
    pub(in super::super) fn of(gateway: &GatewayConfig) -> Self {
        let is_clear_text = gateway.web_config_file.is_none() && !gateway.listen.is_local();
        let routes = gateway.routes.iter().map(|((method, template), policies)| {
            let kind = if *method == "GET" {
                RouteKind::Read
            } else if is_verification((method, template)) {
                RouteKind::Verification
            } else {
                RouteKind::Write
            };
            (format!("{method} {template}"), PolicyView::of(policies, kind))
        });
        Self {
            listen_address: text(&gateway.listen),
            web_config_file: gateway.web_config_file.as_deref().map(path),
            allow_clear_text: is_clear_text.then_some(true),
            unknown_keys: match gateway.unknown_keys {
                UnknownKeyMode::Forward => "forward",
                UnknownKeyMode::Reject => "reject",
            },
            upstream_http2: gateway.upstream_http2,
            sole: gateway.sole,
            max_wait: duration(gateway.max_wait),
            max_in_flight: gateway.max_in_flight,
            callers: gateway.callers.iter().map(CallerView::of).collect(),
            policies: PoliciesView { all: PolicyView::of(&gateway.policies, RouteKind::Any), routes: routes.collect() },
            cache: CacheView {
                memory: size(gateway.cache.memory_bytes),
                encryption_key_file: gateway.cache.encryption_key.as_ref().map(secret_file),
            },
            webhooks: gateway.webhooks.as_ref().map(|webhooks| WebhooksView {
                path: text(&webhooks.path),
                signing_secret_files: webhooks.signing_secrets.iter().map(secret_file).collect(),
            }),
            access_log: gateway.access_log.as_deref().map(path),
            forward_trace_context: gateway.forward_trace_context,
        }
    }
}

impl CallerView {
    fn of(caller: &CallerConfig) -> Self {
        Self {
            name: text(&caller.name),
            token_file: secret_file(&caller.token),
            instance: text(&caller.instance),
            priority: match caller.priority {
                Priority::High => "high",
                Priority::Low => "low",
            },
            min_share: Some(caller.min_share).filter(|share| *share > 0.0),
            max_share: Some(caller.max_share).filter(|share| *share < 1.0),
            max_wait: caller.max_wait.map(duration),
        }
    }
}

impl PolicyView {
    fn of(policies: &PolicyConfig, kind: RouteKind) -> Self {
        let (cache, verify) = (policies.cache, policies.verify);
        let reads = matches!(kind, RouteKind::Any | RouteKind::Read);
        let verifies = matches!(kind, RouteKind::Any | RouteKind::Verification);
        Self {
            retry: policies.retry.as_str(),
            coalesce: reads.then(|| policies.coalesce.as_str()),
            cache: reads.then(|| CachePolicyView { mode: cache.mode.as_str(), ttl: duration(cache.ttl) }),
            batch: reads.then(|| policies.batch.as_str()),
            pace: PacePolicyView { mode: policies.pace.mode.as_str(), reserve: policies.pace.reserve },
            verify: verifies.then(|| CachePolicyView { mode: verify.mode.as_str(), ttl: duration(verify.ttl) }),
        }
    }
}

/// The size in the largest unit that divides it.
fn size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.into_iter().find(|(factor, _)| bytes.is_multiple_of(*factor));
    unit.map_or_else(|| format!("{bytes}B"), |(factor, unit)| format!("{}{unit}", bytes / factor))
}
