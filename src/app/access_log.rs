//! Writes the gateway's access log to a file, on a thread of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;

use crate::gateway::{AccessLog, LogMessage};
use clerk_quota::clock::Clock;

/// Lines that wait for the file; further ones are lost.
const MAX_WAITING: usize = 16_384;

/// Bytes that are written at once.
const BLOCK_BYTES: usize = 64 * 1024;

/// How often the file is compared with its path, so that a renamed or removed one is replaced.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The file, and the thread that writes it. Dropping it writes what waits.
#[derive(Debug)]
pub(super) struct AccessLogFile {
    log: AccessLog,
    messages: SyncSender<LogMessage>,
    writer: Option<JoinHandle<()>>,
}

impl AccessLogFile {
    /// Opens the file, or creates it, and starts the thread.
    ///
    /// # Errors
    /// Returns an error if the file cannot be opened, or the thread not started.
    pub(super) fn open(path: &Path, clock: Arc<Clock>) -> io::Result<Self> {
        let file = open(path)?;
        let (messages, lines) = sync_channel(MAX_WAITING);
        let log = AccessLog::new(messages.clone(), clock);
        let writer = LogWriter::new(file, path, log.clone());
        let writer = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run(&lines))?;
        Ok(Self { log, messages, writer: Some(writer) })
    }

    /// Where lines go.
    pub(super) fn log(&self) -> AccessLog {
        self.log.clone()
    }
}

impl Drop for AccessLogFile {
    fn drop(&mut self) {
        let is_told = self.messages.send(LogMessage::Stop).is_ok();
        if let Some(writer) = self.writer.take().filter(|_| is_told) {
            // A thread that panicked has written what it could.
            let _ = writer.join();
        }
    }
}

/// Only the owner and its group may read it: it says who calls what.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

struct LogWriter {
    file: File,
    path: PathBuf,
    log: AccessLog,
    /// Whether the last line in the file may be cut off.
    is_cut: bool,
    is_unwritable: bool,
    is_unopenable: bool,
}

impl LogWriter {
    fn new(file: File, path: &Path, log: AccessLog) -> Self {
        Self { file, path: path.to_owned(), log, is_cut: false, is_unwritable: false, is_unopenable: false }
    }

    fn run(mut self, lines: &Receiver<LogMessage>) {
        let mut checked = Instant::now();
        loop {
            match lines.recv_timeout(CHECK_EVERY) {
                Ok(LogMessage::Line(line)) => {
                    let (block, count, is_last) = block(line, lines);
                    self.write(&block, count);
                    if is_last {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(LogMessage::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
            if checked.elapsed() >= CHECK_EVERY {
                self.replace();
                checked = Instant::now();
            }
        }
    }

    fn write(&mut self, block: &[u8], lines: u64) {
        let end = if self.is_cut { self.file.write_all(b"\n") } else { Ok(()) };
        match end.and_then(|()| self.file.write_all(block)) {
            Ok(()) => {
                self.log.count_written(lines);
                self.is_cut = false;
                if std::mem::take(&mut self.is_unwritable) {
                    tracing::info!(path = %self.path.display(), "the access log is written again");
                }
            }
            Err(error) => {
                self.is_cut = true;
                self.log.count_lost(lines);
                if !std::mem::replace(&mut self.is_unwritable, true) {
                    let path = self.path.display();
                    tracing::warn!(%path, %error, "failed to write the access log; lines are lost until this is mended");
                }
            }
        }
    }

    /// Opens the path again if it no longer names the file, as after a rotation.
    fn replace(&mut self) {
        let identity = |metadata: &std::fs::Metadata| (metadata.dev(), metadata.ino());
        let named = std::fs::metadata(&self.path).ok().as_ref().map(identity);
        let opened = self.file.metadata().ok().as_ref().map(identity);
        if named.is_some() && named == opened {
            return;
        }
        match open(&self.path) {
            Ok(file) => {
                self.file = file;
                self.is_cut = false;
                self.is_unopenable = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_unopenable, true) {
                    let path = self.path.display();
                    tracing::warn!(%path, %error, "failed to open the access log again; writing to the removed file");
                }
            }
        }
    }
}

/// What waits, up to a block, the number of its lines, and whether nothing more will come.
fn block(first: Vec<u8>, lines: &Receiver<LogMessage>) -> (Vec<u8>, u64, bool) {
    let (mut block, mut count) = (first, 1);
    while block.len() < BLOCK_BYTES {
        match lines.try_recv() {
            Ok(LogMessage::Line(line)) => {
                block.extend_from_slice(&line);
                count += 1;
            }
            Ok(LogMessage::Stop) => return (block, count, true),
            Err(_) => break,
        }
    }
    (block, count, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(folder: &Path) -> (AccessLogFile, PathBuf) {
        let path = folder.join("access.log");
        (AccessLogFile::open(&path, Arc::new(Clock::new())).unwrap(), path)
    }

    fn send(file: &AccessLogFile, text: &str) {
        file.messages.send(LogMessage::Line(format!("{text}\n").into_bytes())).unwrap();
    }

    #[test]
    fn lines_are_appended_in_order_and_complete_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        for run in 0..2 {
            let (file, _) = opened(folder.path());
            (0..5000).for_each(|number| send(&file, &format!("{run} {number}")));
        }
        let text = std::fs::read_to_string(folder.path().join("access.log")).unwrap();
        let expected: String =
            (0..2).flat_map(|run| (0..5000).map(move |number| format!("{run} {number}\n"))).collect();
        assert_eq!(text, expected);
    }

    #[test]
    fn renamed_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (file, path) = opened(folder.path());
        send(&file, "old");
        while std::fs::read(&path).unwrap().is_empty() {
            std::thread::yield_now();
        }
        let old = folder.path().join("access.log.1");
        std::fs::rename(&path, &old).unwrap();
        while !path.exists() {
            std::thread::yield_now();
        }
        send(&file, "new");
        drop(file);
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "old\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");
    }

    #[test]
    fn lost_lines_are_counted_and_a_cut_line_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let (messages, _lines) = sync_channel(1);
        let log = AccessLog::new(messages, Arc::new(Clock::new()));
        // Nothing can be written to a full device.
        let full = File::options().append(true).open("/dev/full").unwrap();
        let mut writer = LogWriter::new(full, &path, log.clone());
        writer.write(b"1\n2\n", 2);
        assert_eq!(log.stats().lost, 2);
        writer.file = open(&path).unwrap();
        writer.write(b"3\n", 1);
        writer.write(b"4\n", 1);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "\n3\n4\n");
        assert_eq!((log.stats().written, log.stats().lost), (2, 2), "neither ever falls");
    }
}
