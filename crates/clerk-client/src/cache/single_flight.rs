//! One fetch at a time for each key and priority, shared by all who wait for it.
//!
//! The fetch is driven by those who wait: if one goes away the others go on, and if all do it is cancelled. An
//! invalidation detaches: those that wait already get the answer all the same, which is not kept, and whoever comes later does
//! not find the old fetch. So a write costs no read a second request.

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
use crate::limiter::Priority;

/// How a fetch ended. Errors are of whatever type the fetch has.
pub(super) type FetchResult = Result<(CachedResponse, Hit), Arc<dyn Any + Send + Sync>>;

type FetchFuture = BoxFuture<'static, FetchResult>;

/// What a flight is called by: what is fetched, and for whom.
type FlightKey = (CacheKey, Priority);

#[derive(Default)]
pub(super) struct SingleFlight(Arc<Table>);

#[derive(Default)]
struct Table {
    /// Nothing that holds a flight may be dropped under this lock: the end of a flight takes it.
    flights: Mutex<FxHashMap<FlightKey, Flight>>,
    begun: AtomicU64,
}

struct Flight {
    number: u64,
    generations: Arc<Snapshot>,
    fetch_future: WeakShared<FetchFuture>,
}

/// A place among those who wait for a fetch.
pub(super) struct Waiter {
    fetch_future: Shared<FetchFuture>,
    generations: Arc<Snapshot>,
    /// Whether the fetch was begun for this one.
    pub(super) is_first: bool,
}

/// Takes the flight out of the table when it ends, however it ends.
struct RemoveOnDrop {
    table: Arc<Table>,
    key_and_priority: FlightKey,
    number: u64,
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let mut flights = self.table.flights.lock();
        if flights.get(&self.key_and_priority).is_some_and(|flight| flight.number == self.number) {
            flights.remove(&self.key_and_priority);
        }
    }
}

impl SingleFlight {
    /// A seat in a flight that is under way for this key, or in a new one. `begin` gets the generations of before the
    /// fetch; it must do nothing but make the future.
    pub(super) fn join(
        &self,
        key_and_priority: FlightKey,
        generations: &Generations,
        snapshot: impl FnOnce() -> Snapshot,
        begin: impl FnOnce(Arc<Snapshot>) -> FetchFuture,
    ) -> Waiter {
        if let Some(waiter) = self.in_flight(key_and_priority, generations) {
            return waiter;
        }
        // Before the flight is in the table, so that an invalidation from here on finds either the table or the
        // generations changed.
        let snapshot = Arc::new(snapshot());
        let number = self.0.begun.fetch_add(1, Ordering::Relaxed);
        let remove_on_drop = RemoveOnDrop { table: Arc::clone(&self.0), key_and_priority, number };
        let fetch = begin(Arc::clone(&snapshot));
        let fetch_future = async move {
            let _leave = remove_on_drop;
            fetch.await
        };
        let fetch_future = fetch_future.boxed().shared();
        // Somebody else may have been quicker.
        if let Some(waiter) = self.insert(key_and_priority, number, &fetch_future, &snapshot, generations) {
            return waiter;
        }
        Waiter { fetch_future, generations: snapshot, is_first: true }
    }

    fn insert(
        &self,
        key_and_priority: FlightKey,
        number: u64,
        fetch_future: &Shared<FetchFuture>,
        snapshot: &Arc<Snapshot>,
        generations: &Generations,
    ) -> Option<Waiter> {
        let mut flights = self.0.flights.lock();
        if let Some(waiter) = find(&flights, key_and_priority, generations) {
            return Some(waiter);
        }
        let fetch_future = fetch_future.downgrade()?;
        let flight = Flight { number, generations: Arc::clone(snapshot), fetch_future };
        flights.insert(key_and_priority, flight);
        None
    }

    /// A seat in the flight that is under way, if there is one.
    pub(super) fn in_flight(&self, key_and_priority: FlightKey, generations: &Generations) -> Option<Waiter> {
        find(&self.0.flights.lock(), key_and_priority, generations)
    }

    /// Detaches all flights that began before the present generations.
    pub(super) fn detach(&self, generations: &Generations) {
        self.0.flights.lock().retain(|_, flight| generations.is_valid(&flight.generations));
    }

    /// How many are under way.
    pub(super) fn count(&self) -> u64 {
        self.0.flights.lock().len() as u64
    }
}

/// A seat in a flight for this key that this one may wait for.
fn find(
    flights: &FxHashMap<FlightKey, Flight>,
    (key, priority): FlightKey,
    generations: &Generations,
) -> Option<Waiter> {
    priority.may_join().iter().find_map(|of| flights.get(&(key, *of))?.waiter(generations))
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
    /// Waits for the end of the fetch; says whether an invalidation came first.
    pub(super) async fn wait(self, generations: &Generations) -> (FetchResult, bool) {
        let Self { fetch_future, generations: snapshot, .. } = self;
        let result = fetch_future.await;
        (result, !generations.is_valid(&snapshot))
    }
}
