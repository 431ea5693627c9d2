//! `basic_auth_users`: password verification.
//!
//! bcrypt is slow on purpose: 50 to 100 ms of a core per verification. Running it for every request would make each
//! scrape expensive and let anyone block the exporter with a few wrong passwords per second. Hence one verification at
//! a time, a bounded queue, and a cache of results.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;
use std::sync::Arc;

use axum::http::HeaderMap;
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

use super::credentials::Credentials;
use super::error::Problem;
use super::file::SecretText;

/// Cached results of each kind. Wrong passwords are cached separately: a flood of them must not evict the one valid
/// password that every scrape uses.
const MAX_CACHED: usize = 128;

/// Requests that may wait for a verification; further ones are rejected with a `Retry-After`.
const QUEUE: usize = 32;

/// The user names and their bcrypt hashes.
pub(super) struct Users {
    hashes: BTreeMap<String, SecretString>,
    /// Verified for users that do not exist, so that the response time does not reveal whether a user exists. As
    /// costly as the costliest hash of the file.
    decoy: SecretString,
}

impl Users {
    /// Validates the hashes; `None` if there are no users, so that no password is required.
    pub(super) fn new(typed: &BTreeMap<String, SecretText>) -> Result<Option<Self>, Problem> {
        let mut hashes = BTreeMap::new();
        let mut cost = 0;
        for (user, SecretText(hash)) in typed {
            let key = || format!("basic_auth_users.{user}");
            if user.contains(':') {
                return Err(Problem::key(key(), "a user name must not contain a colon"));
            }
            let text = hash.expose_secret();
            if !["$2a$", "$2b$", "$2y$"].iter().any(|prefix| text.starts_with(prefix)) {
                return Err(Problem::key(
                    key(),
                    "not a bcrypt hash, which starts with $2y$, $2b$ or $2a$; make one with: htpasswd -nBC 10 USER",
                ));
            }
            let parts = bcrypt::HashParts::from_str(text)
                .map_err(|_| Problem::key(key(), "not a complete bcrypt hash, which has 60 characters"))?;
            if !(4..=31).contains(&parts.get_cost()) {
                return Err(Problem::key(key(), "the cost of a bcrypt hash must be from 04 to 31"));
            }
            cost = cost.max(parts.get_cost());
            hashes.insert(user.clone(), hash.clone());
        }
        // No known password matches this hash, and a match would not count.
        let decoy = format!("$2b${cost:02}$......................{}", ".".repeat(31));
        Ok((!hashes.is_empty()).then(|| Self { hashes, decoy: decoy.into() }))
    }
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A known user with a valid password.
    Accepted,
    /// No credentials, or invalid ones.
    Rejected,
    /// Too many requests wait for a verification.
    Busy,
}

/// Verifies credentials and caches the results. The cache key includes the hash, so it survives reloads of the file.
pub(super) struct Authenticator {
    results: Mutex<Results>,
    verification: Arc<Semaphore>,
    queue: Semaphore,
}

impl Authenticator {
    pub(super) fn new() -> Self {
        Self { results: Mutex::default(), verification: Arc::new(Semaphore::new(1)), queue: Semaphore::new(QUEUE) }
    }

    /// Checks the credentials of a request.
    pub(super) async fn check(&self, users: &Users, headers: &HeaderMap) -> Verdict {
        let Some(Credentials { user, password }) = Credentials::of(headers) else {
            return Verdict::Rejected;
        };
        // From here on, known and unknown users take the same path.
        let known = users.hashes.get(&user);
        let hash = known.unwrap_or(&users.decoy);
        let fingerprint =
            self.results.lock().fingerprint(user.as_bytes(), hash.expose_secret().as_bytes(), password.expose_secret());
        let verdict = |matches: bool| if matches && known.is_some() { Verdict::Accepted } else { Verdict::Rejected };

        if let Some(matches) = self.results.lock().get(fingerprint) {
            return verdict(matches);
        }
        let Ok(_queued) = self.queue.try_acquire() else {
            return Verdict::Busy;
        };
        // The permit belongs to the work: bcrypt continues when the client leaves, and still nothing runs next to it.
        let Ok(permit) = Arc::clone(&self.verification).acquire_owned().await else {
            return Verdict::Busy;
        };
        if let Some(matches) = self.results.lock().get(fingerprint) {
            return verdict(matches);
        }
        let hash = hash.clone();
        let verification = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            bcrypt::verify(password.expose_secret(), hash.expose_secret()).unwrap_or(false)
        });
        // Fails only when the runtime shuts down: there is nothing to cache then.
        let Ok(matches) = verification.await else {
            return Verdict::Busy;
        };
        self.results.lock().insert(fingerprint, matches && known.is_some());
        verdict(matches)
    }
}

/// Identifies a user, hash and password. Keyed randomly per process, so that it reveals nothing about them.
type Fingerprint = u128;

#[derive(Default)]
struct Results {
    key: RandomState,
    accepted: Memory,
    rejected: Memory,
}

impl Results {
    fn fingerprint(&self, user: &[u8], hash: &[u8], password: &[u8]) -> Fingerprint {
        // Two 64-bit hashes: one is too short to authorize access.
        let half = |number: u8| u128::from(self.key.hash_one((number, user, hash, password)));
        half(0) << 64 | half(1)
    }

    fn get(&self, fingerprint: Fingerprint) -> Option<bool> {
        if self.accepted.set.contains(&fingerprint) {
            Some(true)
        } else {
            self.rejected.set.contains(&fingerprint).then_some(false)
        }
    }

    fn insert(&mut self, fingerprint: Fingerprint, matches: bool) {
        if matches { &mut self.accepted } else { &mut self.rejected }.insert(fingerprint);
    }
}

/// The newest [`MAX_CACHED`] fingerprints.
#[derive(Default)]
struct Memory {
    set: HashSet<Fingerprint>,
    order: VecDeque<Fingerprint>,
}

impl Memory {
    fn insert(&mut self, fingerprint: Fingerprint) {
        if !self.set.insert(fingerprint) {
            return;
        }
        self.order.push_back(fingerprint);
        if self.order.len() > MAX_CACHED
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use axum::http::header::AUTHORIZATION;

    fn users(pairs: &[(&str, &str)]) -> Result<Option<Users>, Problem> {
        Users::new(&pairs.iter().map(|(user, hash)| ((*user).to_owned(), SecretText((*hash).into()))).collect())
    }

    fn headers(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))])
    }

    #[test]
    fn invalid_hash_is_rejected_without_showing_it() {
        let whole = bcrypt::hash("x", 4).unwrap();
        let cases = [
            ("alice", "CANARY".to_owned(), "basic_auth_users.alice: not a bcrypt hash"),
            ("alice", whole.replace("$2b$", "$2x$"), "not a bcrypt hash"),
            ("alice", "$2y$10$CANARY".to_owned(), "not a complete bcrypt hash"),
            ("alice", whole.replace("$04$", "$03$"), "cost"),
            ("al:ice", whole.clone(), "colon"),
        ];
        for (user, hash, expected) in cases {
            let message = users(&[(user, &hash)]).err().unwrap().to_string();
            assert!(message.contains(expected), "{message}");
            assert!(!message.contains("CANARY"), "{message}");
        }
    }

    #[test]
    fn decoy_is_a_valid_hash_of_the_same_cost() {
        let hash = bcrypt::hash("x", 5).unwrap();
        let users = users(&[("alice", &hash)]).unwrap().unwrap();
        let decoy = bcrypt::HashParts::from_str(users.decoy.expose_secret()).unwrap();
        assert_eq!(decoy.get_cost(), 5);
        assert!(!bcrypt::verify("x", users.decoy.expose_secret()).unwrap());
    }

    #[tokio::test]
    async fn each_bcrypt_prefix_is_verified() {
        let hash = bcrypt::hash_with_result("open sesame", 4).unwrap();
        for version in [bcrypt::Version::TwoA, bcrypt::Version::TwoB, bcrypt::Version::TwoY] {
            let users = users(&[("Aladdin", &hash.format_for_version(version))]).unwrap().unwrap();
            let authenticator = Authenticator::new();
            let right = headers("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
            assert_eq!(authenticator.check(&users, &right).await, Verdict::Accepted);
            assert_eq!(authenticator.check(&users, &headers("Basic QWxhZGRpbjp4")).await, Verdict::Rejected);
            assert_eq!(authenticator.check(&users, &headers("Basic bm9ib2R5Ong=")).await, Verdict::Rejected);
            assert_eq!(authenticator.check(&users, &HeaderMap::new()).await, Verdict::Rejected);
        }
    }

    #[tokio::test]
    async fn changed_hash_invalidates_the_old_password() {
        let authenticator = Authenticator::new();
        let request = headers("Basic YTpi");
        let before = users(&[("a", &bcrypt::hash("b", 4).unwrap())]).unwrap().unwrap();
        assert_eq!(authenticator.check(&before, &request).await, Verdict::Accepted);
        let after = users(&[("a", &bcrypt::hash("c", 4).unwrap())]).unwrap().unwrap();
        assert_eq!(authenticator.check(&after, &request).await, Verdict::Rejected);
        let gone = users(&[("z", &bcrypt::hash("b", 4).unwrap())]).unwrap().unwrap();
        assert_eq!(authenticator.check(&gone, &request).await, Verdict::Rejected);
    }

    #[tokio::test]
    async fn full_queue_rejects_unless_cached() {
        let authenticator = Authenticator::new();
        let users = users(&[("a", &bcrypt::hash("b", 4).unwrap())]).unwrap().unwrap();
        let right = headers("Basic YTpi");
        assert_eq!(authenticator.check(&users, &right).await, Verdict::Accepted);
        let _queue = authenticator.queue.acquire_many(u32::try_from(QUEUE).unwrap()).await.unwrap();
        assert_eq!(authenticator.check(&users, &headers("Basic YTp4")).await, Verdict::Busy);
        assert_eq!(authenticator.check(&users, &right).await, Verdict::Accepted);
    }

    #[test]
    fn wrong_passwords_do_not_evict_a_valid_one() {
        let mut results = Results::default();
        results.insert(0, true);
        for wrong in 1..=1000 {
            results.insert(wrong, false);
        }
        assert_eq!(results.get(0), Some(true));
        assert_eq!(results.get(1), None);
        assert_eq!(results.get(1000), Some(false));
        assert_eq!(results.rejected.set.len(), MAX_CACHED);
    }
}
