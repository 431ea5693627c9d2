//! With real threads: no request after an acknowledged invalidation gets an older response.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clerk_client::cache::{Cache, CachePolicy};
use clerk_client::webhook::{Invalidate, Tag};
use tokio::task::{JoinSet, yield_now};

use crate::support::{Failed, alone, answer, key, over, user};
use clerk_test_support::redis::RedisServer;

const READERS: usize = 4;

async fn contend(cache: Cache, changes: u64) {
    let [truth, acknowledged] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    let is_over = Arc::new(AtomicBool::new(false));
    let policy = CachePolicy::fresh_for(Duration::from_secs(60)).stale_while_revalidate(Duration::from_secs(60));
    let mut readers = JoinSet::new();
    for number in 0..READERS {
        let (cache, truth, acknowledged) = (cache.clone(), Arc::clone(&truth), Arc::clone(&acknowledged));
        let is_over = Arc::clone(&is_over);
        readers.spawn(async move {
            let key = key(&cache, &format!("/{}", number % 2));
            let tags = user("user_1");
            let mut requests = 0;
            while !is_over.load(Ordering::SeqCst) {
                let fetch = || {
                    let truth = Arc::clone(&truth);
                    async move {
                        let version = truth.load(Ordering::SeqCst);
                        yield_now().await;
                        Ok::<_, Failed>(answer(&version.to_string()))
                    }
                };
                let least = acknowledged.load(Ordering::SeqCst);
                let (answer, hit) = cache.get_or_fetch(key, &tags, policy, fetch).await.unwrap();
                let version: u64 = std::str::from_utf8(answer.body()).unwrap().parse().unwrap();
                assert!(version >= least, "{hit:?}: version {version} after {least} was acknowledged");
                requests += 1;
                yield_now().await;
            }
            requests
        });
    }
    for _ in 0..changes {
        let version = truth.fetch_add(1, Ordering::SeqCst) + 1;
        cache.invalidate(&[Tag::User("user_1".into())]).await.unwrap();
        acknowledged.store(version, Ordering::SeqCst);
        yield_now().await;
    }
    is_over.store(true, Ordering::SeqCst);
    while let Some(requests) = readers.join_next().await {
        requests.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_memory_alone() {
    contend(alone(), 20_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn over_redis() {
    let redis = RedisServer::start(&[]).await;
    contend(over(redis.store()), 1000).await;
}
