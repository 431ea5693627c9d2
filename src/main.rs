//! The `clerk-exporter` binary.

fn main() {}
