//! Any bytes as the quota headers of a response. The property tests check the same on stable Rust.

#![no_main]

#[path = "../../crates/ratelimit-headers/tests/vectors/exchange.rs"]
mod exchange;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| exchange::Exchange::from_bytes(data).check());
