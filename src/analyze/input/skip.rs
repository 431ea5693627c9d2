//! Lines that are no request to Clerk, counted by kind.

use std::sync::Arc;

/// Why a line does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SkipKind {
    /// A request to another host.
    OtherHost,
    /// A request of another instance, in the gateway's access log.
    OtherInstance,
    /// A line of another kind, such as a server's own messages.
    OtherKind,
    /// A request that the proxy answered itself, or could not send.
    NotSent,
    /// Not JSON, or cut off.
    Malformed,
    /// Without a time, or with one that cannot be read.
    BadTime,
    /// Without a path, or with a method or status that cannot be read.
    BadRequest,
    /// Longer than the longest line.
    TooLong,
    /// Written by a later version of this program.
    Version,
}

impl SkipKind {
    /// All kinds.
    pub(crate) const ALL: [Self; 9] = [
        Self::OtherHost,
        Self::OtherInstance,
        Self::OtherKind,
        Self::NotSent,
        Self::Malformed,
        Self::BadTime,
        Self::BadRequest,
        Self::TooLong,
        Self::Version,
    ];

    /// The name in the JSON result.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::OtherHost => "other_host",
            Self::OtherInstance => "other_instance",
            Self::OtherKind => "other_kind",
            Self::NotSent => "not_sent",
            Self::Malformed => "malformed",
            Self::BadTime => "bad_time",
            Self::BadRequest => "bad_request",
            Self::TooLong => "too_long",
            Self::Version => "version",
        }
    }

    /// Whether the line may be a request that is missing in the result.
    pub(crate) const fn is_fault(self) -> bool {
        !matches!(self, Self::OtherHost | Self::OtherInstance | Self::OtherKind | Self::NotSent)
    }

    /// What it means, and what to do.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::OtherHost => "requests to other hosts; add theirs with --host if they forward to Clerk",
            Self::OtherInstance => "requests of other instances than that of --instance",
            Self::OtherKind => "lines of another kind, such as a server's own messages",
            Self::NotSent => "answered by the proxy itself or not sent",
            Self::Malformed => "not JSON, or cut off",
            Self::BadTime => "no readable time; name the member with --field time=MEMBER",
            Self::BadRequest => "no readable method, path or status; name the members with --field",
            Self::TooLong => "longer than the longest line that is read",
            Self::Version => "written by a later version; update this program",
        }
    }
}

/// Where a skipped line is: never its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The file as the user named it.
    pub(crate) file: Arc<str>,
    /// The line, from 1; in a HAR file the entry.
    pub(crate) line: u64,
}

/// Named examples of a kind.
const EXAMPLES: usize = 3;

/// Counts of skipped lines.
#[derive(Debug, Clone, Default)]
pub(crate) struct Skips {
    counts: [u64; SkipKind::ALL.len()],
    examples: [Vec<Place>; SkipKind::ALL.len()],
}

impl Skips {
    pub(crate) fn add(&mut self, kind: SkipKind, file: &Arc<str>, line: u64) {
        self.counts[kind as usize] += 1;
        let examples = &mut self.examples[kind as usize];
        if kind.is_fault() && examples.len() < EXAMPLES {
            examples.push(Place { file: Arc::clone(file), line });
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum += count;
        }
        for (all, more) in self.examples.iter_mut().zip(other.examples) {
            all.extend(more);
            all.truncate(EXAMPLES);
        }
    }

    pub(crate) const fn count(&self, kind: SkipKind) -> u64 {
        self.counts[kind as usize]
    }

    /// The first places of a kind.
    pub(crate) fn examples(&self, kind: SkipKind) -> &[Place] {
        &self.examples[kind as usize]
    }

    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}
