//! The shapes of unknown credentials, and a counter for each.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The shape of a credential that is neither a configured key nor a caller token. A closed set: it is a label value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CredentialShape {
    /// `sk_live_`: a secret key of a production instance.
    SecretKeyLive,
    /// `sk_test_`: a secret key of a development instance.
    SecretKeyTest,
    /// `ak_`: a machine secret key, or an API key.
    MachineKey,
    /// `pk_`: a publishable key, for browsers.
    PublishableKey,
    /// Three parts separated by dots: a session token or a machine token.
    Jwt,
    /// Anything else.
    Other,
    /// No credential.
    None,
}

impl CredentialShape {
    /// All shapes.
    pub const ALL: [Self; 7] = [
        Self::SecretKeyLive,
        Self::SecretKeyTest,
        Self::MachineKey,
        Self::PublishableKey,
        Self::Jwt,
        Self::Other,
        Self::None,
    ];

    /// Returns the shape of a credential, given without its scheme.
    pub(in crate::gateway) fn of(credential: &[u8]) -> Self {
        let begins = |prefix: &[u8]| credential.get(..prefix.len()).is_some_and(|it| it.eq_ignore_ascii_case(prefix));
        match credential {
            [] => Self::None,
            _ if begins(b"sk_live_") => Self::SecretKeyLive,
            _ if begins(b"sk_test_") => Self::SecretKeyTest,
            _ if begins(b"ak_") => Self::MachineKey,
            _ if begins(b"pk_") => Self::PublishableKey,
            _ if is_jwt(credential) => Self::Jwt,
            _ => Self::Other,
        }
    }

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SecretKeyLive => "secret_key_live",
            Self::SecretKeyTest => "secret_key_test",
            Self::MachineKey => "machine_key",
            Self::PublishableKey => "publishable_key",
            Self::Jwt => "jwt",
            Self::Other => "other",
            Self::None => "none",
        }
    }

    /// What the credential is and how to fix the request, for the error response.
    pub(in crate::gateway) const fn description(self) -> &'static str {
        match self {
            Self::SecretKeyLive => {
                "the secret key of a production instance (sk_live_) that is not configured: add its file to \
                 further_secret_key_files if it belongs to a configured instance"
            }
            Self::SecretKeyTest => {
                "the secret key of a development instance (sk_test_) that is not configured: add its file to \
                 further_secret_key_files if it belongs to a configured instance"
            }
            Self::MachineKey => {
                "a machine secret key (ak_) that is not configured: add its file to machine_secret_key_files of \
                 its instance"
            }
            Self::PublishableKey => {
                "a publishable key (pk_), which is for browsers: the Backend API needs a secret key"
            }
            Self::Jwt => "a JSON Web Token, which the Backend API does not accept",
            Self::Other => "an unknown credential: mistyped, revoked, or of another instance",
            Self::None => "no credential: send `Authorization: Bearer <key or token>`",
        }
    }
}

/// Whether there are three base64url parts, the first of which is a JSON object (`eyJ` is base64url for `{"`).
fn is_jwt(credential: &[u8]) -> bool {
    let is_part = |part: &[u8]| part.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte));
    let mut parts = credential.split(|byte| *byte == b'.');
    credential.starts_with(b"ey")
        && credential.split(|byte| *byte == b'.').count() == 3
        && parts.all(|part| !part.is_empty() && is_part(part))
}

/// Counters of requests with an unknown credential. They survive a configuration reload.
#[derive(Debug, Default)]
pub(in crate::gateway) struct UnknownCredentials {
    forwarded: [AtomicU64; CredentialShape::ALL.len()],
    rejected: [AtomicU64; CredentialShape::ALL.len()],
    was_logged: [AtomicBool; CredentialShape::ALL.len()],
}

/// Number of requests with an unknown credential of one shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownCredentialCount {
    /// The shape.
    pub shape: CredentialShape,
    /// Requests forwarded unchanged.
    pub forwarded: u64,
    /// Requests rejected with 401.
    pub rejected: u64,
}

impl UnknownCredentials {
    pub(in crate::gateway) fn forwarded(&self, shape: CredentialShape) {
        self.forwarded[shape as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Logs only the first request of each shape: a revoked or mistyped credential may come with every request.
    pub(in crate::gateway) fn rejected(&self, shape: CredentialShape) {
        self.rejected[shape as usize].fetch_add(1, Ordering::Relaxed);
        if !self.was_logged[shape as usize].swap(true, Ordering::Relaxed) {
            tracing::warn!(
                credential = shape.as_str(),
                "rejected a request with 401: its credential is neither a configured key nor a caller token; \
                 further ones are counted in clerk_gateway_unknown_credentials_total"
            );
        }
    }

    pub(in crate::gateway) fn counts(&self) -> [UnknownCredentialCount; CredentialShape::ALL.len()] {
        CredentialShape::ALL.map(|shape| UnknownCredentialCount {
            shape,
            forwarded: self.forwarded[shape as usize].load(Ordering::Relaxed),
            rejected: self.rejected[shape as usize].load(Ordering::Relaxed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credential_shape_follows_from_its_prefix() {
        for (credential, shape) in [
            ("", CredentialShape::None),
            ("sk_live_x", CredentialShape::SecretKeyLive),
            ("SK_LIVE_x", CredentialShape::SecretKeyLive),
            ("sk_test_", CredentialShape::SecretKeyTest),
            ("sk_prod_x", CredentialShape::Other),
            ("ak_x", CredentialShape::MachineKey),
            ("pk_test_x", CredentialShape::PublishableKey),
            ("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1c2VyIn0.c2ln-_", CredentialShape::Jwt),
            ("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1c2VyIn0", CredentialShape::Other),
            ("eyJhbGciOiJSUzI1NiJ9..c2ln", CredentialShape::Other),
            ("a.b.c", CredentialShape::Other),
            ("mt_x", CredentialShape::Other),
        ] {
            assert_eq!(CredentialShape::of(credential.as_bytes()), shape, "{credential}");
        }
    }
}
