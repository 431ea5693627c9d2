//! The binary, started as the rendered files start it.

use std::collections::BTreeMap;

use clerk_test_support::process::Process;
use clerk_test_support::redis::RedisServer;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::chart::PRODUCTION;
use crate::compose::{self, compose, make_secrets};
use crate::documents::blocks;
use crate::exporter::{Clerk, Exporter, KEY, OTHER_KEY, eventually};
use crate::pods::{Files, Pod, Secrets, certificate, client};
use crate::tools::{overlay, template};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Redis' password.
const PASSWORD: &str = "5up3r-s3cr3t-CANARY";

/// Requests that the instance `prod` allows in an hour, so that no window ends meanwhile.
const LIMIT: usize = 6;

/// Every Secret that the value files and overlays name.
fn secrets(redis: &RedisServer) -> Secrets {
    let redis = redis.url().expose().to_owned();
    let texts = [
        ("clerk-keys", "prod", KEY.to_owned()),
        ("clerk-keys", "prod-billing", OTHER_KEY.to_owned()),
        ("clerk-keys", "dev", "sk_test_kLqWvBnMzXcVaSdFgCANARY".to_owned()),
        ("clerk-redis", "password", PASSWORD.to_owned()),
        ("clerk-callers", "web", TOKEN.to_owned()),
        ("clerk-cache", "key", "5e".repeat(32)),
        ("clerk-webhooks", "prod", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()),
        ("clerk-gateway-tls", "tls.crt", certificate("server.pem")),
        ("clerk-gateway-tls", "tls.key", certificate("server.key")),
        ("clerk-metrics-tls", "tls.crt", certificate("server.pem")),
        ("clerk-metrics-tls", "tls.key", certificate("server.key")),
        ("clerk-exporter-keys", "prod", KEY.to_owned()),
        ("clerk-exporter-keys", "dev", OTHER_KEY.to_owned()),
        ("clerk-gateway", "redis-url", redis),
        ("clerk-gateway", "web-token", TOKEN.to_owned()),
        ("clerk-gateway", "import-token", "fedcba9876543210fedcba9876543210".to_owned()),
    ];
    texts.into_iter().map(|(secret, entry, text)| ((secret, entry), text)).collect()
}

/// The default values' instance, at the simulated Clerk.
fn one_instance(clerk: &Clerk) -> String {
    let key = "/run/secrets/clerk/clerk-keys/prod";
    format!("--set-json=instances=[{}]", json!({ "name": "prod", "secret_key_file": key, "api_url": clerk.url() }))
}

/// One request of the application `web`: its status.
async fn send(gateway: &Exporter, scheme: &str, credential: &str) -> u16 {
    let url = format!("{scheme}://{}/v1/users/count", gateway.gateway().await);
    let response = client().get(url).bearer_auth(credential).send().await.unwrap();
    response.status().as_u16()
}

/// Sends through both in turn until one refuses; together they have sent what the limit allows, and no more.
async fn assert_common_budget(gateways: [&Exporter; 2], scheme: &str, credential: &str) {
    let mut served = [0, 0];
    for turn in 0..2 * LIMIT {
        match send(gateways[turn % 2], scheme, credential).await {
            200 => served[turn % 2] += 1,
            status => {
                assert_eq!(status, 429);
                break;
            }
        }
    }
    assert!(served[0] > 0 && served[1] > 0 && served[0] + served[1] <= LIMIT, "{served:?}");
    for gateway in gateways {
        gateway.until("clerk_gateway_budget_shared", &[("clerk_instance", "prod")], |shared| shared == 1.0).await;
        let metrics = gateway.metrics().await;
        let of_prod = |name| metrics.value(name, &[("clerk_instance", "prod")]);
        assert_eq!(of_prod("clerk_probes_total").unwrap_or(0.0), 0.0);
        // By which ClerkExporterDown knows that another process watches the instance.
        assert_eq!(of_prod("clerk_instance_info"), Some(1.0));
    }
}

/// Waits until one of two exporters has the right to probe: that one, and the other.
async fn prober_and_standby<'a>(first: &'a Pod, second: &'a Pod) -> (&'a Pod, &'a Pod) {
    let held =
        async |pod: &Pod| pod.exporter.metrics().await.value("clerk_exporter_probe_leases", &[("state", "held")]);
    eventually("a prober", async || {
        let (of_first, of_second) = (held(first).await?, held(second).await?);
        (of_first + of_second == 1.0).then_some(if of_first == 1.0 { (first, second) } else { (second, first) })
    })
    .await
}

/// The outcome that the chart is for: two exporters, of which one probes, and two gateways with one budget.
#[tokio::test]
async fn production_release_has_one_prober_and_one_budget() {
    // Without quota headers, as Clerk: else the gateways would learn of each other's requests from these.
    let without_headers = Clerk::with(clerk_simulator::Options::default());
    let (clerk, redis) = tokio::join!(without_headers, RedisServer::start(&["--requirepass", PASSWORD]));
    let instance = json!({
        "name": "prod", "secret_key_file": "/run/secrets/clerk/clerk-keys/prod", "api_url": clerk.url(),
        "further_secret_key_files": ["/run/secrets/clerk/clerk-keys/prod-billing"],
        "limit": { "requests": LIMIT, "window": "1h" },
    });
    let instances = format!("--set-json=instances=[{instance}]");
    let redis_url = format!("--set=redis.url={}", redis.url().expose());
    let objects = template(&[
        PRODUCTION,
        &instances,
        &redis_url,
        // Else a request waits for a minute, or needs none to Clerk; and probes fit that limit.
        "--set=gateway.config.max_wait=1s,gateway.config.policies.cache=off",
        "--set=config.probe.interval=1h,config.users=null",
    ]);
    let secrets = secrets(&redis);
    let start = |name| Pod::start(&objects, name, &secrets);
    let (exporter, gateway) = ("clerk-clerk-exporter", "clerk-clerk-exporter-gateway");
    let (first, second, left, right) = tokio::join!(start(exporter), start(exporter), start(gateway), start(gateway));
    let pods = [&first, &second, &left, &right];
    for pod in pods {
        pod.until_ready().await;
    }
    let (prober, standby) = prober_and_standby(&first, &second).await;
    prober.exporter.until("clerk_up", &[("clerk_instance", "prod")], |up| up == 1.0).await;
    standby.exporter.until("clerk_exporter_probe_leases", &[("state", "standby")], |count| count == 1.0).await;
    let metrics = standby.exporter.metrics().await;
    assert_eq!(metrics.value("clerk_up", &[("clerk_instance", "prod")]), None, "a standby has no series");
    assert_common_budget([&left.exporter, &right.exporter], "https", TOKEN).await;
    // What a container writes is below the emptyDir.
    for pod in pods {
        assert!(pod.wrote_state(), "{}", pod.exporter.output());
    }
}

#[tokio::test]
async fn default_release_probes_with_one_key() {
    let (clerk, redis) = tokio::join!(Clerk::start(), RedisServer::start(&[]));
    let objects = template(&[&one_instance(&clerk)]);
    let pod = Pod::start(&objects, "clerk-clerk-exporter", &secrets(&redis)).await;
    pod.until_ready().await;
    pod.exporter.until("clerk_up", &[("clerk_instance", "prod")], |up| up == 1.0).await;
}

#[tokio::test]
async fn single_gateway_in_clear_text_needs_no_redis() {
    let (clerk, redis) = tokio::join!(Clerk::start(), RedisServer::start(&[]));
    let objects = template(&["--values=deploy/helm/clerk-exporter/ci/openshift-values.yaml", &one_instance(&clerk)]);
    let pod = Pod::start(&objects, "clerk-clerk-exporter-gateway", &secrets(&redis)).await;
    pod.until_ready().await;
    assert_eq!(send(&pod.exporter, "http", KEY).await, 200);
}

/// With the web configuration that docs/deploy.md shows.
#[tokio::test]
async fn metrics_behind_tls_and_a_password_stay_ready() {
    let web = blocks("web.yml").remove(0);
    let (clerk, redis) = tokio::join!(Clerk::start(), RedisServer::start(&[]));
    let mut secrets = secrets(&redis);
    secrets.insert(("clerk-metrics-web", "web.yml"), web);
    let objects = template(&[
        &one_instance(&clerk),
        "--set=web.tls.secretName=clerk-metrics-tls,web.configFile=/run/secrets/clerk/clerk-metrics-web/web.yml",
    ]);
    let pod = Pod::start(&objects, "clerk-clerk-exporter", &secrets).await;
    pod.until_ready().await;
    let metrics = client().get(format!("https://{}/metrics", pod.exporter.address));
    assert_eq!(metrics.try_clone().unwrap().send().await.unwrap().status(), 401);
    assert_eq!(metrics.basic_auth("prometheus", Some("change-me")).send().await.unwrap().status(), 200);
}

/// Clerk's address is the only change to the files of an overlay.
fn with_clerk(mut objects: Vec<Value>, url: &str) -> Vec<Value> {
    for object in objects.iter_mut().filter(|object| object["kind"] == "ConfigMap") {
        for text in object["data"].as_object_mut().unwrap().values_mut() {
            let instance = "    secret_key_file: ";
            let adapted = text.as_str().unwrap().replace(instance, &format!("    api_url: {url}\n{instance}"));
            *text = adapted.into();
        }
    }
    objects
}

#[tokio::test]
async fn overlays_start_exporter_and_gateways() {
    let (clerk, redis) = tokio::join!(Clerk::start(), RedisServer::start(&[]));
    let secrets = secrets(&redis);
    for (name, credential) in [("gateway", KEY), ("example", TOKEN)] {
        let objects = with_clerk(overlay(name), &clerk.url());
        let start = |deployment| Pod::start(&objects, deployment, &secrets);
        let (exporter, gateway) = tokio::join!(start("clerk-exporter"), start("clerk-gateway"));
        exporter.until_ready().await;
        exporter.exporter.until("clerk_up", &[("clerk_instance", "prod")], |up| up == 1.0).await;
        gateway.until_ready().await;
        assert_eq!(send(&gateway.exporter, "https", credential).await, 200, "{name}");
        gateway.exporter.until("clerk_gateway_budget_shared", &[("clerk_instance", "prod")], |it| it == 1.0).await;
    }
}

/// Files of a service of the compose file, and its command line.
fn service(
    compose: &Value,
    name: &str,
    made: &BTreeMap<String, String>,
    changes: &[(&str, &str)],
) -> (Files, Vec<String>) {
    let service = &compose["services"][name];
    let change = |text: &str| changes.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    let mut files = Files::new();
    files.mount("/run/secrets");
    files.mount("/etc/clerk-exporter");
    for volume in service["volumes"].as_array().into_iter().flatten() {
        let (source, inside) = volume.as_str().unwrap().split_once(':').unwrap();
        let source = source.strip_prefix("./").unwrap();
        let inside = inside.strip_suffix(":ro").unwrap();
        files.write(inside, &change(&crate::read(&format!("{}/{source}", compose::PRODUCTION))));
    }
    for secret in service["secrets"].as_array().unwrap() {
        let name = secret.as_str().unwrap();
        let file = compose["secrets"][name]["file"].as_str().unwrap().strip_prefix("./secrets/").unwrap();
        files.write(&format!("/run/secrets/{name}"), &change(&made[file]));
    }
    let command = service["command"].as_array().unwrap().iter();
    let command = command.map(|word| word.as_str().unwrap().to_owned()).collect();
    (files, command)
}

/// Redis, exporter and gateway with the command lines and files of the compose file; Docker, Grafana and the images are
/// not tested.
#[tokio::test]
async fn compose_services_start_with_their_secrets() {
    let clerk = Clerk::start().await;
    let folder = tempfile::tempdir().unwrap();
    let made: BTreeMap<_, _> = make_secrets(folder.path(), KEY).into_iter().collect();
    let compose = compose(&format!("{}/compose.yml", compose::PRODUCTION));
    let password = made["redis.conf"].trim().strip_prefix("requirepass ").unwrap();
    let socket = folder.path().join("redis.sock");

    let (files, command) = service(&compose, "redis", &made, &[]);
    let mut redis = Command::new(&command[0]);
    redis
        .args(command[1..].iter().map(|word| files.adapt(word)))
        .args(["--port", "0", "--unixsocket"])
        .arg(&socket)
        .current_dir(folder.path());
    let mut redis = Process::start(&mut redis);
    redis.line(|line| line.contains("eady to accept connections").then_some(())).await;

    // The host name and the port of Redis become a socket, and Clerk the simulator.
    let there = format!("redis://:{password}@redis:6379");
    let here = format!("unix://{}?pass={password}", socket.display());
    let key_file = "    secret_key_file: ";
    let with_url = format!("    api_url: {}\n{key_file}", clerk.url());
    let changes = [(there.as_str(), here.as_str()), (key_file, with_url.as_str())];
    let (exporter_files, arguments) = service(&compose, "exporter", &made, &changes);
    let exporter = exporter_files.start(&arguments, &[]).await;
    let (gateway_files, arguments) = service(&compose, "gateway", &made, &changes);
    let gateway = gateway_files.start(&arguments, &[]).await;
    exporter.until("clerk_up", &[("clerk_instance", "prod")], |up| up == 1.0).await;
    assert_eq!(gateway.get("/-/ready").await.status, 200);
    assert_eq!(send(&gateway, "http", KEY).await, 200);
    gateway.until("clerk_gateway_budget_shared", &[("clerk_instance", "prod")], |shared| shared == 1.0).await;
    drop(files);
}
