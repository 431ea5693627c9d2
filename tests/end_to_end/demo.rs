//! The demo, which users try first.

use std::time::Duration;

use crate::client;
use clerk_test_support::process::Process;

use crate::clerk_exporter;
use crate::run::Run;

#[tokio::test]
async fn demo_prints_its_addresses_and_its_numbers_change() {
    let run = Run::new(Duration::from_secs(60));
    let mut demo = Process::start(clerk_exporter().args([
        "demo",
        "--web.listen-address=127.0.0.1:0",
        "--simulator.listen-address=127.0.0.1:0",
        "--gateway.listen-address=127.0.0.1:0",
        "--probe.interval=1",
    ]));
    let url = |name: &'static str| move |line: &str| Some(line.strip_prefix(name)?.trim().to_owned());
    let page = demo.line(url("Landing page:")).await;
    let metrics = demo.line(url("Metrics:")).await;
    let clerk = demo.line(url("Simulated Clerk:")).await;
    let record = demo.line(url("Its own record:")).await;
    run.say(&format!("{metrics} watches {clerk}"));

    assert!(get(&page).await.contains("development"));
    let used = async || get(&record).await.contains("\"least_remaining\"").then_some(());
    run.until("the simulated Clerk is used", used).await;
    for instance in ["development", "production"] {
        let left = format!("clerk_ratelimit_remaining{{clerk_instance=\"{instance}\",bucket=\"instance\"}} ");
        let value = async || value(&get(&metrics).await, &left);
        let first = run.until(&format!("{instance} has a quota"), value).await;
        run.until(&format!("{instance}'s quota moves"), async || value().await.filter(|left| *left != first)).await;
    }

    assert!(demo.terminate().await.success(), "{}", demo.output());
    run.say("ended");
}

async fn get(url: &str) -> String {
    client().get(url).send().await.unwrap().error_for_status().unwrap().text().await.unwrap()
}

fn value(metrics: &str, series: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.parse().ok())
}
