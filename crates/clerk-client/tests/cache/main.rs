//! The cache: properties under random steps, each rule alone, and two processes over a real Redis.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod examples;
mod invalidation;
mod memory;
mod model;
mod redis;
mod shadow;
mod sharing;
mod support;
mod threads;

#[path = "../../examples/cache.rs"]
#[expect(dead_code, reason = "the example's main is not run here")]
mod example;
