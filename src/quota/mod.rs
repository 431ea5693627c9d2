//! What Clerk tells us about its quotas.
//!
//! Pure rules: no I/O, no clock of their own, nothing of this crate above them.

pub mod headers;
