//! Verifications of tokens from a user's view: the policy in the configuration, and what Redis gets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::post;
use clerk_test_support::redis::RedisServer;

use crate::exporter::{Exporter, Folder, KEY, Page, Web, eventually, send};
use crate::gateway::write;

const VERIFIED: &str = r#"{"object":"api_key","id":"key_1","revoked":false,"expired":false,"expiration":null}"#;

/// A Clerk that verifies every token, and counts how often.
async fn verifier() -> (Web, Arc<AtomicUsize>) {
    let count = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&count);
    let verify = post(move || async move {
        counted.fetch_add(1, Ordering::Relaxed);
        ([("content-type", "application/json")], VERIFIED)
    });
    let router = Router::new().route("/api_keys/verify", verify).route("/api_keys/key_1/revoke", post("{}"));
    (Web::start(router).await, count)
}

async fn verify(gateway: SocketAddr, secret: &str) -> Page {
    let body = format!(r#"{{"secret":"{secret}"}}"#);
    let headers =
        format!("Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    let page = send(gateway, "POST", "/api_keys/verify", &headers, &body).await;
    assert_eq!((page.status, page.text()), (200, VERIFIED.to_owned()));
    page
}

async fn is_hit(gateway: SocketAddr, secret: &str) -> bool {
    verify(gateway, secret).await.header("x-clerk-exporter-decision") == ["cache_hit"]
}

/// A reload that turns the policy off must not make the gateway deaf to revocations.
#[tokio::test]
async fn revocation_while_the_policy_is_off_counts_once_it_is_on_again() {
    let (clerk, count) = verifier().await;
    let folder = Folder::new();
    let policy = |mode: &str| format!("  policies: {{ verify: {{ mode: {mode}, ttl: 5m }} }}\n");
    let config = write(&folder, &clerk.url(), &policy("on"));
    let exporter = Exporter::with_config(&config, &["--web.enable-lifecycle"]).await;
    let gateway = exporter.gateway().await;
    for _ in 0..2 {
        verify(gateway, "ak_CANARY").await;
    }
    assert_eq!(count.load(Ordering::Relaxed), 1);
    let reload = async |mode: &str| {
        write(&folder, &clerk.url(), &policy(mode));
        let page = exporter.request("POST", "/-/reload", "Content-Length: 0\r\n").await;
        assert_eq!(page.status, 200, "{}", page.text());
    };
    reload("off").await;
    let authorization = format!("Authorization: Bearer {KEY}\r\nContent-Length: 0\r\n");
    assert_eq!(send(gateway, "POST", "/api_keys/key_1/revoke", &authorization, "").await.status, 200);
    reload("on").await;
    verify(gateway, "ak_CANARY").await;
    assert_eq!(count.load(Ordering::Relaxed), 2);
}

/// A gateway whose Redis is slow to answer verifies without it, so that each step is tried with further tokens.
#[tokio::test]
async fn verifications_go_to_redis_only_encrypted() {
    let redis = RedisServer::start(&[]).await;
    for (encryption, processes_share) in [("", false), (", encryption_key_file: seal", true)] {
        let (clerk, _) = verifier().await;
        let folder = Folder::new();
        folder.write("redis", redis.url().expose());
        let gateway = format!(
            "  policies: {{ verify: {{ mode: on, ttl: 5m }} }}\n  cache: {{ redis_url_file: redis{encryption} }}\n"
        );
        let config = write(&folder, &clerk.url(), &gateway);
        let [first, second] = [Exporter::with_config(&config, &[]).await, Exporter::with_config(&config, &[]).await];
        let [own, other] = [first.gateway().await, second.gateway().await];
        // Memory serves once the gateway hears of revocations.
        for exporter in [own, other] {
            eventually("a hit", async || is_hit(exporter, "ak_CANARY").await.then_some(())).await;
        }
        let number = AtomicUsize::new(0);
        let is_shared = async || {
            let secret = format!("ak_CANARY{}", number.fetch_add(1, Ordering::Relaxed));
            verify(own, &secret).await;
            is_hit(other, &secret).await
        };
        if processes_share {
            eventually("a hit through Redis", async || is_shared().await.then_some(())).await;
        } else {
            for _ in 0..5 {
                assert!(!is_shared().await);
            }
        }
        let keys: Vec<String> = redis.keys().await.into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys.iter().any(|key| key.contains(":answer:")), processes_share, "{keys:?}");
        let labels = [("clerk_instance", "prod"), ("by", "verify")];
        second.until("clerk_gateway_saved_requests_total", &labels, |saved| saved >= 1.0).await;
        for output in [first.output(), second.output()] {
            assert!(!output.contains("CANARY"));
        }
    }
}
