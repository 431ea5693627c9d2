//! Names and waiting.

use std::time::Duration;

use clerk_client::redis::{InstanceKeys, RedisChannel, RedisClient, RedisKey, RefusalClass};
use tokio::time::{sleep, timeout};

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn key(name: &str) -> RedisKey {
    InstanceKeys::new("prod").key(&[name])
}

pub(crate) fn channel(name: &str) -> RedisChannel {
    InstanceKeys::new("prod").channel(&[name])
}

/// Repeats until the attempt succeeds. Patient, since the machine may be busy.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut attempt: impl FnMut() -> F) -> T {
    let found = timeout(MINUTE, async {
        loop {
            if let Some(found) = attempt().await {
                return found;
            }
            sleep(Duration::from_millis(10)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("never: {what}"))
}

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    timeout(MINUTE, future).await.expect("the test hangs")
}

/// The classes refused now.
pub(crate) fn refused(client: &RedisClient) -> Vec<RefusalClass> {
    let refuses = client.health().refuses;
    RefusalClass::ALL.into_iter().filter(|class| refuses[*class as usize]).collect()
}
