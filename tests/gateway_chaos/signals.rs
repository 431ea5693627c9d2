//! Signals to stop or to reload, while requests are in flight.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use clerk_simulator::{Fault, Faults};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::account::{Account, Ask, Outcome, ask};
use crate::exporter::{eventually, within};
use crate::front::Front;
use crate::world::Clerk;

pub(crate) const WORKERS: usize = 40;
pub(crate) const ROOMY: &str = "{ requests: 1000000, window: 10s }";
pub(crate) const OFF: &str = "policies: { retry: off, coalesce: off, cache: off, batch: off, pace: off }";

/// Delayed responses, so that requests are always in flight.
pub(crate) async fn unhurried() -> Arc<Clerk> {
    let clerk = Clerk::start().await;
    let rules = vec![Fault::Latency { millis: 50 }.always()];
    clerk.simulator.set_faults(Faults { rules, ..Faults::default() }).unwrap();
    Arc::new(clerk)
}

/// Consecutive requests on one connection, as SDKs send them.
struct Kept(Option<TcpStream>);

impl Kept {
    /// Sends a request, on a new connection if the previous one has ended.
    async fn ask(&mut self, address: SocketAddr, ask: &Ask) -> Outcome {
        let mut stream = match self.0.take() {
            Some(stream) => stream,
            None => match TcpStream::connect(address).await {
                Ok(stream) => stream,
                Err(_) => return Outcome::Refused,
            },
        };
        let _ = stream.write_all(&ask.bytes("keep-alive")).await;
        let mut bytes = Vec::new();
        // The responses here have a Content-Length.
        while !is_complete(&bytes) {
            match stream.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => return ask.judge(&bytes),
                Ok(_) => {}
            }
        }
        let is_last = String::from_utf8_lossy(&bytes).to_ascii_lowercase().contains("connection: close");
        self.0 = (!is_last).then_some(stream);
        ask.judge(&bytes)
    }
}

fn is_complete(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    match head.split_once("content-length: ") {
        Some((_, length)) => {
            let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
            bytes.len() >= end + 4 + length
        }
        None => bytes.ends_with(b"0\r\n\r\n"),
    }
}

/// When a request began, and what became of it.
pub(crate) type Asked = (Instant, Ask, Outcome);

/// Sends requests until told to stop or until the port is closed. Half of the workers reuse connections. Returns the
/// outcomes.
pub(crate) fn load(address: SocketAddr, clerk: &Arc<Clerk>, is_over: &Arc<AtomicBool>) -> JoinSet<Vec<Asked>> {
    let number = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (clerk, is_over, number) = (Arc::clone(clerk), Arc::clone(is_over), Arc::clone(&number));
        workers.spawn(async move {
            let mut kept = Kept(None);
            let mut all = Vec::new();
            while !is_over.load(Ordering::SeqCst) {
                let number = number.fetch_add(1, Ordering::SeqCst);
                let one = if number % 5 == 0 { clerk.write(number) } else { clerk.look_up(number) };
                let from = Instant::now();
                let outcome = if worker % 2 == 0 {
                    ask(address, &one).await
                } else {
                    within("a request on a reused connection", kept.ask(address, &one)).await
                };
                let is_refused = outcome == Outcome::Refused;
                all.push((from, one, outcome));
                if is_refused {
                    break;
                }
            }
            all
        });
    }
    workers
}

pub(crate) async fn all_of(workers: JoinSet<Vec<Asked>>) -> Vec<Asked> {
    workers.join_all().await.into_iter().flatten().collect()
}

#[tokio::test]
async fn sigterm_under_load_loses_no_accepted_request() {
    let clerk = unhurried().await;
    let gateway = Front::start(&clerk.web.url(), ROOMY, OFF).await;
    let probes = clerk.count();
    let workers = load(gateway.address, &clerk, &Arc::default());
    eventually("some load", async || (clerk.count() > 10 * WORKERS).then_some(())).await;
    let (status, log) = gateway.exporter.stopped().await;
    let all = all_of(workers).await;
    assert!(status.success(), "{log}");
    assert!(!log.contains("were cut off"), "{log}");
    let arrivals = clerk.arrivals();
    let mut account = Account::default();
    for (_, ask, outcome) in all {
        let target = format!("{} {}", ask.method, ask.target);
        let arrived = arrivals.iter().filter(|arrival| **arrival == target).count();
        // Either it was answered, or it did not reach Clerk at all: then it can be sent to another gateway.
        let expected = usize::from(outcome == Outcome::Right);
        assert_eq!(arrived, expected, "{target}: {outcome:?}");
        account.add(outcome);
    }
    let is_allowed = |outcome: &Outcome| matches!(outcome, Outcome::Right | Outcome::Nothing | Outcome::Refused);
    account.holds_only(account.total(), is_allowed, "SIGTERM");
    assert_eq!(account.of(&Outcome::Right), arrivals.len() - probes);
    assert_eq!(account.of(&Outcome::Refused), WORKERS, "each worker continued until the port was closed");
}

#[tokio::test]
async fn sighup_under_load_loses_no_request() {
    let clerk = unhurried().await;
    let gateway = Front::start(&clerk.web.url(), ROOMY, OFF).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let workers = load(gateway.address, &clerk, &is_over);
    for reload in 1..=5 {
        let before = clerk.count();
        eventually("some load", async || (clerk.count() > before + WORKERS).then_some(())).await;
        let other = format!("max_wait: {reload}s\n{OFF}");
        gateway.configure(&clerk.web.url(), ROOMY, &other);
        gateway.exporter.signal("HUP").await;
        eventually("the new configuration", async || {
            (gateway.exporter.output().matches("configuration loaded").count() == reload).then_some(())
        })
        .await;
    }
    is_over.store(true, Ordering::SeqCst);
    let mut account = Account::default();
    for (_, _, outcome) in all_of(workers).await {
        account.add(outcome);
    }
    account.holds_only(account.total(), |outcome| *outcome == Outcome::Right, "SIGHUP");
}
