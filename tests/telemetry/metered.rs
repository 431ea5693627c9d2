//! Operations that Clerk bills, in spans.

use clerk_quota::metered::MeteredOperation;
use opentelemetry_proto::tonic::trace::v1::Span;

use super::support::{World, number, span, text};

fn call(id: u64, method: &str, path: &str, status: i64, state: &str) -> Span {
    let attributes = vec![
        text("http.request.method", method),
        text("url.full", &format!("https://api.clerk.com{path}")),
        number("http.response.status_code", status),
    ];
    Span { trace_state: state.to_owned(), ..span(id, attributes) }
}

/// Operation, caller and count.
fn counted(world: &World) -> Vec<(MeteredOperation, String, u64)> {
    let operations = world.snapshot("main").metered.operations;
    let named = operations.into_iter().map(|(key, count)| {
        let caller = world.telemetry.caller_name(key.caller);
        (key.operation, caller.to_string(), count)
    });
    named.collect()
}

#[test]
fn metered_operations_in_spans_count_with_their_weight() {
    let world = World::new("api.clerk.com");
    let web = || vec![text("service.name", "web")];
    world.send_from(
        web(),
        vec![
            call(1, "POST", "/v1/api_keys/verify", 200, ""),
            // Every fourth call is reported.
            call(2, "POST", "/api_keys/verify", 200, "ot=th:c"),
            call(3, "POST", "/v1/m2m_tokens", 500, ""),
            call(4, "POST", "/v1/m2m_tokens", 429, ""),
            call(5, "POST", "/v1/m2m_tokens", 401, ""),
            call(6, "GET", "/v1/m2m_tokens", 200, ""),
        ],
    );
    // Sent twice, it counts once.
    world.send_from(web(), vec![call(1, "POST", "/v1/api_keys/verify", 200, "")]);
    let expected =
        [(MeteredOperation::ApiKeyVerify, "web".to_owned(), 5), (MeteredOperation::M2mCreate, "web".to_owned(), 1)];
    assert_eq!(counted(&world), expected);
}
