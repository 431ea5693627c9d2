//! Setting up a client of its own: connections, pacer and ledger.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Clerk, Error};
use crate::limiter::DistributedLimiter;
use crate::outbound::{Outbound, RequestOptions};
use crate::secret::{EnvLookup, KeySource, SecretSource, process_env};
use crate::transport::{ApiUrl, ReqwestOptions, ReqwestTransport};
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use clerk_quota::{Coverage, Limit, Settings, Source};

const KEY: &str = "CLERK_SECRET_KEY";
const KEY_FILE: &str = "CLERK_SECRET_KEY_FILE";
const API_URL: &str = "CLERK_API_URL";

/// The name of the client's instance in its ledger.
const NAME: &str = "default";

/// What a client is made of. Nothing is read or connected before [`Builder::build`].
///
/// ```no_run
/// # fn example() -> Result<(), clerk_client::clerk::Error> {
/// use std::time::Duration;
///
/// use clerk_client::clerk::Clerk;
/// use clerk_client::secret::SecretSource;
///
/// let clerk = Clerk::builder()
///     .key(SecretSource::File("/run/secrets/clerk".into()))
///     .limit(500, Duration::from_secs(10)) // The other half is for others.
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Builder {
    key: Option<SecretSource>,
    api_url: ApiUrl,
    ca_file: Option<PathBuf>,
    limit: Option<Limit>,
    policy: Option<RequestOptions>,
    bulk: Option<RequestOptions>,
    shared: Option<Arc<dyn DistributedLimiter>>,
}

impl Builder {
    /// What the environment says, as [`Clerk::from_env`] takes it.
    ///
    /// # Errors
    /// When no key, or several, or no usable address is set.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_env_with(&process_env)
    }

    /// [`Builder::from_env`] with another environment than that of this process.
    ///
    /// # Errors
    /// As [`Builder::from_env`].
    pub fn from_env_with(env: EnvLookup<'_>) -> Result<Self, Error> {
        let key = match (env(KEY), env(KEY_FILE)) {
            (Some(_), Some(_)) => {
                let problem = "CLERK_SECRET_KEY is set together with CLERK_SECRET_KEY_FILE; unset one of them";
                return Err(Error::Environment(problem));
            }
            // Variables do not change while we run: the value is taken here, from the environment that was handed in.
            (Some(_), None) => SecretSource::Inline(SecretSource::Env(KEY.to_owned()).read_with(env)?),
            (None, Some(path)) => SecretSource::File(PathBuf::from(path)),
            (None, None) => {
                let problem = "no key: set CLERK_SECRET_KEY (or CLERK_SECRET_KEY_FILE) to a secret key of the instance";
                return Err(Error::Environment(problem));
            }
        };
        let builder = Self::default().key(key);
        match env(API_URL) {
            // What is not UTF-8 is not a URL either.
            Some(url) => builder.api_url(url.to_str().unwrap_or_default()),
            None => Ok(builder),
        }
    }

    /// Where the secret key is kept. A file is read again when Clerk refuses the key that was in it.
    #[must_use]
    pub fn key(self, key: SecretSource) -> Self {
        Self { key: Some(key), ..self }
    }

    /// Where the Backend API is, with or without `/v1`.
    ///
    /// # Errors
    /// When it is no http or https address of a host.
    pub fn api_url(self, url: &str) -> Result<Self, Error> {
        Ok(Self { api_url: ApiUrl::parse(url)?, ..self })
    }

    /// A PEM file with further certificate authorities, beside the system's.
    #[must_use]
    pub fn ca_file(self, path: PathBuf) -> Self {
        Self { ca_file: Some(path), ..self }
    }

    /// The instance's rate limit, where it is not the one that Clerk documents for the key's environment. Give less than
    /// that where other programs use the same instance.
    #[must_use]
    pub fn limit(self, requests: u64, window: Duration) -> Self {
        Self { limit: Some(Limit { requests, window }), ..self }
    }

    /// How requests are tried at which somebody waits.
    #[must_use]
    pub fn policy(self, policy: RequestOptions) -> Self {
        Self { policy: Some(policy), ..self }
    }

    /// How requests of bulk work are tried.
    #[must_use]
    pub fn bulk_policy(self, policy: RequestOptions) -> Self {
        Self { bulk: Some(policy), ..self }
    }

    /// Spends the limit together with other processes that share this budget, such as a
    /// [`RedisLimiter`](crate::limiter::RedisLimiter) over Redis. While they cannot be reached, each keeps to its
    /// part.
    ///
    /// ```no_run
    /// use clerk_client::{clerk::Clerk, limiter::RedisLimiter, redis::{RedisClient, RedisOptions}, secret::Secret};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let redis = RedisClient::new(RedisOptions::new(Secret::new("redis://127.0.0.1/".to_owned())))?;
    /// let clerk = Clerk::builder().shared_budget(RedisLimiter::new(redis, "prod"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn shared_budget(self, budget: Arc<dyn DistributedLimiter>) -> Self {
        Self { shared: Some(budget), ..self }
    }

    /// Reads the key and sets the client up. Connects to nothing.
    ///
    /// # Errors
    /// When there is no usable key, or the HTTP client cannot be set up.
    pub fn build(self) -> Result<Clerk, Error> {
        let key = self.key.ok_or(Error::Environment("no key: give Builder::key the place where it is kept"))?;
        let key = Arc::new(KeySource::new(key));
        let settings = Settings {
            name: NAME.into(),
            environment: key.current()?.environment(),
            api_host: self.api_url.host().into(),
            limit: self.limit,
            users_limit: None,
            low_threshold: 0.1,
            stale_after: Duration::from_secs(60),
            sources: vec![Source::Client],
            coverage: Coverage::Sole,
        };
        let ledger = Ledger::new([settings]).instance(NAME).ok_or(Error::Environment("the ledger is empty"))?;
        let upstream = ReqwestTransport::new(ReqwestOptions { ca_file: self.ca_file, ..ReqwestOptions::default() })?;
        let base = self.api_url.as_str().to_owned();
        let outbound = Outbound::new(upstream, base, key, ledger, Arc::new(Clock::new()));
        let clerk = Clerk::with_transport(Arc::new(match self.shared {
            Some(budget) => outbound.sharing(budget),
            None => outbound,
        }));
        let clerk = match self.policy {
            Some(policy) => clerk.with_policy(policy),
            None => clerk,
        };
        Ok(match self.bulk {
            Some(policy) => clerk.with_bulk_policy(policy),
            None => clerk,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    const CANARY: &str = "sk_test_4bMbJyWZ2vnLx0aQCANARY";

    fn built(variables: &[(&str, &str)]) -> Result<Clerk, String> {
        let env = |name: &str| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| OsString::from(value))
        };
        Builder::from_env_with(&env).and_then(Builder::build).map_err(|error| format!("{error} {error:?}"))
    }

    #[test]
    fn the_environment_is_enough() {
        let clerk = built(&[(KEY, CANARY), (API_URL, "http://127.0.0.1:1/v1/")]).unwrap();
        assert_eq!(clerk.outbound().base, "http://127.0.0.1:1");
        assert!(!format!("{clerk:?}").contains("CANARY"));
        assert_eq!(built(&[(KEY, CANARY)]).unwrap().outbound().base, ApiUrl::DEFAULT);
    }

    #[test]
    fn a_key_in_a_file_is_enough() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("{CANARY}\n")).unwrap();
        assert!(built(&[(KEY_FILE, file.path().to_str().unwrap())]).is_ok());
    }

    #[test]
    fn what_is_wrong_is_said_without_the_key() {
        for (variables, expected) in [
            (&[][..], "set CLERK_SECRET_KEY"),
            (&[(KEY, CANARY), (KEY_FILE, "/x")], "unset one of them"),
            (&[(KEY, "pk_test_CANARY")], "publishable"),
            (&[(KEY_FILE, "/does/not/exist")], "cannot be read"),
            (&[(KEY, CANARY), (API_URL, "ftp://x")], "only https"),
            (&[(KEY, CANARY), (API_URL, "https://x/sk_test_CANARY")], "contains a key"),
        ] {
            let error = built(variables).unwrap_err();
            assert!(error.contains(expected) && !error.contains("CANARY"), "{error}");
        }
    }
}
