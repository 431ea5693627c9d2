//! Builds the gateway from the section `gateway`, and holds what outlives a reload.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use file_fingerprint::{Look, WatchedFiles};
use opentelemetry_otlp::SpanExporter;

use super::access_log::AccessLogFile;
use super::instances::Instances;
use super::spans;
use crate::config::{self, ApiUrl, Config};
use crate::gateway::{
    CallerToken, ConfigureError, FurtherKey, Gateway, GatewayOptions, InstanceOptions, InstancePolicies, RequestTracer,
    RoutePolicies, UNKNOWN_KEYS, UnknownKeyPolicy, passthrough,
};
use crate::metrics::{ConfigStatus, ReloadKind};
use crate::otlp::SpanSender;
use clerk_client::cache::{self, Cache, CacheContent, Encryption};
use clerk_client::redis::RedisClient;
use clerk_client::secret::Secret;
use clerk_client::transport::Transport;
use clerk_client::webhook;
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;

/// Builds the gateway and keeps it up to date.
#[derive(Debug)]
pub(super) struct GatewayRunner {
    clock: Arc<Clock>,
    /// The configuration at start. Listen addresses and cache storage only change with a restart.
    started: config::GatewayConfig,
    upstream: Arc<dyn Transport>,
    store: Option<RedisClient>,
    caches: HashMap<Arc<str>, Cache>,
    /// Of verifications; only where a policy keeps them.
    verifications: HashMap<Arc<str>, Cache>,
    /// Encryption of responses in Redis, if configured.
    encryption: Option<Encryption>,
    reloads: Arc<ConfigStatus>,
    gateway: Option<Arc<Gateway>>,
    access_log: Option<AccessLogFile>,
    tracer: Option<RequestTracer>,
    /// Until it runs.
    span_sender: Option<SpanSender<SpanExporter>>,
    /// The files of the current tokens.
    tokens: WatchedFiles,
    /// The current tokens, to detect changes.
    known_tokens: Vec<Secret>,
}

impl GatewayRunner {
    /// Prepares a runner for a configuration with a gateway, without starting it.
    ///
    /// # Errors
    /// Returns an error if the HTTP client cannot be built, or if the encryption key is invalid.
    pub(super) fn new(
        config: &Config,
        gateway: &config::GatewayConfig,
        instances: &mut Instances,
        clock: Arc<Clock>,
        reloads: Arc<ConfigStatus>,
    ) -> anyhow::Result<Self> {
        let upstream = instances.gateway_upstream(config, gateway.upstream_http2)?;
        let encryption = gateway.cache.encryption_key.as_ref().map(|key| {
            let stats = reloads.reloads.stats(ReloadKind::EncryptionKey);
            Encryption::counting(key, &[], stats).context("gateway.cache.encryption_key_file")
        });
        Ok(Self {
            clock,
            started: gateway.clone(),
            upstream,
            store: instances.store.clone(),
            caches: HashMap::new(),
            verifications: HashMap::new(),
            encryption: encryption.transpose()?,
            tokens: WatchedFiles::new(reloads.reloads.stats(ReloadKind::CallerToken)),
            reloads,
            gateway: None,
            access_log: None,
            tracer: None,
            span_sender: None,
            known_tokens: Vec::new(),
        })
    }

    /// Starts the gateway.
    ///
    /// # Errors
    /// Returns an error if the configuration contradicts itself, or if a secret cannot be read.
    pub(super) fn start(
        &mut self,
        config: &Config,
        instances: &mut Instances,
        ledger: &Ledger,
    ) -> anyhow::Result<Arc<Gateway>> {
        let started = self.started.clone();
        if let Some(path) = &started.access_log {
            let file = AccessLogFile::open(path, Arc::clone(&self.clock));
            self.access_log = Some(file.with_context(|| format!("gateway.access_log: {}", path.display()))?);
        }
        (self.tracer, self.span_sender) = spans::from_environment()?.unzip();
        let options = self.options(config, &started, instances, ledger)?;
        let mut gateway = Gateway::new(options)?;
        if let Some(webhooks) = &started.webhooks {
            let secrets = webhook::WebhookOptions::new(webhooks.signing_secrets.clone())
                .reloads(self.reloads.reloads.stats(ReloadKind::SigningSecret));
            gateway = gateway.with_webhooks(webhooks.path.clone(), secrets).context("gateway.webhooks")?;
        }
        if let Some(store) = &self.store {
            gateway = gateway.with_shared_overrides(store.clone());
        }
        let gateway = Arc::new(gateway);
        self.gateway = Some(Arc::clone(&gateway));
        Ok(gateway)
    }

    /// What sends the gateway's spans, once.
    pub(super) fn take_span_sender(&mut self) -> Option<SpanSender<SpanExporter>> {
        self.span_sender.take()
    }

    /// Checks whether a configuration could be applied: the files it names can be read and are valid.
    ///
    /// # Errors
    /// Returns the same errors as [`GatewayRunner::start`].
    pub(super) fn check(config: &Config) -> anyhow::Result<()> {
        let Some(gateway) = &config.gateway else { return Ok(()) };
        if config.instances.iter().any(|instance| *instance.name == *UNKNOWN_KEYS) {
            return Err(ConfigureError::Reserved.into());
        }
        tokens(gateway).map(drop)
    }

    /// Applies another configuration.
    ///
    /// # Errors
    /// As [`GatewayRunner::start`]; then nothing changes.
    pub(super) fn configure(
        &mut self,
        config: &Config,
        instances: &mut Instances,
        ledger: &Ledger,
    ) -> anyhow::Result<()> {
        let Some(wanted) = &config.gateway else {
            tracing::warn!("the section `gateway` was removed; the gateway keeps running until a restart");
            return Ok(());
        };
        let fixed = |it: &config::GatewayConfig| {
            let files = (it.web_config_file.clone(), it.access_log.clone());
            (it.listen.clone(), files, it.upstream_http2, it.cache.clone(), it.webhooks.clone())
        };
        if fixed(wanted) != fixed(&self.started) {
            tracing::warn!(
                "gateway: listen_address, web_config_file, upstream_http2, cache, webhooks and access_log change only \
                 on restart"
            );
        }
        instances.reserve = wanted.policies.pace.reserve;
        instances.max_in_flight = wanted.max_in_flight;
        let options = self.options(config, wanted, instances, ledger)?;
        if let Some(gateway) = &self.gateway {
            gateway.configure(options)?;
        }
        Ok(())
    }

    /// Reloads keys, tokens and secrets whose files have changed. An invalid file leaves the previous value in use and
    /// is retried at the next call.
    pub(super) fn refresh(&mut self, config: &Config, instances: &mut Instances, ledger: &Ledger) {
        if let Some(gateway) = &self.gateway {
            gateway.refresh_keys();
        }
        match self.encryption.as_ref().map(Encryption::refresh) {
            Some(Ok(true)) => {
                tracing::info!(
                    "reloaded the encryption key; responses encrypted with the previous one can still be read"
                );
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "failed to reload the encryption key; using the previous one and retrying")
            }
            Some(Ok(false)) | None => {}
        }
        let Some(section) = &config.gateway else { return };
        if section.callers.is_empty() || !self.tokens.is_outdated() {
            return;
        }
        let look = Look::at(token_files(section));
        match tokens(section) {
            Ok(tokens) if tokens.iter().map(|token| &token.token).eq(&self.known_tokens) => {
                let was_failing = self.tokens.is_failing();
                self.tokens.succeeded(look);
                if was_failing && self.tokens.is_recovery() {
                    tracing::info!("caller tokens are readable again; unchanged");
                }
            }
            Ok(_) => match self.configure(config, instances, ledger) {
                Ok(()) => tracing::info!("reloaded caller tokens"),
                Err(error) => self.tokens_failed(&error),
            },
            Err(error) => self.tokens_failed(&error),
        }
    }

    fn tokens_failed(&mut self, error: &anyhow::Error) {
        let error = format!("{error:#}");
        self.tokens.failed(&error);
        if self.tokens.is_new_failure() {
            tracing::warn!(error, "failed to reload caller tokens; using the previous ones and retrying");
        }
    }

    fn options(
        &mut self,
        config: &Config,
        gateway: &config::GatewayConfig,
        instances: &mut Instances,
        ledger: &Ledger,
    ) -> anyhow::Result<GatewayOptions> {
        let upstream = Arc::clone(&self.upstream);
        let count = config.instances.len().max(1) as u64;
        let mut options = Vec::new();
        for instance in &config.instances {
            let outbound = instances.outbound(instance, ledger, Arc::clone(&upstream))?;
            let further = instances.further_keys(instance).into_iter();
            let further = further.map(|source| FurtherKey { source, caller: None });
            options.push(InstanceOptions {
                name: Arc::clone(&instance.name),
                outbound: Arc::new(outbound),
                further_keys: further.collect(),
                caller: None,
                verifications: self.verifications(&instance.name, &plan(gateway)),
                policies: plan(gateway),
                cache: self.cache(&instance.name, count),
            });
        }
        let unknown_keys = match gateway.unknown_keys {
            config::UnknownKeyMode::Reject => UnknownKeyPolicy::Reject,
            config::UnknownKeyMode::Forward => {
                let base = common_address(config).as_str().to_owned();
                UnknownKeyPolicy::Forward(Arc::new(passthrough(upstream, base, Arc::clone(&self.clock))))
            }
        };
        let look = Look::at(token_files(gateway));
        let tokens = tokens(gateway)?;
        self.known_tokens = tokens.iter().map(|token| token.token.clone()).collect();
        if tokens.is_empty() {
            self.tokens.forget();
        } else {
            self.tokens.succeeded(look);
            self.tokens.is_recovery();
        }
        let (max_callers, access_log) = (GatewayOptions::MAX_CALLERS, self.access_log.as_ref().map(AccessLogFile::log));
        Ok(GatewayOptions {
            instances: options,
            unknown_keys,
            tokens,
            max_callers,
            access_log,
            forwards_trace_context: gateway.forward_trace_context,
            tracer: self.tracer.clone(),
        })
    }

    /// The instance's cache. The memory is divided by the number of instances at the time of creation.
    fn cache(&mut self, name: &Arc<str>, instances: u64) -> Cache {
        if let Some(cache) = self.caches.get(name) {
            return cache.clone();
        }
        let memory = self.started.cache.memory_bytes / instances;
        let redis = self.store.clone();
        let options = cache::CacheOptions::new(Arc::clone(name))
            .memory_bytes(memory)
            .redis(redis)
            .encryption(self.encryption.clone());
        let cache = Cache::new(options, Arc::clone(&self.clock));
        self.caches.insert(Arc::clone(name), cache.clone());
        cache
    }

    /// The instance's cache of verifications, if a policy keeps them or did before. Without an encryption key nothing of
    /// them is stored in Redis, which then only tells other gateways of revocations.
    fn verifications(&mut self, name: &Arc<str>, policies: &InstancePolicies) -> Option<Cache> {
        if let Some(cache) = self.verifications.get(name) {
            return Some(cache.clone());
        }
        if !policies.keeps_verifications() {
            return None;
        }
        let options = cache::CacheOptions::new(Arc::clone(name))
            .content(CacheContent::Verifications)
            .memory_bytes(VERIFICATION_BYTES)
            .redis(self.store.clone())
            .encryption(self.encryption.clone());
        let cache = Cache::new(options, Arc::clone(&self.clock));
        self.verifications.insert(Arc::clone(name), cache.clone());
        Some(cache)
    }
}

/// Memory for the verifications of one instance, in bytes. One has about 1 KiB.
const VERIFICATION_BYTES: u64 = 16 << 20;

/// The files of the caller tokens.
fn token_files(gateway: &config::GatewayConfig) -> impl Iterator<Item = PathBuf> {
    gateway.callers.iter().filter_map(|caller| caller.token.file())
}

/// Reads the caller tokens.
fn tokens(gateway: &config::GatewayConfig) -> anyhow::Result<Vec<CallerToken>> {
    let tokens = gateway.callers.iter().map(|caller| {
        let token = caller.token.read().with_context(|| format!("gateway.callers: {}", caller.name))?;
        let config::CallerConfig { priority, min_share, max_share, max_wait, .. } = *caller;
        let (caller, instance) = (Arc::clone(&caller.name), Arc::clone(&caller.instance));
        Ok(CallerToken { caller, instance, token, priority, min_share, max_share, max_wait })
    });
    let tokens: Vec<_> = tokens.collect::<anyhow::Result<_>>()?;
    CallerToken::check(&tokens).context("gateway.callers")?;
    Ok(tokens)
}

/// Where requests with unknown keys go: to the address of all instances if it is the same, or else to Clerk.
fn common_address(config: &Config) -> ApiUrl {
    let mut addresses = config.instances.iter().map(|instance| &instance.api_url);
    match addresses.next() {
        Some(first) if addresses.all(|other| other == first) => first.clone(),
        _ => ApiUrl::default(),
    }
}

fn plan(gateway: &config::GatewayConfig) -> InstancePolicies {
    InstancePolicies {
        policies: policies(&gateway.policies),
        routes: gateway.routes.iter().map(|(route, own)| (*route, policies(own))).collect(),
        max_queue_wait: gateway.max_wait,
        ..InstancePolicies::default()
    }
}

fn policies(policies: &config::PolicyConfig) -> RoutePolicies {
    RoutePolicies {
        retry: policies.retry,
        coalesce: policies.coalesce,
        cache: policies.cache.mode,
        batch: policies.batch,
        pace: policies.pace.mode,
        verify: policies.verify.mode,
        ttl: policies.cache.ttl,
        verify_ttl: policies.verify.ttl,
        is_explicit: false,
    }
}
