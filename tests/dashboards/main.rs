//! The dashboards in `dashboards/`: generated from one source, held to the rules of good dashboards, and every query run
//! against a real Prometheus.

#![expect(clippy::unwrap_used, reason = "a failed step of a test may stop it, in helpers too")]

mod contract;
mod expected;
mod live;
mod promql;
mod rules;
mod shipped;
mod source;

use std::path::PathBuf;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("dashboards")
}

#[test]
fn shipped_dashboards_are_what_their_source_makes() {
    for (name, board) in source::all() {
        let path = directory().join(format!("{name}.json"));
        let text = format!("{board:#}\n");
        if std::env::var_os("UPDATE_DASHBOARDS").is_some() {
            std::fs::write(&path, text).unwrap();
        } else {
            let shipped = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                shipped == text,
                "{name}.json differs: UPDATE_DASHBOARDS=1 cargo test --test dashboards rewrites it"
            );
        }
    }
}
