//! Any request gets a response in Clerk's format.

use proptest::prelude::*;

use super::*;

fn words() -> impl Strategy<Value = String> {
    let names = prop::sample::select(vec![
        "limit",
        "offset",
        "order_by",
        "user_id",
        "starting_after",
        "email_address",
        "username",
        "external_id",
        "query",
        "banned",
        "created_at_after",
        "last_active_at_since",
        "unheard_of",
    ]);
    let values = prop_oneof![
        Just(String::new()),
        "[0-9]{1,20}",
        "[-+]?[a-z_]{1,12}",
        "-?[0-9]{1,20}",
        "%[0-9A-F]{2}[,&=%+]{0,4}",
        "user_[0-9A-Za-z]{27}",
        Just("user_zzzzzzzzzzzzzzzzzzzzzzzzzzz,-created_at".to_owned()),
    ];
    (names, values).prop_map(|(name, value)| format!("{name}={value}"))
}

fn paths() -> impl Strategy<Value = String> {
    let path = prop_oneof![
        Just("/v1/users".to_owned()),
        Just("/v1/users/count".to_owned()),
        "/v1/(users|organizations|invitations|sessions|api_keys|m2m_tokens)(/[a-zA-Z0-9_.%25-]{0,40}){0,5}",
    ];
    (path, prop::collection::vec(words(), 0..5)).prop_map(|(path, query)| format!("{path}?{}", query.join("&")))
}

fn bodies() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        r#"\{"(first_name|public_metadata|email_address|role|name)": ?(null|1|"[a-z@]{0,9}"|\{"a":null\}|\[\])\}"#
            .prop_map(String::into_bytes),
        Just(b"[".repeat(5_000)),
    ]
}

proptest! {
    #[test]
    fn any_request_gets_a_response_in_clerks_format(
        path in paths(),
        method in prop::sample::select(vec!["GET", "POST", "PATCH", "PUT", "DELETE"]),
        body in bodies(),
    ) {
        let Ok(request) = Request::builder()
            .method(method)
            .uri(&path)
            .header("authorization", format!("Bearer {KEY}"))
            .body(Body::from(body))
        else {
            return Ok(());
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (status, body) = runtime.block_on(async {
            let response = Simulator::new(options()).router().oneshot(request).await.unwrap();
            (response.status(), to_bytes(response.into_body(), 64 << 20).await.unwrap())
        });
        let json: Value = serde_json::from_slice(&body).unwrap();
        if !status.is_success() {
            prop_assert!([400, 401, 404, 422].contains(&status.as_u16()), "{status}");
            prop_assert!(json["errors"][0]["code"].is_string());
        }
    }
}
