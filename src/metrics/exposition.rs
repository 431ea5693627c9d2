//! The metrics of one moment, written piece by piece as they are taken.
//!
//! Of ten thousand instances they are more than 100 MB. Only the snapshot and one piece are in memory at a time.

use std::fmt;
use std::sync::Arc;

use prometheus_client::registry::Registry;

use super::quota::{FAMILIES, QuotaCollector, View};
use super::{Format, encode};

/// A piece is at least so long, unless it is the last.
const PIECE_BYTES: usize = 64 * 1024;

/// So many instances are written at once.
const INSTANCES_AT_ONCE: usize = 32;

/// All metrics of one moment, in pieces that belong one behind the other: the items of this iterator.
///
/// An error is the last item. What came before it is not whole then.
#[derive(Debug)]
pub struct Exposition {
    view: Arc<View>,
    format: Format,
    /// The place that is written next: family, then instance.
    family: usize,
    instance: usize,
    /// Whether this family's descriptor was written.
    is_described: bool,
    group: String,
    /// What comes behind the ledger's families; none once it was taken.
    last: Option<String>,
}

impl Exposition {
    pub(super) fn new(view: View, last: String, format: Format) -> Self {
        let (view, group) = (Arc::new(view), String::new());
        Self { view, format, family: 0, instance: 0, is_described: false, group, last: Some(last) }
    }

    /// About how many bytes of memory it takes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.view.bytes() + 2 * PIECE_BYTES + self.last.as_ref().map_or(0, String::len)
    }

    /// Whether all pieces were taken.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.last.is_none()
    }

    /// Writes the next instances of the family in hand behind the piece.
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

/// What comes behind the lines that describe a family.
fn samples(text: &str) -> &str {
    let mut rest = text;
    while rest.starts_with('#') {
        rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
    }
    rest
}
