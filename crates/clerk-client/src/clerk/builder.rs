//! Setting up a client: connections, limiter, ledger and cache.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Clerk, Error};
use crate::cache::CacheBuilder;
use crate::limiter::DistributedLimiter;
use crate::outbound::{Outbound, RequestOptions};
use crate::secret::{EnvLookup, KeySource, Secret, SecretSource, process_env};
use crate::transport::{ApiUrl, ReqwestOptions, ReqwestTransport, Transport};
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use clerk_quota::{Coverage, Limit, Settings, Source};

const KEY: &str = "CLERK_SECRET_KEY";
const KEY_FILE: &str = "CLERK_SECRET_KEY_FILE";
const API_URL: &str = "CLERK_API_URL";

/// The name of the client's instance in its ledger.
const NAME: &str = "default";

/// The configuration of a [`Clerk`] client, made by [`Clerk::builder`] or [`ClerkBuilder::from_env`].
///
/// No setter fails: the first invalid value is the error of [`ClerkBuilder::build`], which also reads the key.
///
/// ```no_run
/// # fn example() -> Result<(), clerk_client::Error> {
/// use std::time::Duration;
///
/// use clerk_client::Clerk;
///
/// let clerk = Clerk::builder()
///     .secret_key_file("/run/secrets/clerk")
///     .limit(500, Duration::from_secs(10)) // Other programs use the other half.
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
#[must_use = "call `build`"]
pub struct ClerkBuilder {
    key: Option<SecretSource>,
    api_url: ApiUrl,
    ca_file: Option<PathBuf>,
    transport: Option<Arc<dyn Transport>>,
    limit: Option<Limit>,
    options: Option<RequestOptions>,
    low_priority: Option<RequestOptions>,
    distributed_limiter: Option<Arc<dyn DistributedLimiter>>,
    cache: Option<CacheBuilder>,
    /// The first error of a setter.
    error: Option<Error>,
}

impl ClerkBuilder {
    /// Takes the secret key from `CLERK_SECRET_KEY` or from the file that `CLERK_SECRET_KEY_FILE` names, and the address
    /// of the API from `CLERK_API_URL`, which defaults to `https://api.clerk.com`.
    pub fn from_env() -> Self {
        Self::from_env_with(&process_env)
    }

    /// [`ClerkBuilder::from_env`] with another environment than this process's.
    pub fn from_env_with(env: EnvLookup<'_>) -> Self {
        let builder = match (env(KEY), env(KEY_FILE)) {
            (Some(_), Some(_)) => Self::default().failed(Error::Configuration(
                "CLERK_SECRET_KEY is set together with CLERK_SECRET_KEY_FILE; unset one of them",
            )),
            // Read here, since `env` may not be the environment of this process.
            (Some(_), None) => match SecretSource::Env(KEY.to_owned()).read_with(env) {
                Ok(key) => Self::default().secret_key(key),
                Err(error) => Self::default().failed(error.into()),
            },
            (None, Some(path)) => Self::default().secret_key_file(PathBuf::from(path)),
            (None, None) => Self::default().failed(Error::Configuration(
                "no secret key: set CLERK_SECRET_KEY or CLERK_SECRET_KEY_FILE (Clerk dashboard, API keys)",
            )),
        };
        match env(API_URL) {
            // A value that is not UTF-8 is not a URL either.
            Some(url) => builder.api_url(url.to_str().unwrap_or_default()),
            None => builder,
        }
    }

    /// Sets the secret key, `sk_live_...` or `sk_test_...`.
    pub fn secret_key(self, key: impl Into<Secret>) -> Self {
        self.secret_source(SecretSource::Inline(key.into()))
    }

    /// Reads the secret key from a file, and again when Clerk rejects the key.
    pub fn secret_key_file(self, path: impl Into<PathBuf>) -> Self {
        self.secret_source(SecretSource::File(path.into()))
    }

    /// Sets where the secret key is stored.
    pub fn secret_source(self, source: SecretSource) -> Self {
        Self { key: Some(source), ..self }
    }

    /// Sets the address of the Backend API, with or without `/v1`. Default: `https://api.clerk.com`.
    pub fn api_url(self, url: impl AsRef<str>) -> Self {
        match ApiUrl::parse(url.as_ref()) {
            Ok(api_url) => Self { api_url, ..self },
            Err(error) => self.failed(error.into()),
        }
    }

    /// Trusts the certificate authorities in this PEM file, beside the system's.
    pub fn ca_file(self, path: impl Into<PathBuf>) -> Self {
        Self { ca_file: Some(path.into()), ..self }
    }

    /// Sends requests over this transport instead of the network, such as
    /// [`MemoryTransport`](crate::transport::MemoryTransport) in tests.
    pub fn transport(self, transport: Arc<dyn Transport>) -> Self {
        Self { transport: Some(transport), ..self }
    }

    /// Sets the rate limit of the instance. Default: the limit that Clerk documents for the key's environment, until a
    /// header names another one. Set less than the limit where other programs use the same instance.
    pub fn limit(self, requests: u64, window: Duration) -> Self {
        Self { limit: Some(Limit { requests, window }), ..self }
    }

    /// Sets timeouts, retries and queueing of ordinary requests.
    pub fn request_options(self, options: RequestOptions) -> Self {
        Self { options: Some(options), ..self }
    }

    /// Sets timeouts, retries and queueing of low-priority requests ([`Clerk::low_priority`]).
    pub fn low_priority_options(self, options: RequestOptions) -> Self {
        Self { low_priority: Some(options), ..self }
    }

    /// Shares the rate limit with other processes, for example over Redis
    /// ([`RedisLimiter`](crate::limiter::RedisLimiter)). While Redis cannot be reached, each process keeps to its share.
    ///
    #[cfg_attr(feature = "redis", doc = "```")]
    #[cfg_attr(not(feature = "redis"), doc = "```ignore")]
    /// use clerk_client::limiter::RedisLimiter;
    /// use clerk_client::redis::RedisClient;
    /// use clerk_client::Clerk;
    ///
    /// # fn main() -> Result<(), clerk_client::Error> {
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    /// # let _entered = runtime.enter();
    /// let redis = RedisClient::try_from("redis://127.0.0.1/")?;
    /// let clerk = Clerk::builder().distributed_limiter(RedisLimiter::new(redis, "production"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn distributed_limiter(self, limiter: Arc<dyn DistributedLimiter>) -> Self {
        Self { distributed_limiter: Some(limiter), ..self }
    }

    /// Caches users, the instance and its key set ([`Cache::memory`](crate::Cache::memory)). Writes of this client invalidate them, and webhooks
    /// if they are received ([`Clerk::webhooks`]).
    pub fn cache(self, cache: CacheBuilder) -> Self {
        Self { cache: Some(cache), ..self }
    }

    /// Reads the key and sets the client up. Connects to nothing.
    ///
    /// # Errors
    /// Returns the error of the first invalid setting, also of the cache's; an error if the key cannot be read or is not a Clerk secret key, or
    /// if the HTTP client cannot be set up.
    pub fn build(self) -> Result<Clerk, Error> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let key = self.key.ok_or(Error::Configuration("no secret key: call ClerkBuilder::secret_key"))?;
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
            lateness: None,
        };
        let ledger = Ledger::new([settings]).instance(NAME).ok_or(Error::Configuration("the ledger is empty"))?;
        let transport = match self.transport {
            Some(transport) => transport,
            None => ReqwestTransport::new(ReqwestOptions { ca_file: self.ca_file, ..ReqwestOptions::default() })?,
        };
        let clock = Arc::new(Clock::new());
        let outbound = Outbound::new(transport, self.api_url.as_str().to_owned(), key, ledger, Arc::clone(&clock));
        let mut clerk = Clerk::with_transport(Arc::new(match self.distributed_limiter {
            Some(limiter) => outbound.sharing(limiter),
            None => outbound,
        }));
        if let Some(options) = self.options {
            clerk = clerk.with_options(options);
        }
        if let Some(options) = self.low_priority {
            clerk = clerk.with_low_priority_options(options);
        }
        match self.cache {
            Some(cache) => clerk.with_cache(cache),
            None => Ok(clerk),
        }
    }

    fn failed(mut self, error: Error) -> Self {
        self.error.get_or_insert(error);
        self
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
        ClerkBuilder::from_env_with(&env)
            .build()
            .map_err(|error| format!("{} {error:?}", crate::transport::error_chain(&error)))
    }

    #[test]
    fn environment_is_enough() {
        let clerk = built(&[(KEY, CANARY), (API_URL, "http://127.0.0.1:1/v1/")]).unwrap();
        assert_eq!(clerk.outbound().base, "http://127.0.0.1:1");
        assert!(!format!("{clerk:?}").contains("CANARY"));
        assert_eq!(built(&[(KEY, CANARY)]).unwrap().outbound().base, ApiUrl::DEFAULT);
    }

    #[test]
    fn key_in_a_file_is_enough() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("{CANARY}\n")).unwrap();
        assert!(built(&[(KEY_FILE, file.path().to_str().unwrap())]).is_ok());
    }

    #[test]
    fn errors_name_the_problem_and_not_the_key() {
        for (variables, expected) in [
            (&[][..], "set CLERK_SECRET_KEY"),
            (&[(KEY, CANARY), (KEY_FILE, "/x")], "unset one of them"),
            (&[(KEY, "pk_test_CANARY")], "publishable"),
            (&[(KEY_FILE, "/does/not/exist")], "/does/not/exist"),
            (&[(KEY, CANARY), (API_URL, "ftp://x")], "only https"),
            (&[(KEY, CANARY), (API_URL, "https://x/sk_test_CANARY")], "contains a key"),
        ] {
            let error = built(variables).unwrap_err();
            assert!(error.to_lowercase().contains(&expected.to_lowercase()) && !error.contains("CANARY"), "{error}");
        }
    }

    #[test]
    fn first_invalid_setting_is_the_error_of_build() {
        let error = Clerk::builder().api_url("ftp://x").secret_key(CANARY).api_url("").build().unwrap_err();
        assert!(matches!(error, Error::ApiUrl(crate::transport::ApiUrlError::Scheme)), "{error:?}");
    }
}
