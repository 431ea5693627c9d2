//! State that survives a restart: when requests were sent, so that a restart does not spend the quota twice.
//!
//! Stored only in a configured folder, by one process; further processes log this and run without. Nothing is flushed
//! to disk: after a crash of the machine, the lost requests' windows have passed by the time it is back.

mod journal;
mod record;

pub use journal::{Journal, JournalError, Restored};
