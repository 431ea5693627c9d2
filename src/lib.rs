//! See, explain and prevent rate limiting of Clerk's Backend API.
//!
//! The crate is a library with one binary on top.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod metrics;
pub mod outbound;
pub mod probe;
pub mod quota;
pub mod secret;
pub mod serve;
pub mod simulator;
pub mod site;
pub mod upstream;
