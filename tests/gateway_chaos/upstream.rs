//! Upstream failures of every kind that the proxy can inject.

use std::time::Duration;

use clerk_exporter::gateway::{InstancePolicies, Mode, RoutePolicies};

use crate::account::{Account, Outcome, ask, ask_all};
use crate::chaos::{Chaos, ChaosProxy, Down};
use crate::exporter::eventually;
use crate::world::{Clerk, Running, hasty, policies};

/// Number of concurrent requests.
pub(crate) const MANY: usize = 40;

/// Byte counts within any response head, and after it within the body of a list.
const IN_THE_HEAD: usize = 20;
const IN_THE_BODY: usize = 5_000;

/// The gateway without policies, and with retries and coalescing.
pub(crate) fn both() -> [RoutePolicies; 2] {
    [RoutePolicies::default(), policies(Mode::On, Mode::On, Mode::Off, Mode::Off)]
}

pub(crate) async fn lists(gateway: &Running, clerk: &Clerk) -> Account {
    ask_all(gateway.address, (0..MANY).map(|number| clerk.list(number))).await
}

pub(crate) fn is_one_of(outcome: &Outcome, codes: &[(u16, &str)]) -> bool {
    match outcome {
        Outcome::Error(status, code, decision) => codes.contains(&(*status, code)) && decision == "failed",
        _ => false,
    }
}

/// During the failure no request hangs; afterwards requests succeed again without a restart.
async fn breaks(chaos: Chaos, allowed: &[(u16, &str)], may_be_cut: bool) {
    for policies in both() {
        let clerk = Clerk::start().await;
        let proxy = ChaosProxy::start(clerk.web.address, chaos);
        let gateway = Running::start(&proxy.url(), hasty(policies), None).await;
        let account = lists(&gateway, &clerk).await;
        let is_allowed = |outcome: &Outcome| is_one_of(outcome, allowed) || (may_be_cut && *outcome == Outcome::Cut);
        account.holds_only(MANY, is_allowed, &format!("{chaos:?} {policies:?}"));
        recovers(&proxy, &gateway, &clerk).await;
    }
}

/// Once the network works again, the gateway does, too.
pub(crate) async fn recovers(proxy: &ChaosProxy, gateway: &Running, clerk: &Clerk) {
    proxy.set(Chaos::Pass);
    proxy.hang_up();
    let list = clerk.list(MANY);
    eventually("a correct response again", async || {
        (ask(gateway.address, &list).await == Outcome::Right).then_some(())
    })
    .await;
}

pub(crate) const UNREACHABLE: (u16, &str) = (502, "gateway_upstream_unreachable");
pub(crate) const BROKEN: (u16, &str) = (502, "gateway_upstream_broken");
pub(crate) const TIMEOUT: (u16, &str) = (504, "gateway_upstream_timeout");

#[tokio::test]
async fn slow_clerk_is_awaited_and_responses_are_correct() {
    for policies in both() {
        let clerk = Clerk::start().await;
        let drip = Chaos::Drip { bytes: 16 * 1024, every: Duration::from_millis(1) };
        let proxy = ChaosProxy::start(clerk.web.address, drip);
        let gateway =
            Running::start(&proxy.url(), InstancePolicies { policies, ..InstancePolicies::default() }, None).await;
        lists(&gateway, &clerk).await.holds_only(MANY, |outcome| *outcome == Outcome::Right, "drip");
    }
}

#[tokio::test]
async fn stall_before_or_within_the_head_is_a_timeout() {
    for bytes in [0, IN_THE_HEAD] {
        breaks(Chaos::StallAfter(bytes), &[TIMEOUT], false).await;
    }
}

#[tokio::test]
async fn stall_within_the_body_visibly_ends_the_response() {
    breaks(Chaos::StallAfter(IN_THE_BODY), &[BROKEN, TIMEOUT], true).await;
}

#[tokio::test]
async fn break_before_or_within_the_head_is_upstream_broken() {
    for bytes in [0, IN_THE_HEAD] {
        breaks(Chaos::ResetAfter(bytes), &[BROKEN, TIMEOUT], false).await;
        breaks(Chaos::CutAfter(bytes), &[BROKEN, TIMEOUT], false).await;
    }
}

#[tokio::test]
async fn break_within_the_body_visibly_ends_the_response() {
    breaks(Chaos::ResetAfter(IN_THE_BODY), &[BROKEN, TIMEOUT], true).await;
    breaks(Chaos::CutAfter(IN_THE_BODY), &[BROKEN, TIMEOUT], true).await;
}

#[tokio::test]
async fn immediately_reset_connections_are_an_error() {
    breaks(Chaos::Refuse, &[UNREACHABLE, BROKEN, TIMEOUT], false).await;
}

#[tokio::test]
async fn clerk_that_is_down_is_unreachable_and_recovers() {
    for policies in both() {
        let clerk = Clerk::start().await;
        let down = Down::before(clerk.web.address);
        let url = format!("http://{}", down.address());
        let gateway = Running::start(&url, InstancePolicies { policies, ..hasty(policies) }, None).await;
        let is_allowed = |outcome: &Outcome| is_one_of(outcome, &[UNREACHABLE, TIMEOUT]);
        lists(&gateway, &clerk).await.holds_only(MANY, is_allowed, "down");
        assert_eq!(clerk.count(), 0);
        let proxy = down.up(Chaos::Pass);
        let list = clerk.list(MANY);
        eventually("a correct response again", async || {
            (ask(gateway.address, &list).await == Outcome::Right).then_some(())
        })
        .await;
        drop(proxy);
    }
}

#[tokio::test]
async fn reads_with_retries_survive_random_breaks() {
    let clerk = Clerk::start().await;
    // Sequentially: some of the connections break, most do not.
    let proxy = ChaosProxy::start(clerk.web.address, Chaos::Pass);
    proxy.next([Chaos::Refuse, Chaos::CutAfter(0), Chaos::ResetAfter(IN_THE_HEAD), Chaos::CutAfter(IN_THE_HEAD)]);
    let policies = policies(Mode::On, Mode::On, Mode::Off, Mode::Off);
    let plan = InstancePolicies { retry: hasty(policies).retry, policies, ..InstancePolicies::default() };
    let gateway = Running::start(&proxy.url(), plan, None).await;
    lists(&gateway, &clerk).await.holds_only(MANY, |outcome| *outcome == Outcome::Right, "some break");
}

#[tokio::test]
async fn write_is_sent_once_if_its_response_is_lost() {
    for chaos in
        [Chaos::CutAfter(0), Chaos::ResetAfter(IN_THE_HEAD), Chaos::StallAfter(0), Chaos::CutAfter(IN_THE_HEAD)]
    {
        for policies in both() {
            let clerk = Clerk::start().await;
            let proxy = ChaosProxy::start(clerk.web.address, chaos);
            let gateway = Running::start(&proxy.url(), hasty(policies), None).await;
            let account = ask_all(gateway.address, (0..MANY).map(|number| clerk.write(number))).await;
            account.holds_only(MANY, |outcome| is_one_of(outcome, &[BROKEN, TIMEOUT]), &format!("{chaos:?}"));
            clerk.holds_each_once(&format!("{chaos:?}"));
        }
    }
}
