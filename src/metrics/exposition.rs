//! The metrics of one moment, encoded in pieces on demand.
//!
//! With ten thousand instances they exceed 100 MB. Only the snapshot and one piece are in memory at a time.

use std::fmt;
use std::sync::Arc;

use prometheus_client::registry::Registry;

use super::quota::{FAMILIES, QuotaCollector, View};
use super::{Format, encode};

/// Minimum size of a piece in bytes, except the last.
const PIECE_BYTES: usize = 64 * 1024;

/// Number of instances encoded at once.
const INSTANCES_AT_ONCE: usize = 32;

/// All metrics of one moment, as an iterator over consecutive pieces.
///
/// An error is the last item; the output is then incomplete.
#[derive(Debug)]
pub struct Exposition {
    view: Arc<View>,
    format: Format,
    /// The position of the next output: family, then instance.
    family: usize,
    instance: usize,
    /// Whether this family's descriptor was written.
    is_described: bool,
    group: String,
    /// The output after the ledger's families; `None` once taken.
    last: Option<String>,
}

impl Exposition {
    pub(super) fn new(view: View, last: String, format: Format) -> Self {
        let (view, group) = (Arc::new(view), String::new());
        Self { view, format, family: 0, instance: 0, is_described: false, group, last: Some(last) }
    }

    /// Approximate memory in use, in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.view.bytes() + 2 * PIECE_BYTES + self.last.as_ref().map_or(0, String::len)
    }

    /// Whether all pieces were taken.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.last.is_none()
    }

    /// Appends the next instances of the current family to the piece.
    fn write_group(&mut self, piece: &mut String) -> fmt::Result {
        let until = (self.instance + INSTANCES_AT_ONCE).min(self.view.instances());
        let mut registry = Registry::default();
        let (view, instances) = (Arc::clone(&self.view), self.instance..until);
        registry.register_collector(Box::new(QuotaCollector { view, family: self.family, instances }));
        self.group.clear();
        encode(&mut self.group, &registry, self.format)?;
        // A family is described once, before its first sample.
        let samples = if self.is_described { samples(&self.group) } else { &self.group };
        self.is_described |= !samples.is_empty();
        piece.push_str(samples);
        self.instance = until;
        if until == self.view.instances() {
            (self.family, self.instance, self.is_described) = (self.family + 1, 0, false);
        }
        Ok(())
    }
}

impl Iterator for Exposition {
    type Item = Result<String, fmt::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.last.as_ref()?;
        let mut piece = String::new();
        while piece.len() < PIECE_BYTES && self.family < FAMILIES.len() {
            if let Err(error) = self.write_group(&mut piece) {
                self.last = None;
                return Some(Err(error));
            }
        }
        if self.family == FAMILIES.len() && piece.len() < PIECE_BYTES {
            piece.push_str(&self.last.take().unwrap_or_default());
        }
        Some(Ok(piece))
    }
}

/// The text after the lines that describe a family.
fn samples(text: &str) -> &str {
    let mut rest = text;
    while rest.starts_with('#') {
        rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
    }
    rest
}
