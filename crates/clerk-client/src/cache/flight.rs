//! One fetch at a time for each key and urgency, shared by all who wait for it.
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

use super::generations::{Generations, Snapshot};
use super::stored::Stored;
use super::{Hit, Key, Urgency};

/// How a fetch ended. Errors are of whatever type the fetch has.
pub(super) type Landed = Result<(Stored, Hit), Arc<dyn Any + Send + Sync>>;

type Flying = BoxFuture<'static, Landed>;

/// What a flight is called by: what is fetched, and for whom.
type Sign = (Key, Urgency);

#[derive(Default)]
pub(super) struct Flights(Arc<Table>);

#[derive(Default)]
struct Table {
    /// Nothing that holds a flight may be dropped under this lock: the end of a flight takes it.
    flights: Mutex<HashMap<Sign, Flight>>,
    begun: AtomicU64,
}

struct Flight {
    number: u64,
    generations: Arc<Snapshot>,
    landing: WeakShared<Flying>,
    detached: CancellationToken,
}

/// A place among those who wait for a fetch.
pub(super) struct Seat {
    landing: Shared<Flying>,
    generations: Arc<Snapshot>,
    detached: CancellationToken,
    /// Whether the fetch was begun for this one.
    pub(super) is_first: bool,
}

/// Takes the flight out of the table when it ends, however it ends.
struct Leave {
    table: Arc<Table>,
    sign: Sign,
    number: u64,
}

impl Drop for Leave {
    fn drop(&mut self) {
        let mut flights = self.table.flights.lock();
        if flights.get(&self.sign).is_some_and(|flight| flight.number == self.number) {
            flights.remove(&self.sign);
        }
    }
}

impl Flights {
    /// A seat in a flight that is under way for this key, or in a new one. `begin` gets the generations of before the
    /// fetch; it must do nothing but make the future.
    pub(super) fn board(
        &self,
        sign: Sign,
        generations: &Generations,
        snapshot: impl FnOnce() -> Snapshot,
        begin: impl FnOnce(Arc<Snapshot>) -> Flying,
    ) -> Seat {
        if let Some(seat) = self.under_way(sign, generations) {
            return seat;
        }
        // Before the flight is in the table, so that an invalidation from here on finds either the table or the
        // generations changed.
        let snapshot = Arc::new(snapshot());
        let number = self.0.begun.fetch_add(1, Ordering::Relaxed);
        let leave = Leave { table: Arc::clone(&self.0), sign, number };
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
        Seat { landing, generations: snapshot, detached, is_first: true }
    }

    fn insert(
        &self,
        sign: Sign,
        number: u64,
        landing: &Shared<Flying>,
        snapshot: &Arc<Snapshot>,
        detached: &CancellationToken,
        generations: &Generations,
    ) -> Option<Seat> {
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
    pub(super) fn under_way(&self, sign: Sign, generations: &Generations) -> Option<Seat> {
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
fn find(flights: &HashMap<Sign, Flight>, (key, urgency): Sign, generations: &Generations) -> Option<Seat> {
    urgency.may_wait_for().iter().find_map(|of| flights.get(&(key, *of))?.seat(generations))
}

impl Flight {
    fn seat(&self, generations: &Generations) -> Option<Seat> {
        if !generations.is_valid(&self.generations) {
            return None;
        }
        let landing = self.landing.upgrade()?;
        let (generations, detached) = (Arc::clone(&self.generations), self.detached.clone());
        Some(Seat { landing, generations, detached, is_first: false })
    }
}

impl Seat {
    /// Waits for the end of the fetch; `None` if an invalidation came first, and that counts.
    pub(super) async fn land(self, generations: &Generations, counts: bool) -> Option<Landed> {
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
