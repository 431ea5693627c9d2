//! Configuration without a file: one instance, from environment variables.

use std::ffi::OsString;
use std::path::PathBuf;

use super::ApiUrl;
use super::file::{DEFAULT_LOW_THRESHOLD, ProbeDraft};
use super::instance::CLEAR_TEXT_WARNING;
use super::model::{Config, InstanceConfig, LimitSetting};
use super::reader::Report;
use super::validate;
use clerk_client::secret::{EnvLookup, SecretSource};
use clerk_quota::metered::MeteredPlan;

const KEY: &str = "CLERK_SECRET_KEY";
const KEY_FILE: &str = "CLERK_SECRET_KEY_FILE";
const API_URL: &str = "CLERK_API_URL";

/// An empty variable counts as unset: compose files and charts pass unset variables this way.
pub(super) fn read(env: EnvLookup<'_>, report: &mut Report) -> Option<Config> {
    let is_blank = |name: &str| env(name).is_some_and(|value| value.as_encoded_bytes().trim_ascii().is_empty());
    let blank: Vec<&str> = [KEY, KEY_FILE].into_iter().filter(|name| is_blank(name)).collect();
    let env: EnvLookup<'_> = &|name| env(name).filter(|value| !value.as_encoded_bytes().trim_ascii().is_empty());
    let key = key_source(env, &blank, report).and_then(|(variable, source)| {
        let key = source.read_key_with(env);
        key.map(|key| (source, key))
            .map_err(|error| {
                let message = if variable == KEY { error.fault.to_string() } else { error.to_string() };
                report.problem(None, variable, message);
            })
            .ok()
    });
    let api_url = match env(API_URL) {
        None => Some(ApiUrl::default()),
        Some(value) => api_url(&value, report),
    };
    let (source, key) = key?;
    let files = source.file().into_iter().collect();
    let instance = InstanceConfig {
        name: "default".into(),
        key: source,
        further_keys: Vec::new(),
        machine_keys: Vec::new(),
        environment: key.environment(),
        api_url: api_url?,
        limit: LimitSetting::FromKeyPrefix,
        users_limit: None,
        probe: ProbeDraft::default().finish(),
        users: None,
        metered: MeteredPlan::PUBLISHED,
    };
    Some(Config {
        low_threshold: DEFAULT_LOW_THRESHOLD,
        ca_file: None,
        instances: vec![instance],
        redis: None,
        gateway: None,
        telemetry: None,
        files,
        warnings: Vec::new(),
    })
}

fn key_source(env: EnvLookup<'_>, blank: &[&'static str], report: &mut Report) -> Option<(&'static str, SecretSource)> {
    match (env(KEY), env(KEY_FILE)) {
        (Some(_), Some(_)) => {
            report.problem(None, KEY, format!("set together with {KEY_FILE}; unset one of them"));
            None
        }
        (Some(_), None) => Some((KEY, SecretSource::Env(KEY.to_owned()))),
        (None, Some(path)) => {
            if let Some(Err(message)) = path.to_str().map(validate::secret_file) {
                report.problem(None, KEY_FILE, message);
                return None;
            }
            Some((KEY_FILE, SecretSource::File(PathBuf::from(path))))
        }
        (None, None) if !blank.is_empty() => {
            for name in blank {
                let what =
                    if *name == KEY { "the secret key" } else { "the name of the file that holds the secret key" };
                report.problem(None, name, format!("is set but empty; put {what} there (Clerk dashboard, API keys)"));
            }
            None
        }
        (None, None) => {
            let message = format!(
                "no Clerk instance is configured; set {KEY} (or {KEY_FILE}) to a secret key, or name a file with \
                 --config.file, or run `clerk-exporter demo` to try it without an account"
            );
            report.problem(None, "", message);
            None
        }
    }
}

fn api_url(value: &OsString, report: &mut Report) -> Option<ApiUrl> {
    // A value that is not UTF-8 is not a URL either.
    match ApiUrl::parse(value.to_str().unwrap_or_default()) {
        Ok(url) => {
            if url.sends_key_in_the_clear() {
                report.warning(None, API_URL, CLEAR_TEXT_WARNING);
            }
            Some(url)
        }
        Err(error) => {
            report.problem(None, API_URL, error.to_string());
            None
        }
    }
}
