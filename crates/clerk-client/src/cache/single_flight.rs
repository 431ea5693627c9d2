//! One fetch at a time for each key and priority, shared by all who wait for it.
//!
//! The fetch is driven by those who wait: if one goes away the others go on, and if all do it is cancelled. An
//! invalidation detaches: who waits for an answer that may be kept is told at once and fetches anew, and who comes later
//! does not find the old fetch.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

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
    flights: Mutex<HashMap<FlightKey, Flight>>,
    begun: AtomicU64,
}

struct Flight {
    number: u64,
    generations: Arc<Snapshot>,
    landing: WeakShared<FetchFuture>,
    detached: CancellationToken,
}

/// A place among those who wait for a fetch.
pub(super) struct Waiter {
    landing: Shared<FetchFuture>,
    generations: Arc<Snapshot>,
    detached: CancellationToken,
    /// Whether the fetch was begun for this one.
    pub(super) is_first: bool,
}

/// Takes the flight out of the table when it ends, however it ends.
struct RemoveOnDrop {
    table: Arc<Table>,
    sign: FlightKey,
    number: u64,
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let mut flights = self.table.flights.lock();
        if flights.get(&self.sign).is_some_and(|flight| flight.number == self.number) {
            flights.remove(&self.sign);
        }
    }
}

impl SingleFlight {
    /// A seat in a flight that is under way for this key, or in a new one. `begin` gets the generations of before the
    /// fetch; it must do nothing but make the future.
    pub(super) fn join(
        &self,
        sign: FlightKey,
        generations: &Generations,
        snapshot: impl FnOnce() -> Snapshot,
        begin: impl FnOnce(Arc<Snapshot>) -> FetchFuture,
    ) -> Waiter {
        if let Some(seat) = self.in_flight(sign, generations) {
            return seat;
        }
        // Before the flight is in the table, so that an invalidation from here on finds either the table or the
        // generations changed.
        let snapshot = Arc::new(snapshot());
        let number = self.0.begun.fetch_add(1, Ordering::Relaxed);
        let leave = RemoveOnDrop { table: Arc::clone(&self.0), sign, number };
        let fetch = begin(Arc::clone(&snapshot));
        let landing = async move {
            let _leave = leave;
            fetch.await
        };
        let landing = landing.boxed().shared();
        let detached = CancellationToken::new();
        // Somebody else may have been quicker.
        if let Some(seat) = self.insert(sign, number, &landing, &snapshot, &detached, generations) {
            return seat;
        }
        Waiter { landing, generations: snapshot, detached, is_first: true }
    }

    fn insert(
        &self,
        sign: FlightKey,
        number: u64,
        landing: &Shared<FetchFuture>,
        snapshot: &Arc<Snapshot>,
        detached: &CancellationToken,
        generations: &Generations,
    ) -> Option<Waiter> {
        let mut flights = self.0.flights.lock();
        if let Some(seat) = find(&flights, sign, generations) {
            return Some(seat);
        }
        let landing = landing.downgrade()?;
        let flight = Flight { number, generations: Arc::clone(snapshot), landing, detached: detached.clone() };
        flights.insert(sign, flight);
        None
    }

    /// A seat in the flight that is under way, if there is one.
    pub(super) fn in_flight(&self, sign: FlightKey, generations: &Generations) -> Option<Waiter> {
        find(&self.0.flights.lock(), sign, generations)
    }

    /// Detaches all flights that began before the present generations.
    pub(super) fn detach(&self, generations: &Generations) {
        self.0.flights.lock().retain(|_, flight| {
            let is_valid = generations.is_valid(&flight.generations);
            if !is_valid {
                flight.detached.cancel();
            }
            is_valid
        });
    }

    /// How many are under way.
    pub(super) fn count(&self) -> u64 {
        self.0.flights.lock().len() as u64
    }
}

/// A seat in a flight for this key that this one may wait for.
fn find(flights: &HashMap<FlightKey, Flight>, (key, priority): FlightKey, generations: &Generations) -> Option<Waiter> {
    priority.may_join().iter().find_map(|of| flights.get(&(key, *of))?.waiter(generations))
}

impl Flight {
    fn waiter(&self, generations: &Generations) -> Option<Waiter> {
        if !generations.is_valid(&self.generations) {
            return None;
        }
        let landing = self.landing.upgrade()?;
        let (generations, detached) = (Arc::clone(&self.generations), self.detached.clone());
        Some(Waiter { landing, generations, detached, is_first: false })
    }
}

impl Waiter {
    /// Waits for the end of the fetch; `None` if an invalidation came first, and that counts.
    pub(super) async fn wait(self, generations: &Generations, counts: bool) -> Option<FetchResult> {
        let Self { landing, generations: snapshot, detached, .. } = self;
        if !counts {
            return Some(landing.await);
        }
        let landed = tokio::select! {
            biased;
            () = detached.cancelled() => return None,
            landed = landing => landed,
        };
        generations.is_valid(&snapshot).then_some(landed)
    }
}
