//! Clerk rejects most requests.

use clerk_exporter::gateway::{InstancePolicies, Mode};
use clerk_simulator::{Fault, FaultBody, FaultRule, Faults};

use crate::account::{Outcome, ask_all};
use crate::world::{Clerk, LIMIT, Running, hasty, policies};

const MANY: usize = 200;

/// Rejects this share of the requests.
fn storm(clerk: &Clerk, probability: f64, retry_after: Option<&str>) {
    let fault = Fault::Throttled { retry_after: retry_after.map(ToOwned::to_owned), body: FaultBody::Clerk };
    let rules = vec![FaultRule { probability, ..fault.always() }];
    clerk.simulator.set_faults(Faults { rules, ..Faults::default() }).unwrap();
}

#[tokio::test]
async fn storm_of_429_is_answered_with_bounded_retries() {
    assert!(LIMIT.requests > 10 * MANY as u64, "no 429 except those of the storm");
    for retry_after in [Some("0"), None, Some("soon")] {
        for (probability, pace) in [(0.5, Mode::Off), (1.0, Mode::Off), (1.0, Mode::On)] {
            let clerk = Clerk::start().await;
            storm(&clerk, probability, retry_after);
            let policies = policies(Mode::On, Mode::On, Mode::Off, pace);
            let plan = InstancePolicies { retry: hasty(policies).retry, policies, ..InstancePolicies::default() };
            let gateway = Running::start(&clerk.web.url(), plan, None).await;
            let account = ask_all(gateway.address, (0..MANY).map(|number| clerk.look_up(number))).await;
            let is_429 = |outcome: &Outcome| match outcome {
                Outcome::Error(429, code, decision) => {
                    code == "too_many_requests" && ["", "retried", "queued", "shed"].contains(&decision.as_str())
                }
                _ => false,
            };
            let what = format!("{probability} {pace:?} {retry_after:?}");
            account.holds_only(MANY, |outcome| *outcome == Outcome::Right || is_429(outcome), &what);
            // A fifth of the requests, plus the initial budget and what is refilled during the test.
            let arrived = clerk.count();
            assert!(arrived <= MANY + MANY / 5 + 40, "{what}: {arrived} for {MANY}");
            clerk.simulator.set_faults(Faults::default()).unwrap();
        }
    }
}

#[tokio::test]
async fn retry_after_zero_causes_no_tight_loop() {
    let clerk = Clerk::start().await;
    storm(&clerk, 1.0, Some("0"));
    let policies = policies(Mode::On, Mode::Off, Mode::Off, Mode::On);
    let plan = InstancePolicies { retry: hasty(policies).retry, policies, ..InstancePolicies::default() };
    let gateway = Running::start(&clerk.web.url(), plan, None).await;
    let account = ask_all(gateway.address, [clerk.look_up(0)]).await;
    assert_eq!(account.of(&Outcome::Right), 0);
    assert!(clerk.count() <= 4, "one attempt and at most three repetitions: {}", clerk.count());
}
