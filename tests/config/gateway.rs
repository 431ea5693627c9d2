//! The section `gateway`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use clerk_client::limiter::Priority;
use clerk_exporter::config::{Config, GatewayConfig, PolicyConfig, UnknownKeyMode};
use clerk_exporter::gateway::Mode;

use crate::{INSTANCE, NO_WARNINGS, env, parse};

/// A configuration with these lines below `gateway:`, in a directory with the files that it may name.
fn read(lines: &str) -> Result<Config, String> {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| fs::write(directory.path().join(name), content).unwrap();
    file("web", "web-token-0123456789\n");
    file("import", "import-token-0123456789\n");
    file("copy", "web-token-0123456789");
    file("short", "0123456789abcde");
    file("redis", "redis://:CANARYpassword@127.0.0.1:6379/0\n");
    file("plain-redis", "redis+sentinel://app@127.0.0.1/prod\n");
    file("key", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n");
    file("webhook", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n");
    file("empty", " \n");
    file("bad", "redis://:CANARYpassword@");
    file("tls.yml", "tls_server_config: { cert_file: server.pem, key_file: server.key }\n");
    file("no-tls.yml", "http_server_config: { http2: true }\n");
    file("no-certificate.yml", "tls_server_config: { cert_file: none.pem, key_file: server.key }\n");
    // The password is `test`.
    let users = "basic_auth_users: { a: $2b$12$hNf2lSsxfm0.i4a.1kVpSOVyBCfIB51VRjgBUyv6kdnyTlgWj81Ay }\n";
    file("users.yml", &format!("{users}tls_server_config: {{ cert_file: server.pem, key_file: server.key }}\n"));
    for name in ["server.pem", "server.key"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/prometheus-web/tests/data/tls").join(name);
        fs::copy(from, directory.path().join(name)).unwrap();
    }
    let yaml = format!("{INSTANCE}gateway:\n  {}\n", lines.trim_end().replace('\n', "\n  "));
    let config = Config::parse(&yaml, &directory.path().join("c.yml"), &env);
    config.map_err(|error| error.to_string().replace(&directory.path().display().to_string(), ""))
}

fn good(lines: &str) -> Config {
    read(lines).unwrap_or_else(|message| panic!("{message}\n{lines}"))
}

#[test]
fn gateway_is_off_by_default() {
    assert_eq!(crate::good(INSTANCE).gateway, None);
    assert_eq!(good("").gateway.unwrap().access_log, None);
    let path = good("access_log: access.log").gateway.unwrap().access_log.unwrap();
    assert!(path.is_absolute() && path.ends_with("access.log"), "relative to the configuration: {}", path.display());
}

#[test]
fn an_empty_section_has_the_documented_defaults() {
    let config = parse(&format!("{INSTANCE}gateway:\n")).unwrap();
    assert_eq!(config.warnings, NO_WARNINGS);
    let gateway = config.gateway.unwrap();
    assert_eq!(gateway.listen.to_string(), "127.0.0.1:10430");
    assert_eq!(gateway.unknown_keys, UnknownKeyMode::Forward);
    assert_eq!(gateway.max_wait, Duration::from_secs(11), "the window plus a tenth");
    assert_eq!(gateway.max_in_flight, 1024);
    assert_eq!(gateway.policies, PolicyConfig::default());
    assert_eq!(gateway.cache.memory_bytes, 64 << 20);
    assert!(gateway.callers.is_empty() && gateway.routes.is_empty());
    assert!(gateway.webhooks.is_none());
}

const WHOLE: &str = r#"
listen_address: 127.0.0.1:10430
unknown_keys: reject
upstream_http2: true
max_wait: 15s
max_in_flight: 200
callers:
  - { name: web, token_file: web, instance: a, priority: high }
  - { name: import, token_file: import, instance: a, priority: low, min_share: 0.2, max_share: 0.5, max_wait: 12s }
policies:
  retry: on
  coalesce: off
  cache: { mode: shadow, ttl: 2m }
  batch: shadow
  pace: { mode: on, reserve: 0.25 }
  verify: { mode: on, ttl: 30s }
  routes:
    "GET /v1/users/{user_id}": { cache: { mode: on, ttl: 30s }, batch: on }
    POST /v1/m2m_tokens/verify: { verify: off }
    "POST /v1/users": { retry: off }
    "PATCH /v1/users/{user_id}": { pace: off }
    "DELETE /v1/users/{user_id}": { retry: on }
cache:
  memory: 1GiB
  redis_url_file: redis
  encryption_key_file: key
webhooks:
  path: /hooks
  signing_secret_files: [webhook]
"#;

#[test]
fn every_key_is_read() {
    let config = good(WHOLE);
    assert_eq!(config.warnings, NO_WARNINGS);
    let gateway = config.gateway.unwrap();
    assert_eq!(gateway.unknown_keys, UnknownKeyMode::Reject);
    assert!(gateway.upstream_http2);
    assert_eq!((gateway.max_wait, gateway.max_in_flight), (Duration::from_secs(15), 200));
    let callers: Vec<_> = gateway.callers.iter().map(|it| (&*it.name, &*it.instance, it.priority)).collect();
    assert_eq!(callers, [("web", "a", Priority::High), ("import", "a", Priority::Low)]);
    let shares: Vec<_> = gateway.callers.iter().map(|it| (it.min_share, it.max_share, it.max_wait)).collect();
    assert_eq!(shares, [(0.0, 1.0, None), (0.2, 0.5, Some(Duration::from_secs(12)))]);
    assert_eq!(gateway.policies.coalesce, Mode::Off);
    assert_eq!(gateway.policies.cache.ttl, Duration::from_secs(120));
    assert_eq!((gateway.policies.pace.mode, gateway.policies.pace.reserve), (Mode::On, 0.25));
    assert_eq!(gateway.cache.memory_bytes, 1 << 30);
    assert_eq!(gateway.webhooks.unwrap().path, "/hooks");
}

#[test]
fn a_route_has_its_own_policies_over_the_defaults() {
    let gateway = good(WHOLE).gateway.unwrap();
    let user = gateway.routes[&("GET", "/v1/users/{user_id}")];
    assert_eq!((user.cache.mode, user.cache.ttl, user.batch), (Mode::On, Duration::from_secs(30), Mode::On));
    assert_eq!((user.retry, user.coalesce, user.pace.mode), (Mode::On, Mode::Off, Mode::On));
    let verify = |policies: PolicyConfig| (policies.verify.mode, policies.verify.ttl);
    assert_eq!(verify(gateway.policies), (Mode::On, Duration::from_secs(30)));
    assert_eq!(verify(gateway.routes[&("POST", "/v1/m2m_tokens/verify")]), (Mode::Off, Duration::from_secs(30)));
    let create = gateway.routes[&("POST", "/v1/users")];
    assert_eq!(create.verify.mode, Mode::Off);
    assert_eq!((create.retry, create.cache.mode, create.batch), (Mode::Off, Mode::Off, Mode::Off));
    // Writes are retried only where their route enables it by name.
    let retry = |method| gateway.routes[&(method, "/v1/users/{user_id}")].retry;
    assert_eq!((retry("PATCH"), retry("DELETE")), (Mode::Off, Mode::On));
}

#[test]
fn redacted_config_is_equivalent_without_file_contents() {
    let config = good(WHOLE);
    let shown = config.masked_yaml();
    assert!(!shown.contains("CANARY") && !shown.contains("token-0123"), "{shown}");
    // The directory of the first one was removed: write the needed file beside the text.
    let directory = tempfile::tempdir().unwrap();
    let mut text = shown.clone();
    for (name, content) in [
        ("web", "web-token-0123456789"),
        ("import", "import-token-0123456789"),
        ("redis", "redis://x"),
        ("key", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"),
        ("webhook", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ] {
        fs::write(directory.path().join(name), content).unwrap();
        let end = format!("/{name}\"");
        let at = text.find(&end).unwrap();
        let start = text[..at].rfind('"').unwrap();
        text.replace_range(start..at + end.len(), name);
    }
    let again = Config::parse(&text, &directory.path().join("c.yml"), &env).unwrap();
    let (first, second) = (config.gateway.unwrap(), again.gateway.unwrap());
    let shares = |gateway: &GatewayConfig| {
        gateway.callers.iter().map(|it| (it.min_share, it.max_share, it.max_wait)).collect::<Vec<_>>()
    };
    assert_eq!(shares(&first), shares(&second));
    assert!(shown.contains("min_share: 0.2") && !shown.contains("min_share: 0.0"), "{shown}");
    assert_eq!(
        (first.policies, first.routes, first.cache.memory_bytes),
        (second.policies, second.routes, second.cache.memory_bytes)
    );
    assert_eq!(
        (first.listen, first.max_wait, first.unknown_keys),
        (second.listen, second.max_wait, second.unknown_keys)
    );
}

#[test]
fn modes_accept_spellings_of_yaml_tools() {
    let gateway = good("policies: { retry: true, coalesce: false, cache: on, pace: off }").gateway.unwrap();
    let policies = gateway.policies;
    assert_eq!((policies.retry, policies.coalesce), (Mode::On, Mode::Off));
    assert_eq!((policies.cache.mode, policies.pace.mode), (Mode::On, Mode::Off));
}

#[test]
fn clear_text_requires_explicit_permission() {
    for address in [":10430", "0.0.0.0:10430", "10.0.0.1:10430", "'[::]:10430'", "gateway.internal:10430"] {
        let message = read(&format!("listen_address: {address}")).unwrap_err();
        assert!(message.contains("gateway.listen_address: other hosts can reach this address"), "{message}");
        good(&format!("listen_address: {address}\nallow_clear_text: true"));
        good(&format!("listen_address: {address}\nweb_config_file: tls.yml"));
        for file in ["no-tls.yml", "empty"] {
            let message = read(&format!("listen_address: {address}\nweb_config_file: {file}")).unwrap_err();
            assert!(message.contains("gateway.listen_address: other hosts can reach this address"), "{message}");
            good(&format!("listen_address: {address}\nweb_config_file: {file}\nallow_clear_text: true"));
        }
    }
    for address in ["127.0.0.1:1", "'[::1]:1'", "localhost:1"] {
        good(&format!("listen_address: {address}"));
    }
}

#[test]
fn every_mistake_has_a_remedy() {
    let cases = [
        ("listen: x", "gateway.listen: unknown key"),
        ("listen_address: nowhere", "has no port; write HOST:PORT"),
        ("unknown_keys: drop", "gateway.unknown_keys: neither forward nor reject"),
        ("upstream_http2: h2", "neither true nor false"),
        ("max_wait: 2", "write `2s` for seconds"),
        ("max_wait: 2h", "too long"),
        ("max_in_flight: 0", "not a whole number above 0"),
        ("max_in_flight: 1000000", "more than 65536"),
        ("allow_clear_text: perhaps", "neither true nor false"),
        ("callers: [{ name: x, token_file: web }]", "gateway.callers[0].instance: missing; write `instance: prod`"),
        ("callers: [{ name: x, token_file: web, instance: b }]", "no instance of this name is configured"),
        ("callers: [{ name: x, token_file: none, instance: a }]", "gateway.callers[0].token_file"),
        ("callers: [{ name: x, token_file: short, instance: a }]", "less than 16 bytes"),
        (
            "callers: [{ name: x, token_file: web, instance: a }, { name: y, token_file: copy, instance: a }]",
            "gateway.callers[1].token_file: the same token as gateway.callers[0].token_file",
        ),
        ("callers: [{ name: x, token_file: web, instance: a, priority: 1 }]", "gateway.callers[0].priority"),
        ("callers: [{ name: x, token_file: web, instance: a, min_share: 0 }]", "min_share: not above 0 and at most 1"),
        (
            "callers: [{ name: x, token_file: web, instance: a, min_share: 20 }]",
            "min_share: above 1; write `0.2` for 20 %",
        ),
        (
            "callers: [{ name: x, token_file: web, instance: a, max_share: 0 }]",
            "gateway.callers[0].max_share: not above",
        ),
        (
            "callers: [{ name: x, token_file: web, instance: a, max_share: half }]",
            "max_share: text instead of a number",
        ),
        ("callers: [{ name: x, token_file: web, instance: a, max_wait: 2 }]", "write `2s` for seconds"),
        ("callers: [{ name: x, token_file: web, instance: a, max_wait: 2h }]", "gateway.callers[0].max_wait: too long"),
        (
            "callers: [{ name: x, token_file: web, instance: a, min_share: 0.5, max_share: 0.4 }]",
            "gateway.callers[0].min_share: larger than `max_share`",
        ),
        (
            "callers: [{ name: x, token_file: web, instance: a, min_share: 0.95 }]",
            "(0.95) and `policies.pace.reserve` (0.1) add up to 1.05, and the limit is 1; write smaller ones",
        ),
        (
            "callers: [{ name: x, token_file: web, instance: a, min_share: 0.6 }, { name: y, token_file: import, \
             instance: a, min_share: 0.5 }]\npolicies: { pace: { mode: on, reserve: 0 } }",
            "gateway.callers[0].min_share: the guarantees of the instance's callers (0.6 + 0.5)",
        ),
        (
            "callers: [{ name: x, token_file: web, instance: a, max_share: 0.6 }, { name: x, token_file: import, \
             instance: a }]",
            "gateway.callers[1]: the same caller as gateway.callers[0] with a different `min_share`",
        ),
        (
            "callers: [{ name: x, token_file: web, instance: a, max_wait: 20s }, { name: x, token_file: import, \
             instance: a }]",
            "write the same values for all of its tokens",
        ),
        (
            "callers: [{ name: x, token_file: web, instance: a, max_share: 0.5 }]\npolicies: { pace: off }",
            "gateway.callers[0]: `min_share` and `max_share` act only while `policies.pace` is on",
        ),
        ("policies: { retry: maybe }", "gateway.policies.retry: not a mode; write `off`, `shadow` or `on`"),
        ("policies: { cache: { ttl: 0s } }", "gateway.policies.cache.ttl: too short"),
        ("policies: { verify: { ttl: 6m } }", "gateway.policies.verify.ttl: too long; write a duration from 1s to 5m"),
        ("policies: { verify: sometimes }", "gateway.policies.verify: not a mode"),
        ("policies: { verify: { ttl: 60s, max: 1 } }", "gateway.policies.verify.max: "),
        (
            "policies: { routes: { POST /v1/users: { verify: on } } }",
            "nothing is verified here; write `verify` below POST",
        ),
        ("policies: { routes: { POST /v1/api_keys/verify: { cache: on } } }", "caching is for reads (GET) only"),
        ("policies: { pace: { reserve: 10 } }", "gateway.policies.pace.reserve: not between 0 and 0.5"),
        ("policies: { routes: { GET /v1/nothing: { retry: on } } }", "not a route of the Backend API"),
        ("policies: { routes: { POST /v1/users: { cache: on } } }", "caching is for reads (GET) only"),
        ("policies: { routes: { GET /v1/users: { batch: on } } }", "only `GET /v1/users/{user_id}` can be batched"),
        (
            "policies: { routes: { GET /v1/users: { pace: { reserve: 0.2 } } } }",
            "all routes share one reserve; write it below `policies.pace`",
        ),
        (
            "policies: { routes: { GET /v1/users: { pace: on }, 'GET  /v1/users': { pace: off } } }",
            "the route is listed twice",
        ),
        ("policies: { routes: [] }", "not a section; write routes below it"),
        ("cache: { memory: 64 }", "gateway.cache.memory: a number instead of a size"),
        ("cache: { memory: 64kB }", "not a size; write a number and a unit, as in `64MiB`"),
        ("cache: { memory: 1KiB }", "too small; write a size from 1MiB"),
        ("cache: { memory: 99999999999999999999GiB }", "too large"),
        ("cache: { redis_url_file: none }", "gateway.cache.redis_url_file"),
        ("cache: { redis_url_file: empty }", "is empty; write the secret into it"),
        ("cache: { redis_url_file: bad }", "gateway.cache.redis_url_file: invalid Redis URL"),
        ("cache: { redis_url_file: 'redis://:CANARYpassword@x' }", "a URL; write the name of the file"),
        ("cache: { redis_url_file: redis, encryption_key_file: web }", "not a 32-byte key"),
        (
            "cache: { redis_password_file: web }",
            "gateway.cache.redis_password_file: no effect without a `redis_url_file`",
        ),
        ("cache: { redis_password_command: [x] }", "no effect without a `redis_url_file`"),
        (
            "cache: { redis_url_file: redis, redis_password_file: web }",
            "redis_url_file: the Redis URL contains a password",
        ),
        ("cache: { redis_url_file: plain-redis, redis_password_file: empty }", "redis_password_file: file "),
        (
            "cache: { redis_url_file: plain-redis, redis_password_file: web, redis_password_command: [x] }",
            "`gateway.cache.redis_password_file` says where the password is already; remove one of them",
        ),
        ("cache: { redis_url_file: plain-redis, redis_password_command: CANARYpassword }", "instead of a list"),
        ("cache: { redis_url_file: plain-redis, redis_password_command: [] }", "a list of 0 words; write a program"),
        ("cache: { redis_url_file: plain-redis, redis_password_command: ['', x] }", "empty; write the program to run"),
        ("cache: { redis_url_file: plain-redis, redis_password_command: [x, [y]] }", "a list instead of text"),
        (
            "cache: { redis_url_file: CANARYpassword0123 }",
            "gateway.cache.redis_url_file: file <secret>: cannot be read",
        ),
        ("webhooks: { signing_secret_files: [web] }", "gateway.webhooks.signing_secret_files[0]: "),
        ("webhooks: { signing_secret_files: [empty] }", "signing secret"),
        ("access_log: none/access.log", "gateway.access_log: there is no folder /none; create it"),
        ("access_log: .", "gateway.access_log: a folder; write the name of a file"),
        ("access_log: ''", "gateway.access_log: "),
        ("web_config_file: none.yml", "gateway.web_config_file: /none.yml: the web configuration cannot be read"),
        ("web_config_file: no-certificate.yml", "tls_server_config.cert_file"),
        ("web_config_file: users.yml", "gateway.web_config_file: it has basic_auth_users"),
        ("listen_address: CANARYpassword0123", "gateway.listen_address: not a listen address"),
        ("webhooks: { path: /hooks }", "gateway.webhooks.signing_secret_files: missing"),
        ("webhooks: { signing_secret_files: [] }", "the list is empty"),
        ("webhooks: { path: /v1/hooks, signing_secret_files: [webhook] }", "paths below /v1 are Clerk's"),
        ("webhooks: { path: hooks/../x, signing_secret_files: [webhook] }", "not a plain path"),
    ];
    for (lines, expected) in cases {
        let message = read(lines).expect_err(lines);
        assert!(message.contains(expected), "{lines}\n{message}");
        assert!(!message.contains("token-0123") && !message.contains("CANARY"), "{message}");
    }
}

#[test]
fn unknown_keys_default_to_reject_with_callers() {
    let callers = "callers: [{ name: web, token_file: web, instance: a }]";
    let unknown_keys = |lines: &str| good(lines).gateway.unwrap().unknown_keys;
    assert_eq!(unknown_keys(callers), UnknownKeyMode::Reject);
    assert_eq!(unknown_keys(&format!("{callers}\nunknown_keys: forward")), UnknownKeyMode::Forward);
    assert_eq!(unknown_keys(&format!("{callers}\nunknown_keys: reject")), UnknownKeyMode::Reject);
    for none in ["callers: []", "sole: true"] {
        assert_eq!(unknown_keys(none), UnknownKeyMode::Forward, "{none}");
    }
}

#[test]
fn max_wait_defaults_to_a_window_and_less_is_a_warning() {
    let with = |limits: &[&str], lines: &str| {
        let instances: Vec<_> = limits
            .iter()
            .enumerate()
            .map(|(number, limit)| format!("  - {{ name: i{number}, secret_key: sk_test_abcdef{number}, {limit} }}\n"))
            .collect();
        parse(&format!("probe: {{ interval: 10m }}\ninstances:\n{}gateway: {{ {lines} }}\n", instances.concat()))
            .unwrap()
    };
    for (limits, seconds) in [
        (&["plan: free"][..], 11),
        (&["limit: { requests: 100, window: 20s }", "plan: pro"], 22),
        (&["limit: { requests: 100, window: 1s }", "limit: { requests: 100, window: 30s }"], 33),
        (&["limit: { requests: 10000, window: 1h }"], 60),
    ] {
        let config = with(limits, "policies: { pace: on }");
        assert_eq!(config.warnings, NO_WARNINGS, "{limits:?}");
        assert_eq!(config.gateway.unwrap().max_wait, Duration::from_secs(seconds), "{limits:?}");
    }
    let route = "policies: { pace: off, routes: { 'GET /v1/users': { pace: on } } }";
    for (limit, lines, warns) in [
        ("plan: pro", "max_wait: 2s, policies: { pace: on }", true),
        ("plan: pro", "max_wait: 9s, policies: { pace: shadow }", true),
        ("plan: pro", &format!("max_wait: 2s, {route}"), true),
        ("plan: pro", "max_wait: 2s", true),
        ("plan: pro", "max_wait: 10s, policies: { pace: on }", false),
        ("plan: pro", "max_wait: 2s, policies: { pace: off }", false),
        ("limit: { requests: 100, window: 1s }", "max_wait: 2s, policies: { pace: on }", false),
        ("limit: { requests: 10000, window: 1h }", "max_wait: 60s, policies: { pace: on }", false),
        ("limit: { requests: 10000, window: 1h }", "max_wait: 30s, policies: { pace: on }", true),
    ] {
        let warnings = with(&[limit], lines).warnings;
        assert_eq!(warnings.len(), usize::from(warns), "{limit} {lines}: {warnings:?}");
        let is_it = |warning: &String| warning.contains("gateway.max_wait: shorter than the window of");
        assert!(warnings.iter().all(is_it), "{warnings:?}");
    }
}

#[test]
fn shares_that_fit_are_accepted() {
    let pair = |first: &str, second: &str, policies: &str| {
        format!(
            "callers:\n  - {{ name: x, token_file: web, instance: a{first} }}\n  - {{ name: y, token_file: import, instance: \
             a{second} }}\npolicies: {policies}"
        )
    };
    // These sums are not exactly 1 in binary.
    for (first, second, policies) in [
        (", min_share: 0.6", ", min_share: 0.3", "{ pace: { mode: on, reserve: 0.1 } }"),
        (", min_share: 0.7", ", min_share: 0.2, max_share: 0.2", "{ pace: { mode: on, reserve: 0.1 } }"),
        (", min_share: 1, max_share: 1.0", "", "{ pace: { mode: shadow, reserve: 0 } }"),
        (", max_share: 0.5", "", "{ pace: off, routes: { 'GET /v1/users': { pace: on } } }"),
    ] {
        assert_eq!(good(&pair(first, second, policies)).warnings, NO_WARNINGS, "{first} {second} {policies}");
    }
    // Two tokens of one application, during a rotation, are one guarantee.
    let rotation = pair(", min_share: 0.6", ", min_share: 0.6", "{ pace: on }").replace("name: y", "name: x");
    assert_eq!(good(&rotation).warnings, NO_WARNINGS);
}

#[test]
fn short_wait_of_a_guaranteed_caller_is_a_warning() {
    for (keys, warns) in [
        ("max_wait: 2s", false),
        ("max_wait: 2s, max_share: 0.5", false),
        ("max_wait: 2s, min_share: 0.2", true),
        ("max_wait: 10s, min_share: 0.2", true),
        ("max_wait: 11s, min_share: 0.2", false),
        ("min_share: 0.2", false),
    ] {
        let warnings = good(&format!("callers: [{{ name: x, token_file: web, instance: a, {keys} }}]")).warnings;
        assert_eq!(warnings.len(), usize::from(warns), "{keys}: {warnings:?}");
        let is_it = |warning: &String| {
            warning.contains("gateway.callers[0].max_wait: too short for lent quota to return")
                && warning.contains("may be rejected; write `11s` or longer")
        };
        assert!(warnings.iter().all(is_it), "{warnings:?}");
    }
}

#[test]
fn instance_name_other_is_reserved() {
    let yaml = |name: &str, gateway: &str| {
        parse(&format!("instances: [{{ name: {name}, secret_key: sk_test_abcdef }}]\n{gateway}"))
    };
    let message = yaml("other", "gateway: {}\n").unwrap_err();
    assert!(message.contains("1:21: instances[0].name: no instance can be called `other`"), "{message}");
    assert!(yaml("other", "").is_ok() && yaml("others", "gateway: {}\n").is_ok());
}

#[test]
fn encryption_without_redis_is_rejected() {
    let config = good("cache: { encryption_key_file: key }");
    let [warning] = &config.warnings[..] else { panic!("one warning: {:?}", config.warnings) };
    assert!(warning.contains("no effect without redis_url_file"), "{warning}");
}

#[test]
fn files_are_relative_to_the_configuration() {
    let path = good("web_config_file: tls.yml").gateway.unwrap().web_config_file.unwrap();
    assert!(path.is_absolute() && path.ends_with(Path::new("tls.yml")));
}
