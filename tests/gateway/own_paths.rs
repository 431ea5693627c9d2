//! Paths similar to the gateway's own are never forwarded, and neither are their bodies.

use clerk_client::secret::{Secret, SecretSource};
use clerk_client::webhook::WebhookOptions;

use crate::support::{OK, Running, Setup, Stub, TOKEN, request};

const NEARLY: [&str; 26] = [
    "/webhooks/clerk/",
    "/webhooks//clerk",
    "//webhooks/clerk",
    "/Webhooks/clerk",
    "/WEBHOOKS/CLERK",
    "/webhooks/%63lerk",
    "/webhooks/cler%6B",
    "/webhooks%2Fclerk",
    "/webhooks%2fclerk%2f",
    "/webhooks%252fclerk",
    "/./webhooks/clerk",
    "/webhooks/x/../clerk",
    "/webhooks/%2e/clerk",
    "/v1/../webhooks/clerk",
    "/v1/%2E%2E/webhooks/clerk",
    "/webhooks/clerk/?a=1",
    "/webhooks/clerk//?a=1",
    "/webhooks/clerk;a=1",
    "/webhooks/clerk%20",
    "/webhooks/clerk/msg_1",
    "/webhooks\\clerk",
    "/api/v1/top/",
    "/api/v1//top",
    "/API/v1/status",
    "/metrics/",
    "/-/ready/",
];

fn webhooks() -> WebhookOptions {
    let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
    WebhookOptions::new(vec![SecretSource::Inline(secret)])
}

fn post(path: &str, fields: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: gateway\r\n{fields}Content-Length: 13\r\n\r\n{{\"secret\":\"x\"}}")
}

#[tokio::test]
async fn paths_near_own_paths_get_404_and_are_not_forwarded() {
    for (webhooks, rejects_strangers) in [(Some(webhooks()), false), (None, false), (Some(webhooks()), true)] {
        let stub = Stub::answering(OK).await;
        let gateway = Running::with(stub.address, Setup { webhooks, rejects_strangers, ..Setup::default() }).await;
        for path in NEARLY {
            for raw in [
                post(path, ""),
                post(path, &format!("Authorization: Bearer {TOKEN}\r\n")),
                post(path, "svix-id: msg_1\r\nsvix-timestamp: 1\r\nsvix-signature: v1,x\r\n"),
                request("GET", path, "", ""),
            ] {
                let answer = gateway.send(&raw).await;
                assert_eq!((answer.status(), &*answer.code()), (404, "resource_not_found"), "{raw}");
                assert_eq!(answer.value("x-clerk-exporter-decision"), Some("rejected"));
            }
        }
        assert_eq!(stub.requests(), []);
    }
}

#[tokio::test]
async fn a_delivery_to_any_other_path_is_not_forwarded() {
    let stub = Stub::answering(OK).await;
    let gateway = Running::with(stub.address, Setup { webhooks: Some(webhooks()), ..Setup::default() }).await;
    for path in ["/", "/webhook/clerk", "/webhooks", "/hooks", "/v1/webhooks/clerk", "/v1/users"] {
        for fields in ["svix-signature: v1,x\r\n", "Svix-Signature: v1,x\r\n", "webhook-signature: v1,x\r\n"] {
            assert_eq!(gateway.send(post(path, fields)).await.status(), 404, "{path}");
        }
    }
    assert_eq!(stub.requests(), []);
    // At the configured path the signature is checked and rejected.
    assert_eq!(gateway.send(post("/webhooks/clerk", "svix-signature: v1,x\r\n")).await.status(), 400);
    assert_eq!(stub.requests(), []);
}

#[tokio::test]
async fn exporter_pages_are_not_forwarded_to_clerk() {
    let stub = Stub::answering(OK).await;
    let gateway = Running::before(&stub).await;
    for path in ["/metrics", "/config", "/-/healthy", "/-/reload", "/api/v1/top", "/api/v1/status"] {
        assert_eq!(gateway.get(path).await.status(), 404, "{path}");
    }
    assert_eq!(stub.requests(), []);
    // Clerk's paths are forwarded, with and without prefix.
    for path in ["/v1/webhooks/svix", "/m2m_tokens", "/v1/users/a%2Fb", "/v1/x/../users", "/webhooks", "/"] {
        assert_eq!(gateway.get(path).await.status(), 200, "{path}");
    }
    assert_eq!(stub.requests().len(), 6);
}
