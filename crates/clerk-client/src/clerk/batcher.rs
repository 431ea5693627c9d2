//! A dataloader: batches single lookups that come at nearly the same time.
//!
//! A batch is a future that all its callers share and poll: it runs as long as one of them is left, and is cancelled with
//! the last one. There is no background task that could be left behind.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use http::Extensions;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::outbound::RequestMembers;
use clerk_quota::CallerId;

/// The results of a batch: some of its keys with their values.
type Results<K, V> = Arc<HashMap<K, V>>;
type Running<K, V> = BoxFuture<'static, Results<K, V>>;
/// The future that the callers of a batch share.
type SharedResults<K, V> = Shared<Running<K, V>>;
type Fetch<K, V> = dyn Fn(Vec<K>, CallerId, RequestMembers) -> BoxFuture<'static, HashMap<K, V>> + Send + Sync;

/// The limits of batches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// How long the first key of a batch waits for others.
    pub(super) window: Duration,
    /// Most keys in a batch, at least 1.
    pub(super) keys: usize,
    /// Most keys without a result, in all batches.
    pub(super) waiting: usize,
}

/// How a lookup shared its request with others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchShare {
    /// Whether it was the first lookup of its request; each request has exactly one.
    pub is_first: bool,
    /// Whether the request had other lookups.
    pub is_shared: bool,
}

/// Too many keys wait for a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// Batches lookups. Concurrent lookups of one key share one result.
pub(super) struct Batcher<K, V> {
    bounds: Bounds,
    fetch: Arc<Fetch<K, V>>,
    state: Arc<Mutex<State<K, V>>>,
}

struct State<K, V> {
    batches: HashMap<u64, Batch<K, V>>,
    /// The batch that has a key of a lookup made now.
    by_key: HashMap<K, u64>,
    /// The batch that accepts further keys.
    open: Option<u64>,
    /// Keys in all batches.
    waiting: usize,
    next_id: u64,
}

struct Batch<K, V> {
    /// Its keys, and the callers of each.
    callers: BTreeMap<K, usize>,
    results: WeakShared<Running<K, V>>,
    full: Arc<Notify>,
    /// Its lookups, whether or not their callers still wait.
    joined: Arc<AtomicUsize>,
    /// What its lookups gave, of those that gave anything.
    members: Vec<Extensions>,
    is_sent: bool,
}

impl<K, V> Batcher<K, V>
where
    K: Clone + Eq + Hash + Ord + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// `fetch` requests a batch of different keys, charged to the caller that opened it.
    pub(super) fn new(
        bounds: Bounds,
        fetch: impl Fn(Vec<K>, CallerId, RequestMembers) -> BoxFuture<'static, HashMap<K, V>> + Send + Sync + 'static,
    ) -> Self {
        let state = State { batches: HashMap::new(), by_key: HashMap::new(), open: None, waiting: 0, next_id: 0 };
        let bounds = Bounds { keys: bounds.keys.max(1), ..bounds };
        Self { bounds, fetch: Arc::new(fetch), state: Arc::new(Mutex::new(state)) }
    }

    /// The value of a key, `None` if the results are without it; and how the batch was shared.
    pub(super) async fn get_batched(
        &self,
        key: &K,
        caller: CallerId,
        member: Extensions,
    ) -> Result<(Option<V>, BatchShare), Full> {
        let waiter = self.join(key, caller, member)?;
        let value = waiter.results.clone().await.get(key).cloned();
        let is_shared = waiter.joined.load(Ordering::Relaxed) > 1;
        Ok((value, BatchShare { is_first: waiter.has_opened, is_shared }))
    }

    #[cfg(test)]
    async fn get(&self, key: &K) -> Result<Option<V>, Full> {
        self.get_batched(key, CallerId::UNNAMED, Extensions::new()).await.map(|(value, _)| value)
    }

    /// Lookups of the key from now on do not get the result of a request that was sent.
    pub(super) fn invalidate(&self, key: &K) {
        let mut state = self.state.lock();
        let State { by_key, batches, .. } = &mut *state;
        let is_sent = by_key.get(key).and_then(|id| batches.get(id)).is_some_and(|batch| batch.is_sent);
        if is_sent {
            by_key.remove(key);
        }
    }

    fn join(&self, key: &K, caller: CallerId, member: Extensions) -> Result<Waiter<K, V>, Full> {
        let mut state = self.state.lock();
        let known = state.by_key.get(key).copied();
        let mut has_opened = false;
        let (id, results) = match known.and_then(|id| state.running(id)) {
            Some(found) => found,
            None if state.waiting >= self.bounds.waiting => return Err(Full),
            None => state.open.and_then(|id| state.running(id)).unwrap_or_else(|| {
                has_opened = true;
                self.open(&mut state, caller)
            }),
        };
        state.add_caller(id, key, self.bounds.keys);
        state.add_member(id, member);
        let joined = state.batches.get(&id).map(|batch| Arc::clone(&batch.joined)).unwrap_or_default();
        joined.fetch_add(1, Ordering::Relaxed);
        Ok(Waiter { state: Arc::clone(&self.state), id, key: key.clone(), results, joined, has_opened })
    }

    fn open(&self, state: &mut State<K, V>, caller: CallerId) -> (u64, SharedResults<K, V>) {
        let id = state.next_id;
        state.next_id += 1;
        let full = Arc::new(Notify::new());
        let end = End { state: Arc::clone(&self.state), id };
        let running = {
            let (fetch, full, window) = (Arc::clone(&self.fetch), Arc::clone(&full), self.bounds.window);
            async move {
                // Full, or the window is over.
                let _ = timeout(window, full.notified()).await;
                let (keys, members) = end.state.lock().send(id);
                let results = fetch(keys, caller, members).await;
                drop(end);
                Arc::new(results)
            }
        };
        let results = running.boxed().shared();
        // Always `Some`: the future was not polled yet.
        if let Some(weak) = results.downgrade() {
            state.batches.insert(
                id,
                Batch {
                    callers: BTreeMap::new(),
                    results: weak,
                    full,
                    joined: Arc::default(),
                    members: Vec::new(),
                    is_sent: false,
                },
            );
            state.open = Some(id);
        }
        (id, results)
    }
}

impl<K: Clone + Eq + Hash + Ord, V> State<K, V> {
    /// A batch, unless its last caller is just being dropped.
    fn running(&self, id: u64) -> Option<(u64, SharedResults<K, V>)> {
        Some((id, self.batches.get(&id)?.results.upgrade()?))
    }

    fn add_caller(&mut self, id: u64, key: &K, most: usize) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        let callers = batch.callers.entry(key.clone()).or_insert(0);
        if *callers == 0 && !batch.is_sent {
            self.waiting += 1;
            self.by_key.insert(key.clone(), id);
        }
        *callers += 1;
        if batch.callers.len() >= most && self.open == Some(id) {
            self.open = None;
            batch.full.notify_one();
        }
    }

    /// One that joins a batch that was sent shares its result, but is not a member of its request.
    fn add_member(&mut self, id: u64, member: Extensions) {
        if let Some(batch) = self.batches.get_mut(&id)
            && !member.is_empty()
            && batch.members.len() < RequestMembers::MOST
        {
            batch.members.push(member);
        }
    }

    fn remove_caller(&mut self, id: u64, key: &K) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        let Some(callers) = batch.callers.get_mut(key) else { return };
        *callers -= 1;
        // A key of a batch that was not sent need not be requested.
        if *callers == 0 && !batch.is_sent {
            batch.callers.remove(key);
            self.waiting -= 1;
            self.by_key.remove(key);
        }
    }

    fn send(&mut self, id: u64) -> (Vec<K>, RequestMembers) {
        self.open = self.open.filter(|open| *open != id);
        let Some(batch) = self.batches.get_mut(&id) else { return Default::default() };
        batch.is_sent = true;
        (batch.callers.keys().cloned().collect(), std::mem::take(&mut batch.members).into())
    }

    fn end(&mut self, id: u64) {
        self.open = self.open.filter(|open| *open != id);
        let Some(batch) = self.batches.remove(&id) else { return };
        self.waiting -= batch.callers.len();
        for key in batch.callers.keys() {
            if self.by_key.get(key) == Some(&id) {
                self.by_key.remove(key);
            }
        }
    }
}

/// A caller that waits for a key of a batch.
struct Waiter<K: Clone + Eq + Hash + Ord, V> {
    state: Arc<Mutex<State<K, V>>>,
    id: u64,
    key: K,
    results: SharedResults<K, V>,
    joined: Arc<AtomicUsize>,
    has_opened: bool,
}

impl<K: Clone + Eq + Hash + Ord, V> Drop for Waiter<K, V> {
    fn drop(&mut self) {
        self.state.lock().remove_caller(self.id, &self.key);
    }
}

/// Removes a batch when it has results or is cancelled.
struct End<K: Clone + Eq + Hash + Ord, V> {
    state: Arc<Mutex<State<K, V>>>,
    id: u64,
}

impl<K: Clone + Eq + Hash + Ord, V> Drop for End<K, V> {
    fn drop(&mut self) {
        self.state.lock().end(self.id);
    }
}

impl<K, V> fmt::Debug for Batcher<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.state.lock().waiting;
        f.debug_struct("Batcher").field("bounds", &self.bounds).field("waiting", &waiting).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
