//! The cache: properties under random steps, each rule alone, and two processes over a real Redis.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod invalidation;
mod memory;
mod model;
mod redis;
mod shadow;
mod sharing;
mod support;
mod threads;
