//! The client against a real Redis that is killed, stopped, full, a replica, or absent.

use std::sync::Arc;
use std::time::Duration;

use clerk_client::redis::{
    ErrorReply, RedisClient, RedisClientError, RedisOptions, RedisState, Reply, Script, SubscriptionEvent,
};
use clerk_client::secret::Secret;
use clerk_test_support::redis::RedisServer;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, UnixStream};
use tokio::task::JoinSet;

use crate::support::{MINUTE, channel, key, until, within};

/// Waits until operations fail without being tried. The exact timing is tested in simulated time.
async fn rests(store: &RedisClient) {
    until("the breaker is open", async || {
        matches!(store.get(&key("k")).await, Err(RedisClientError::Resting { .. })).then_some(())
    })
    .await;
}

#[tokio::test]
async fn values_have_the_prefix_and_every_key_has_a_ttl() {
    let redis = RedisServer::start(&[]).await;
    let store = redis.store();
    assert_eq!(store.health().state, RedisState::Untried);
    assert_eq!(store.get(&key("a")).await.unwrap(), None);
    store.set(&key("a"), b"\0\xff\r\n", MINUTE).await.unwrap();
    store.set(&key("b"), b"", Duration::ZERO).await.unwrap();
    assert_eq!(store.get(&key("a")).await.unwrap().as_deref(), Some(&b"\0\xff\r\n"[..]));
    let keys = redis.keys().await;
    assert!(keys.iter().all(|(key, ttl)| key.starts_with("clerk-exporter:") && *ttl != -1), "{keys:?}");
    assert_eq!(store.remove(&[&key("a"), &key("never there")]).await.unwrap(), 1);
    assert_eq!(store.remove(&[]).await.unwrap(), 0);
    assert_eq!(store.get(&key("a")).await.unwrap(), None);
    let health = store.health();
    assert_eq!((health.state, health.unavailable, health.timeouts, health.refused), (RedisState::Up, 0, 0, 0));
    assert_eq!((health.operations, health.connections), (6, 1));
}

#[tokio::test]
async fn scripts_are_reloaded_after_the_server_lost_them() {
    let mut redis = RedisServer::start(&[]).await;
    let store = redis.store();
    let script = Script::new("return {KEYS[1], ARGV[1], #ARGV, false, 'not reached'}");
    let expected = Reply::List(vec![
        Reply::Bytes(store.key_name(&key("k")).into()),
        Reply::Bytes(bytes::Bytes::from_static(b"\0\xff")),
        Reply::Int(2),
        Reply::Nil,
        Reply::Bytes("not reached".into()),
    ]);
    let run = async || store.run(&script, &[&key("k")], &[b"\0\xff", b""]).await;
    assert_eq!(run().await.unwrap(), expected);
    let () = redis.command(&["SCRIPT", "FLUSH"]).await;
    assert_eq!(run().await.unwrap(), expected);
    redis.kill().await;
    redis.restart().await;
    // The broken connection is replaced without an error.
    assert_eq!(run().await.unwrap(), expected);
    assert_eq!(store.health().connections, 2);
    let failing = Script::new("return redis.call('GET')");
    assert_eq!(store.run(&failing, &[], &[]).await, Err(RedisClientError::Refused(ErrorReply::Other("ERR".into()))));
}

#[tokio::test]
async fn idle_connection_closed_by_the_server_is_replaced() {
    let redis = RedisServer::start(&[]).await;
    let store = redis.store();
    for _ in 0..3 {
        store.set(&key("k"), b"v", MINUTE).await.unwrap();
        let _: i64 = redis.command(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    }
    assert_eq!(store.get(&key("k")).await.unwrap().as_deref(), Some(&b"v"[..]));
    assert_eq!(store.health().unavailable, 0);
}

#[tokio::test]
async fn operations_fail_fast_without_a_server_and_recover() {
    let mut redis = RedisServer::start(&[]).await;
    redis.kill().await;
    let store = redis.store();
    for _ in 0..5 {
        assert!(matches!(store.get(&key("k")).await, Err(RedisClientError::Unavailable { .. })));
    }
    rests(&store).await;
    assert_eq!(store.health().state, RedisState::Down);
    assert!(store.health().unavailable >= 6);
    redis.restart().await;
    until("Redis is back", async || store.set(&key("k"), b"v", MINUTE).await.ok()).await;
    assert_eq!(store.health().state, RedisState::Up);
    store.get(&key("k")).await.unwrap();
}

#[tokio::test]
async fn stopped_server_times_out_then_opens_the_breaker() {
    let redis = RedisServer::start(&[]).await;
    let short = Duration::from_millis(50);
    let warm = redis.store();
    let store = RedisClient::new(redis.options().timeout(short)).unwrap();
    warm.set(&key("k"), b"v", MINUTE).await.unwrap();
    // Connected before, so that a response times out and not the connection; with patience, since the machine may be
    // busy.
    until("connected", async || store.get(&key("k")).await.ok()).await;
    redis.pause().await;
    let before = store.health().timeouts;
    for _ in 0..5 {
        assert_eq!(within(store.get(&key("k"))).await, Err(RedisClientError::Timeout { after: short }));
    }
    rests(&store).await;
    assert!(store.health().timeouts - before >= 5);
    redis.resume().await;
    let value = until("Redis is back", async || store.get(&key("k")).await.ok()).await;
    assert_eq!(value.as_deref(), Some(&b"v"[..]));
}

#[tokio::test(start_paused = true)]
async fn silent_server_times_out() {
    // In simulated time, over a socket without an accepting server: time only stands still while something is ready to
    // run.
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("mute.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let store = RedisClient::new(RedisOptions::new(Secret::new(format!("unix://{}", socket.display())))).unwrap();
    let begun = tokio::time::Instant::now();
    for _ in 0..5 {
        let after = Duration::from_millis(100);
        assert_eq!(store.get(&key("k")).await, Err(RedisClientError::Timeout { after }));
    }
    assert_eq!(begun.elapsed(), Duration::from_millis(500));
    assert_eq!(store.get(&key("k")).await, Err(RedisClientError::Resting { left: Duration::from_secs(1) }));
    assert_eq!(begun.elapsed(), Duration::from_millis(500));
}

#[tokio::test]
async fn full_server_refuses_writes_but_allows_reads_and_removals() {
    let redis = RedisServer::start(&["--maxmemory-policy", "noeviction"]).await;
    let store = redis.store();
    store.set(&key("k"), b"v", MINUTE).await.unwrap();
    let () = redis.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let refused = Err(RedisClientError::Refused(ErrorReply::OutOfMemory));
    for _ in 0..10 {
        assert_eq!(store.set(&key("k"), b"w", MINUTE).await, refused);
        let script = Script::new("return redis.call('SET', KEYS[1], 'w', 'PX', 1000)");
        assert_eq!(store.run(&script, &[&key("k")], &[]).await.map(drop), refused);
    }
    assert_eq!(store.get(&key("k")).await.unwrap().as_deref(), Some(&b"v"[..]));
    let script = Script::new("return redis.call('UNLINK', KEYS[1])");
    assert_eq!(store.run(&script, &[&key("k")], &[]).await.unwrap(), Reply::Int(1));
    assert_eq!((store.health().state, store.health().refused), (RedisState::Up, 20));
}

#[tokio::test]
async fn server_with_a_failing_disk_refuses_writes_with_advice() {
    let redis = RedisServer::start(&["--save", "3600 1000000", "--dbfilename", "missing.rdb"]).await;
    let store = redis.store();
    store.set(&key("k"), b"v", MINUTE).await.unwrap();
    // A directory in place of the file: writing fails, even for root.
    std::fs::create_dir(redis.socket().with_file_name("missing.rdb")).unwrap();
    let _: String = redis.command(&["BGSAVE"]).await;
    let refused = until("the server notices", async || store.set(&key("k"), b"v", MINUTE).await.err()).await;
    assert_eq!(refused, RedisClientError::Refused(ErrorReply::CannotPersist));
    assert!(refused.to_string().contains("free disk space"));
    store.get(&key("k")).await.unwrap();
}

#[tokio::test]
async fn client_recovers_when_a_replica_becomes_primary() {
    let redis = RedisServer::start(&[]).await;
    let store = redis.store();
    store.set(&key("k"), b"v", MINUTE).await.unwrap();
    let () = redis.command(&["REPLICAOF", "127.0.0.1", "1"]).await;
    assert_eq!(store.set(&key("k"), b"w", MINUTE).await, Err(RedisClientError::Refused(ErrorReply::ReadOnly)));
    let () = redis.command(&["REPLICAOF", "NO", "ONE"]).await;
    store.set(&key("k"), b"w", MINUTE).await.unwrap();
}

#[tokio::test]
async fn passwords_are_sent_and_never_shown() {
    let redis = RedisServer::start(&["--requirepass", "CANARY-right"]).await;
    let url = |password: &str| Secret::new(format!("unix://{}?pass={password}", redis.socket().display()));
    let right = RedisClient::new(redis.options().url(url("CANARY-right"))).unwrap();
    right.set(&key("k"), b"v", MINUTE).await.unwrap();
    for (store, options) in [redis.options(), redis.options().url(url("CANARY-wrong"))]
        .map(|options| (RedisClient::new(options.clone()).unwrap(), options))
    {
        let error = store.get(&key("k")).await.unwrap_err();
        assert_eq!(error, RedisClientError::Refused(ErrorReply::Credentials));
        let shown = format!("{error} {error:?} {options:?} {store:?}");
        assert!(!shown.contains("CANARY") && !shown.contains("redis.sock"), "{shown}");
        // Each attempt costs a connection, so the breaker stops them too.
        rests(&store).await;
        assert_eq!(store.health().state, RedisState::Down);
    }
}

#[tokio::test]
async fn lost_subscription_is_reported_and_restored() {
    let mut redis = RedisServer::start(&[]).await;
    let (store, other) = (redis.store(), redis.store());
    let mut subscription = store.subscribe(&channel("news"));
    assert_eq!(within(subscription.next()).await, SubscriptionEvent::Restored);
    other.publish(&channel("news"), b"\0one").await.unwrap();
    other.publish(&channel("other"), b"not subscribed").await.unwrap();
    other.publish(&channel("news"), b"two").await.unwrap();
    assert_eq!(within(subscription.next()).await, SubscriptionEvent::Message(bytes::Bytes::from_static(b"\0one")));
    assert_eq!(within(subscription.next()).await, SubscriptionEvent::Message("two".into()));
    redis.kill().await;
    assert_eq!(within(subscription.next()).await, SubscriptionEvent::Lost);
    redis.restart().await;
    assert_eq!(within(subscription.next()).await, SubscriptionEvent::Restored);
    other.publish(&channel("news"), b"three").await.unwrap();
    assert_eq!(within(subscription.next()).await, SubscriptionEvent::Message("three".into()));
}

#[tokio::test]
async fn subscription_to_a_stopped_server_is_lost() {
    let redis = RedisServer::start(&[]).await;
    let store = RedisClient::new(redis.options().connect_timeout(Duration::from_secs(1))).unwrap();
    let mut subscription = store.subscribe(&channel("news"));
    assert_eq!(within(subscription.next()).await, SubscriptionEvent::Restored);
    redis.pause().await;
    assert_eq!(within(subscription.next()).await, SubscriptionEvent::Lost);
    redis.resume().await;
    assert_eq!(within(subscription.next()).await, SubscriptionEvent::Restored);
}

#[tokio::test]
async fn tls_accepts_only_servers_of_the_given_ca() {
    let redis = RedisServer::start(&[]).await;
    let chain = CertificateDer::pem_file_iter("tests/data/tls/server.pem").unwrap().collect::<Result<_, _>>().unwrap();
    let private_key = PrivateKeyDer::from_pem_file("tests/data/tls/server.key").unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(chain, private_key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("rediss://{}", listener.local_addr().unwrap());
    let socket = redis.socket();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, socket) = (acceptor.clone(), socket.clone());
            connections.spawn(async move {
                let Ok(mut client) = acceptor.accept(stream).await else { return };
                let mut server = UnixStream::connect(socket).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    let options = redis.options().url(Secret::new(url));
    let authorities = Some(std::fs::read("tests/data/tls/ca.pem").unwrap());
    let store = RedisClient::new(options.clone().authorities(authorities)).unwrap();
    store.set(&key("k"), b"v", MINUTE).await.unwrap();
    let mut subscription = store.subscribe(&channel("news"));
    assert_eq!(within(subscription.next()).await, SubscriptionEvent::Restored);
    // A server of another CA is rejected.
    let authorities = Some(std::fs::read("tests/data/tls/stranger.pem").unwrap());
    let store = RedisClient::new(options.authorities(authorities)).unwrap();
    let error = store.get(&key("k")).await.unwrap_err();
    assert!(matches!(error, RedisClientError::Unavailable { .. }), "{error}");
}
