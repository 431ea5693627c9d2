//! Results of reloading files, by kind of file.

use std::sync::Arc;

use file_fingerprint::ReloadStats;
use parking_lot::Mutex;

use clerk_quota::Moment;

/// The purpose of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadKind {
    /// The configuration and all files it names.
    Config,
    /// Secret keys of Clerk instances.
    SecretKey,
    /// Tokens of the gateway's callers.
    CallerToken,
    /// Web configuration files of both ports.
    WebConfig,
    /// TLS certificates of both ports, with their keys.
    TlsCertificate,
    /// Certificate authorities for client certificates at both ports.
    ClientCa,
    /// Certificate authorities trusted for connections to Clerk.
    CaFile,
    /// Signing secrets of webhooks.
    SigningSecret,
    /// The encryption key of responses in Redis.
    EncryptionKey,
}

impl ReloadKind {
    /// All kinds, in display order.
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

/// Counters of attempts to read files, and the time of the last success per kind.
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
    /// External counters.
    followed: Vec<Followed>,
    /// Number of successes at the previous check, and when it last increased.
    successes: u64,
    succeeded_at: Option<Moment>,
}

/// Returns failures and successes of an external counter.
type Followed = Box<dyn Fn() -> (u64, u64) + Send + Sync>;

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("successes", &self.successes).finish_non_exhaustive()
    }
}

impl Reloads {
    /// Starts with only the configuration loaded, at this time.
    #[must_use]
    pub fn new(started_at: Moment) -> Self {
        let reloads = Self::default();
        reloads.kinds[ReloadKind::Config as usize].state.lock().succeeded_at = Some(started_at);
        reloads
    }

    /// The counters of files of this kind.
    #[must_use]
    pub fn stats(&self, kind: ReloadKind) -> Arc<ReloadStats> {
        Arc::clone(&self.kinds[kind as usize].own)
    }

    /// Adds an external counter of failures and successes.
    pub fn follow(&self, kind: ReloadKind, counts: impl Fn() -> (u64, u64) + Send + Sync + 'static) {
        self.kinds[kind as usize].state.lock().followed.push(Box::new(counts));
    }

    /// Returns per kind the failures so far and the time of the last success; `None` without files of that kind. The
    /// time is that of the first check after the success; checks run every few seconds.
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
    fn failures_add_up_and_time_is_the_last_success() {
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
