//! Traces of applications from a user's view: received by the exporter, shown in metrics and pages.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clerk_simulator::HeaderProfile;
use serde_json::{Value, json};

use crate::exporter::{Clerk, Exporter, Folder, KEY, eventually, post_json, request};
use crate::exposition::Sample;

/// The host that applications know Clerk by.
const HOST: &str = "api.clerk.com";

static NEXT_SPAN: AtomicU64 = AtomicU64::new(1);

/// A call to Clerk that ended just now.
struct Call<'a> {
    url: String,
    status: u16,
    parent: Option<&'a str>,
}

impl Call<'_> {
    /// The lookup of a user.
    fn look_up() -> Self {
        Self { url: format!("https://{HOST}/v1/users/user_CANARY"), status: 200, parent: None }
    }

    /// The span and its id.
    fn span(&self) -> (Value, String) {
        let id = format!("{:016x}", NEXT_SPAN.fetch_add(1, Ordering::Relaxed));
        let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let nanos = |time: Duration| time.as_nanos().to_string();
        let text = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
        let mut span = json!({
            "traceId": "0af7651916cd43dd8448eb211c80319c",
            "spanId": id,
            "kind": 3,
            "startTimeUnixNano": nanos(end - Duration::from_millis(5)),
            "endTimeUnixNano": nanos(end),
            "attributes": [
                text("http.request.method", "GET"),
                text("url.full", &self.url),
                { "key": "http.response.status_code", "value": { "intValue": self.status } },
            ],
        });
        if let Some(parent) = self.parent {
            span["parentSpanId"] = parent.into();
        }
        (span, id)
    }
}

/// Sends spans of a service as an OTLP exporter does.
async fn send(to: SocketAddr, service: &str, environment: &str, spans: Vec<Value>) {
    let text = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let attributes = [text("service.name", service), text("deployment.environment.name", environment)];
    let resource = json!({ "resource": { "attributes": attributes }, "scopeSpans": [{ "spans": spans }] });
    let page = post_json(to, "/v1/traces", &json!({ "resourceSpans": [resource] }).to_string()).await;
    assert!(page.status == 200 && page.text() == "{}", "{page:?}");
}

async fn send_calls(to: SocketAddr, service: &str, calls: impl IntoIterator<Item = Call<'_>>) {
    send(to, service, "production", calls.into_iter().map(|call| call.span().0).collect()).await;
}

/// A Clerk without quota headers, as the real one.
async fn silent_clerk() -> Clerk {
    Clerk::with(clerk_simulator::Options::default().headers(HeaderProfile::None)).await
}

/// An instance of 20 requests a second, so that windows close soon.
fn write(folder: &Folder, clerk: &Clerk, rest: &str) -> std::path::PathBuf {
    folder.write("key", KEY);
    let instance = "name: prod, secret_key_file: key, limit: { requests: 20, window: 1s }, probe: { interval: 1m }";
    let text = format!("instances: [{{ {instance}, api_url: '{}' }}]\n{rest}", clerk.url());
    folder.write("config.yml", &text)
}

/// A lateness that no machine exceeds: one late span of these few makes the windows of a minute unknown.
const TELEMETRY: &str = "telemetry:\n  listen_address: 127.0.0.1:0\n  hosts: [api.clerk.com]\n  lateness: 8s\n";

#[tokio::test]
async fn spans_alone_show_windows_callers_and_429s() {
    let (clerk, folder) = (silent_clerk().await, Folder::new());
    let exporter = Exporter::with_config(&write(&folder, &clerk, TELEMETRY), &["--log.level=debug"]).await;
    let telemetry = exporter.telemetry().await;
    let instance = [("clerk_instance", "prod"), ("bucket", "instance")];
    // The window in which the exporter started is not known whole.
    eventually("a low window", async || {
        send_calls(telemetry, "shop", (0..19).map(|_| Call::look_up())).await;
        exporter.metrics().await.value("clerk_ratelimit_low_windows_total", &instance).filter(|windows| *windows >= 1.0)
    })
    .await;
    send_calls(telemetry, "billing", [Call { status: 429, ..Call::look_up() }]).await;
    let throttled = [&instance[..], &[("source", "telemetry")]].concat();
    exporter.until("clerk_ratelimit_throttled_responses_total", &throttled, |count| count == 1.0).await;
    exporter.until("clerk_ratelimit_exhausted_windows_total", &instance, |windows| windows >= 1.0).await;
    let metrics = exporter.metrics().await;
    let value = |name: &str, labels: &[(&str, &str)]| metrics.value(name, labels);
    let basis = [&instance[..], &[("basis", "telemetry")]].concat();
    assert_eq!(value("clerk_ratelimit_basis_info", &basis), Some(1.0));
    let spent = [("caller", "shop"), ("route", "/v1/users/{user_id}"), ("source", "telemetry"), ("result", "served")];
    assert!(value("clerk_ratelimit_requests_total", &spent).is_some_and(|requests| requests >= 19.0));
    assert_eq!(value("clerk_telemetry_complete", &[("clerk_instance", "prod")]), Some(0.0));
    assert_eq!(value("clerk_up", &[("clerk_instance", "prod")]), Some(1.0), "by the probe");
    for absent in ["remaining", "blocked_until_timestamp_seconds", "seconds_to_exhaustion"] {
        assert_eq!(value(&format!("clerk_ratelimit_{absent}"), &instance), None, "{absent}");
    }
    let top = exporter.get("/api/v1/top").await.text();
    assert!(top.contains("\"caller\":\"shop\"") && top.contains("\"source\":\"telemetry\""), "{top}");
    let page = exporter.get("/").await.text();
    assert!(page.contains("lowest in the window that ended") && page.contains("billing"), "{page}");
    let status = exporter.get("/api/v1/status").await.text();
    assert!(status.contains("\"last_window\":{\"end_timestamp_seconds\":"), "{status}");
    let everything = [top, page, status, exporter.get("/metrics").await.text(), exporter.stopped().await.1].concat();
    assert!(!everything.contains("CANARY"), "{everything}");
}

#[tokio::test]
async fn calls_that_several_parts_see_count_once() {
    let (clerk, folder) = (silent_clerk().await, Folder::new());
    let gateway = "gateway:\n  listen_address: 127.0.0.1:0\n  policies: { retry: off, coalesce: off, cache: off, batch: off, pace: off }\n";
    let exporter = Exporter::with_config(&write(&folder, &clerk, &format!("{TELEMETRY}{gateway}")), &[]).await;
    let (gateway, telemetry) = (exporter.gateway().await, exporter.telemetry().await);
    exporter.until("clerk_probe_last_success_timestamp_seconds", &[], |_| true).await;
    // Through the gateway: the application's span is one to the gateway.
    for _ in 0..3 {
        let headers = format!("Authorization: Bearer {KEY}\r\n");
        assert_eq!(request(gateway, "GET", "/v1/users/count", &headers).await.status, 200);
        let url = format!("http://{gateway}/v1/users/count");
        send_calls(telemetry, "shop", [Call { url, ..Call::look_up() }]).await;
    }
    // Straight to Clerk: a framework's span, the SDK's and a sidecar's, each the parent of the next, in two orders.
    for is_outer_first in [true, false] {
        let headers = format!("Authorization: Bearer {KEY}\r\n");
        assert_eq!(request(clerk.web.address, "GET", "/v1/users/count", &headers).await.status, 200);
        let url = format!("https://{HOST}/v1/users/count");
        let (outer, id) = Call { url: url.clone(), ..Call::look_up() }.span();
        let (middle, inner_parent) = Call { url: url.clone(), parent: Some(&id), ..Call::look_up() }.span();
        let (inner, _) = Call { url, parent: Some(&inner_parent), ..Call::look_up() }.span();
        let mut spans = vec![outer, middle, inner];
        if !is_outer_first {
            spans.reverse();
        }
        for span in spans {
            send(telemetry, "shop", "production", vec![span]).await;
        }
    }
    let sent = clerk.requests();
    assert_eq!(sent, 6, "a probe, three through the gateway, two without");
    eventually("each call once", async || {
        let metrics = exporter.metrics().await;
        let of = |source: &str| {
            let is_it = |sample: &&Sample| {
                sample.name == "clerk_ratelimit_requests_total"
                    && sample.labels.get("source").is_some_and(|it| it == source)
            };
            metrics.samples.iter().filter(is_it).map(|sample| sample.value).sum::<f64>()
        };
        (["probe", "gateway", "telemetry"].map(of) == [1.0, 3.0, 2.0]).then_some(())
    })
    .await;
    let spans = |result| [("result", result)];
    let metrics = exporter.metrics().await;
    for (result, count) in [("accepted", 2.0), ("nested", 4.0), ("other_host", 3.0), ("malformed", 0.0)] {
        assert_eq!(metrics.value("clerk_telemetry_spans_total", &spans(result)), Some(count), "{result}");
    }
}

#[tokio::test]
async fn a_reload_changes_which_spans_belong_to_an_instance() {
    let (clerk, folder) = (silent_clerk().await, Folder::new());
    let exporter = Exporter::with_config(&write(&folder, &clerk, TELEMETRY), &[]).await;
    let telemetry = exporter.telemetry().await;
    send(telemetry, "shop", "preview", vec![Call::look_up().span().0]).await;
    exporter.until("clerk_ratelimit_requests_total", &[("source", "telemetry")], |requests| requests == 1.0).await;
    write(&folder, &clerk, &format!("{TELEMETRY}  instances: {{ production: prod }}\n  complete: [prod]\n"));
    exporter.signal("HUP").await;
    exporter.until("clerk_telemetry_complete", &[("clerk_instance", "prod")], |complete| complete == 1.0).await;
    send(telemetry, "shop", "preview", vec![Call::look_up().span().0]).await;
    exporter.until("clerk_telemetry_spans_total", &[("result", "unattributed")], |spans| spans == 1.0).await;
    send(telemetry, "shop", "production", vec![Call::look_up().span().0]).await;
    exporter.until("clerk_ratelimit_requests_total", &[("source", "telemetry")], |requests| requests == 2.0).await;
    let ports = write(&folder, &clerk, &TELEMETRY.replace(":0", ":1"));
    assert!(ports.exists());
    exporter.signal("HUP").await;
    eventually("a warning", async || exporter.output().contains("change only on restart").then_some(())).await;
}

#[tokio::test]
async fn a_port_with_passwords_takes_no_spans_without_one() {
    let (clerk, folder) = (silent_clerk().await, Folder::new());
    // The password is `test`.
    let users = "basic_auth_users: { a: $2b$12$hNf2lSsxfm0.i4a.1kVpSOVyBCfIB51VRjgBUyv6kdnyTlgWj81Ay }\n";
    folder.write("web.yml", users);
    let config = write(&folder, &clerk, &format!("{TELEMETRY}  web_config_file: web.yml\n"));
    let exporter = Exporter::with_config(&config, &[]).await;
    let telemetry = exporter.telemetry().await;
    assert_eq!(post_json(telemetry, "/v1/traces", "{}").await.status, 401);
    let allowed = "Authorization: Basic YTp0ZXN0\r\nContent-Type: application/json\r\nContent-Length: 2\r\n";
    let page = request(telemetry, "POST", "/v1/traces", &format!("{allowed}\r\n{{}}")).await;
    assert!(page.status == 200, "{page:?}");
}
