//! Pauses, against the simulator's record of what it received.

use std::time::Duration;

use clerk_client::limiter::{CallerShare, ShedReason};
use clerk_client::outbound::{ApiRequest, RequestOptions, SendError};
use clerk_quota::{CallerId, Source};
use clerk_simulator::HeaderProfile;
use clerk_test_support::{World, in_simulated_time};
use http::Method;
use tokio::time::sleep;

#[test]
fn paused_caller_sends_nothing() {
    in_simulated_time(async {
        let world = World::new(clerk_test_support::simulator(1).headers(HeaderProfile::None));
        let limiter = &world.outbound.limits.limiter;
        let until = world.outbound.clock.now().after(Duration::from_secs(60));
        limiter.set_shares(vec![CallerShare::new(CallerId(7), "import".into()).paused_until(until)]);
        let of = |caller: u16, path: &str| {
            let mut call = ApiRequest::new(Method::POST, path, Source::Client);
            call.caller = CallerId(caller);
            call
        };
        let patient = RequestOptions::default();
        // Whatever bucket counts the request.
        for path in ["/v1/users/count", "/v1/invitations", "/v1/users/user_1/ban"] {
            let refused = world.outbound.send(&of(7, path), &patient).await.unwrap_err();
            let SendError::Shed(shed) = refused else { panic!("{refused}") };
            assert_eq!((shed.reason, shed.retry_after), (ShedReason::CallerPaused, Duration::from_secs(60)));
            assert_eq!(shed.to_string(), "not sent: the caller is paused; try again in 1m");
        }
        assert_eq!(world.simulator.truth().requests.total, 0);
        assert!(world.outbound.send(&of(8, "/v1/users/count"), &patient).await.is_ok());
        sleep(Duration::from_secs(61)).await;
        assert!(world.outbound.send(&of(7, "/v1/users/count"), &patient).await.is_ok(), "it ends by itself");
    });
}
