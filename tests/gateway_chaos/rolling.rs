//! Two gateways are replaced one after the other, behind a load balancer that looks whether they are ready.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::account::{Account, Outcome};
use crate::exporter::{eventually, request};
use crate::front::Front;
use crate::signals::{OFF, ROOMY, WORKERS, all_of, load, unhurried};

/// Long enough for every client on a busy machine to get a response meanwhile, and to leave.
const DELAY: Duration = Duration::from_secs(4);

/// A request that begins so long before the ports may close must succeed: it reaches the gateway in time.
const IN_TRANSIT: Duration = Duration::from_secs(2);

/// How often the balancer looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

struct Backend {
    /// Of the gateway and of the exporter's pages.
    addresses: (SocketAddr, SocketAddr),
    is_ready: AtomicBool,
}

/// A balancer of connections. It sends new ones to the backends that are ready, and to another one if the first refuses.
struct Balancer {
    address: SocketAddr,
    backends: Arc<Mutex<Vec<Arc<Backend>>>>,
    _tasks: JoinSet<()>,
}

impl Balancer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let backends = Arc::new(Mutex::new(Vec::<Arc<Backend>>::new()));
        let mut tasks = JoinSet::new();
        let all = Arc::clone(&backends);
        tasks.spawn(async move {
            let mut clients = JoinSet::new();
            for turn in 0.. {
                let (client, _) = listener.accept().await.unwrap();
                let mut ready: Vec<_> =
                    all.lock().iter().filter(|it| it.is_ready.load(Ordering::SeqCst)).cloned().collect();
                let first = turn % ready.len().max(1);
                ready.rotate_left(first);
                clients.spawn(pass(client, ready));
            }
        });
        let all = Arc::clone(&backends);
        tasks.spawn(async move {
            loop {
                let looked_at = all.lock().clone();
                for backend in looked_at {
                    backend.is_ready.store(is_ready(backend.addresses.1).await, Ordering::SeqCst);
                }
                sleep(LOOK_EVERY).await;
            }
        });
        Self { address, backends, _tasks: tasks }
    }

    /// Replaces a backend, or adds one, and waits until it is used.
    async fn set(&self, place: usize, front: &Front) {
        let addresses = (front.address, front.exporter.address);
        let backend = Arc::new(Backend { addresses, is_ready: AtomicBool::new(false) });
        {
            let mut backends = self.backends.lock();
            if place < backends.len() {
                backends[place] = Arc::clone(&backend);
            } else {
                backends.push(Arc::clone(&backend));
            }
        }
        eventually("the backend is ready", async || backend.is_ready.load(Ordering::SeqCst).then_some(())).await;
    }
}

/// A process that has ended, or ends meanwhile, is not ready.
async fn is_ready(pages: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(pages).await else { return false };
    let request = "GET /-/ready HTTP/1.1\r\nHost: balancer\r\nConnection: close\r\n\r\n";
    let mut answer = Vec::new();
    stream.write_all(request.as_bytes()).await.is_ok()
        && stream.read_to_end(&mut answer).await.is_ok()
        && answer.starts_with(b"HTTP/1.1 200 ")
}

async fn pass(mut client: TcpStream, backends: Vec<Arc<Backend>>) {
    for backend in backends {
        if let Ok(mut server) = TcpStream::connect(backend.addresses.0).await {
            let _ = copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
}

#[tokio::test]
async fn replacing_gateways_one_by_one_fails_no_request() {
    let clerk = unhurried().await;
    let delay = format!("--web.shutdown-delay={}s", DELAY.as_secs());
    let url = clerk.web.url();
    let start = async || Front::with((&url, ROOMY, OFF), &[], &[&delay]).await;
    let mut fronts = [start().await, start().await];
    let balancer = Balancer::start().await;
    for (place, front) in fronts.iter().enumerate() {
        balancer.set(place, front).await;
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let workers = load(balancer.address, &clerk, &is_over);
    let mut closings = Vec::new();
    for (place, current) in fronts.iter_mut().enumerate() {
        let before = clerk.count();
        eventually("some load", async || (clerk.count() > before + 5 * WORKERS).then_some(())).await;
        let front = std::mem::replace(current, start().await);
        let signalled = Instant::now();
        front.exporter.signal("TERM").await;
        // At once, and the gateway serves on.
        let pages = front.exporter.address;
        eventually("it is not ready", async || {
            let page = request(pages, "GET", "/-/ready", "").await;
            (page.status == 503 && page.text() == "Not ready: shutting down\n").then_some(())
        })
        .await;
        let (status, log) = front.exporter.ended().await;
        assert!(status.success(), "{log}");
        assert!(log.contains("not ready any more") && !log.contains("closed connections whose"), "{log}");
        assert!(signalled.elapsed() >= DELAY, "it closes its ports after the delay");
        closings.push(signalled + DELAY);
        balancer.set(place, current).await;
    }
    is_over.store(true, Ordering::SeqCst);
    let all = all_of(workers).await;
    let (mut account, arrivals) = (Account::default(), clerk.arrivals());
    for (from, ask, outcome) in all {
        // A connection that is idle for the whole delay may be closed while its client begins to use it.
        let is_excused = outcome == Outcome::Nothing && closings.iter().any(|at| from + IN_TRANSIT >= *at);
        assert!(outcome == Outcome::Right || is_excused, "{} {}: {outcome:?}", ask.method, ask.target);
        let target = format!("{} {}", ask.method, ask.target);
        let arrived = arrivals.iter().filter(|arrival| **arrival == target).count();
        assert_eq!(arrived, usize::from(outcome == Outcome::Right), "{target}: {outcome:?}");
        account.add(outcome);
    }
    assert!(account.of(&Outcome::Right) > 20 * WORKERS, "{account:?}");
}
