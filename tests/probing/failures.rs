//! Unusable responses, and servers in front of Clerk.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use clerk_client::transport::{ErrorKind, MemoryTransport, RequestBody, ResponseFuture, Transport, TransportError};
use clerk_quota::{ProbeFailure, ProbeSkip};
use clerk_simulator::{Fault, FaultBody, FaultRule, Simulator};

use crate::world::{INTERVAL, TICK, World, late, seconds};

fn page(status: u16, body: FaultBody) -> FaultRule {
    Fault::Status { status, body }.always()
}

#[tokio::test(start_paused = true)]
async fn failure_has_its_reason_and_the_next_probe_recovers() {
    let cases = [
        (page(500, FaultBody::Clerk), ProbeFailure::Status),
        (page(503, FaultBody::Html), ProbeFailure::Status),
        (page(521, FaultBody::Empty), ProbeFailure::Status),
        (page(404, FaultBody::Html), ProbeFailure::Status),
        (page(200, FaultBody::Html), ProbeFailure::UnexpectedContent),
        (page(200, FaultBody::Empty), ProbeFailure::Decode),
        (Fault::Redirect { location: "https://login.example/".into() }.always(), ProbeFailure::Redirect),
        (Fault::Redirect { location: "/v1/users/count".into() }.always(), ProbeFailure::Redirect),
        (Fault::Reset { after_bytes: 0 }.always(), ProbeFailure::Connect),
        (late(seconds(6)), ProbeFailure::Timeout),
    ];
    for (fault, reason) in cases {
        let world = World::new();
        world.pass(seconds(1)).await;
        let before = (world.bucket().limit, world.bucket().sampled_at);
        world.fault(fault.clone());
        world.pass(TICK + seconds(5)).await;
        let snapshot = world.snapshot();
        assert_eq!(world.failed(reason), 1, "{fault:?}: {:?}", snapshot.probes.failures);
        assert_eq!(snapshot.probes.failures.iter().sum::<u64>(), 1, "{fault:?}");
        assert_eq!(snapshot.up, Some(false), "{fault:?}");
        assert_eq!(snapshot.key_valid, Some(true), "{fault:?}: the key's state is unchanged");
        assert_eq!((world.bucket().limit, world.bucket().sampled_at), before, "{fault:?}: the quota is unchanged");
        assert_eq!(world.bucket().exhausted_windows, 0, "{fault:?}");
        world.no_fault();
        world.pass(INTERVAL).await;
        assert_eq!(world.snapshot().up, Some(true), "{fault:?}: no recovery");
        assert!(world.snapshot().probes.last_success > snapshot.probes.last_success);
        world.stopped().await;
    }
}

/// The head is from Clerk, so that its headers count; the body is not.
#[tokio::test(start_paused = true)]
async fn oversized_body_is_not_read() {
    let mut memory_upstream_decodes_nothing = Fault::HugeBody { bytes: 1 << 30 }.always();
    memory_upstream_decodes_nothing.counted = Some(false);
    let world = World::with_fault(memory_upstream_decodes_nothing);
    world.pass(seconds(1)).await;
    assert_eq!(world.failed(ProbeFailure::UnexpectedContent) + world.failed(ProbeFailure::BodyTooLarge), 1);
    assert_eq!(world.snapshot().up, Some(false));
    world.no_fault();
    world.pass(TICK).await;
    assert_eq!(world.snapshot().up, Some(true));
}

#[tokio::test(start_paused = true)]
async fn broken_connection_within_the_body_is_a_failure() {
    let world = World::with_fault(Fault::Reset { after_bytes: 10 }.always());
    world.pass(seconds(1)).await;
    assert_eq!(world.failed(ProbeFailure::Connect), 1, "{:?}", world.snapshot().probes.failures);
    assert_eq!(world.snapshot().up, Some(false));
}

/// A body of one byte a second that never ends.
struct Drip(Pin<Box<tokio::time::Sleep>>);

impl http_body::Body for Drip {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        std::task::ready!(self.0.as_mut().poll(context));
        self.0 = Box::pin(tokio::time::sleep(seconds(1)));
        Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(b" ")))))
    }
}

fn dripping() -> Arc<dyn Transport> {
    let router = Router::new().fallback(async || {
        let body = Body::new(Drip(Box::pin(tokio::time::sleep(seconds(1)))));
        ([(CONTENT_TYPE, "application/json")], body)
    });
    MemoryTransport::new(router)
}

#[tokio::test(start_paused = true)]
async fn deadline_applies_to_endless_bodies() {
    let world = World::over(Simulator::new(clerk_test_support::simulator(1)), dripping(), |_| {});
    world.pass(Duration::from_millis(4900)).await;
    assert_eq!(world.made(), 0);
    world.pass(Duration::from_millis(200)).await;
    assert_eq!((world.made(), world.failed(ProbeFailure::Timeout)), (1, 1));
    assert_eq!(world.snapshot().up, Some(false));
    assert_eq!(world.snapshot().probes.duration_seconds.count(), 1);
    world.stopped().await;
}

/// A transport that fails like the network.
#[derive(Debug)]
struct Broken(ErrorKind);

impl Transport for Broken {
    fn send(&self, _: http::Request<RequestBody>) -> ResponseFuture {
        let error = TransportError::new(self.0, "broken for the test".to_owned());
        Box::pin(std::future::ready(Err(error)))
    }
}

#[tokio::test(start_paused = true)]
async fn transport_failures_have_reasons() {
    for (kind, reason) in [
        (ErrorKind::Dns, ProbeFailure::Dns),
        (ErrorKind::Connect, ProbeFailure::Connect),
        (ErrorKind::Broken, ProbeFailure::Connect),
        (ErrorKind::Tls, ProbeFailure::Tls),
        (ErrorKind::Decode, ProbeFailure::Decode),
        (ErrorKind::Other, ProbeFailure::Other),
    ] {
        let world = World::over(Simulator::new(clerk_test_support::simulator(1)), Arc::new(Broken(kind)), |_| {});
        world.pass(seconds(1)).await;
        assert_eq!((world.made(), world.failed(reason)), (1, 1), "{kind:?}");
        assert_eq!((world.snapshot().up, world.snapshot().key_valid), (Some(false), None), "{kind:?}");
        assert_eq!(world.bucket().remaining, None);
    }
}

#[tokio::test(start_paused = true)]
async fn outage_is_probed_every_minute_and_recovery_takes_two() {
    let world = World::with_fault(page(503, FaultBody::Html));
    world.pass(seconds(3600)).await;
    let made = world.made();
    assert!((55..=130).contains(&made), "{made}");
    assert!(world.skipped(ProbeSkip::Backoff) > 60);
    world.no_fault();
    world.pass(seconds(120)).await;
    assert_eq!(world.snapshot().up, Some(true));
    // Probing is as frequent as before.
    let made = world.made();
    world.pass(INTERVAL * 20).await;
    assert!((19..=21).contains(&(world.made() - made)));
}

#[tokio::test(start_paused = true)]
async fn outage_removes_gauges_and_keeps_counters() {
    let world = World::new();
    world.pass(seconds(1)).await;
    world.fault(page(503, FaultBody::Html));
    world.pass(seconds(50)).await;
    let (snapshot, bucket) = (world.snapshot(), world.bucket());
    assert_eq!(bucket.remaining, None, "outdated");
    assert_eq!(bucket.limit, Some(100));
    assert_eq!(bucket.windows, 1);
    assert!(snapshot.probes.last_success.is_some() && snapshot.probes.total > 1);
}
