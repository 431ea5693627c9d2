//! What was compared, as a table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The result of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// The number is absent.
    Absent,
    Exact,
    /// Within the stated bound, off by this much.
    Bound(f64),
    /// Outside of the bound, with a description.
    Violation(String),
}

impl Outcome {
    /// A number that must not exceed the truth; `lowest` is the stated bound on the other side.
    pub(crate) fn at_most(found: f64, truth: f64, lowest: f64) -> Self {
        Self::between(found, lowest, truth, truth)
    }

    /// A number between two bounds, one of which is the truth.
    pub(crate) fn between(found: f64, lowest: f64, highest: f64, truth: f64) -> Self {
        const TINY: f64 = 1e-9;
        if found < lowest - TINY || found > highest + TINY {
            return Self::Violation(format!("{found} is not within {lowest} and {highest}"));
        }
        let error = (found - truth).abs();
        if error < TINY { Self::Exact } else { Self::Bound(error) }
    }

    pub(crate) fn equal(found: f64, truth: f64) -> Self {
        Self::between(found, truth, truth, truth)
    }

    pub(crate) fn right(is_right: bool, wrong: impl FnOnce() -> String) -> Self {
        if is_right { Self::Exact } else { Self::Violation(wrong()) }
    }
}

/// The displayed quantities, in the order of the table.
pub(crate) const QUANTITIES: [&str; 17] = [
    "limit",
    "remaining, counted",
    "remaining, by headers",
    "usage peak",
    "seconds to exhaustion",
    "blocked until",
    "windows",
    "low windows",
    "exhausted windows",
    "window usage histogram",
    "unseen requests",
    "requests by result",
    "requests by caller",
    "responses and 429s",
    "top, 10 s and 1 m",
    "saved requests",
    "limiter in flight",
];
pub(crate) const VERDICT: &str = "verdict and basis";

#[derive(Debug, Default, Clone)]
struct Row {
    worlds: BTreeSet<usize>,
    comparisons: u64,
    absent: u64,
    exact: u64,
    bound: u64,
    error: f64,
    violations: Vec<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: BTreeMap<&'static str, Row>,
    /// The index of the world.
    pub(crate) world: usize,
    /// Its description.
    pub(crate) context: String,
}

/// Maximum number of reported violations per quantity.
const TOLD: usize = 6;

impl Table {
    pub(crate) fn add(&mut self, quantity: &'static str, outcome: Outcome) {
        let row = self.rows.entry(quantity).or_default();
        row.worlds.insert(self.world);
        row.comparisons += 1;
        match outcome {
            Outcome::Absent => row.absent += 1,
            Outcome::Exact => row.exact += 1,
            Outcome::Bound(error) => {
                row.bound += 1;
                row.error = row.error.max(error);
            }
            Outcome::Violation(what) => row.violations.push(format!("{}: {what}", self.context)),
        }
    }

    pub(crate) fn violations(&self) -> String {
        let mut text = String::new();
        for (quantity, row) in &self.rows {
            for violation in row.violations.iter().take(TOLD) {
                writeln!(text, "{quantity}: {violation}").unwrap();
            }
            if row.violations.len() > TOLD {
                writeln!(text, "{quantity}: and {} more", row.violations.len() - TOLD).unwrap();
            }
        }
        text
    }

    /// The table in Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from(
            "| quantity | worlds | comparisons | absent | exact | bound (largest error) | violations |\n\
             |---|---:|---:|---:|---:|---:|---:|\n",
        );
        for quantity in QUANTITIES.into_iter().chain([VERDICT]) {
            let row = self.rows.get(quantity).cloned().unwrap_or_default();
            let Row { worlds, comparisons, absent, exact, bound, error, violations } = row;
            let bound = if bound > 0 { format!("{bound} ({})", rounded(error)) } else { "0".to_owned() };
            let (worlds, violations) = (worlds.len(), violations.len());
            writeln!(text, "| {quantity} | {worlds} | {comparisons} | {absent} | {exact} | {bound} | {violations} |")
                .unwrap();
        }
        text
    }
}

fn rounded(error: f64) -> String {
    let text = format!("{error:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
