//! The request log: one line per request, without keys and paths.

use std::sync::Arc;

use clerk_client::transport::{MemoryTransport, Transport};
use clerk_exporter::gateway::{InstancePolicies, Mode, RoutePolicies};
use clerk_simulator::Simulator;
use http::Request;
use http_body_util::{BodyExt, Empty};

use crate::support::{Setup, TOKEN, World};
use clerk_test_support::KEY;
use clerk_test_support::log::{everything, listen};

#[tokio::test(start_paused = true)]
async fn request_is_one_log_line_without_user_ids() {
    listen();
    let simulator = Simulator::new(clerk_test_support::simulator(1));
    let upstream: Arc<dyn Transport> = MemoryTransport::new(simulator.router());
    let all = RoutePolicies { retry: Mode::On, pace: Mode::On, ..RoutePolicies::default() };
    let plan = InstancePolicies { policies: all, ..InstancePolicies::default() };
    let world = World::new(&upstream, "http://clerk.test", Setup { plan, ..Setup::default() });
    for (path, token) in
        [("/v1/users/user_CANARY?email=CANARY", KEY), ("/v1/CANARY", TOKEN), ("/v1/x", "sk_live_CANARY")]
    {
        let request = Request::get(path).header("host", "gateway").header("authorization", format!("Bearer {token}"));
        let answer = world.gateway.handle(request.body(Empty::<bytes::Bytes>::new()).unwrap()).await;
        answer.into_body().collect().await.unwrap();
    }
    let log = everything();
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
