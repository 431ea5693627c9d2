//! The signing secrets of an endpoint, which can be replaced at runtime.

use std::sync::Arc;

use file_fingerprint::{ReloadStats, WatchedFiles};
use parking_lot::Mutex;
use tracing::{info, warn};

use super::signature::{BadSecret, SigningSecret};
use crate::secret::{Secret, SecretError, SecretFault, SecretSource};

/// Invalid configuration of a webhook endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WebhookConfigError {
    /// The list of secrets is empty.
    #[error(
        "no webhook signing secret is configured; configure at least one (Clerk dashboard, Webhooks, signing secret)"
    )]
    NoSecret,
    /// A secret is unreadable.
    #[error(transparent)]
    Unreadable(SecretError),
    /// A secret is unusable.
    #[error("{origin}: {fault}")]
    Unusable {
        /// The [`SecretSource`] as text.
        origin: String,
        /// The fault.
        fault: BadSecret,
    },
}

/// The last usable value of each secret, in the order of configuration.
#[derive(Debug)]
pub(super) struct Secrets(Mutex<State>);

#[derive(Debug)]
struct State {
    places: Vec<SecretSlot>,
    ready: Arc<[SigningSecret]>,
}

#[derive(Debug)]
struct SecretSlot {
    source: SecretSource,
    watched: WatchedFiles,
    /// The value last read, to detect changes.
    known: Option<Secret>,
}

impl Secrets {
    /// Reads all secrets, counting reads in `stats`. Blocks on small files.
    pub(super) fn load(sources: Vec<SecretSource>, stats: &Arc<ReloadStats>) -> Result<Self, WebhookConfigError> {
        if sources.is_empty() {
            return Err(WebhookConfigError::NoSecret);
        }
        let slot = |source| SecretSlot { source, watched: WatchedFiles::new(Arc::clone(stats)), known: None };
        let mut places: Vec<SecretSlot> = sources.into_iter().map(slot).collect();
        let ready = places.iter_mut().map(|place| place.read().map(|(secret, _)| secret)).collect::<Result<_, _>>()?;
        Ok(Self(Mutex::new(State { places, ready })))
    }

    /// Returns the current secrets. Rereads changed files. An unusable file leaves the previous secret in place, is
    /// tried again at each call, and is reported once. Blocks on checking each file.
    pub(super) fn current(&self) -> Arc<[SigningSecret]> {
        let mut state = self.0.lock();
        let State { places, ready } = &mut *state;
        for (index, place) in places.iter_mut().enumerate() {
            if place.source.file().is_none() || !place.watched.is_outdated() {
                continue;
            }
            match place.read() {
                Ok((secret, true)) => {
                    *ready = ready
                        .iter()
                        .enumerate()
                        .map(|(i, old)| if i == index { &secret } else { old })
                        .cloned()
                        .collect();
                    place.watched.is_recovery();
                    info!(source = %place.source, "webhook signing secret reloaded");
                }
                Ok((_, false)) if place.watched.is_recovery() => {
                    info!(source = %place.source, "webhook signing secret is readable again");
                }
                Err(error) if place.watched.is_new_failure() => {
                    warn!(%error, "new webhook signing secret is unusable; keeping the previous one");
                }
                _ => {}
            }
        }
        Arc::clone(ready)
    }
}

impl SecretSlot {
    /// Reads the secret. Returns it and whether it changed.
    fn read(&mut self) -> Result<(SigningSecret, bool), WebhookConfigError> {
        let (text, secret) = self.watched.attempt(self.source.file(), || read(&self.source))?;
        let is_new = self.known.as_ref() != Some(&text);
        self.known = Some(text);
        Ok((secret, is_new))
    }
}

/// Checks that a signing secret is readable and usable.
///
/// # Errors
///
/// Returns the reason if it is not; the message does not contain the secret.
pub fn check_secret(source: &SecretSource) -> Result<(), WebhookConfigError> {
    read(source).map(drop)
}

fn read(source: &SecretSource) -> Result<(Secret, SigningSecret), WebhookConfigError> {
    let unusable = |fault| WebhookConfigError::Unusable { origin: source.to_string(), fault };
    let secret = source.read().map_err(|error| match error.fault {
        // The general message does not say where to find the secret.
        SecretFault::Blank => unusable(BadSecret::Empty),
        _ => WebhookConfigError::Unreadable(error),
    })?;
    let signing = SigningSecret::parse(secret.expose()).map_err(unusable)?;
    Ok((secret, signing))
}
