//! Every request that the SDKs can make is a route of the catalogue, and so has a label, a bucket and policies of its own.

use std::collections::BTreeSet;

use clerk_quota::route::{self, OTHER};
use serde_json::Value;

use crate::Sdk;
use crate::exporter::run;

/// The requests that the catalogue does not know.
fn unknown(requests: &BTreeSet<String>) -> Vec<&str> {
    let is_unknown = |request: &&str| {
        let (method, path) = request.split_once(' ').unwrap();
        route::find(method, path.as_bytes()).template == OTHER
    };
    requests.iter().map(String::as_str).filter(is_unknown).collect()
}

#[tokio::test]
async fn every_route_of_the_node_sdk_is_known() {
    let ended = run(Sdk::Node.program("tests/sdk/node/routes.mjs")).await;
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    let lines: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut requests = BTreeSet::new();
    for line in &lines {
        let found = line["requests"].as_array().unwrap();
        assert!(!found.is_empty(), "no request of {}: add arguments that it accepts", line["method"]);
        requests.extend(found.iter().map(|request| request.as_str().unwrap().to_owned()));
    }
    // Fewer would mean that the SDK was not searched whole.
    assert!(requests.len() > 150, "{requests:#?}");
    assert_eq!(unknown(&requests), [""; 0]);
}

#[tokio::test]
async fn every_route_of_the_python_sdk_is_known() {
    let ended = run(Sdk::Python.program("tests/sdk/python/routes.py")).await;
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""));
    let requests: BTreeSet<String> = ended.stdout.lines().map(str::to_owned).collect();
    assert!(requests.len() > 150, "{requests:#?}");
    assert_eq!(unknown(&requests), [""; 0]);
}
