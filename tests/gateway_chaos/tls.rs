//! Failures behind TLS, with HTTP/1.1, or with HTTP/2, whose streams share one connection and fail together.

use clerk_exporter::gateway::InstancePolicies;

use crate::account::{Account, Outcome, ask_all};
use crate::chaos::{Chaos, ChaosProxy};
use crate::upstream::{BROKEN, MANY, TIMEOUT, UNREACHABLE, both, is_one_of, lists, recovers};
use crate::world::{Clerk, Running, hasty, trusting};

/// Byte counts within the server's part of the handshake, and after it within the body of a list.
const IN_THE_HANDSHAKE: usize = 500;
const IN_THE_BODY: usize = 20_000;

const ANY: &[(u16, &str)] = &[UNREACHABLE, BROKEN, TIMEOUT];

async fn start(proxy: &ChaosProxy, http2: bool, plan: InstancePolicies) -> Running {
    // The certificate is for this name.
    let url = proxy.url().replace("http://127.0.0.1", "https://localhost");
    Running::start_over(&trusting(http2), &url, plan, None).await
}

/// During the failure no request hangs, and no truncated response looks complete; afterwards requests succeed again.
async fn breaks(chaos: Chaos, http2: bool, may_be_cut: bool) {
    for policies in both() {
        let clerk = Clerk::start_secure().await;
        let proxy = ChaosProxy::start(clerk.web.address, chaos);
        let gateway = start(&proxy, http2, hasty(policies)).await;
        let account = lists(&gateway, &clerk).await;
        let is_allowed = |outcome: &Outcome| is_one_of(outcome, ANY) || (may_be_cut && *outcome == Outcome::Cut);
        account.holds_only(MANY, is_allowed, &format!("{chaos:?}, http2: {http2}, {policies:?}"));
        recovers(&proxy, &gateway, &clerk).await;
    }
}

#[tokio::test]
async fn tls_requests_succeed_without_faults() {
    for http2 in [false, true] {
        for policies in both() {
            let clerk = Clerk::start_secure().await;
            let proxy = ChaosProxy::start(clerk.web.address, Chaos::Pass);
            let gateway = start(&proxy, http2, InstancePolicies { policies, ..InstancePolicies::default() }).await;
            let is_right = |account: &Account| account.holds_only(MANY, |outcome| *outcome == Outcome::Right, "tls");
            is_right(&lists(&gateway, &clerk).await);
            is_right(&ask_all(gateway.address, (0..MANY).map(|number| clerk.write(number))).await);
            assert_eq!(clerk.count(), 2 * MANY);
        }
    }
}

#[tokio::test]
async fn broken_or_stalled_handshake_is_an_error() {
    for chaos in [
        Chaos::Refuse,
        Chaos::CutAfter(0),
        Chaos::CutAfter(IN_THE_HANDSHAKE),
        Chaos::ResetAfter(IN_THE_HANDSHAKE),
        Chaos::StallAfter(IN_THE_HANDSHAKE),
    ] {
        for http2 in [false, true] {
            breaks(chaos, http2, false).await;
        }
    }
}

#[tokio::test]
async fn broken_tls_connection_visibly_ends_the_response() {
    for chaos in [Chaos::CutAfter(IN_THE_BODY), Chaos::ResetAfter(IN_THE_BODY), Chaos::StallAfter(IN_THE_BODY)] {
        for http2 in [false, true] {
            breaks(chaos, http2, true).await;
        }
    }
}

#[tokio::test]
async fn write_over_tls_is_sent_once_on_any_failure() {
    // Around the end of the handshake and the start of the responses.
    for bytes in [0, 1000, 2000, 3000, 4000] {
        for http2 in [false, true] {
            for policies in both() {
                let clerk = Clerk::start_secure().await;
                let proxy = ChaosProxy::start(clerk.web.address, Chaos::CutAfter(bytes));
                let gateway = start(&proxy, http2, hasty(policies)).await;
                let account = ask_all(gateway.address, (0..MANY).map(|number| clerk.write(number))).await;
                let what = format!("cut after {bytes}, http2: {http2}");
                let is_allowed =
                    |outcome: &Outcome| is_one_of(outcome, ANY) || matches!(outcome, Outcome::Right | Outcome::Cut);
                account.holds_only(MANY, is_allowed, &what);
                clerk.holds_each_once(&what);
            }
        }
    }
}
