//! The Node SDK's verifications of tokens, through a gateway that keeps successes, in front of the simulated Clerk.

use clerk_simulator::Options;
use serde_json::json;

use crate::exporter::KEY;
use crate::front::Front;
use crate::{Clerk, ROOMY, Sdk, printed, url};

const MACHINE_KEY: &str = "ak_machineCANARY0123456789";

/// How often each token is presented at once, and then one after the other.
const TIMES: usize = 40;

#[tokio::test]
async fn each_token_costs_one_verification_until_it_is_revoked() {
    let keys = vec![format!("a={KEY}").parse().unwrap(), format!("a={MACHINE_KEY}").parse().unwrap()];
    let clerk = Clerk::with_keys(Options::default().limits(vec!["instance=10000/10s".parse().unwrap()]), keys).await;
    let machines = format!("{ROOMY}, machine_secret_key_files: [machine]");
    for (mode, expected) in [("on", 2), ("off", 2 * TIMES + 1)] {
        clerk.renew();
        let lines = format!("policies: {{ verify: {mode} }}");
        let gateway = Front::with_files(&clerk.url(), &machines, &lines, &[("machine", MACHINE_KEY)]).await;
        let mut command = Sdk::Node.program("tests/sdk/node/verify.mjs");
        command.arg(TIMES.to_string()).envs([("CLERK_API_URL", &*url(&gateway)), ("CLERK_SECRET_KEY", KEY)]);
        command.env("CLERK_MACHINE_SECRET_KEY", MACHINE_KEY);
        let answer = |kind| json!({ "kind": kind, "tokens": 1, "valid": 2 * TIMES, "revokedAfterwards": true });
        assert_eq!(printed(command).await, [answer("api_key"), answer("m2m_token")], "verify: {mode}");
        let arrived = clerk.renew();
        for path in ["/api_keys/verify", "/m2m_tokens/verify"] {
            let sent =
                arrived.iter().filter(|(method, target, _)| (method.as_str(), target.as_str()) == ("POST", path));
            assert_eq!(sent.count(), expected, "{path}, verify: {mode}");
        }
        let labels = [("clerk_instance", "prod"), ("by", "verify")];
        let saved = if mode == "on" { 2.0 * (2.0 * TIMES as f64 - 1.0) } else { 0.0 };
        gateway.exporter.until("clerk_gateway_saved_requests_total", &labels, |count| count == saved).await;
    }
}
