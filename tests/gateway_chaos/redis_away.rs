//! Two gateways share cache and limiter through a Redis that is killed, restarts empty, and hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clerk_client::redis::{RedisClient, RedisOptions};
use clerk_exporter::gateway::{InstancePolicies, Mode};
use tokio::task::JoinSet;

use crate::account::{Account, Outcome, ask};
use crate::exporter::eventually;
use crate::world::{Clerk, Running, policies};
use clerk_test_support::redis::RedisServer;

const WORKERS: usize = 8;
/// Responses between two events.
const BETWEEN: usize = 300;

#[tokio::test]
async fn every_response_is_correct_during_redis_failures() {
    let clerk = Arc::new(Clerk::start().await);
    let mut redis = RedisServer::start(&[]).await;
    // With the timeouts of production.
    let plan =
        InstancePolicies { policies: policies(Mode::On, Mode::On, Mode::On, Mode::On), ..InstancePolicies::default() };
    let mut gateways = Vec::new();
    for _ in 0..2 {
        let store = RedisClient::new(RedisOptions::new(redis.url())).unwrap();
        gateways.push(Running::start(&clerk.web.url(), plan.clone(), Some(store)).await);
    }
    let (answered, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (clerk, answered, is_over) = (Arc::clone(&clerk), Arc::clone(&answered), Arc::clone(&is_over));
        let address = gateways[worker % 2].address;
        workers.spawn(async move {
            let mut account = Account::default();
            for number in 0.. {
                if is_over.load(Ordering::SeqCst) > 0 {
                    break;
                }
                // Some are repeated, and some are writes.
                let one = match number % 10 {
                    // Across all users: each has a separate, small limit.
                    9 => clerk.write(worker * 13 + number / 10),
                    kind => clerk.look_up(kind * 7 + (number / 50) % 20),
                };
                account.add(ask(address, &one).await);
                answered.fetch_add(1, Ordering::SeqCst);
            }
            account
        });
    }
    let more = async || {
        let until = answered.load(Ordering::SeqCst) + BETWEEN;
        eventually("more answers", async || (answered.load(Ordering::SeqCst) >= until).then_some(())).await;
    };
    more().await;
    redis.kill().await;
    more().await;
    redis.restart().await;
    more().await;
    redis.pause().await;
    more().await;
    redis.resume().await;
    more().await;
    let _: () = redis.command(&["FLUSHALL"]).await;
    more().await;
    is_over.store(1, Ordering::SeqCst);
    let mut all = 0;
    while let Some(account) = workers.join_next().await {
        let account = account.unwrap();
        all += account.total();
        account.holds_only(account.total(), |outcome| *outcome == Outcome::Right, "Redis comes and goes");
    }
    assert_eq!(all, answered.load(Ordering::SeqCst));
    assert!(clerk.count() < all, "the cache saved some of {all}");
    assert_eq!(clerk.simulator.truth().requests.by_status.keys().copied().collect::<Vec<_>>(), [200]);
}
