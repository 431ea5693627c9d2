//! The landing page with many instances: sorted by severity, with a summary, for any screen.

use std::fmt::Write as _;

use clerk_simulator::{Fault, FaultBody, HeaderProfile};

use crate::exporter::{Clerk, Exporter, Folder, eventually};

/// A key of a distinct instance.
fn key(number: usize) -> String {
    format!("sk_test_4bMbJyWZ2vnLx0aQ{number:02}CANARY")
}

/// The names in the order of the page.
fn names(html: &str) -> Vec<&str> {
    let rows = html.split("<tbody>").skip(1).filter_map(|row| row.split_once("<strong>")?.1.split_once("</strong>"));
    rows.map(|(name, _)| name).filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase())).collect()
}

#[tokio::test]
async fn landing_page_lists_worst_instances_first_with_a_summary() {
    let always = |fault: Fault| fault.always().into();
    let [refused, throttled, failing] = [Clerk::start().await, Clerk::start().await, Clerk::start().await];
    refused.simulator.set_faults(always(Fault::Status { status: 401, body: FaultBody::Clerk })).unwrap();
    failing.simulator.set_faults(always(Fault::Status { status: 503, body: FaultBody::Clerk })).unwrap();
    let limit = |text: &str| vec![text.parse().unwrap()];
    let options = Clerk::options;
    let fine = Clerk::with(options().limits(limit("instance=1000000/600s"))).await;
    // Low after its second probe.
    let low = Clerk::with(options().limits(limit("instance=500/600s"))).await;
    let unknown = Clerk::with(options().headers(HeaderProfile::None)).await;
    throttled
        .simulator
        .set_faults(always(Fault::Throttled { retry_after: Some("300".to_owned()), body: FaultBody::Clerk }))
        .unwrap();
    // Not in the order of the page: healthy instances between the others.
    let clerks =
        [("low", &low), ("unknown", &unknown), ("blocked", &throttled), ("failing", &failing), ("refused", &refused)];
    let mut config = String::from("low_threshold: 0.997\nprobe: { interval: 1s, when: always }\ninstances:\n");
    for number in 0..30 {
        let (name, clerk) = match number % 6 {
            0 if number > 0 => clerks[number / 6 % clerks.len()],
            _ => ("fine", &fine),
        };
        let _ = writeln!(
            config,
            "  - {{ name: {name}-{number}, secret_key: {}, api_url: \"{}\" }}",
            key(number),
            clerk.url()
        );
    }
    // The remainder of the division.
    config = config.replace("name: fine-29, ", "name: low-29, ").replace(
        &format!("{}, api_url: \"{}\"", key(29), fine.url()),
        &format!("{}, api_url: \"{}\"", key(29), low.url()),
    );
    let folder = Folder::new();
    let path = folder.write("clerk-exporter.yml", &config);
    let exporter = Exporter::with_config(&path, &[]).await;
    let html = eventually("all instances are probed", async || {
        let html = exporter.get("/").await.text();
        (!html.contains("not probed yet") && html.contains(">1 low<")).then_some(html)
    })
    .await;

    let kinds: Vec<&str> = names(&html).iter().map(|name| name.split('-').next().unwrap()).collect();
    assert_eq!(kinds.len(), 30, "{html}");
    let mut order = kinds.clone();
    order.dedup();
    assert_eq!(order, ["refused", "blocked", "failing", "low", "unknown", "fine"]);
    let count = |kind: &str| kinds.iter().filter(|found| **found == kind).count();
    let (_, summary) = html.split_once("<p class=\"summary\">").unwrap();
    let (summary, _) = summary.split_once("</p>").unwrap();
    let words: String = summary.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text)).collect();
    assert_eq!(
        words,
        format!(
            "30 instances: {} key refused, {} blocked, {} Clerk is failing, {} low, {} use unknown, {} fine",
            count("refused"),
            count("blocked"),
            count("failing"),
            count("low"),
            count("unknown"),
            count("fine")
        )
    );
}

#[tokio::test]
async fn landing_page_fits_any_screen_and_colour_scheme() {
    let clerk = Clerk::start().await;
    let exporter = Exporter::start(&[], &[("CLERK_SECRET_KEY", &key(0)), ("CLERK_API_URL", &clerk.url())]).await;
    let html = exporter.get("/").await.text();
    for part in [
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">",
        "<meta name=\"color-scheme\" content=\"light dark\">",
        "color-scheme:light dark",
        "@media(prefers-color-scheme:dark)",
        "@media(max-width:",
        "1 instance: ",
    ] {
        assert!(html.contains(part), "{part}: {html}");
    }
    // No element has a fixed width, except tiny ones; the widths of bars are percentages.
    for width in html.split("width:").skip(1) {
        let value = width.split([';', '}', ')', '"']).next().unwrap();
        let small = ["5px", "5rem", "13rem", "14rem", "60rem"];
        assert!(value.ends_with('%') || small.contains(&value) || value == "device-width, initial-scale=1", "{value}");
    }
    assert!(!html.contains("white-space:nowrap"));
    // Each cell that becomes a line on a narrow screen has a label.
    for label in ["Left of the limit", "Window resets", "Last 429", "Closed windows", "Last probe"] {
        assert!(html.contains(&format!("data-label=\"{label}\"")), "{label}");
    }
}
