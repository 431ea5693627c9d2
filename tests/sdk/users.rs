//! The fields that the client sets of a user are fields of Clerk's own SDK.

use std::path::Path;

use clerk_client::{CreateUser, UpdateUser};
use serde_json::Map;
use tokio::process::Command;

/// The fields of the request bodies in the Python SDK, whose models are generated from Clerk's OpenAPI description.
const FIELDS: &str = "\
import json
from clerk_backend_api.models import CreateUserRequestBody, UpdateUserRequestBody
print(json.dumps([list(body.model_fields) for body in (CreateUserRequestBody, UpdateUserRequestBody)]))";

/// The names in the text `CreateUser(["first_name", ...])`.
fn names(debug: &str) -> Vec<String> {
    let (_, list) = debug.split_once('(').unwrap();
    serde_json::from_str(list.trim_end_matches(')')).unwrap()
}

#[tokio::test]
async fn fields_of_created_and_updated_users_are_clerk_s() {
    let metadata = Map::new;
    let create = CreateUser::new()
        .external_id("1")
        .first_name("a")
        .last_name("b")
        .username("c")
        .password("d")
        .email_address("a@example.com")
        .phone_number("+15555550100")
        .skip_password_checks(true)
        .skip_password_requirement(true)
        .public_metadata(metadata())
        .private_metadata(metadata())
        .unsafe_metadata(metadata());
    let update = UpdateUser::new()
        .external_id("1")
        .first_name("a")
        .last_name("b")
        .username("c")
        .password("d")
        .skip_password_checks(true)
        .sign_out_of_other_sessions(true)
        .primary_email_address_id("idn_1")
        .primary_phone_number_id("idn_2");
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/sdk/python/bin/python");
    let output = Command::new(python).args(["-c", FIELDS]).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let known: [Vec<String>; 2] = serde_json::from_slice(&output.stdout).unwrap();
    for (names, known) in [names(&format!("{create:?}")), names(&format!("{update:?}"))].iter().zip(&known) {
        assert!(names.len() >= 9 && known.len() >= 20, "{names:?} {known:?}");
        let unknown: Vec<_> = names.iter().filter(|name| !known.contains(name)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
