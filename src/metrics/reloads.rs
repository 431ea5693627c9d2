//! What came of reading files again, by kind of file.

use std::sync::Arc;

use file_fingerprint::ReloadStats;
use parking_lot::Mutex;

use clerk_quota::Moment;

/// What a file is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadKind {
    /// The configuration, with all that it names.
    Config,
    /// Secret keys of Clerk instances.
    SecretKey,
    /// Tokens of callers of the gateway.
    CallerToken,
    /// Web configurations of both ports.
    WebConfig,
    /// Certificates of both ports, with their keys.
    TlsCertificate,
    /// Authorities that sign the certificates of clients of both ports.
    ClientCa,
    /// Certificate authorities that are trusted when Clerk is called.
    CaFile,
    /// Signing secrets of webhooks.
    SigningSecret,
    /// The key of answers in Redis.
    EncryptionKey,
}

impl ReloadKind {
    /// All kinds, in the order in which they are shown.
    pub const ALL: [Self; 9] = [
        Self::Config,
        Self::SecretKey,
        Self::CallerToken,
        Self::WebConfig,
        Self::TlsCertificate,
        Self::ClientCa,
        Self::CaFile,
        Self::SigningSecret,
        Self::EncryptionKey,
    ];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::SecretKey => "secret_key",
            Self::CallerToken => "caller_token",
            Self::WebConfig => "web_config",
            Self::TlsCertificate => "tls_certificate",
            Self::ClientCa => "client_ca",
            Self::CaFile => "ca_file",
            Self::SigningSecret => "signing_secret",
            Self::EncryptionKey => "encryption_key",
        }
    }
}

/// Where attempts to read files are counted, and when each kind was last read well.
#[derive(Debug, Default)]
pub struct Reloads {
    kinds: [KindReloads; ReloadKind::ALL.len()],
}

#[derive(Debug, Default)]
struct KindReloads {
    own: Arc<ReloadStats>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Counters that are kept elsewhere.
    followed: Vec<Followed>,
    /// Successes when they were last looked at, and when there was one more than before.
    successes: u64,
    succeeded_at: Option<Moment>,
}

/// Gives failures and successes of a counter that is kept elsewhere.
type Followed = Box<dyn Fn() -> (u64, u64) + Send + Sync>;

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("successes", &self.successes).finish_non_exhaustive()
    }
}

impl Reloads {
    /// None were read yet but the configuration, at this time.
    #[must_use]
    pub fn new(started_at: Moment) -> Self {
        let reloads = Self::default();
        reloads.kinds[ReloadKind::Config as usize].state.lock().succeeded_at = Some(started_at);
        reloads
    }

    /// Where attempts at files of this kind are counted.
    #[must_use]
    pub fn stats(&self, kind: ReloadKind) -> Arc<ReloadStats> {
        Arc::clone(&self.kinds[kind as usize].own)
    }

    /// Adds failures and successes that are counted elsewhere.
    pub fn follow(&self, kind: ReloadKind, counts: impl Fn() -> (u64, u64) + Send + Sync + 'static) {
        self.kinds[kind as usize].state.lock().followed.push(Box::new(counts));
    }

    /// Of each kind the failures so far, and when files of it were last read well; none if there are no files of it. The
    /// time is that of the first look after it: looks are made every few seconds.
    pub fn look(&self, now: Moment) -> impl Iterator<Item = (ReloadKind, u64, Option<Moment>)> {
        ReloadKind::ALL.into_iter().map(move |kind| {
            let KindReloads { own, state } = &self.kinds[kind as usize];
            let mut state = state.lock();
            let own = (own.failures(), own.successes());
            let all = state.followed.iter().map(|counts| counts());
            let (failures, successes) =
                all.fold(own, |sum, next| (sum.0.saturating_add(next.0), sum.1.saturating_add(next.1)));
            if successes != state.successes {
                state.successes = successes;
                state.succeeded_at = Some(now);
            }
            (kind, failures, state.succeeded_at)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use file_fingerprint::{Look, WatchedFiles};

    #[test]
    fn failures_add_up_and_the_time_is_that_of_the_last_success() {
        let reloads = Reloads::default();
        let at = |seconds| Moment::from_unix(Duration::from_secs(seconds));
        let of = |now: u64| {
            let (_, failures, succeeded_at) =
                reloads.look(at(now)).find(|(kind, ..)| *kind == ReloadKind::CaFile).unwrap();
            (failures, succeeded_at)
        };
        assert_eq!(of(1), (0, None));
        let mut watched = WatchedFiles::new(reloads.stats(ReloadKind::CaFile));
        watched.succeeded(Look::default());
        assert_eq!((of(2), of(3)), ((0, Some(at(2))), (0, Some(at(2)))));
        watched.failed("it is gone");
        reloads.follow(ReloadKind::CaFile, || (5, 0));
        assert_eq!(of(4), (6, Some(at(2))));
        watched.succeeded(Look::default());
        assert_eq!(of(5), (6, Some(at(5))));
    }
}
