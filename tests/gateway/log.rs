//! What is logged of requests: a line each, without a key and without a path.

use std::cell::RefCell;
use std::io::Write;
use std::sync::{Arc, Once};

use clerk_exporter::gateway::{Plan, Policies, Switch};
use clerk_exporter::simulator::Simulator;
use clerk_exporter::upstream::{MemoryUpstream, Upstream};
use http::Request;
use http_body_util::{BodyExt, Empty};
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::common::{self, KEY};
use crate::support::{Setup, TOKEN, World};

thread_local! {
    /// What was logged by this thread, once it listens. A subscriber for each test would miss lines: whether a line is
    /// wanted at all is remembered for the whole process.
    static LOG: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

struct Writer;

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.with_borrow_mut(|log| {
            if let Some(log) = log {
                log.extend_from_slice(bytes);
            }
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Keeps what this thread logs from now on, at every level.
fn listen() {
    static START: Once = Once::new();
    START.call_once(|| {
        let wanted = dynamic_filter_fn(|_, _| LOG.with_borrow(Option::is_some));
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(|| Writer).with_filter(wanted);
        tracing_subscriber::registry().with(lines).init();
    });
    LOG.set(Some(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_request_is_one_line_that_names_nobody() {
    listen();
    let simulator = Simulator::new(common::simulator(1));
    let upstream: Arc<dyn Upstream> = MemoryUpstream::new(simulator.router());
    let all = Policies { retry: Switch::On, pace: Switch::On, ..Policies::default() };
    let plan = Plan { policies: all, ..Plan::default() };
    let world = World::new(&upstream, "http://clerk.test", Setup { plan, ..Setup::default() });
    for (path, token) in
        [("/v1/users/user_CANARY?email=CANARY", KEY), ("/v1/CANARY", TOKEN), ("/v1/x", "sk_live_CANARY")]
    {
        let request = Request::get(path).header("host", "gateway").header("authorization", format!("Bearer {token}"));
        let answer = world.gateway.handle(request.body(Empty::<bytes::Bytes>::new()).unwrap()).await;
        answer.into_body().collect().await.unwrap();
    }
    let log = LOG.with_borrow(|log| String::from_utf8(log.clone().unwrap()).unwrap());
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("clerk_exporter::gateway")).collect();
    assert_eq!(lines.len(), 3, "{log}");
    for part in ["DEBUG", "clerk_instance=\"test\"", "route=\"/v1/users/{user_id}\"", "method=\"GET\"", "status=404"] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
    assert!(lines[1].contains("caller=\"billing\""), "{}", lines[1]);
    assert!(lines[2].contains("clerk_instance=\"other\""), "{}", lines[2]);
    let of_ours: Vec<&str> = log.lines().filter(|line| line.contains("clerk_exporter")).collect();
    assert!(of_ours.iter().all(|line| !line.contains("CANARY")), "{log}");
}
