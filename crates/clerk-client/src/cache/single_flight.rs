//! Request coalescing: one fetch at a time per key and sender, shared by all its waiters.
//!
//! The waiters drive the fetch: it continues if one of them is dropped and is cancelled if all are. An invalidation
//! detaches a fetch: its waiters still receive the response, which is not stored, and later requests do not join it. So
//! a write never causes a second request for a read that is already waiting.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::entry::CachedResponse;
use super::generations::{Generations, Snapshot};
use super::{CacheKey, Hit};
use crate::limiter::Sender;

/// Result of a fetch. The type of the error depends on the caller.
pub(super) type FetchResult = Result<(CachedResponse, Hit), Arc<dyn Any + Send + Sync>>;

type FetchFuture = BoxFuture<'static, FetchResult>;

/// Key of a flight: what is fetched, and for whom.
type FlightKey = (CacheKey, Sender);

#[derive(Default)]
pub(super) struct SingleFlight(Arc<Table>);

#[derive(Default)]
struct Table {
    /// A flight must not be dropped under this lock: its end takes the lock.
    flights: Mutex<FxHashMap<FlightKey, Flight>>,
    begun: AtomicU64,
}

struct Flight {
    number: u64,
    generations: Arc<Snapshot>,
    fetch_future: WeakShared<FetchFuture>,
}

/// Waits for a fetch.
pub(super) struct Waiter {
    fetch_future: Shared<FetchFuture>,
    generations: Arc<Snapshot>,
    /// Whether this waiter started the fetch.
    pub(super) is_first: bool,
}

/// Removes the flight from the table when it ends or is dropped.
struct RemoveOnDrop {
    table: Arc<Table>,
    key_and_sender: FlightKey,
    number: u64,
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let mut flights = self.table.flights.lock();
        if flights.get(&self.key_and_sender).is_some_and(|flight| flight.number == self.number) {
            flights.remove(&self.key_and_sender);
        }
    }
}

impl SingleFlight {
    /// Joins a flight in progress for this key or starts one. `begin` gets the generations from before the fetch; it
    /// must only create the future.
    pub(super) fn join(
        &self,
        key_and_sender: FlightKey,
        generations: &Generations,
        snapshot: impl FnOnce() -> Snapshot,
        begin: impl FnOnce(Arc<Snapshot>) -> FetchFuture,
    ) -> Waiter {
        if let Some(waiter) = self.in_flight(key_and_sender, generations) {
            return waiter;
        }
        // Taken before the flight is inserted: an invalidation from here on changes the generations or finds the flight
        // in the table.
        let snapshot = Arc::new(snapshot());
        let number = self.0.begun.fetch_add(1, Ordering::Relaxed);
        let remove_on_drop = RemoveOnDrop { table: Arc::clone(&self.0), key_and_sender, number };
        let fetch = begin(Arc::clone(&snapshot));
        let fetch_future = async move {
            let _leave = remove_on_drop;
            fetch.await
        };
        let fetch_future = fetch_future.boxed().shared();
        // Another request may have inserted one meanwhile.
        if let Some(waiter) = self.insert(key_and_sender, number, &fetch_future, &snapshot, generations) {
            return waiter;
        }
        Waiter { fetch_future, generations: snapshot, is_first: true }
    }

    fn insert(
        &self,
        key_and_sender: FlightKey,
        number: u64,
        fetch_future: &Shared<FetchFuture>,
        snapshot: &Arc<Snapshot>,
        generations: &Generations,
    ) -> Option<Waiter> {
        let mut flights = self.0.flights.lock();
        if let Some(waiter) = find(&flights, key_and_sender, generations) {
            return Some(waiter);
        }
        let fetch_future = fetch_future.downgrade()?;
        let flight = Flight { number, generations: Arc::clone(snapshot), fetch_future };
        flights.insert(key_and_sender, flight);
        None
    }

    /// Joins a flight in progress, if there is one.
    pub(super) fn in_flight(&self, key_and_sender: FlightKey, generations: &Generations) -> Option<Waiter> {
        find(&self.0.flights.lock(), key_and_sender, generations)
    }

    /// Detaches all flights that began before the current generations.
    pub(super) fn detach(&self, generations: &Generations) {
        self.0.flights.lock().retain(|_, flight| generations.is_valid(&flight.generations));
    }

    /// Number of flights in progress.
    pub(super) fn count(&self) -> u64 {
        self.0.flights.lock().len() as u64
    }
}

/// A waiter for a flight that a request of this sender may join.
fn find(flights: &FxHashMap<FlightKey, Flight>, (key, sender): FlightKey, generations: &Generations) -> Option<Waiter> {
    sender.may_join().find_map(|of| flights.get(&(key, of))?.waiter(generations))
}

impl Flight {
    fn waiter(&self, generations: &Generations) -> Option<Waiter> {
        if !generations.is_valid(&self.generations) {
            return None;
        }
        let fetch_future = self.fetch_future.upgrade()?;
        Some(Waiter { fetch_future, generations: Arc::clone(&self.generations), is_first: false })
    }
}

impl Waiter {
    /// Waits for the result. Returns it and whether an invalidation came first.
    pub(super) async fn wait(self, generations: &Generations) -> (FetchResult, bool) {
        let Self { fetch_future, generations: snapshot, .. } = self;
        let result = fetch_future.await;
        (result, !generations.is_valid(&snapshot))
    }
}
