//! The signing secrets of an endpoint, which may be replaced while we run.

use std::sync::Arc;

use file_fingerprint::FileFingerprint;
use parking_lot::Mutex;
use tracing::{info, warn};

use super::signature::{BadSecret, SigningSecret};
use crate::secret::{SecretError, SecretFault, SecretSource};

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
    /// The file as it was when it was last read, whatever came of it.
    fingerprint: Option<FileFingerprint>,
}

impl Secrets {
    /// Reads all of them. Blocks for some small files.
    pub(super) fn load(sources: Vec<SecretSource>) -> Result<Self, WebhookConfigError> {
        if sources.is_empty() {
            return Err(WebhookConfigError::NoSecret);
        }
        let places: Vec<SecretSlot> =
            sources.into_iter().map(|source| SecretSlot { fingerprint: source.fingerprint(), source }).collect();
        let ready = places.iter().map(|place| read(&place.source)).collect::<Result<_, _>>()?;
        Ok(Self(Mutex::new(State { places, ready })))
    }

    /// The secrets now. Files that were touched or replaced are read again; one that has become unusable leaves its
    /// secret in place and is reported once. Blocks for a look at each file.
    pub(super) fn current(&self) -> Arc<[SigningSecret]> {
        let mut state = self.0.lock();
        let State { places, ready } = &mut *state;
        for (index, place) in places.iter_mut().enumerate() {
            let fingerprint = place.source.fingerprint();
            if fingerprint == place.fingerprint {
                continue;
            }
            place.fingerprint = fingerprint;
            match read(&place.source) {
                Ok(secret) => {
                    *ready = ready
                        .iter()
                        .enumerate()
                        .map(|(i, old)| if i == index { &secret } else { old })
                        .cloned()
                        .collect();
                    info!(source = %place.source, "webhook signing secret read again");
                }
                Err(error) => warn!(%error, "webhook signing secret kept as it was: the new one cannot be used"),
            }
        }
        Arc::clone(ready)
    }
}

/// Whether a signing secret can be read and used.
///
/// # Errors
/// Why not; the message holds nothing of it.
pub fn check_secret(source: &SecretSource) -> Result<(), WebhookConfigError> {
    read(source).map(drop)
}

fn read(source: &SecretSource) -> Result<SigningSecret, WebhookConfigError> {
    let unusable = |fault| WebhookConfigError::Unusable { origin: source.to_string(), fault };
    let secret = source.read().map_err(|error| match error.fault {
        // The general message does not say where it is found.
        SecretFault::Blank => unusable(BadSecret::Empty),
        _ => WebhookConfigError::Unreadable(error),
    })?;
    SigningSecret::parse(secret.expose()).map_err(unusable)
}
