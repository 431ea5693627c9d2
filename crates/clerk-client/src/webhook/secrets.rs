//! The signing secrets of an endpoint, which may be replaced while we run.

use std::sync::Arc;

use file_fingerprint::{ReloadStats, WatchedFiles};
use parking_lot::Mutex;
use tracing::{info, warn};

use super::signature::{BadSecret, SigningSecret};
use crate::secret::{Secret, SecretError, SecretFault, SecretSource};

/// Why webhooks cannot be received as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookConfigError {
    /// The list of secrets is empty.
    #[error(
        "no signing secret is configured for webhooks; name at least one (Clerk dashboard, Webhooks, signing secret)"
    )]
    NoSecret,
    /// A secret cannot be read.
    #[error(transparent)]
    Unreadable(SecretError),
    /// A secret was read and is of no use.
    #[error("{origin}: {fault}")]
    Unusable {
        /// The [`SecretSource`] as text.
        origin: String,
        /// What is wrong.
        fault: BadSecret,
    },
}

/// Every secret as it was last read in a usable form, in the order of configuration.
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
    /// What was last read, to see whether it is another one.
    known: Option<Secret>,
}

impl Secrets {
    /// Reads all of them, and counts what comes of it in `stats`. Blocks for some small files.
    pub(super) fn load(sources: Vec<SecretSource>, stats: &Arc<ReloadStats>) -> Result<Self, WebhookConfigError> {
        if sources.is_empty() {
            return Err(WebhookConfigError::NoSecret);
        }
        let slot = |source| SecretSlot { source, watched: WatchedFiles::new(Arc::clone(stats)), known: None };
        let mut places: Vec<SecretSlot> = sources.into_iter().map(slot).collect();
        let ready = places.iter_mut().map(|place| place.read().map(|(secret, _)| secret)).collect::<Result<_, _>>()?;
        Ok(Self(Mutex::new(State { places, ready })))
    }

    /// The secrets now. Files that were touched or replaced are read again; one that has become unusable leaves its
    /// secret in place, is tried again at each call, and is reported once. Blocks for a look at each file.
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
                    info!(source = %place.source, "webhook signing secret read again");
                }
                Ok((_, false)) if place.watched.is_recovery() => {
                    info!(source = %place.source, "the webhook signing secret can be read again");
                }
                Err(error) if place.watched.is_new_failure() => {
                    warn!(%error, "webhook signing secret kept as it was: the new one cannot be used");
                }
                _ => {}
            }
        }
        Arc::clone(ready)
    }
}

impl SecretSlot {
    /// Reads the secret, and says whether it is another one.
    fn read(&mut self) -> Result<(SigningSecret, bool), WebhookConfigError> {
        let (text, secret) = self.watched.attempt(self.source.file(), || read(&self.source))?;
        let is_new = self.known.as_ref() != Some(&text);
        self.known = Some(text);
        Ok((secret, is_new))
    }
}

/// Whether a signing secret can be read and used.
///
/// # Errors
/// Why not; the message holds nothing of it.
pub fn check_secret(source: &SecretSource) -> Result<(), WebhookConfigError> {
    read(source).map(drop)
}

fn read(source: &SecretSource) -> Result<(Secret, SigningSecret), WebhookConfigError> {
    let unusable = |fault| WebhookConfigError::Unusable { origin: source.to_string(), fault };
    let secret = source.read().map_err(|error| match error.fault {
        // The general message does not say where it is found.
        SecretFault::Blank => unusable(BadSecret::Empty),
        _ => WebhookConfigError::Unreadable(error),
    })?;
    let signing = SigningSecret::parse(secret.expose()).map_err(unusable)?;
    Ok((secret, signing))
}
