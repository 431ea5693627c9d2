//! Any bytes as a log for `analyze`, of every format, compressed or not. The property tests check the same on stable Rust.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let lines = data.split(|byte| *byte == b'\n').count() as u64;
    let (requests, skipped) = clerk_exporter::analyze::count(data.to_vec());
    // What is compressed has more lines, and a line of spans has several requests.
    let is_plain = !data.starts_with(&[0x1f, 0x8b]) && !data.windows(13).any(|part| part == b"resourceSpans");
    let is_har = data.windows(7).any(|part| part == b"entries");
    assert!(!is_plain || is_har || requests + skipped <= lines);
});
