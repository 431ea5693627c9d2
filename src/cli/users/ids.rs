//! Ids for `users get`, from arguments and a file.

use std::collections::HashSet;
use std::path::Path;

use anyhow::Context;

/// An id, and where it was given.
#[derive(Debug)]
pub(super) struct PlacedId {
    place: String,
    id: String,
}

/// Ids of the command line.
pub(super) fn of_arguments(ids: &[String]) -> impl Iterator<Item = PlacedId> {
    ids.iter().zip(1..).map(|(id, number)| PlacedId { place: format!("argument {number}"), id: id.trim().to_owned() })
}

/// Ids of a file, one per line; `-` is standard input. Empty lines and lines that begin with `#` are skipped.
///
/// # Errors
/// Returns an error if the file cannot be read.
pub(super) fn of_file(path: &Path) -> anyhow::Result<Vec<PlacedId>> {
    let text = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin()).context("standard input")?
    } else {
        std::fs::read_to_string(path).with_context(|| format!("--ids-file {}", path.display()))?
    };
    let lines = text.lines().map(str::trim).zip(1..);
    let ids = lines.filter(|(id, _)| !id.is_empty() && !id.starts_with('#'));
    Ok(ids.map(|(id, line)| PlacedId { place: format!("{}:{line}", path.display()), id: id.to_owned() }).collect())
}

/// Ids in their order, each once.
#[derive(Debug, Default)]
pub(super) struct UniqueIds {
    known: HashSet<String>,
    ids: Vec<String>,
}

impl UniqueIds {
    /// Adds ids.
    ///
    /// # Errors
    /// Returns an error with the place of the first id that `check` refuses.
    pub(super) fn extend<E: std::error::Error + Send + Sync + 'static>(
        &mut self,
        ids: impl IntoIterator<Item = PlacedId>,
        check: impl Fn(&str) -> Result<(), E>,
    ) -> anyhow::Result<()> {
        for PlacedId { place, id } in ids {
            check(&id).context(place)?;
            if self.known.insert(id.clone()) {
                self.ids.push(id);
            }
        }
        Ok(())
    }

    pub(super) fn into_vec(self) -> Vec<String> {
        self.ids
    }
}
