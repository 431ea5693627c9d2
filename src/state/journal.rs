//! The journal files: the current one, and the previous one.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use parking_lot::Mutex;

use super::record::{BYTES, MAGIC, Record, SentRequest, hash};
use clerk_client::outbound::AttemptJournal;
use clerk_quota::clock::Clock;
use clerk_quota::{Bucket, Entity, Moment};

/// Records per file: at a thousand requests a second, minutes.
const MAX_RECORDS: u64 = 262_144;

/// Requests of buckets with longer windows are copied into the next file.
const LONG_WINDOW: Duration = Duration::from_secs(60);

/// Maximum number of copied requests.
const MAX_CARRIED: usize = 4096;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process uses the folder.
    #[error("another process keeps its state in {}: give each process its own folder", .0.display())]
    Locked(PathBuf),
    /// The folder or a file in it cannot be written.
    #[error("{} cannot be used: {cause}; make it a folder that this process may write to", path.display())]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// The operating system's error.
        cause: io::Error,
    },
}

/// Records when requests are sent.
#[derive(Debug)]
pub struct Journal {
    clock: Arc<Clock>,
    /// The file lock, held for the lifetime of the journal.
    _lock: File,
    file: Mutex<Files>,
}

#[derive(Debug)]
struct Files {
    folder: PathBuf,
    current: File,
    records: u64,
    serial: u32,
    begun: Duration,
    /// Requests of buckets with long windows, by send time.
    long: Vec<SentRequest>,
    /// Whether a write failed and was logged.
    is_broken: bool,
}

/// The requests sent before the start.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// Every request since this time is recorded. `None`: nothing before the start is recorded.
    pub since: Option<Moment>,
    /// Requests within the last window of their buckets, by a hash of the instance name.
    requests: Vec<(u64, Bucket, Option<Entity>, Moment, u32)>,
}

impl Restored {
    /// The requests of an instance.
    pub fn of<'a>(&'a self, instance: &str) -> impl Iterator<Item = (Bucket, Option<Entity>, Moment)> + 'a {
        let instance = hash(instance.as_bytes());
        let own = self.requests.iter().filter(move |(name, ..)| *name == instance);
        own.map(|(_, bucket, entity, at, _)| (*bucket, *entity, *at))
    }

    /// The number of requests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether there are no requests.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
}

impl Journal {
    /// Opens the journal in a folder, and reads the requests sent before. Skips records that are older than a window,
    /// in the future, of another version, or damaged.
    ///
    /// # Errors
    /// Returns an error if another process uses the folder, or if it cannot be written.
    pub fn open(folder: &Path, clock: Arc<Clock>) -> Result<(Self, Restored), JournalError> {
        let unusable = |cause| JournalError::Unusable { path: folder.to_owned(), cause };
        std::fs::create_dir_all(folder).map_err(unusable)?;
        let lock = open(&folder.join("lock")).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::Locked(folder.to_owned())),
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        let records: Vec<Record> =
            [PREVIOUS, CURRENT].iter().flat_map(|name| read(&folder.join(name)).unwrap_or_default()).collect();
        let wall = wall(&clock);
        let restored = restore(&records, wall, clock.now());
        let begun = records.iter().filter_map(|record| match record {
            Record::Begun(at) if *at <= wall => Some(*at),
            _ => None,
        });
        let begun = begun.min().unwrap_or(wall);
        let sent = records.iter().filter_map(|record| match record {
            Record::Sent(sent) => Some(*sent),
            Record::Begun(_) => None,
        });
        let live: Vec<SentRequest> = sent.filter(|sent| sent.at <= wall && is_live(sent, wall)).collect();
        let current = open(&folder.join(CURRENT)).map_err(unusable)?;
        let mut files = Files {
            folder: folder.to_owned(),
            current,
            records: 0,
            serial: 0,
            begun,
            long: Vec::new(),
            is_broken: false,
        };
        files.begin_file(&live).map_err(unusable)?;
        files.long = live.into_iter().filter(is_long).collect();
        Ok((Self { clock, _lock: lock, file: Mutex::new(files) }, restored))
    }

    /// Returns the journal of one instance.
    #[must_use]
    pub fn of(self: &Arc<Self>, instance: &str) -> Arc<dyn AttemptJournal> {
        Arc::new(InstanceJournal { journal: Arc::clone(self), instance: hash(instance.as_bytes()) })
    }
}

const CURRENT: &str = "attempts";
const PREVIOUS: &str = "attempts.previous";

impl Files {
    fn write(&mut self, sent: SentRequest) -> io::Result<()> {
        if self.records >= MAX_RECORDS {
            self.rotate(sent.at)?;
        }
        if is_long(&sent) {
            self.long.push(sent);
        }
        self.records += 1;
        self.current.write_all(&Record::Sent(sent).to_bytes())
    }

    /// Starts the next file with the requests of long windows; the previous file has the others.
    fn rotate(&mut self, now: Duration) -> io::Result<()> {
        self.long.retain(|sent| is_live(sent, now));
        let surplus = self.long.len().saturating_sub(MAX_CARRIED);
        self.long.drain(..surplus);
        let carried = std::mem::take(&mut self.long);
        let begun = self.begin_file(&carried);
        self.long = carried;
        begun
    }

    fn begin_file(&mut self, carried: &[SentRequest]) -> io::Result<()> {
        let mut head = MAGIC.to_vec();
        head.extend(Record::Begun(self.begun).to_bytes());
        carried.iter().for_each(|sent| head.extend(Record::Sent(*sent).to_bytes()));
        let (current, previous) = (self.folder.join(CURRENT), self.folder.join(PREVIOUS));
        match std::fs::rename(&current, previous) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.current = open(&current)?;
        self.current.set_len(0)?;
        self.current.seek(SeekFrom::Start(0))?;
        self.records = carried.len() as u64;
        self.current.write_all(&head)
    }
}

/// Whether a request still counts against its window.
fn is_live(sent: &SentRequest, now: Duration) -> bool {
    sent.at.saturating_add(sent.bucket.window()) > now
}

/// Whether a request's window is long.
fn is_long(sent: &SentRequest) -> bool {
    sent.bucket.window() > LONG_WINDOW
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

fn wall(clock: &Clock) -> Duration {
    clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn read(path: &Path) -> io::Result<Vec<Record>> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let Some(records) = bytes.strip_prefix(&MAGIC) else { return Ok(Vec::new()) };
    let (records, _) = records.as_chunks::<BYTES>();
    Ok(records.iter().filter_map(Record::from_bytes).collect())
}

fn restore(records: &[Record], wall: Duration, now: Moment) -> Restored {
    let mut restored = Restored::default();
    for record in records {
        match *record {
            Record::Begun(at) => {
                if let Some(age) = wall.checked_sub(at) {
                    restored.since = restored.since.into_iter().chain([now.before(age)]).min();
                }
            }
            Record::Sent(SentRequest { instance, bucket, entity, at, serial }) => {
                if let Some(age) = wall.checked_sub(at)
                    && age < bucket.window()
                {
                    restored.requests.push((instance, bucket, entity, now.before(age), serial));
                }
            }
        }
    }
    // Copied requests are in both files.
    restored.requests.sort_unstable();
    restored.requests.dedup();
    restored
}

#[derive(Debug)]
struct InstanceJournal {
    journal: Arc<Journal>,
    instance: u64,
}

impl AttemptJournal for InstanceJournal {
    fn sent(&self, bucket: Bucket, entity: Option<Entity>, at: Moment) {
        // Buckets of single routes are detected again from responses.
        let bucket = if bucket.index().is_some() { bucket } else { Bucket::Instance };
        let clock = &self.journal.clock;
        let at = wall(clock).saturating_sub(clock.now().since(at));
        let mut files = self.journal.file.lock();
        files.serial = files.serial.wrapping_add(1);
        let serial = files.serial;
        match files.write(SentRequest { instance: self.instance, bucket, entity, at, serial }) {
            Ok(()) => files.is_broken = false,
            Err(error) => {
                if !std::mem::replace(&mut files.is_broken, true) {
                    let folder = files.folder.display();
                    tracing::warn!(%folder, %error, "failed to record requests; they will be unknown after a restart");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    const PROD: &str = "prod";

    /// Starts a process this many seconds after a fixed time; returns it if it gets the folder.
    fn process(folder: &Path, seconds: u64) -> Result<(Arc<Journal>, Restored, Arc<Clock>), JournalError> {
        let start = UNIX_EPOCH + Duration::from_secs(1_795_608_000 + seconds);
        let clock = Arc::new(Clock::simulated(start));
        let (journal, restored) = Journal::open(folder, Arc::clone(&clock))?;
        Ok((Arc::new(journal), restored, clock))
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn buckets(restored: &Restored, instance: &str) -> Vec<Bucket> {
        restored.of(instance).map(|(bucket, ..)| bucket).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn requests_of_a_window_are_restored_after_a_restart() {
        let folder = folder();
        let (journal, restored, clock) = process(folder.path(), 0).unwrap();
        assert!(restored.is_empty() && restored.since.is_none(), "nothing is recorded before the first start");
        let writer = journal.of(PROD);
        for _ in 0..30 {
            writer.sent(Bucket::Instance, None, clock.now());
        }
        writer.sent(Bucket::UserUpdate, Some(Entity(7)), clock.now());
        writer.sent(Bucket::Invitations, None, clock.now());
        journal.of("dev").sent(Bucket::Instance, None, clock.now());
        drop((writer, journal));
        let (journal, restored, later) = process(folder.path(), 9).unwrap();
        assert_eq!(buckets(&restored, PROD).len(), 32);
        assert_eq!(buckets(&restored, "dev"), [Bucket::Instance]);
        assert_eq!(restored.since, Some(later.now().before(Duration::from_secs(9))));
        drop(journal);
        // Two starts later the 10 s window is over, and the hourly one is not.
        let (_journal, restored, _) = process(folder.path(), 11).unwrap();
        assert_eq!(buckets(&restored, PROD), [Bucket::Invitations]);
    }

    #[tokio::test(start_paused = true)]
    async fn second_process_on_the_same_folder_gets_an_error() {
        let folder = folder();
        let first = process(folder.path(), 0).unwrap();
        assert!(matches!(process(folder.path(), 1), Err(JournalError::Locked(_))));
        drop(first);
        process(folder.path(), 2).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn two_restarts_within_a_window_lose_nothing() {
        let folder = folder();
        let (journal, _, clock) = process(folder.path(), 0).unwrap();
        journal.of(PROD).sent(Bucket::Instance, None, clock.now());
        drop(journal);
        let (journal, _, clock) = process(folder.path(), 2).unwrap();
        journal.of(PROD).sent(Bucket::Instance, None, clock.now());
        drop(journal);
        drop(process(folder.path(), 4).unwrap());
        let (_journal, restored, _) = process(folder.path(), 6).unwrap();
        assert_eq!(restored.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn damaged_records_are_skipped() {
        let folder = folder();
        let (journal, _, clock) = process(folder.path(), 0).unwrap();
        for _ in 0..3 {
            journal.of(PROD).sent(Bucket::Instance, None, clock.now());
        }
        drop(journal);
        let path = folder.path().join(CURRENT);
        let mut bytes = std::fs::read(&path).unwrap();
        // One byte of the first request, and the end of the last one.
        bytes[MAGIC.len() + BYTES + 9] ^= 1;
        bytes.truncate(bytes.len() - 5);
        std::fs::write(&path, &bytes).unwrap();
        let (_journal, restored, _) = process(folder.path(), 1).unwrap();
        assert_eq!(restored.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn records_of_other_versions_or_the_future_are_skipped() {
        let folder = folder();
        let (journal, _, clock) = process(folder.path(), 100).unwrap();
        journal.of(PROD).sent(Bucket::Instance, None, clock.now());
        drop(journal);
        // The clock was set back.
        let (journal, restored, _) = process(folder.path(), 50).unwrap();
        assert_eq!((restored.len(), restored.since), (0, None));
        drop(journal);
        std::fs::remove_file(folder.path().join(PREVIOUS)).unwrap();
        std::fs::write(folder.path().join(CURRENT), b"clkatt\x002 and something else").unwrap();
        let (_journal, restored, _) = process(folder.path(), 101).unwrap();
        assert_eq!((restored.len(), restored.since), (0, None));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_restored_after_the_clock_was_set() {
        for (started_at, step) in [(10_800, -10_800_i64), (0, 3600), (0, -3600)] {
            let folder = folder();
            let (journal, _, clock) = process(folder.path(), started_at + 10_000).unwrap();
            clock.simulate_step(step);
            journal.of(PROD).sent(Bucket::Instance, None, clock.now());
            drop(journal);
            let right = (started_at + 10_000).saturating_add_signed(step);
            let (_journal, restored, _) = process(folder.path(), right + 5).unwrap();
            assert_eq!(restored.len(), 1, "{step}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_bounded_and_keep_hourly_budgets() {
        let folder = folder();
        let (journal, _, clock) = process(folder.path(), 0).unwrap();
        let writer = journal.of(PROD);
        writer.sent(Bucket::Invitations, None, clock.now());
        for _ in 0..2 * MAX_RECORDS {
            writer.sent(Bucket::Instance, None, clock.now());
        }
        drop((writer, journal));
        let size = |name| std::fs::metadata(folder.path().join(name)).unwrap().len();
        assert!(size(CURRENT) <= (MAX_RECORDS + 2) * BYTES as u64 + 8);
        let (_journal, restored, _) = process(folder.path(), 100).unwrap();
        assert_eq!(buckets(&restored, PROD), [Bucket::Invitations]);
    }

    #[test]
    fn unwritable_folder_error_has_a_remedy() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Journal::open(file.path(), Arc::new(Clock::simulated(SystemTime::now()))).unwrap_err();
        assert!(error.to_string().contains("make it a folder that this process may write to"), "{error}");
    }
}
