//! One file or standard input: decompressed, cut into lines, read into requests. Memory is bounded by the longest line.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use super::call::LogEvent;
use super::har::{Cut, EntryCutter, is_har};
use super::line::LineParser;
use super::skip::{SkipKind, Skips};
use clerk_quota::Moment;

/// Lines, and entries of a HAR document, that are longer than this many bytes are skipped.
pub(super) const LONGEST_LINE: usize = 16 << 20;

/// Bytes that are read at once.
const BLOCK: usize = 256 << 10;

/// What the first bytes of a gzip file are (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A log to analyze.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

impl Input {
    /// `-` is standard input.
    pub(crate) fn of(path: &Path) -> Self {
        if path == Path::new("-") { Self::Stdin } else { Self::File(path.to_owned()) }
    }

    /// The name for messages.
    pub(crate) fn name(&self) -> Arc<str> {
        match self {
            Self::Stdin => Arc::from("standard input"),
            Self::File(path) => Arc::from(path.display().to_string()),
        }
    }

    /// The size in bytes, as stored; `None` for what is no plain file.
    pub(crate) fn bytes(&self) -> Option<u64> {
        let Self::File(path) = self else { return None };
        std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len())
    }
}

/// Counts the bytes that pass.
struct Counted<R> {
    inner: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// A log that is being read.
pub(super) struct Source {
    name: Arc<str>,
    reader: Box<dyn Read + Send>,
    /// What was read: whole lines, and the begin of the next.
    buffer: Vec<u8>,
    /// Where the unread part of the buffer begins and ends.
    unread: std::ops::Range<usize>,
    har: Option<EntryCutter>,
    /// Whether the rest of a line that is too long is skipped.
    in_long_line: bool,
    line: u64,
    is_ended: bool,
    /// Requests that were read and not taken.
    pub(super) ready: VecDeque<LogEvent>,
    /// The latest end of a request that was taken: where the log is.
    pub(super) position: Moment,
    pub(super) skips: Skips,
    /// Why the log ended early.
    pub(super) failure: Option<io::Error>,
}

impl Source {
    /// Opens a log; `bytes` counts what is read of it, as stored.
    pub(super) fn open(input: &Input, bytes: Arc<AtomicU64>) -> io::Result<Self> {
        let raw: Box<dyn Read + Send> = match input {
            Input::Stdin => Box::new(io::stdin()),
            Input::File(path) => Box::new(File::open(path)?),
        };
        Self::new(input.name(), Counted { inner: raw, bytes })
    }

    pub(super) fn new(name: Arc<str>, raw: impl Read + Send + 'static) -> io::Result<Self> {
        let mut raw = BufReader::with_capacity(BLOCK, raw);
        let is_gzip = raw.fill_buf()?.starts_with(&GZIP);
        let reader: Box<dyn Read + Send> =
            if is_gzip { Box::new(BufReader::with_capacity(BLOCK, MultiGzDecoder::new(raw))) } else { Box::new(raw) };
        let mut source = Self {
            name,
            reader,
            buffer: Vec::new(),
            unread: 0..0,
            har: None,
            in_long_line: false,
            line: 0,
            is_ended: false,
            ready: VecDeque::new(),
            position: Moment::default(),
            skips: Skips::default(),
            failure: None,
        };
        source.read_block();
        if is_har(&source.buffer[source.unread.clone()]) {
            source.har = Some(EntryCutter::default());
        }
        Ok(source)
    }

    pub(super) const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Reads on until there are requests. Returns false at the end of the log.
    pub(super) fn fill(&mut self, parser: &mut LineParser) -> bool {
        while self.ready.is_empty() {
            if self.unread.is_empty() && self.is_ended {
                self.finish();
                return false;
            }
            if self.har.is_some() {
                self.cut_entries(parser)
            } else {
                self.cut_lines(parser)
            }
            self.read_block();
        }
        true
    }

    /// Takes the next request.
    pub(super) fn take(&mut self) -> Option<LogEvent> {
        let event = self.ready.pop_front()?;
        self.position = self.position.max(event.ended());
        Some(event)
    }

    /// Reads a block behind the unread part.
    fn read_block(&mut self) {
        if self.is_ended {
            return;
        }
        self.buffer.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        if self.buffer.len() < self.unread.end + BLOCK {
            self.buffer.resize(self.unread.end + BLOCK, 0);
        }
        loop {
            match self.reader.read(&mut self.buffer[self.unread.end..]) {
                Ok(0) => self.is_ended = true,
                Ok(read) => self.unread.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.failure = Some(error);
                    self.is_ended = true;
                }
            }
            return;
        }
    }

    fn cut_lines(&mut self, parser: &mut LineParser) {
        let Self { buffer, unread, ready, skips, line, in_long_line, .. } = self;
        while let Some(length) = memchr::memchr(b'\n', &buffer[unread.clone()]) {
            let bytes = &buffer[unread.start..unread.start + length];
            unread.start += length + 1;
            *line += 1;
            if std::mem::take(in_long_line) {
                skips.add(SkipKind::TooLong, &self.name, *line);
            } else {
                parse(parser, bytes, ready, skips, &self.name, *line);
            }
        }
        if unread.len() > LONGEST_LINE {
            *in_long_line = true;
        }
        if *in_long_line {
            unread.start = unread.end;
            buffer.truncate(BLOCK);
            buffer.shrink_to(BLOCK);
            *unread = 0..0;
        }
        if self.is_ended && unread.start < unread.end {
            *line += 1;
            parse(parser, &buffer[unread.clone()], ready, skips, &self.name, *line);
            *unread = 0..0;
        }
    }

    /// Counts what the end of the log cut off.
    fn finish(&mut self) {
        let is_cut_off = self.har.take().is_some_and(|cutter| !cutter.is_done());
        let kind = if std::mem::take(&mut self.in_long_line) { SkipKind::TooLong } else { SkipKind::Malformed };
        if is_cut_off || kind == SkipKind::TooLong {
            self.skips.add(kind, &self.name, self.line + 1);
        }
    }

    fn cut_entries(&mut self, parser: &mut LineParser) {
        let Self { buffer, unread, ready, skips, line, har, .. } = self;
        let Some(cutter) = har else { return };
        cutter.feed(&buffer[unread.clone()], LONGEST_LINE, |cut| {
            *line += 1;
            let parsed = match cut {
                Cut::Entry(entry) => parser.requests.parse_har_entry(entry).map(|call| ready.push_back(call.into())),
                Cut::TooLong => Err(SkipKind::TooLong),
            };
            if let Err(kind) = parsed {
                skips.add(kind, &self.name, *line);
            }
        });
        *unread = 0..0;
    }
}

fn parse(
    parser: &mut LineParser,
    bytes: &[u8],
    ready: &mut VecDeque<LogEvent>,
    skips: &mut Skips,
    name: &Arc<str>,
    line: u64,
) {
    if bytes.trim_ascii().is_empty() {
        return;
    }
    if let Err(kind) = parser.parse(bytes, &mut |event| ready.push_back(event)) {
        skips.add(kind, name, line);
    }
}
