//! How far an export to a file came, kept beside the file.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::args::UserFormat;
use super::output::private;
use clerk_client::clerk::Cursor;

/// The form of the file. A later form has another number.
const VERSION: u32 = 1;

/// The place of an export: all of the output up to `bytes` is good, and the walk goes on behind `cursor`.
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

/// The file in which the place is kept.
#[derive(Debug)]
pub(super) struct Checkpoint {
    path: PathBuf,
    pub(super) place: CheckpointPosition,
}

impl Checkpoint {
    /// Where the place of an export to this file is kept.
    pub(super) fn path(output: &Path) -> PathBuf {
        let mut name = OsString::from(output);
        name.push(".resume");
        name.into()
    }

    /// The beginning of an export, written at once.
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

    /// The place of an earlier export to this file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn read(output: &Path) -> anyhow::Result<Self> {
        let path = Self::path(output);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let spoilt =
            || format!("{}: not the place of an export by this version; begin anew with --force", path.display());
        let place: CheckpointPosition = serde_json::from_str(&text)
            .ok()
            .filter(|place: &CheckpointPosition| place.version == VERSION)
            .with_context(spoilt)?;
        if let Some(cursor) = &place.cursor {
            cursor.parse::<Cursor>().with_context(spoilt)?;
        }
        Ok(Self { path, place })
    }

    /// Whether the export may go on with users of this instance in this format.
    ///
    /// # Errors
    /// When it may not.
    pub(super) fn check_format(&self, format: UserFormat) -> anyhow::Result<()> {
        if self.place.format != format {
            bail!(
                "{}: the export was begun in another format; give the same --format, or begin anew with --force",
                self.path.display()
            );
        }
        Ok(())
    }

    /// See [`Journal::check_format`].
    pub(super) fn check_instance(&self, instance: &str) -> anyhow::Result<()> {
        if self.place.instance != instance {
            bail!(
                "{}: the export was begun with users of {}, and the key is one of {instance}; use a key of the same \
                 instance, or begin anew with --force",
                self.path.display(),
                self.place.instance
            );
        }
        Ok(())
    }

    /// Where the walk goes on; none at the beginning.
    pub(super) fn cursor(&self) -> Option<Cursor> {
        self.place.cursor.as_deref()?.parse().ok()
    }

    /// The output is good up to here. What is before must have reached the disk.
    pub(super) fn advance(&mut self, cursor: &Cursor, bytes: u64, users: u64) -> anyhow::Result<()> {
        self.place.cursor = Some(cursor.to_string());
        self.place.bytes += bytes;
        self.place.users += users;
        self.save()
    }

    /// Forgets an earlier export to this file, of which nothing will be left.
    pub(super) fn discard(output: &Path) -> anyhow::Result<()> {
        let path = Self::path(output);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context(path.display().to_string()),
            _ => Ok(()),
        }
    }

    /// All is written: there is nothing to go on with.
    pub(super) fn remove(self) -> anyhow::Result<()> {
        fs::remove_file(&self.path).with_context(|| self.path.display().to_string())
    }

    /// Replaces the file as a whole, so that it is the old or the new one whatever happens.
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
