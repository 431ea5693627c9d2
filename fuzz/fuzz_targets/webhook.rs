//! Any bytes as a webhook delivery. The property tests check the same on stable Rust.

#![no_main]

#[path = "../../crates/clerk-client/tests/webhook/delivery.rs"]
mod delivery;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| delivery::Delivery::from_bytes(data).check());
