//! Whose request is this: the Clerk instance by its key, and the caller.
//!
//! Keys and tokens are compared in constant time, all of them for each request.

use std::sync::Arc;

use http::header::{AUTHORIZATION, USER_AGENT};
use http::{HeaderMap, HeaderValue};

use super::headers::RequestRejection;
use crate::gateway::accounting::caller_registry::CallerRegistry;
use clerk_client::limiter::Priority;
use clerk_client::outbound::Credentials;
use clerk_client::secret::{ClerkKey, KeySource, Secret};
use clerk_quota::CallerId;

/// What the gateway knows keys and tokens by.
#[derive(Debug, Default)]
pub(in crate::gateway) struct CredentialStore {
    /// Several keys may belong to one instance: while they are rotated, or one for each team.
    pub(in crate::gateway) keys: Vec<KnownKey>,
    pub(in crate::gateway) tokens: Vec<KnownToken>,
}

#[derive(Debug)]
pub(in crate::gateway) struct KnownKey {
    pub(in crate::gateway) source: Arc<KeySource>,
    pub(in crate::gateway) instance: usize,
    /// The name of whoever has this key, if it was given one.
    pub(in crate::gateway) caller: Option<CallerId>,
}

#[derive(Debug)]
pub(in crate::gateway) struct KnownToken {
    pub(in crate::gateway) token: Secret,
    pub(in crate::gateway) instance: usize,
    pub(in crate::gateway) caller: CallerId,
    pub(in crate::gateway) priority: Priority,
}

/// Whose a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) struct Identity {
    /// Place of the instance; `None`: the key is none of ours, or there is none.
    pub(in crate::gateway) instance: Option<usize>,
    pub(in crate::gateway) caller: CallerId,
    pub(in crate::gateway) credentials: Credentials,
    pub(in crate::gateway) priority: Priority,
}

impl CredentialStore {
    /// Keys that stand with two instances, as the places of both: requests that carry them count for the first one. Keys
    /// that cannot be read are not looked at.
    pub(in crate::gateway) fn ambiguous(&self) -> Vec<(usize, usize)> {
        let keys = self.keys.iter().filter_map(|known| Some((known.source.current().ok()?, known.instance)));
        let keys: Vec<_> = keys.collect();
        let of = |place: usize| keys[place].1;
        let same = ClerkKey::repeated(keys.iter().map(|(key, _)| &**key)).into_iter();
        same.map(|(first, again)| (of(first), of(again))).filter(|(first, again)| first != again).collect()
    }

    /// Whether a caller's token stands anywhere in a field: behind another scheme, in quotes, twice.
    fn holds_token(&self, field: &HeaderValue) -> bool {
        let bytes = field.as_bytes();
        // All of them each time, in constant time.
        let holds =
            |known: &KnownToken| bytes.windows(known.token.len()).filter(|part| known.token.is(part)).count() > 0;
        bytes.len() <= LONGEST_CREDENTIAL && self.tokens.iter().filter(|known| holds(known)).count() > 0
    }

    pub(in crate::gateway) fn identify(
        &self,
        headers: &HeaderMap,
        callers: &CallerRegistry,
    ) -> Result<Identity, RequestRejection> {
        let mut presented = headers.get_all(AUTHORIZATION).iter();
        let first = presented.next();
        if presented.next().is_some() {
            // Clerk might read another one than we do, and it might be a token that is not meant for Clerk.
            return Err(RequestRejection::Authorization);
        }
        let (mut key, mut token) = (None, None);
        if let Some(presented) = first.and_then(bearer) {
            for known in &self.tokens {
                if known.token.is(presented) {
                    token = Some(known);
                }
            }
            for known in &self.keys {
                if known.source.current().is_ok_and(|key| key.secret().is(presented)) {
                    key = key.or(Some(known));
                }
            }
        }
        if let Some(token) = token {
            let (authorization, priority) = (Credentials::Instance, token.priority);
            return Ok(Identity {
                instance: Some(token.instance),
                caller: token.caller,
                credentials: authorization,
                priority,
            });
        }
        if key.is_none() && first.is_some_and(|presented| self.holds_token(presented)) {
            // Clerk would be shown it.
            return Err(RequestRejection::Token);
        }
        let caller = key.and_then(|key| key.caller);
        let caller = caller.unwrap_or_else(|| callers.found(headers.get(USER_AGENT).map(HeaderValue::as_bytes)));
        let (instance, priority) = (key.map(|key| key.instance), Priority::High);
        Ok(Identity { instance, caller, credentials: Credentials::Client, priority })
    }
}

/// A longer field is no credential that somebody mistyped.
const LONGEST_CREDENTIAL: usize = 4096;

/// What follows the scheme `Bearer`, which is read without regard to case (RFC 9110, section 11.1).
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, rest) = value.as_bytes().trim_ascii().split_at_checked(b"Bearer".len())?;
    (scheme.eq_ignore_ascii_case(b"Bearer") && rest.first().is_some_and(u8::is_ascii_whitespace))
        .then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clerk_client::secret::SecretSource;

    const FIRST: &str = "sk_live_firstCANARY123";
    const SECOND: &str = "sk_live_secondCANARY12";
    const TOKEN: &str = "billing-token-CANARY";

    fn key(text: &str, instance: usize) -> KnownKey {
        let source = Arc::new(KeySource::new(SecretSource::Inline(Secret::new(text.to_owned()))));
        KnownKey { source, instance, caller: None }
    }

    fn identify(values: &[&str]) -> Result<Identity, RequestRejection> {
        let callers = CallerRegistry::new(5);
        let caller = callers.configured(&Arc::from("billing"));
        let tokens =
            vec![KnownToken { token: Secret::new(TOKEN.to_owned()), instance: 1, caller, priority: Priority::Low }];
        let register = CredentialStore { keys: vec![key(FIRST, 0), key(SECOND, 0)], tokens };
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        register.identify(&headers, &callers)
    }

    #[test]
    fn every_key_of_an_instance_leads_to_it() {
        for value in [
            format!("Bearer {FIRST}"),
            format!("Bearer {SECOND}"),
            format!("bearer  {FIRST} "),
            format!("BEARER\t{SECOND}"),
        ] {
            let identity = identify(&[&value]).unwrap();
            assert_eq!((identity.instance, identity.credentials), (Some(0), Credentials::Client));
        }
    }

    #[test]
    fn a_key_of_two_instances_leads_to_the_first_and_is_noticed() {
        let keys = vec![key(FIRST, 0), key(SECOND, 0), key(SECOND, 0), key(FIRST, 1), key(SECOND, 2)];
        let register = CredentialStore { keys, tokens: Vec::new() };
        assert_eq!(register.ambiguous(), [(0, 1), (0, 2)]);
        let mut headers = HeaderMap::new();
        headers.append(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {FIRST}")).unwrap());
        assert_eq!(register.identify(&headers, &CallerRegistry::new(5)).unwrap().instance, Some(0));
    }

    #[test]
    fn what_is_no_key_of_ours_is_a_stranger_s() {
        let prefix = format!("Bearer {}", &FIRST[..FIRST.len() - 1]);
        let longer = format!("Bearer {FIRST}4");
        let bare = FIRST.to_owned();
        let basic = format!("Basic {FIRST}");
        for value in [&prefix, &longer, &bare, &basic, "Bearer", "Bearer ", "", "Bearer sk_live_other"] {
            assert_eq!(identify(&[value]).unwrap().instance, None, "{value}");
        }
        assert_eq!(identify(&[]).unwrap().instance, None);
    }

    #[test]
    fn a_token_is_exchanged_for_the_key() {
        let identity = identify(&[&format!("Bearer {TOKEN}")]).unwrap();
        assert_eq!((identity.instance, identity.credentials), (Some(1), Credentials::Instance));
        assert_eq!(identity.priority, Priority::Low);
    }

    #[test]
    fn two_authorizations_are_one_too_many() {
        let (key, token) = (format!("Bearer {FIRST}"), format!("Bearer {TOKEN}"));
        assert_eq!(identify(&[&key, &token]), Err(RequestRejection::Authorization));
    }
}
