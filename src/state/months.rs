//! The file of metered operations: how many there were in the current billing month, for each instance.
//!
//! A line with the format, its version and a checksum, and below it JSON. The file is replaced as a whole, so that a
//! reader sees either the earlier or the later one.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Journal;
use super::record::hash;
use clerk_quota::metered::{BillingMonth, MeteredOperation, MonthUsage};

const FILE: &str = "months";
const NEXT: &str = "months.next";

/// Identifies the format and its version.
const MAGIC: &str = "clerk-metered 1";

/// A larger file was not written here.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptMonths {
    /// A random name of the folder's owner, the same after a restart. With it, a store that several processes share
    /// replaces this process's earlier numbers.
    pub process: String,
    /// The months by instance.
    pub instances: BTreeMap<Arc<str>, MonthUsage>,
}

impl KeptMonths {
    /// Nothing is known, and the process gets a new name.
    #[must_use]
    pub fn unknown() -> Self {
        Self { process: format!("{:032x}", fastrand::u128(..)), instances: BTreeMap::new() }
    }
}

/// The file, in the folder of a journal.
#[derive(Debug)]
pub struct MonthFile {
    folder: PathBuf,
    /// Holds the folder's lock.
    _journal: Arc<Journal>,
    written: String,
    /// Whether a write failed and was logged.
    is_broken: bool,
}

#[derive(Serialize, Deserialize)]
struct Content {
    process: String,
    instances: BTreeMap<Arc<str>, Entry>,
}

/// Times since the UNIX epoch.
#[derive(Serialize, Deserialize)]
struct Entry {
    start_seconds: u64,
    end_seconds: u64,
    since_nanos: u64,
    operations: [u64; MeteredOperation::ALL.len()],
}

impl MonthFile {
    /// Opens the file in the folder that this journal has locked. A damaged one, or one of another version, counts as
    /// missing.
    #[must_use]
    pub fn open(folder: &Path, journal: Arc<Journal>) -> (Self, KeptMonths) {
        let written = read(&folder.join(FILE)).unwrap_or_default();
        let kept = parse(&written).unwrap_or_else(|| {
            if !written.is_empty() {
                tracing::warn!(
                    folder = %folder.display(),
                    "failed to read the metered operations of the month: the file is damaged or of another version; \
                     counting them from now"
                );
            }
            KeptMonths::unknown()
        });
        (Self { folder: folder.to_owned(), _journal: journal, written, is_broken: false }, kept)
    }

    /// Replaces the content, if it changed. A failure is logged once, and repeated with the next call.
    pub fn write(&mut self, kept: &KeptMonths) {
        let text = text(kept);
        if text == self.written {
            return;
        }
        match self.replace(&text) {
            Ok(()) => (self.written, self.is_broken) = (text, false),
            Err(error) => {
                if !std::mem::replace(&mut self.is_broken, true) {
                    let folder = self.folder.display();
                    tracing::warn!(
                        %folder, %error,
                        "failed to keep the metered operations of the month; retrying, they are lost with a restart"
                    );
                }
            }
        }
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        let next = self.folder.join(NEXT);
        let mut file = std::fs::File::create(&next)?;
        file.write_all(text.as_bytes())?;
        drop(file);
        std::fs::rename(next, self.folder.join(FILE))
    }
}

fn read(path: &Path) -> io::Result<String> {
    if std::fs::metadata(path)?.len() > MAX_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // Text that is not UTF-8 is damaged.
    Ok(String::from_utf8_lossy(&std::fs::read(path)?).into_owned())
}

fn text(kept: &KeptMonths) -> String {
    let entry = |usage: &MonthUsage| Entry {
        start_seconds: usage.month.start.as_secs(),
        end_seconds: usage.month.end.as_secs(),
        since_nanos: u64::try_from(usage.since.as_nanos()).unwrap_or(u64::MAX),
        operations: usage.operations,
    };
    let instances = kept.instances.iter().map(|(name, usage)| (Arc::clone(name), entry(usage))).collect();
    let content = Content { process: kept.process.clone(), instances };
    // Maps with text as keys have a JSON form.
    let json = serde_json::to_string(&content).unwrap_or_default();
    format!("{MAGIC} {:016x}\n{json}\n", hash(json.as_bytes()))
}

fn parse(text: &str) -> Option<KeptMonths> {
    let (head, json) = text.strip_suffix('\n')?.split_once('\n')?;
    let sum = head.strip_prefix(MAGIC)?.strip_prefix(' ')?;
    if sum != format!("{:016x}", hash(json.as_bytes())) {
        return None;
    }
    let Content { process, instances } = serde_json::from_str(json).ok()?;
    let usage = |Entry { start_seconds, end_seconds, since_nanos, operations }: Entry| {
        let (start, end) = (Duration::from_secs(start_seconds), Duration::from_secs(end_seconds));
        MonthUsage { month: BillingMonth { start, end }, since: Duration::from_nanos(since_nanos), operations }
    };
    let instances = instances.into_iter().map(|(name, entry)| (name, usage(entry))).collect();
    Some(KeptMonths { process, instances })
}
