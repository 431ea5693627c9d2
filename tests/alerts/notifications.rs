//! What a real Alertmanager sends to Slack and PagerDuty with the shipped configuration and templates.

use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::post;
use clerk_test_support::process::Process;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{read, root, rules, tools};

const DEADLINE: Duration = Duration::from_secs(60);
const DASHBOARD: &str =
    "https://grafana.example.org/d/clerk-instance?var-clerk_instance=prod&from=1700000000000&to=1700003600000";

/// The shipped configuration with its integrations enabled as its comment describes.
fn with_integrations() -> String {
    let text = read("deploy/alertmanager/alertmanager.yml");
    let (head, rest) = text.split_once("\nreceivers:\n").unwrap();
    let (receivers, tail) = rest.split_once("\n# An alert on the cause").unwrap();
    let receivers: Vec<_> = receivers.lines().map(|line| line.replacen("    # ", "    ", 1)).collect();
    format!("{head}\nreceivers:\n{}\n# An alert on the cause{tail}", receivers.join("\n"))
}

fn template_of_the_rules(alert: &str, annotation: &str) -> String {
    let rule = rules().into_iter().find(|rule| rule.alert.as_deref() == Some(alert)).unwrap();
    rule.annotations[annotation].clone()
}

/// An alert as Prometheus sends it.
fn alert(name: &str, severity: &str, caller: &str) -> Value {
    json!({
        "labels": {
            "alertname": name, "severity": severity, "clerk_instance": "prod", "bucket": "instance", "job": "clerk",
        },
        "annotations": {
            "summary": template_of_the_rules(name, "summary"),
            "description": "Clerk answered about 3 requests to bucket instance of instance prod with status 429.",
            "top_caller": format!("{caller} with GET /v1/users/{{user_id}} (90% of the requests seen in the last minute)"),
            "runbook_url": template_of_the_rules(name, "runbook_url"),
            "dashboard_url": DASHBOARD,
        },
    })
}

/// Fake Slack and PagerDuty endpoints, which record what they receive.
async fn sink() -> (String, mpsc::UnboundedReceiver<(String, Value)>, JoinSet<()>) {
    let (sender, received) = mpsc::unbounded_channel();
    let take = async |UrlPath(who): UrlPath<String>, State(sender): State<mpsc::UnboundedSender<_>>, body: String| {
        sender.send((who, serde_json::from_str(&body).unwrap())).unwrap();
        // PagerDuty responds with 202, which Slack's integration also accepts.
        StatusCode::ACCEPTED
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/{who}", post(take)).with_state(sender);
    let mut serving = JoinSet::new();
    serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, received, serving)
}

/// The configuration with these endpoints, without its waits. JSON is YAML.
fn configured(folder: &Path, url: &str) -> String {
    let mut config: Value = serde_saphyr::from_str(&with_integrations()).unwrap();
    for (file, content) in [("slack_url", format!("{url}/slack")), ("pagerduty_key", "0".repeat(32))] {
        std::fs::write(folder.join(file), content).unwrap();
    }
    config["templates"] = json!([root().join("deploy/alertmanager/clerk.tmpl")]);
    for receiver in config["receivers"].as_array_mut().unwrap() {
        for slack in receiver.get_mut("slack_configs").and_then(Value::as_array_mut).into_iter().flatten() {
            slack["api_url_file"] = json!(folder.join("slack_url"));
        }
        for pager in receiver.get_mut("pagerduty_configs").and_then(Value::as_array_mut).into_iter().flatten() {
            pager["routing_key_file"] = json!(folder.join("pagerduty_key"));
            pager["url"] = json!(format!("{url}/pagerduty"));
        }
    }
    config["route"]["group_wait"] = json!("1s");
    for route in config["route"]["routes"].as_array_mut().unwrap() {
        route["group_wait"] = json!("1s");
    }
    config.to_string()
}

#[tokio::test]
async fn slack_and_pagerduty_get_the_top_caller_and_the_links() {
    let (url, mut received, _serving) = sink().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("alertmanager.yml"), configured(folder.path(), &url)).unwrap();
    let mut alertmanager = Process::start(Command::new("prometheus-alertmanager").current_dir(folder.path()).args([
        "--config.file=alertmanager.yml",
        "--storage.path=data",
        "--web.listen-address=127.0.0.1:0",
        "--cluster.listen-address=",
    ]));
    let address = alertmanager.address().await;

    // One alert each: they do not inhibit each other, and the name of the second caller would mention a whole channel.
    let alerts = json!([
        alert("ClerkRateLimitThrottled", "critical", "import"),
        alert("ClerkGatewayRetryAmplification", "warning", "<!channel> & co"),
    ]);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.post(format!("http://{address}/api/v2/alerts")).header("content-type", "application/json");
    request.body(alerts.to_string()).send().await.unwrap().error_for_status().unwrap();

    let mut pager = None;
    let mut slack = None;
    while pager.is_none() || slack.is_none() {
        let next = timeout(DEADLINE, received.recv()).await;
        match next.unwrap_or_else(|_| panic!("nothing came: {}", alertmanager.output())).unwrap() {
            (who, body) if who == "pagerduty" => pager = Some(body),
            (_, body) => slack = Some(body),
        }
    }

    let pager = pager.unwrap();
    let payload = &pager["payload"];
    assert_eq!(payload["summary"], "[FIRING] prod: Clerk throttles requests (429).");
    assert_eq!((&payload["severity"], &payload["component"]), (&json!("critical"), &json!("prod")));
    assert_eq!(payload["class"], "ClerkRateLimitThrottled");
    let details = &payload["custom_details"];
    assert!(!details["description"].as_str().unwrap().contains("Most rejected"), "{details}");
    let caller = "import with GET /v1/users/{user_id} (90% of the requests seen in the last minute)";
    assert!(details["top_caller"].as_str().unwrap().starts_with(&format!("instance: {caller}")), "{details}");
    assert!(details["description"].as_str().unwrap().contains(&format!("\nTop caller: {caller}")), "{details}");
    let runbook = template_of_the_rules("ClerkRateLimitThrottled", "runbook_url");
    let links = json!([{ "text": "Runbook", "href": runbook }, { "text": "Dashboard", "href": DASHBOARD }]);
    assert_eq!((&pager["links"], &pager["client_url"]), (&links, &json!(DASHBOARD)));

    let slack = slack.unwrap();
    assert_eq!(slack["channel"], "#clerk");
    let attachment = &slack["attachments"][0];
    let summary = template_of_the_rules("ClerkGatewayRetryAmplification", "summary");
    assert_eq!(attachment["title"], format!("[FIRING] prod: {summary}"));
    assert_eq!((&attachment["title_link"], &attachment["color"]), (&json!(DASHBOARD), &json!("warning")));
    let text = attachment["text"].as_str().unwrap();
    let runbook = template_of_the_rules("ClerkGatewayRetryAmplification", "runbook_url");
    for part in [
        "bucket instance of instance prod",
        "*Top caller:* &lt;!channel&gt; &amp; co with GET /v1/users/{user_id} (90%",
        &format!("<{runbook}|Runbook>"),
        &format!("<{DASHBOARD}|Dashboard>"),
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("<!channel>"), "{text}");
}

#[test]
fn enabled_integrations_are_valid() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("alertmanager.yml"), with_integrations()).unwrap();
    std::fs::write(folder.path().join("clerk.tmpl"), read("deploy/alertmanager/clerk.tmpl")).unwrap();
    let config = folder.path().join("alertmanager.yml");
    let (good, text) = tools::run("amtool", &["check-config", config.to_str().unwrap()]);
    assert!(good && text.contains("1 templates"), "{text}");
    for receiver in ["pagerduty_configs", "slack_configs"] {
        assert!(with_integrations().contains(&format!("\n    {receiver}:\n")), "{receiver}");
    }
}

#[test]
fn every_template_renders() {
    let file = read("deploy/alertmanager/clerk.tmpl");
    let names: Vec<_> = file.split("{{ define \"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(names.len() >= 8, "{names:?}");
    let used = with_integrations();
    // The data of one alert in amtool's format; clerk.slack.escape takes a string.
    for name in names.iter().filter(|name| **name != "clerk.slack.escape") {
        let text = format!("--template.text={{{{ template \"{name}\" . }}}}");
        let glob = "--template.glob=deploy/alertmanager/clerk.tmpl";
        let (good, rendered) = tools::run("amtool", &["template", "render", glob, &text]);
        assert!(good, "{name}: {rendered}");
        let call = format!("template \"{name}\"");
        assert!(used.contains(&call) || file.contains(&call), "{name} is used nowhere");
    }
}

/// An alert of an instance called "default", from a Prometheus with these labels.
fn default_of(name: &str, severity: &str, labels: &[(&str, &str)]) -> Value {
    let mut alert = alert(name, severity, "import");
    alert["labels"]["clerk_instance"] = json!("default");
    for (label, value) in labels {
        alert["labels"][label] = json!(value);
    }
    alert
}

#[tokio::test]
async fn inhibition_applies_to_replicas_but_not_to_other_exporters() {
    let folder = tempfile::tempdir().unwrap();
    let mut config: Value = serde_saphyr::from_str(&read("deploy/alertmanager/alertmanager.yml")).unwrap();
    config["templates"] = json!([root().join("deploy/alertmanager/clerk.tmpl")]);
    std::fs::write(folder.path().join("alertmanager.yml"), config.to_string()).unwrap();
    let mut alertmanager = Process::start(Command::new("prometheus-alertmanager").current_dir(folder.path()).args([
        "--config.file=alertmanager.yml",
        "--storage.path=data",
        "--web.listen-address=127.0.0.1:0",
        "--cluster.listen-address=",
    ]));
    let address = alertmanager.address().await;
    // One team's exporter is throttled, which inhibits its low alert. All others are only low.
    let (throttled, low) = ("ClerkRateLimitThrottled", "ClerkRateLimitLow");
    let cases: [(&[(&str, &str)], bool); 6] = [
        (&[("job", "auth")], true),
        // From a rule that did not aggregate instance and pod away: a replica is not another exporter.
        (&[("job", "auth"), ("instance", "b:10429"), ("pod", "b")], true),
        (&[("job", "auth"), ("team", "payments")], true),
        (&[("job", "shop")], false),
        (&[("job", "auth"), ("cluster", "us")], false),
        (&[("job", "auth"), ("namespace", "staging")], false),
    ];
    let alerts: Vec<Value> = [default_of(throttled, "critical", &[("job", "auth")])]
        .into_iter()
        .chain(cases.iter().map(|(labels, _)| default_of(low, "warning", labels)))
        .collect();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{address}/api/v2/alerts");
    let request = client.post(&url).header("content-type", "application/json");
    request.body(json!(alerts).to_string()).send().await.unwrap().error_for_status().unwrap();
    let suppressed = async |labels: &[(&str, &str)]| {
        let text = client.get(&url).send().await.unwrap().text().await.unwrap();
        let known: Vec<Value> = serde_json::from_str(&text).unwrap();
        let expected = &default_of(low, "warning", labels)["labels"];
        let found = known.iter().find(|alert| &alert["labels"] == expected)?;
        Some(found["status"]["state"] == "suppressed")
    };
    // Inhibition takes effect shortly after the alerts arrive: wait until all states are as expected and stay so.
    timeout(DEADLINE, async {
        loop {
            let mut right = 0;
            for (labels, is_suppressed) in cases {
                right += usize::from(suppressed(labels).await == Some(is_suppressed));
            }
            if right == cases.len() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("not as expected: {}", alertmanager.output()));
}

#[test]
fn inhibitions_and_groups_compare_the_whole_identity() {
    let config: Value = serde_saphyr::from_str(&read("deploy/alertmanager/alertmanager.yml")).unwrap();
    let identity = ["job", "namespace", "cluster", "clerk_instance"];
    let has_all = |labels: &Value| {
        let labels: Vec<&str> = labels.as_array().unwrap().iter().map(|label| label.as_str().unwrap()).collect();
        identity.iter().all(|label| labels.contains(label)) && !labels.contains(&"instance") && !labels.contains(&"pod")
    };
    assert!(has_all(&config["route"]["group_by"]));
    for rule in config["inhibit_rules"].as_array().unwrap() {
        assert!(has_all(&rule["equal"]), "{rule}");
    }
}
