//! The SDKs call every route that the simulator has. The Python SDK's models are strict: a body with a field that is missing
//! or of the wrong type fails the call.

use std::collections::BTreeSet;

use clerk_simulator::{HeaderProfile, Options, SimulatedBucket, Simulator};

use crate::exporter::KEY;
use crate::{Clerk, Sdk, printed};

const MACHINE_KEY: &str = "ak_machineCANARY0123456789";

/// Routes that an SDK has no call for.
const WITHOUT_CALL: [(&str, &[&str]); 2] = [
    ("node", &["GET /v1/organizations/{organization_id}/invitations/pending"]),
    ("python", &["DELETE /v1/invitations/{invitation_id}"]),
];

/// Runs the program with an SDK. Returns the routes that it requested.
async fn requested(sdk: Sdk) -> BTreeSet<String> {
    let limits = SimulatedBucket::ALL.map(|bucket| format!("{bucket}=100000/1h").parse().unwrap());
    let keys = [KEY, MACHINE_KEY].map(|key| format!("dev={key}").parse().unwrap());
    let options = Options::default().headers(HeaderProfile::None).limits(limits.to_vec());
    let clerk = Clerk::with_keys(options, keys.to_vec()).await;
    let program = match sdk {
        Sdk::Node => "tests/sdk/node/simulated.mjs",
        Sdk::Python => "tests/sdk/python/simulated.py",
    };
    let mut command = sdk.program(program);
    command.env("CLERK_API_URL", clerk.url()).env("CLERK_SECRET_KEY", KEY).env("CLERK_MACHINE_SECRET_KEY", MACHINE_KEY);
    command.env("OAUTH_TOKEN", clerk.simulator.oauth_token(3).unwrap());
    let lines = printed(command).await;
    assert_eq!(lines, [serde_json::json!({ "done": true })]);
    let arrivals = clerk.renew();
    let routes = arrivals.iter().map(|(method, target, _)| {
        let path = target.split('?').next().unwrap();
        let route = Simulator::route_of(&method.parse().unwrap(), path);
        let route = route.unwrap_or_else(|| panic!("no route for {method} {target}"));
        format!("{} {}", route.method(), route.template())
    });
    routes.collect()
}

async fn requests_every_route(sdk: Sdk, name: &str) {
    let (_, without) = WITHOUT_CALL.iter().find(|(known, _)| *known == name).unwrap();
    let known = Simulator::routes().iter().map(|route| format!("{} {}", route.method(), route.template()));
    let expected: BTreeSet<String> = known.filter(|route| !without.contains(&route.as_str())).collect();
    let requested = requested(sdk).await;
    assert_eq!(requested, expected, "{name}");
}

#[tokio::test]
async fn node_sdk_accepts_the_responses_of_every_route() {
    requests_every_route(Sdk::Node, "node").await;
}

#[tokio::test]
async fn python_sdk_accepts_the_responses_of_every_route() {
    requests_every_route(Sdk::Python, "python").await;
}
