//! Whether a file without a recorded position is a complete export.
//!
//! A complete export removes its position, but a person may have removed that of an incomplete one. A complete file has
//! every user that was created before its last change.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::UNIX_EPOCH;

use anyhow::{Context, bail};
use serde::Deserialize;

use super::args::UserFormat;
use clerk_client::clerk::{Clerk, Cursor, UserRepr};

/// Longest line that is read: metadata can be large.
const MAX_LINE: u64 = 4 << 20;

/// A file in the form of an export.
#[derive(Debug)]
pub(super) struct FinishedExport {
    /// After its last user; none without users.
    last: Option<Cursor>,
    /// Last change, in milliseconds since the UNIX epoch.
    written_at: i64,
}

/// Identifies a user, and their position in an export.
#[derive(Deserialize)]
struct UserKey {
    id: String,
    created_at: i64,
}

impl UserKey {
    fn cursor(&self) -> Option<Cursor> {
        format!("{}@{}", self.id, self.created_at).parse().ok()
    }
}

impl FinishedExport {
    /// Reads the end of a file; none if it does not have the format of an export.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub(super) fn read(path: &Path, format: UserFormat) -> io::Result<Option<Self>> {
        let mut file = File::open(path)?;
        let modified = file.metadata()?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let written_at = i64::try_from(modified.as_millis()).unwrap_or(i64::MAX);
        let last = match format {
            UserFormat::Jsonl => last_line(&mut file)?.map(Some),
            UserFormat::Csv => last_row(file, &format.head().map_err(io::Error::other)?)?,
        };
        Ok(last.map(|last| Self { last, written_at }))
    }

    /// Requests the first user after the last one in the file.
    ///
    /// # Errors
    /// Returns an error if that user was created before the last change of the file, or the request fails.
    pub(super) async fn check(self, clerk: &Clerk, path: &Path) -> anyhow::Result<()> {
        let mut pages = clerk.users().list_all().raw().page_size(1);
        if let Some(last) = self.last {
            pages = pages.resume_from(last);
        }
        let next = pages.try_next().await.context("cannot tell whether the export is complete")?;
        let first = next.as_ref().and_then(|page| page.users.first()).map(UserRepr::created_at);
        if first.is_some_and(|created_at| created_at.is_none_or(|at| at < self.written_at)) {
            let name = path.display();
            bail!(
                "{name}: neither a complete export nor one that can be resumed: {name}.resume is missing, and so are users \
                 created before the last change; start again with --force"
            );
        }
        Ok(())
    }
}

/// The user in the last line, which must be complete.
fn last_line(file: &mut File) -> io::Result<Option<Cursor>> {
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_LINE)))?;
    let mut end = Vec::new();
    file.take(MAX_LINE).read_to_end(&mut end)?;
    let Some(lines) = end.strip_suffix(b"\n") else { return Ok(None) };
    let line = lines.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(serde_json::from_slice::<UserKey>(line).ok().and_then(|user| user.cursor()))
}

/// The user in the last row, which must be complete; it may be the header.
fn last_row(file: File, head: &[u8]) -> io::Result<Option<Option<Cursor>>> {
    let mut file = BufReader::new(file);
    let mut first = Vec::new();
    file.by_ref().take(MAX_LINE).read_until(b'\n', &mut first)?;
    if first != head {
        return Ok(None);
    }
    let (mut ends_line, mut last) = (true, None);
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(Ending { file, ends_line: &mut ends_line });
    let mut row = csv::StringRecord::new();
    let columns = csv::StringRecord::from(
        std::str::from_utf8(head).unwrap_or_default().trim_end().split(',').collect::<Vec<_>>(),
    );
    while reader.read_record(&mut row).map_err(io::Error::other)? {
        last = Some(row.deserialize::<UserKey>(Some(&columns)).ok().and_then(|user| user.cursor()));
    }
    drop(reader);
    Ok(match last {
        None => Some(None),
        Some(last) => last.filter(|_| ends_line).map(Some),
    })
}

/// A reader that records whether the input ends with a line break.
struct Ending<'a> {
    file: BufReader<File>,
    ends_line: &'a mut bool,
}

impl Read for Ending<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        if let Some(last) = buffer[..count].last() {
            *self.ends_line = *last == b'\n';
        }
        Ok(count)
    }
}
