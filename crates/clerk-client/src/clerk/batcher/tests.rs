use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use proptest::prelude::*;
use tokio::time::{advance, sleep};

use super::*;

const WINDOW: Duration = Duration::from_millis(5);
const TAKES: Duration = Duration::from_millis(50);

const BOUNDS: Bounds = Bounds { window: WINDOW, keys: 10, waiting: 1000 };

/// A batcher whose requests take a while, the batches that it sent, and how many of them run.
struct World {
    batcher: Batcher<u32, u32>,
    sent: Arc<Mutex<Vec<Vec<u32>>>>,
    running: Arc<AtomicUsize>,
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn world(bounds: Bounds) -> World {
    let (sent, running) = (Arc::<Mutex<Vec<Vec<u32>>>>::default(), Arc::<AtomicUsize>::default());
    let (log, count) = (Arc::clone(&sent), Arc::clone(&running));
    let batcher = Batcher::new(bounds, move |keys: Vec<u32>, _, _| {
        log.lock().push(keys.clone());
        count.fetch_add(1, Ordering::Relaxed);
        let running = Running(Arc::clone(&count));
        async move {
            sleep(TAKES).await;
            drop(running);
            // Odd keys have no value.
            keys.into_iter().filter(|key| key % 2 == 0).map(|key| (key, key * 10)).collect()
        }
        .boxed()
    });
    World { batcher, sent, running }
}

impl World {
    fn is_empty(&self) -> bool {
        let state = self.batcher.state.lock();
        state.batches.is_empty() && state.by_key.is_empty() && state.open.is_none() && state.waiting == 0
    }
}

#[tokio::test(start_paused = true)]
async fn lookups_within_the_window_are_one_batch_without_duplicates() {
    let world = world(BOUNDS);
    let requested = [4, 2, 3, 4, 2, 4];
    let results = join_all(requested.iter().map(|key| world.batcher.get(key))).await;
    assert_eq!(results, requested.map(|key| Ok((key % 2 == 0).then_some(key * 10))));
    assert_eq!(*world.sent.lock(), [vec![2, 3, 4]]);
    world.batcher.get(&2).await.unwrap();
    assert_eq!(*world.sent.lock(), [vec![2, 3, 4], vec![2]], "results are not cached");
    assert!(world.is_empty());
}

#[tokio::test(start_paused = true)]
async fn full_batch_is_sent_at_once_and_the_next_key_opens_another() {
    let world = world(Bounds { window: Duration::from_secs(60), ..BOUNDS });
    let from = tokio::time::Instant::now();
    join_all((0..20).map(async |key| world.batcher.get(&key).await.unwrap())).await;
    assert_eq!(from.elapsed(), TAKES);
    assert_eq!(*world.sent.lock(), [(0..10).collect::<Vec<_>>(), (10..20).collect()]);
}

#[tokio::test(start_paused = true)]
async fn lookup_in_flight_is_shared_unless_invalidated() {
    let world = world(BOUNDS);
    let late = async |invalidate: bool| {
        sleep(WINDOW * 2).await;
        if invalidate {
            world.batcher.invalidate(&2);
        }
        world.batcher.get(&2).await
    };
    let (one, two) = tokio::join!(world.batcher.get(&2), late(false));
    assert_eq!((one, two, world.sent.lock().len()), (Ok(Some(20)), Ok(Some(20)), 1));
    let (one, two) = tokio::join!(world.batcher.get(&2), late(true));
    assert_eq!((one, two, world.sent.lock().len()), (Ok(Some(20)), Ok(Some(20)), 3));
    assert!(world.is_empty());
}

#[tokio::test(start_paused = true)]
async fn key_dropped_before_the_batch_is_sent_is_not_requested() {
    let world = world(BOUNDS);
    let leaves = async {
        let _ = timeout(WINDOW / 2, world.batcher.get(&6)).await;
    };
    let (result, ()) = tokio::join!(world.batcher.get(&8), leaves);
    assert_eq!(result, Ok(Some(80)));
    assert_eq!(*world.sent.lock(), [vec![8]]);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_first_lookup_does_not_disturb_the_others() {
    for leaves_after in [1, 4, 6, 20, 54] {
        let world = world(BOUNDS);
        let mut first = Box::pin(world.batcher.get(&2));
        assert!(timeout(Duration::ZERO, &mut first).await.is_err());
        let leaves = async {
            sleep(Duration::from_millis(leaves_after)).await;
            drop(first);
        };
        let ((), other, same) = tokio::join!(leaves, world.batcher.get(&4), world.batcher.get(&2));
        assert_eq!((other, same), (Ok(Some(40)), Ok(Some(20))));
        assert_eq!(world.sent.lock().len(), 1);
        assert!(world.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_all_lookups_cancels_the_request() {
    for wait in [WINDOW / 2, WINDOW * 3] {
        let world = world(BOUNDS);
        let all = join_all((0..25).map(async |key| world.batcher.get(&key).await));
        assert!(timeout(wait, all).await.is_err());
        assert_eq!(world.running.load(Ordering::Relaxed), 0);
        assert!(world.is_empty());
        advance(TAKES).await;
        assert_eq!(world.batcher.get(&2).await, Ok(Some(20)), "later lookups are served");
    }
}

#[tokio::test(start_paused = true)]
async fn key_above_the_limit_is_shed_unless_it_is_in_flight() {
    let world = world(Bounds { waiting: 2, ..BOUNDS });
    let (a, b, c, again) =
        tokio::join!(world.batcher.get(&2), world.batcher.get(&4), world.batcher.get(&6), world.batcher.get(&2));
    assert_eq!((a, b, c, again), (Ok(Some(20)), Ok(Some(40)), Err(Full), Ok(Some(20))));
    assert_eq!(world.batcher.get(&6).await, Ok(Some(60)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whenever lookups come and are dropped, each of the others gets the result for its own key.
    #[test]
    fn each_lookup_gets_the_result_for_its_own_key(
        callers in prop::collection::vec((0..30_u32, 0..120_u64, prop::option::of(0..80_u64)), 1..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = world(BOUNDS);
            let all = callers.iter().map(|(key, comes, leaves)| {
                let batcher = &world.batcher;
                async move {
                    sleep(Duration::from_millis(*comes)).await;
                    let patience = leaves.map_or(TAKES * 10, Duration::from_millis);
                    if let Ok(result) = timeout(patience, batcher.get(key)).await {
                        assert_eq!(result, Ok((key % 2 == 0).then_some(key * 10)));
                    } else {
                        assert!(leaves.is_some());
                    }
                }
            });
            join_all(all).await;
            assert!(world.is_empty());
            assert_eq!(world.running.load(Ordering::Relaxed), 0);
            assert!(world.sent.lock().iter().all(|keys| keys.len() <= BOUNDS.keys && keys.is_sorted()));
        });
    }
}
