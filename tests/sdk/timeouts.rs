//! What the Python SDK does when a write times out, as docs/gateway-sdks.md says.

use serde_json::json;

use crate::{Sdk, printed};

#[tokio::test]
async fn python_sdk_repeats_writes_that_time_out() {
    let lines = printed(Sdk::Python.program("tests/sdk/python/timeouts.py")).await;
    assert_eq!(
        lines,
        [
            json!({ "with": "defaults", "repeated": true }),
            json!({ "with": "retry_config=None", "error": "ReadTimeout" })
        ]
    );
}
