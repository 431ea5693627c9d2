//! The dashboards in `dashboards/`: they follow the rules of good dashboards, and every query runs against a real
//! Prometheus.

#![expect(clippy::unwrap_used, reason = "a failed step of a test may stop it, in helpers too")]

mod contract;
mod expected;
mod live;
mod promql;
mod rules;
mod shipped;
mod spending;

use std::path::PathBuf;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("dashboards")
}
