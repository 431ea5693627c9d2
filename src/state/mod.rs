//! State that outlives the process or is shared with others: when requests were sent, so that a restart does not spend the
//! quota twice, the metered operations of the month, and who probes.
//!
//! Stored only in a configured folder, by one process; further processes log this and run without. Gateways that share
//! a Redis add up their metered operations there. Nothing is flushed to disk: after a crash of the machine, the lost
//! requests' windows have passed by the time it is back, and the month lacks a few operations.

mod journal;
mod months;
mod record;
mod shared_leases;
mod shared_months;

pub use journal::{Journal, JournalError, Restored};
pub use months::{KeptMonths, MonthFile};
pub use shared_leases::SharedLeases;
pub use shared_months::{SharedMonths, SharedMonthsError};
