//! A fake Clerk that responds when the test says so.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clerk_client::cache::{Cache, CacheKey, CacheKeyParts, CacheOptions, CachePolicy, CachedResponse, Hit};
use clerk_client::redis::RedisClient;
use clerk_client::webhook::Tag;
use clerk_quota::clock::Clock;
use http::{HeaderMap, HeaderValue, StatusCode};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use clerk_test_support::start;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const FRESH: CachePolicy = CachePolicy::fresh_for(MINUTE);

/// The error of a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed(pub(crate) u32);

pub(crate) type Given = Result<(CachedResponse, Hit), Arc<Failed>>;

/// Fetches that wait for the test.
#[derive(Clone, Default)]
pub(crate) struct Clerk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// All fetches started, by number; `None` once ended.
    fetches: Vec<Option<oneshot::Sender<Result<CachedResponse, Failed>>>>,
}

impl Clerk {
    /// A fetch. Starts when it is first polled.
    pub(crate) fn fetch(&self) -> impl Future<Output = Result<CachedResponse, Failed>> + Send + 'static {
        let state = Arc::clone(&self.0);
        async move {
            let (sender, receiver) = oneshot::channel();
            state.lock().fetches.push(Some(sender));
            receiver.await.unwrap()
        }
    }

    /// Number of fetches started.
    pub(crate) fn begun(&self) -> usize {
        self.0.lock().fetches.len()
    }

    /// Whether the fetch has no waiters left.
    pub(crate) fn is_cancelled(&self, number: usize) -> bool {
        self.0.lock().fetches[number].as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    pub(crate) async fn answer(&self, number: usize, result: Result<CachedResponse, Failed>) {
        let sender = self.0.lock().fetches[number].take().unwrap();
        let _ = sender.send(result);
        settle().await;
    }
}

/// Runs all tasks until they wait for something outside.
pub(crate) async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn clock() -> Arc<Clock> {
    Arc::new(Clock::simulated(start()))
}

/// A cache without Redis and without a grace period.
pub(crate) fn alone() -> Cache {
    Cache::new(CacheOptions::new("prod").read_after_write_grace(Duration::ZERO), clock())
}

/// A cache of one process of several.
pub(crate) fn over(store: RedisClient) -> Cache {
    Cache::new(
        CacheOptions::new("prod").read_after_write_grace(Duration::ZERO).redis(Some(store)),
        Arc::new(Clock::new()),
    )
}

pub(crate) fn key(cache: &Cache, path: &str) -> CacheKey {
    cache.key(&CacheKeyParts { method: "GET", path, ..CacheKeyParts::default() })
}

pub(crate) fn user(name: &str) -> Vec<Tag> {
    vec![Tag::Everything, Tag::User(name.into())]
}

pub(crate) fn answer(body: &str) -> CachedResponse {
    with_status(StatusCode::OK, body)
}

pub(crate) fn with_status(status: StatusCode, body: &str) -> CachedResponse {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    CachedResponse::new(status, headers, Bytes::copy_from_slice(body.as_bytes()), start())
}

pub(crate) fn body(given: &Given) -> &str {
    std::str::from_utf8(given.as_ref().unwrap().0.body()).unwrap()
}

pub(crate) fn hit(given: &Given) -> Hit {
    given.as_ref().unwrap().1
}

/// Sends a request whose fetch ends at once with `result`.
pub(crate) async fn ask(
    cache: &Cache,
    key: CacheKey,
    tags: &[Tag],
    policy: CachePolicy,
    reply: Result<CachedResponse, Failed>,
) -> Given {
    cache.get_or_fetch(key, tags, policy, || std::future::ready(reply.clone())).await
}

/// Requests that run concurrently with the test.
pub(crate) struct Readers {
    cache: Cache,
    pub(crate) clerk: Clerk,
    tasks: JoinSet<Given>,
}

impl Readers {
    pub(crate) fn of(cache: &Cache) -> Self {
        Self { cache: cache.clone(), clerk: Clerk::default(), tasks: JoinSet::new() }
    }

    pub(crate) async fn ask(&mut self, key: CacheKey, tags: &[Tag], policy: CachePolicy) -> tokio::task::AbortHandle {
        let (cache, clerk, tags) = (self.cache.clone(), self.clerk.clone(), tags.to_vec());
        let handle = self.tasks.spawn(async move { cache.get_or_fetch(key, &tags, policy, || clerk.fetch()).await });
        settle().await;
        handle
    }

    /// The requests completed so far.
    pub(crate) async fn given(&mut self) -> Vec<Given> {
        settle().await;
        let mut given = Vec::new();
        while let Some(result) = self.tasks.try_join_next() {
            match result {
                Ok(result) => given.push(result),
                Err(error) => assert!(error.is_cancelled(), "{error}"),
            }
        }
        given
    }
}
