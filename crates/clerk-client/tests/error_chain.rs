//! The chain of each error: no text repeats the text of its source, and the joined chain names the cause once.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "the test prints each chain")]

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use clerk_client::cache::Encryption;
use clerk_client::limiter::{LimiterUnreachable, Shed, ShedReason};
use clerk_client::outbound::retry::RetryPolicy;
use clerk_client::outbound::{RequestError, RequestOptions, SendError};
use clerk_client::redis::{RedisClient, RedisClientError};
use clerk_client::secret::{Secret, SecretSource};
use clerk_client::transport::{
    ApiUrl, ErrorKind, Proxies, ReqwestOptions, ReqwestTransport, TransportError, error_chain,
};
use clerk_client::webhook::{ExplainedError, SigningSecret, Tag, Tolerance, WebhookOptions, Webhooks};
use clerk_client::{Cache, Clerk, Cursor, Error};
use clerk_quota::Bucket;
use http::StatusCode;

/// Prints the chain, one line an error, and returns its texts.
fn chain(error: &(dyn StdError + 'static)) -> Vec<String> {
    let texts: Vec<String> =
        std::iter::successors(Some(error), |error| (*error).source()).map(ToString::to_string).collect();
    println!("{}", texts.join("\n  caused by: "));
    texts
}

fn cause() -> TransportError {
    TransportError::new(ErrorKind::Connect, "connection refused".to_owned())
}

fn missing() -> SecretSource {
    SecretSource::File("/does/not/exist".into())
}

/// One of each error that the crate returns.
fn errors() -> Vec<Box<dyn StdError>> {
    let shed = Shed {
        reason: ShedReason::QueueFull,
        bucket: Bucket::Instance,
        cap: None,
        retry_after: Duration::from_secs(3),
    };
    let invalid_request = || RequestError::from(http::Request::get("http://a b/").body(()).unwrap_err());
    let unreadable = missing().read().unwrap_err();
    let build = ReqwestTransport::new(ReqwestOptions::default().ca_file(std::path::PathBuf::from("/does/not/exist")));
    let build = build.map(drop).unwrap_err();
    let redis = RedisClient::try_from("http://x").unwrap_err();
    let webhook = |secret| Webhooks::new(WebhookOptions::new(vec![secret]), Arc::new(Nothing)).map(drop).unwrap_err();
    let transport = |source| Error::Transport { source, attempts: 3 };
    let api = serde_json::from_str::<clerk_client::User>("{").unwrap_err();
    vec![
        Box::new(transport(RequestError::Upstream(cause()))),
        Box::new(transport(invalid_request())),
        Box::new(transport(RequestError::Key(unreadable.clone()))),
        Box::new(transport(RequestError::Timeout(Duration::from_secs(5)))),
        Box::new(transport(RequestError::BodyTooLarge { status: StatusCode::OK })),
        Box::new(Error::from(shed)),
        Box::new(Error::Decode { status: StatusCode::OK, reason: "it is not JSON".to_owned() }),
        Box::new(Error::InvalidId { shown: "x".to_owned() }),
        Box::new(Error::InvalidParameter { name: "limit", reason: "must be 1 to 500".to_owned() }),
        Box::new(Error::Disordered),
        Box::new(Error::from(unreadable.clone())),
        Box::new(Error::from(ApiUrl::parse("ftp://x").unwrap_err())),
        Box::new(Clerk::builder().build().unwrap_err()),
        Box::new(Error::from(build.clone())),
        Box::new(Error::from(redis.clone())),
        Box::new(Error::from(webhook(missing()))),
        Box::new(SendError::from(shed)),
        Box::new(SendError::Request { error: RequestError::Upstream(cause()), attempts: 2 }),
        Box::new(RequestError::Upstream(cause())),
        Box::new(invalid_request()),
        Box::new(cause()),
        Box::new(unreadable),
        Box::new(build),
        Box::new(redis),
        Box::new(RedisClientError::Timeout { after: Duration::from_millis(100) }),
        Box::new(RedisClientError::Unavailable { reason: "refused".into() }),
        Box::new(Encryption::new(&missing(), &[]).map(drop).unwrap_err()),
        Box::new(webhook(missing())),
        Box::new(webhook(SecretSource::Inline(Secret::from("whsec_***")))),
        Box::new(SigningSecret::parse("").unwrap_err()),
        Box::new(Tolerance::from_secs(-1).unwrap_err()),
        Box::new("x:y".parse::<Tag>().unwrap_err()),
        Box::new(ExplainedError::new("Redis is away")),
        Box::new(LimiterUnreachable),
        Box::new("x".parse::<Cursor>().unwrap_err()),
        Box::new(proxy_error()),
        Box::new(api),
    ]
}

fn proxy_error() -> clerk_client::transport::ProxyError {
    let env = |name: &str| (name == "HTTPS_PROXY").then(|| "ftp://x".into());
    Proxies::from_variables(&env).of(&http::Uri::from_static("https://api.clerk.com/")).map(drop).unwrap_err()
}

struct Nothing;

impl clerk_client::webhook::Invalidate for Nothing {
    async fn invalidate(&self, _: &[Tag]) -> Result<(), clerk_client::webhook::InvalidateError> {
        Ok(())
    }
}

#[test]
fn no_error_repeats_the_text_of_its_source() {
    for error in errors() {
        let texts = chain(&*error);
        for pair in texts.windows(2) {
            assert!(!pair[0].contains(&pair[1]), "{texts:?}");
        }
        let joined = error_chain(&*error);
        assert!(texts.iter().all(|text| joined.matches(text.as_str()).count() == 1), "{joined}");
    }
}

#[test]
fn transport_error_has_its_cause_as_source() {
    let error = Error::Transport { source: RequestError::Upstream(cause()), attempts: 3 };
    assert_eq!(chain(&error), ["no response from Clerk after 3 attempts", "connection refused"]);
    assert_eq!(error_chain(&error), "no response from Clerk after 3 attempts: connection refused");
    let source = error.source().unwrap().downcast_ref::<RequestError>().unwrap();
    assert!(matches!(source, RequestError::Upstream(error) if error.kind() == ErrorKind::Connect));
}

#[tokio::test]
async fn dead_network_is_named_once() {
    let once = RequestOptions::default().retry(RetryPolicy::default().max_retries(0));
    let clerk = Clerk::builder()
        .secret_key(clerk_test_support::KEY)
        // A privileged port that nothing listens on.
        .api_url("http://127.0.0.1:1")
        .request_options(once)
        .cache(Cache::memory(1 << 20))
        .build()
        .unwrap();
    let error = clerk.users().get("user_1").await.unwrap_err();
    let joined = error_chain(&error);
    assert!(error.is_unsent() && joined.to_lowercase().matches("connection refused").count() == 1, "{joined}");
}
