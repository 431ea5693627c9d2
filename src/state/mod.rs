//! What outlives the process: when requests were sent, so that a restart does not spend the quota again.
//!
//! Kept only in a folder that is named. One process writes there; a second one says so and runs without. Nothing is flushed
//! to the disk: what a crash of the machine loses, a window has forgotten by the time it is back.

mod journal;
mod record;

pub use journal::{Journal, JournalError, Restored};
