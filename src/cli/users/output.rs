//! Where users are written to: standard output or a file.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::args::{TargetArgs, UserFormat};
use super::checkpoint::Checkpoint;
use super::finished::FinishedExport;
use clerk_client::clerk::{Cursor, RawUser};

/// Why nothing more can be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// Whoever read the pipe has what they wanted.
    #[error("the reader has gone away")]
    ReaderGone,
    /// Anything else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// What a command would write to, checked before Clerk is asked anything.
#[derive(Debug)]
pub(super) enum OutputTarget {
    Stdout,
    /// A file that does not exist, or may be overwritten.
    New(PathBuf),
    /// A file that an earlier export wrote a part of.
    Further(PathBuf, Checkpoint),
    /// A file in the form of an export, without a place to go on from: an earlier export may have written all of it.
    Finished(PathBuf, FinishedExport),
}

impl OutputTarget {
    /// # Errors
    /// When a file would be lost, or there is nothing to go on with.
    pub(super) fn of(args: &TargetArgs, resume: bool) -> anyhow::Result<Self> {
        let Some(path) = args.output.clone() else { return Ok(Self::Stdout) };
        let (name, has_journal) = (path.display(), Checkpoint::path(&path).exists());
        if resume && has_journal {
            let journal = Checkpoint::read(&path)?;
            journal.check_format(args.format)?;
            return Ok(Self::Further(path, journal));
        }
        let known = fs::metadata(&path).ok();
        if known.as_ref().is_some_and(|known| !known.is_file()) {
            bail!("{name}: not a regular file; leave --output out and redirect standard output");
        }
        // An export may have ended before it wrote anything.
        let is_lost = known.is_some_and(|known| known.len() > 0 || !resume);
        if is_lost && !args.force {
            if resume {
                let finished = FinishedExport::read(&path, args.format).with_context(|| path.display().to_string())?;
                return finished.map(|finished| Self::Finished(path.clone(), finished)).with_context(|| {
                    format!(
                        "{name}: there is no {name}.resume beside it, and it does not end as an export in the format {} \
                         does; choose another --output, or begin anew with --force",
                        args.format
                    )
                });
            }
            let how = if has_journal { "go on with --resume, or " } else { "" };
            bail!("{name}: the file exists; {how}overwrite it with --force, or choose another --output");
        }
        Ok(Self::New(path))
    }
}

/// An open output.
#[derive(Debug)]
pub(super) enum Output {
    Stdout { format: UserFormat, has_head: bool },
    File { file: File, path: PathBuf, format: UserFormat, has_head: bool, journal: Option<Checkpoint> },
}

impl Output {
    /// For a command that cannot be resumed.
    pub(super) fn open(plan: OutputTarget, format: UserFormat) -> anyhow::Result<Self> {
        match plan {
            OutputTarget::Stdout => Ok(Self::Stdout { format, has_head: false }),
            OutputTarget::New(path) | OutputTarget::Further(path, _) | OutputTarget::Finished(path, _) => {
                let file = claim(&path)?;
                Checkpoint::discard(&path)?;
                file.set_len(0).with_context(|| path.display().to_string())?;
                Ok(Self::File { file, path, format, has_head: false, journal: None })
            }
        }
    }

    /// For the export of an instance.
    pub(super) fn open_journaled(plan: OutputTarget, format: UserFormat, instance: &str) -> anyhow::Result<Self> {
        let (path, known) = match plan {
            OutputTarget::Stdout => return Ok(Self::Stdout { format, has_head: false }),
            OutputTarget::New(path) | OutputTarget::Finished(path, _) => (path, None),
            OutputTarget::Further(path, journal) => (path, Some(journal)),
        };
        if let Some(journal) = &known {
            journal.check_instance(instance)?;
        }
        let mut file = claim(&path)?;
        let journal = known.map_or_else(|| Checkpoint::begin(&path, instance, format), Ok)?;
        let good = journal.place.bytes;
        let fit = |file: &mut File| -> io::Result<bool> {
            if file.metadata()?.len() < good {
                return Ok(false);
            }
            file.set_len(good)?;
            file.seek(SeekFrom::Start(good))?;
            Ok(true)
        };
        if !fit(&mut file).with_context(|| path.display().to_string())? {
            bail!("{}: shorter than the export left it: begin anew with --force", path.display());
        }
        Ok(Self::File { file, path, format, has_head: good > 0, journal: Some(journal) })
    }

    /// How many users are written already, and behind whom the walk goes on.
    pub(super) fn place(&self) -> (u64, Option<Cursor>) {
        match self {
            Self::File { journal: Some(journal), .. } => (journal.place.users, journal.cursor()),
            _ => (0, None),
        }
    }

    /// Writes some users.
    pub(super) fn write<'a>(
        &mut self,
        users: impl ExactSizeIterator<Item = &'a RawUser>,
        cursor: Option<&Cursor>,
    ) -> Result<(), WriteError> {
        let count = users.len() as u64;
        let mut bytes = self.take_head()?;
        match self {
            Self::Stdout { format, .. } => {
                bytes.extend(format.body(users)?);
                let mut stdout = io::stdout().lock();
                stdout.write_all(&bytes).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
                    io::ErrorKind::BrokenPipe => WriteError::ReaderGone,
                    _ => WriteError::Other(anyhow::Error::new(error).context("standard output")),
                })
            }
            Self::File { file, path, format, journal, .. } => {
                bytes.extend(format.body(users)?);
                let name = || path.display().to_string();
                file.write_all(&bytes).with_context(name)?;
                if let (Some(journal), Some(cursor)) = (journal, cursor) {
                    // The place must not be further than what a crash leaves of the file.
                    file.sync_data().with_context(name)?;
                    journal.advance(cursor, bytes.len() as u64, count)?;
                }
                Ok(())
            }
        }
    }

    /// All was written.
    pub(super) fn finish(mut self) -> Result<(), WriteError> {
        // Even without users there is a header.
        self.write([].iter(), None)?;
        if let Self::File { file, path, journal, .. } = self {
            file.sync_all().with_context(|| path.display().to_string())?;
            journal.map_or(Ok(()), Checkpoint::remove)?;
        }
        Ok(())
    }

    fn take_head(&mut self) -> anyhow::Result<Vec<u8>> {
        let (Self::Stdout { format, has_head } | Self::File { format, has_head, .. }) = self;
        if std::mem::replace(has_head, true) { Ok(Vec::new()) } else { format.head() }
    }
}

/// Opens a file for its owner only, and for nobody else at the same time.
fn claim(path: &Path) -> anyhow::Result<File> {
    let name = || path.display().to_string();
    let file = private().create(true).truncate(false).open(path).with_context(name)?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => bail!("{}: another export writes to this file now", path.display()),
        // Not all file systems have locks.
        Ok(()) | Err(TryLockError::Error(_)) => {}
    }
    keep_private(&file).with_context(name)?;
    Ok(file)
}

/// Files with personal data: for their owner only.
#[cfg(unix)]
pub(super) fn private() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

#[cfg(unix)]
fn keep_private(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o600))
}

/// What the folder allows: there are no modes.
#[cfg(not(unix))]
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    options
}

#[cfg(not(unix))]
fn keep_private(_: &File) -> io::Result<()> {
    Ok(())
}
