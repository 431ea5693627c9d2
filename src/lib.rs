//! See, explain and prevent rate limiting of Clerk's Backend API.
//!
//! The crate is a library with one binary on top. Its rooms are listed in the order in which they may depend on each
//! other: a room uses only rooms above it.

pub mod serve;
