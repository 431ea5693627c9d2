//! Output of users: standard output or a file.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::args::{TargetArgs, UserFormat};
use super::checkpoint::Checkpoint;
use super::finished::FinishedExport;
use clerk_client::clerk::{Cursor, RawUser};

/// Why writing failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// The reader closed the pipe, which is not a failure.
    #[error("the reader closed the pipe")]
    ReaderGone,
    /// Anything else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// The output, checked before the first request.
#[derive(Debug)]
pub(super) enum OutputTarget {
    Stdout,
    /// A file that does not exist, or may be overwritten.
    New(PathBuf),
    /// The output of an incomplete export.
    Further(PathBuf, Checkpoint),
    /// A file in the format of an export without a recorded position: it may be complete.
    Finished(PathBuf, FinishedExport),
}

impl OutputTarget {
    /// # Errors
    /// Returns an error if a file would be overwritten, or there is nothing to resume.
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
        // An export may have ended before its first user.
        let is_overwritten = known.is_some_and(|known| known.len() > 0 || !resume);
        if is_overwritten && !args.force {
            if resume {
                let finished = FinishedExport::read(&path, args.format).with_context(|| path.display().to_string())?;
                return finished.map(|finished| Self::Finished(path.clone(), finished)).with_context(|| {
                    format!(
                        "{name}: cannot be resumed: {name}.resume is missing, and the file does not end like an export in \
                         the format {}; choose another --output, or start again with --force",
                        args.format
                    )
                });
            }
            let how = if has_journal { "continue with --resume, or " } else { "" };
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
            bail!("{}: shorter than the export left it; start again with --force", path.display());
        }
        Ok(Self::File { file, path, format, has_head: good > 0, journal: Some(journal) })
    }

    /// Users that are written already, and where the export continues.
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
                    // After a crash, the position must not be beyond the file.
                    file.sync_data().with_context(name)?;
                    journal.advance(cursor, bytes.len() as u64, count)?;
                }
                Ok(())
            }
        }
    }

    /// Completes the output.
    pub(super) fn finish(mut self) -> Result<(), WriteError> {
        // Writes the header if there are no users.
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

/// Opens and locks a file that only its owner can read.
fn claim(path: &Path) -> anyhow::Result<File> {
    let name = || path.display().to_string();
    let file = private().create(true).truncate(false).open(path).with_context(name)?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => bail!("{}: another export is writing to this file", path.display()),
        // Some file systems have no locks.
        Ok(()) | Err(TryLockError::Error(_)) => {}
    }
    keep_private(&file).with_context(name)?;
    Ok(file)
}

/// Options for files with personal data: only their owner can read them.
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

/// Without modes, the folder's permissions apply.
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
