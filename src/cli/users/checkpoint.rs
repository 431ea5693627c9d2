//! The position of an export, in a file beside its output.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::args::UserFormat;
use super::output::private;
use clerk_client::clerk::Cursor;

/// Version of the file's format.
const VERSION: u32 = 1;

/// The output is valid up to `bytes`, and the export continues after `cursor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckpointPosition {
    version: u32,
    /// Clerk's id of the instance whose users these are.
    instance: String,
    format: UserFormat,
    /// None before the first page.
    cursor: Option<String>,
    pub(super) bytes: u64,
    pub(super) users: u64,
}

/// The file with the position.
#[derive(Debug)]
pub(super) struct Checkpoint {
    path: PathBuf,
    pub(super) place: CheckpointPosition,
}

impl Checkpoint {
    /// Path of the position of an export to this file.
    pub(super) fn path(output: &Path) -> PathBuf {
        let mut name = OsString::from(output);
        name.push(".resume");
        name.into()
    }

    /// Starts an export, and writes the file.
    pub(super) fn begin(output: &Path, instance: &str, format: UserFormat) -> anyhow::Result<Self> {
        let place = CheckpointPosition {
            version: VERSION,
            instance: instance.to_owned(),
            format,
            cursor: None,
            bytes: 0,
            users: 0,
        };
        let journal = Self { path: Self::path(output), place };
        journal.save()?;
        Ok(journal)
    }

    /// Reads the position of an earlier export to this file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is of another version.
    pub(super) fn read(output: &Path) -> anyhow::Result<Self> {
        let path = Self::path(output);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let invalid =
            || format!("{}: not a position written by this version; start again with --force", path.display());
        let place: CheckpointPosition = serde_json::from_str(&text)
            .ok()
            .filter(|place: &CheckpointPosition| place.version == VERSION)
            .with_context(invalid)?;
        if let Some(cursor) = &place.cursor {
            cursor.parse::<Cursor>().with_context(invalid)?;
        }
        Ok(Self { path, place })
    }

    /// # Errors
    /// Returns an error if the export was started in another format.
    pub(super) fn check_format(&self, format: UserFormat) -> anyhow::Result<()> {
        if self.place.format != format {
            bail!(
                "{}: the export was started in another format; give the same --format, or start again with --force",
                self.path.display()
            );
        }
        Ok(())
    }

    /// # Errors
    /// Returns an error if the export was started with users of another instance.
    pub(super) fn check_instance(&self, instance: &str) -> anyhow::Result<()> {
        if self.place.instance != instance {
            bail!(
                "{}: the export was started with users of {}, and the key is of {instance}; use a key of the same \
                 instance, or start again with --force",
                self.path.display(),
                self.place.instance
            );
        }
        Ok(())
    }

    /// Where the export continues; none at the start.
    pub(super) fn cursor(&self) -> Option<Cursor> {
        self.place.cursor.as_deref()?.parse().ok()
    }

    /// Records that the output is valid up to here. It must be on disk already.
    pub(super) fn advance(&mut self, cursor: &Cursor, bytes: u64, users: u64) -> anyhow::Result<()> {
        self.place.cursor = Some(cursor.to_string());
        self.place.bytes += bytes;
        self.place.users += users;
        self.save()
    }

    /// Removes the position of an earlier export, whose output is overwritten.
    pub(super) fn discard(output: &Path) -> anyhow::Result<()> {
        let path = Self::path(output);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context(path.display().to_string()),
            _ => Ok(()),
        }
    }

    /// Removes the file of a complete export.
    pub(super) fn remove(self) -> anyhow::Result<()> {
        fs::remove_file(&self.path).with_context(|| self.path.display().to_string())
    }

    /// Replaces the file atomically.
    fn save(&self) -> anyhow::Result<()> {
        let write = || -> io::Result<()> {
            let mut new = self.path.clone().into_os_string();
            new.push(".new");
            let mut file: File = private().create(true).truncate(true).open(&new)?;
            file.write_all(&serde_json::to_vec(&self.place)?)?;
            file.sync_all()?;
            fs::rename(&new, &self.path)
        };
        write().with_context(|| self.path.display().to_string())
    }
}
