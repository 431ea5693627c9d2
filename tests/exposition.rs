//! A scrape in both formats, parsed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/exposition.rs"]
mod exposition;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::Router;
use clerk_client::cache::{self, Cache};
use clerk_client::limiter::{self, RedisLimiter};
use clerk_client::outbound::{InstanceLimits, Outbound};
use clerk_client::redis::{self, RedisClient};
use clerk_client::secret::{KeySource, Secret, SecretSource};
use clerk_client::transport::MemoryTransport;
use clerk_client::webhook;
use clerk_exporter::gateway::{
    self, AccessLog, CallerToken, Gateway, InstanceOptions, InstancePolicies, Mode, OverrideAction, OverrideRequest,
    RequestTracer, RoutePolicies, UnknownKeyPolicy,
};
use clerk_exporter::metrics::catalogue::{self, Kind};
use clerk_exporter::metrics::{ConfigStatus, Format, LeaseCounts, Metrics};
use clerk_exporter::otlp::{self, TraceSettings};
use clerk_exporter::sources::Sources;
use clerk_exporter::telemetry::{Telemetry, TelemetryInstance, TelemetryOptions};
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use clerk_quota::{
    Bucket, Coverage, Environment, HeaderDialect, HeaderError, KeyVerdict, Limit, Moment, Observation, ProbeFailure,
    ProbeSkip, Quota, QuotaCode, RouteId, Settings, Source, route,
};
use exposition::Scrape;

const FORMATS: [Format; 2] = [Format::Text, Format::OpenMetrics];

fn settings(name: &str) -> Settings {
    Settings {
        name: name.into(),
        environment: Environment::Development,
        api_host: "api.clerk.com".into(),
        limit: Some(Limit { requests: 100, window: Duration::from_secs(10) }),
        users_limit: Some(5000),
        low_threshold: 0.1,
        stale_after: Duration::from_secs(45),
        sources: vec![Source::Probe],
        coverage: Coverage::Sole,
        lateness: None,
    }
}

/// An unreachable Redis.
fn store() -> RedisClient {
    RedisClient::new(redis::RedisOptions::new(Secret::new("redis://127.0.0.1:1/".to_owned()))).unwrap()
}

/// A gateway with one request, whose features all have metrics.
async fn gateway(world: &World) -> Arc<Gateway> {
    let clerk = Router::new().fallback(async || axum::Json(serde_json::json!({})));
    let clock = Arc::clone(&world.clock);
    let key = Arc::new(KeySource::new(SecretSource::Inline(Secret::new(KEY.to_owned()))));
    let ledger = world.ledger.instance("prod").unwrap();
    let outbound =
        Outbound::new(MemoryTransport::new(clerk), "http://clerk.test".to_owned(), key, ledger, Arc::clone(&clock))
            .sharing(RedisLimiter::new(store(), "prod"));
    let policies = RoutePolicies { cache: Mode::On, ..RoutePolicies::default() };
    let transport = MemoryTransport::new(Router::new());
    let (tracer, _, stats) =
        otlp::tracer(TraceSettings::default(), Some("http://collector.test".to_owned()), transport, "1").unwrap();
    let options = gateway::GatewayOptions {
        instances: vec![InstanceOptions {
            name: "prod".into(),
            outbound: Arc::new(outbound),
            further_keys: Vec::new(),
            caller: None,
            policies: InstancePolicies { policies, ..InstancePolicies::default() },
            cache: Cache::new(cache::CacheOptions::new("prod").redis(Some(store())), Arc::clone(&clock)),
            verifications: None,
        }],
        unknown_keys: UnknownKeyPolicy::Reject,
        tokens: vec![CallerToken {
            caller: "import".into(),
            instance: "prod".into(),
            token: Secret::new("import-token-0123456789".to_owned()),
            priority: limiter::Priority::Low,
            min_share: 0.2,
            max_share: 0.5,
            max_wait: None,
        }],
        max_callers: 5,
        access_log: Some(AccessLog::new(std::sync::mpsc::sync_channel(1).0, Arc::clone(&clock))),
        forwards_trace_context: false,
        tracer: Some(RequestTracer::new(tracer, stats)),
    };
    let secret = SecretSource::Inline(Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()));
    let gateway = Gateway::new(options).unwrap();
    let gateway =
        gateway.with_webhooks("/webhooks/clerk".to_owned(), webhook::WebhookOptions::new(vec![secret])).unwrap();
    let request = http::Request::get("/v1/organizations")
        .header("host", "gateway")
        .header("authorization", format!("Bearer {KEY}"))
        .body(axum::body::Body::empty())
        .unwrap();
    assert_eq!(gateway.handle(request).await.status(), 200);
    let pause = OverrideRequest {
        instance: None,
        caller: "unknown",
        action: OverrideAction::Pause,
        duration: Duration::from_secs(600),
        by: None,
    };
    gateway.set_override(&pause).await.unwrap();
    Arc::new(gateway)
}

const KEY: &str = "sk_test_4bMbJyWZ2vnLx0aQCANARY";

/// Metrics of these instances. Needs a runtime, whose time is the clock's.
struct World {
    ledger: Arc<Ledger>,
    clock: Arc<Clock>,
    metrics: Metrics,
}

impl World {
    fn new(names: &[&str]) -> Self {
        let ledger = Arc::new(Ledger::new(names.iter().map(|name| settings(name))));
        let clock = Arc::new(Clock::simulated(UNIX_EPOCH + Duration::from_secs(1_795_608_000)));
        let status = Arc::new(ConfigStatus::new(clock.now(), 0.1));
        let metrics = Metrics::new(Arc::clone(&ledger), Arc::clone(&clock), status);
        Self { ledger, clock, metrics }
    }

    fn metrics_with(&self, gateway: Arc<Gateway>) -> Metrics {
        let status = Arc::new(ConfigStatus::new(self.clock.now(), 0.1));
        status.set_leases(Some(LeaseCounts { held: 1, standby: 0, alone: 0 }));
        let instance = TelemetryInstance {
            name: "prod".into(),
            hosts: vec!["clerk.test".to_owned()],
            is_complete: true,
            ledger: self.ledger.instance("prod").unwrap(),
        };
        let options = TelemetryOptions { instances: vec![instance], ..TelemetryOptions::default() };
        let telemetry = Telemetry::new(options, Arc::clone(&self.clock)).unwrap();
        let sources = Sources { gateway: Some(gateway), telemetry: Some(Arc::new(telemetry)) };
        Metrics::with_sources(Arc::clone(&self.ledger), Arc::clone(&self.clock), status, sources)
    }

    fn show_client(&self, name: &str) {
        let budget = RedisLimiter::new(store(), name);
        let flow = InstanceLimits::sharing(limiter::LimiterOptions::default(), Arc::clone(&self.clock), budget);
        self.metrics.show_clients([(name.into(), Arc::new(flow))]);
    }

    fn scrape(&self, format: Format) -> Scrape {
        Scrape::parse(&self.metrics.expose(format).unwrap().collect::<Result<String, _>>().unwrap())
    }

    fn record(&self, name: &str, change: impl FnOnce(&mut Observation)) {
        let mut observation = Observation {
            at: self.clock.now(),
            source: Source::Probe,
            route: RouteId::OTHER,
            bucket: Bucket::Instance,
            entity: None,
            status: 200,
            usable: true,
            key: KeyVerdict::Valid,
            quota_code: None,
            is_rate_limit: false,
            quota: Quota {
                dialect: Some(HeaderDialect::XRateLimit),
                limit: Some(100),
                remaining: Some(99),
                reset: Some(Duration::from_secs(8)),
                ..Quota::default()
            },
            clock_offset_seconds: Some(0.25),
        };
        change(&mut observation);
        self.ledger.instance(name).unwrap().lock().record(&observation);
    }

    /// Gives every family a value: a busy window, then a 429, users, a probe, an operation that Clerk bills.
    async fn fill(&self, name: &str) {
        let handle = self.ledger.instance(name).unwrap();
        handle.lock().record_probe(Duration::from_millis(70), Ok(self.clock.now()));
        handle.lock().record_users(Some(4000), Some(1000));
        handle.lock().count_months(self.clock.now(), 0.0, None, false);
        self.record(name, |observation| observation.route = route::find("POST", b"/v1/m2m_tokens/verify").id);
        self.record(name, |observation| {
            observation.bucket = Bucket::Invitations;
            observation.status = 429;
            observation.quota = Quota { retry_after: Some(Duration::from_secs(600)), ..Quota::default() };
        });
        self.record(name, |_| {});
        tokio::time::advance(Duration::from_secs(4)).await;
        self.record(name, |observation| {
            observation.quota.remaining = Some(20);
            observation.quota.reset = Some(Duration::from_secs(4));
        });
    }
}

#[tokio::test(start_paused = true)]
async fn exposed_families_match_the_catalogue() {
    let world = World::new(&["prod"]);
    world.ledger.configure([Settings { sources: vec![Source::Probe, Source::Gateway], ..settings("prod") }]);
    let gateway = gateway(&world).await;
    let world = World { metrics: world.metrics_with(gateway), ..world };
    // A window that ends before the others.
    world.record("prod", |_| {});
    tokio::time::advance(Duration::from_secs(13)).await;
    world.fill("prod").await;
    world.show_client("prod");
    for format in FORMATS {
        let scrape = world.scrape(format);
        for family in catalogue::ALL {
            // OpenMetrics names the family of a counter without its suffix.
            let name = match format {
                Format::OpenMetrics => family.name.trim_end_matches("_total"),
                Format::Text => family.name,
            };
            assert_eq!(scrape.types.get(name).map(String::as_str), Some(family.kind.as_str()), "{name}");
            assert_eq!(scrape.helps[name].trim_end_matches('.'), family.help, "{name}");
            let suffixes: &[&str] = if family.kind == Kind::Histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
            for suffix in suffixes {
                let series = format!("{}{suffix}", family.name);
                let mut labels: BTreeSet<_> = family.labels.iter().map(|label| (*label).to_owned()).collect();
                if *suffix == "_bucket" {
                    labels.insert("le".to_owned());
                }
                let mut samples = scrape.samples.iter().filter(|sample| sample.name == series).peekable();
                assert!(samples.peek().is_some(), "{series} is not there");
                for sample in samples {
                    assert_eq!(sample.labels.keys().cloned().collect::<BTreeSet<_>>(), labels, "{series}");
                }
            }
        }
        assert_eq!(scrape.types.len(), catalogue::ALL.len(), "only families of the catalogue");
        assert_eq!(scrape.ends_with_eof, format == Format::OpenMetrics);
        assert_eq!(scrape.value("clerk_ratelimit_remaining", &[("bucket", "instance")]), Some(20.0));
        // Only a probe got a 429: the bucket is blocked, and its remaining quota is unknown.
        assert_eq!(scrape.value("clerk_ratelimit_remaining", &[("bucket", "invitations")]), None);
        let blocked = [("bucket", "invitations")];
        assert!(scrape.value("clerk_ratelimit_blocked_until_timestamp_seconds", &blocked).is_some());
        assert_eq!(scrape.value("clerk_ratelimit_usage_peak_ratio", &[("bucket", "instance")]), Some(0.8));
        assert_eq!(scrape.value("clerk_users_limit", &[]), Some(5000.0));
        let forecast = scrape.value("clerk_ratelimit_seconds_to_exhaustion", &[("bucket", "instance")]).unwrap();
        assert!(forecast > 0.0 && forecast < 4.0, "{forecast}");
    }
}

#[tokio::test(start_paused = true)]
async fn both_formats_have_the_same_values() {
    let world = World::new(&["prod", "staging"]);
    world.fill("prod").await;
    let samples = |format| {
        let mut samples = world.scrape(format).samples;
        samples.retain(|sample| !sample.name.starts_with("process_"));
        for sample in &mut samples {
            // 1 and 1.0 are the same bound.
            if let Some(bound) = sample.labels.get_mut("le").filter(|bound| *bound != "+Inf") {
                *bound = bound.parse::<f64>().unwrap().to_string();
            }
        }
        samples.sort_by_key(|sample| format!("{sample:?}"));
        samples
    };
    let (text, open_metrics) = (samples(Format::Text), samples(Format::OpenMetrics));
    assert_eq!(text.len(), open_metrics.len());
    for (one, other) in text.iter().zip(&open_metrics) {
        assert_eq!(one, other);
    }
}

#[tokio::test(start_paused = true)]
async fn counters_start_at_zero_and_unknown_values_are_absent() {
    let world = World::new(&["prod"]);
    for format in FORMATS {
        let scrape = world.scrape(format);
        let zero = |name: &str, labels: &[(&str, &str)]| {
            assert_eq!(scrape.value(name, labels), Some(0.0), "{name} {labels:?}");
        };
        for bucket in Bucket::LIMITED {
            let bucket = [("bucket", bucket.as_str())];
            zero("clerk_ratelimit_windows_total", &bucket);
            zero("clerk_ratelimit_low_windows_total", &bucket);
            zero("clerk_ratelimit_exhausted_windows_total", &bucket);
            zero("clerk_ratelimit_throttled_responses_total", &[bucket[0], ("source", "probe")]);
        }
        for reason in ProbeFailure::ALL {
            zero("clerk_probe_failures_total", &[("reason", reason.as_str())]);
        }
        for reason in ProbeSkip::ALL {
            zero("clerk_probes_skipped_total", &[("reason", reason.as_str())]);
        }
        for error in HeaderError::ALL {
            zero("clerk_ratelimit_header_errors_total", &[("error", error.as_str())]);
        }
        for code in QuotaCode::ALL {
            zero("clerk_quota_exceeded_total", &[("code", code.as_str())]);
        }
        zero("clerk_probes_total", &[]);
        zero("clerk_responses_total", &[("code", "429")]);
        zero("clerk_probe_duration_seconds_count", &[]);
        for unknown in [
            "clerk_up",
            "clerk_key_valid",
            "clerk_ratelimit_remaining",
            "clerk_ratelimit_reset_timestamp_seconds",
            "clerk_ratelimit_sample_timestamp_seconds",
            "clerk_ratelimit_usage_peak_ratio",
            "clerk_ratelimit_blocked_until_timestamp_seconds",
            "clerk_ratelimit_seconds_to_exhaustion",
            "clerk_users",
            "clerk_users_active_30d",
            "clerk_clock_offset_seconds",
            "clerk_probe_last_success_timestamp_seconds",
        ] {
            assert!(!scrape.types.contains_key(unknown), "{unknown} has a value");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn names_with_any_character_round_trip_in_both_formats() {
    let names = [
        "a\"quote\"",
        "back\\slash",
        "two\nlines",
        "\\n",
        "ends\\",
        "ü – 東京 🦀",
        "{}=,",
        " ",
        "#",
        "\r\t",
        "x\u{0}y",
        "\u{202e}",
    ];
    let world = World::new(&names);
    for format in FORMATS {
        let scrape = world.scrape(format);
        for name in names {
            let value = scrape.value("clerk_probes_total", &[("clerk_instance", name)]);
            assert_eq!(value, Some(0.0), "{name:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn huge_numbers_are_valid_samples() {
    let world = World::new(&["prod"]);
    world.record("prod", |observation| {
        observation.quota.limit = Some(u64::MAX);
        observation.quota.remaining = Some(u64::MAX);
        observation.quota.reset = Some(Duration::MAX);
        observation.clock_offset_seconds = Some(f64::NAN);
    });
    world.record("prod", |observation| {
        observation.bucket = Bucket::UserUpdate;
        observation.quota.limit = Some(0);
        observation.quota.remaining = Some(0);
        observation.clock_offset_seconds = Some(f64::INFINITY);
    });
    world.record("prod", |observation| {
        observation.bucket = Bucket::OrganizationUpdate;
        observation.quota.limit = Some(0);
        observation.quota.remaining = Some(7);
    });
    tokio::time::advance(Duration::from_secs(3600)).await;
    for format in FORMATS {
        // The parser panics on numbers that are not finite.
        assert_eq!(world.scrape(format).value("clerk_up", &[]), Some(1.0));
    }
}

#[tokio::test(start_paused = true)]
async fn removed_instance_disappears_and_others_keep_counters() {
    let world = World::new(&["prod", "staging"]);
    world.fill("prod").await;
    world.fill("staging").await;
    let before = world.scrape(Format::Text);
    assert!(before.samples.iter().any(|sample| sample.labels.values().any(|value| value == "staging")));
    world.ledger.configure([settings("prod"), settings("new")]);
    let after = world.scrape(Format::Text);
    assert!(after.samples.iter().all(|sample| sample.labels.values().all(|value| value != "staging")));
    let of_prod = |scrape: &Scrape| -> Vec<_> {
        let samples = scrape.samples.iter().filter(|it| it.labels.get("clerk_instance").is_some_and(|it| it == "prod"));
        samples.cloned().collect()
    };
    assert_eq!(of_prod(&before), of_prod(&after));
    assert_eq!(after.value("clerk_probes_total", &[("clerk_instance", "new")]), Some(0.0));
    // A returning instance starts at zero.
    world.ledger.configure([settings("prod"), settings("staging")]);
    assert_eq!(world.scrape(Format::Text).value("clerk_probes_total", &[("clerk_instance", "staging")]), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn scrapes_change_nothing() {
    let world = World::new(&["prod"]);
    world.fill("prod").await;
    let first = world.scrape(Format::Text);
    for _ in 0..100 {
        tokio::time::advance(Duration::from_secs(60)).await;
        world.scrape(Format::OpenMetrics);
    }
    let last = world.scrape(Format::Text);
    let windows = |scrape: &Scrape| scrape.value("clerk_ratelimit_windows_total", &[("bucket", "instance")]);
    assert_eq!((windows(&first), windows(&last)), (Some(0.0), Some(1.0)), "the window closed once");
    assert_eq!(last.value("clerk_ratelimit_remaining", &[("bucket", "instance")]), None, "outdated");
    assert_eq!(last.value("clerk_ratelimit_limit", &[("bucket", "instance")]), Some(100.0));
}

/// Label values from remote input are bounded: no response can create unlimited series.
#[tokio::test(start_paused = true)]
async fn shed_requests_are_counted_by_the_priorities_and_reasons_in_alerts() {
    let world = World::new(&["prod"]);
    let gateway = gateway(&world).await;
    let world = World { metrics: world.metrics_with(gateway), ..world };
    let scrape = world.scrape(Format::Text);
    let shed = || scrape.samples.iter().filter(|sample| sample.name == "clerk_gateway_shed_total");
    let priorities: BTreeSet<_> = shed().map(|sample| &*sample.labels["priority"]).collect();
    assert_eq!(priorities, BTreeSet::from(["high", "low"]));
    let rules = include_str!("../alerts/clerk.rules.yml");
    let named: BTreeSet<_> = rules.split("{priority=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(!named.is_empty() && named.is_subset(&priorities), "{named:?}");
    let reasons: BTreeSet<_> = shed().map(|sample| &*sample.labels["reason"]).collect();
    let named = rules.split("clerk_gateway_shed_total{").skip(1).filter_map(|rest| rest.split('}').next());
    let named = named.filter_map(|matchers| matchers.split_once("reason")?.1.split('"').nth(1));
    let named: BTreeSet<_> = named.flat_map(|reasons| reasons.split('|')).collect();
    assert_eq!(named, BTreeSet::from(["caller_cap", "caller_paused"]));
    assert!(named.is_subset(&reasons), "{reasons:?}");
}

#[tokio::test(start_paused = true)]
async fn large_exposition_has_small_pieces_of_one_snapshot() {
    let names: Vec<_> = (0..3000).map(|number| format!("customer-{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    for format in FORMATS {
        let world = World::new(&names);
        names[..2500].iter().for_each(|name| world.record(name, |_| {}));
        let mut exposition = world.metrics.expose(format).unwrap();
        let first = exposition.next().unwrap().unwrap();
        // Later observations belong to the next scrape.
        names.iter().for_each(|name| world.record(name, |observation| observation.quota.remaining = Some(7)));
        let rest: Vec<_> = exposition.map(Result::unwrap).collect();
        assert!(rest.len() > 50 && rest.iter().all(|piece| piece.len() < 200_000), "{}", rest.len());
        // The parser panics on families that are described twice and on duplicate series.
        let scrape = Scrape::parse(&(first + &rest.concat()));
        let remaining = scrape.samples.iter().filter(|sample| sample.name == "clerk_ratelimit_remaining");
        let remaining =
            remaining.map(|sample| (&*sample.labels["clerk_instance"], sample.value)).collect::<BTreeMap<_, _>>();
        assert_eq!(remaining, names[..2500].iter().map(|name| (*name, 99.0)).collect());
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_odd_responses_add_bounded_series() {
    let world = World::new(&["prod"]);
    let before = world.scrape(Format::Text).samples.len();
    for number in 0..10_000_u16 {
        world.record("prod", |observation| observation.status = 100 + number % 900);
    }
    let after = world.scrape(Format::Text).samples.len();
    assert!(after - before <= 920, "{} series more", after - before);
}

#[test]
fn any_time_is_a_finite_number() {
    for moment in [Moment::default(), Moment::from_unix(Duration::MAX), Moment::default().after(Duration::MAX)] {
        assert!(moment.unix_seconds().is_finite());
    }
}
