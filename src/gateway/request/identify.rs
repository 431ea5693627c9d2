//! Finds the Clerk instance of a request by its key, and the caller.
//!
//! Keys and tokens are compared in constant time, and each request is compared with all of them.

use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, USER_AGENT};
use http::{HeaderValue, request};

use super::headers::RequestRejection;
use crate::gateway::accounting::caller_registry::CallerRegistry;
use crate::gateway::accounting::credential_shape::CredentialShape;
use clerk_client::limiter::Priority;
use clerk_client::outbound::Credentials;
use clerk_client::secret::{ClerkKey, KeySource, Secret, SecretScanner, base64_decoded};
use clerk_quota::CallerId;

/// The known keys and tokens.
#[derive(Debug, Default)]
pub(in crate::gateway) struct CredentialStore {
    /// An instance may have several keys: during rotation, or one per team.
    pub(in crate::gateway) keys: Vec<KnownKey>,
    tokens: Vec<KnownToken>,
    scanner: SecretScanner,
}

#[derive(Debug)]
pub(in crate::gateway) struct KnownKey {
    pub(in crate::gateway) source: Arc<KeySource>,
    pub(in crate::gateway) instance: usize,
    /// The caller name of this key, if configured.
    pub(in crate::gateway) caller: Option<CallerId>,
}

#[derive(Debug)]
pub(in crate::gateway) struct KnownToken {
    pub(in crate::gateway) token: Secret,
    pub(in crate::gateway) instance: usize,
    pub(in crate::gateway) caller: CallerId,
    pub(in crate::gateway) priority: Priority,
    /// Longest time in the queue, if the caller has its own.
    pub(in crate::gateway) max_wait: Option<Duration>,
}

/// The instance and caller of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) struct Identity {
    pub(in crate::gateway) owner: Owner,
    pub(in crate::gateway) caller: CallerId,
    pub(in crate::gateway) credentials: Credentials,
    pub(in crate::gateway) priority: Priority,
    /// Longest time in the queue, if the caller has its own.
    pub(in crate::gateway) max_wait: Option<Duration>,
    /// Whether the key is a machine key. Responses to machine keys are never shared.
    pub(in crate::gateway) is_machine: bool,
}

/// The instance of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum Owner {
    /// Index of the instance.
    Instance(usize),
    /// Unknown credential of this shape, or no credential.
    Unknown(CredentialShape),
}

impl CredentialStore {
    /// Replaces the caller tokens.
    pub(in crate::gateway) fn set_tokens(&mut self, tokens: Vec<KnownToken>) {
        self.scanner = SecretScanner::new(tokens.iter().map(|known| known.token.clone()).collect());
        self.tokens = tokens;
    }

    /// Indices of pairs of instances that share a key; requests with that key count for the first one. Unreadable keys
    /// are skipped.
    pub(in crate::gateway) fn ambiguous(&self) -> Vec<(usize, usize)> {
        let keys = self.keys.iter().filter_map(|known| Some((known.source.current().ok()?, known.instance)));
        let keys: Vec<_> = keys.collect();
        let of = |place: usize| keys[place].1;
        let same = ClerkKey::repeated(keys.iter().map(|(key, _)| &**key)).into_iter();
        same.map(|(first, again)| (of(first), of(again))).filter(|(first, again)| first != again).collect()
    }

    /// Identifies a request. A caller token is accepted only as the `Bearer` of a single `Authorization` field.
    /// Anywhere else in the head, in any encoding, it is rejected: it would be forwarded to Clerk.
    pub(in crate::gateway) fn identify(
        &self,
        head: &request::Parts,
        callers: &CallerRegistry,
    ) -> Result<Identity, RequestRejection> {
        let mut presented = head.headers.get_all(AUTHORIZATION).iter();
        let first = presented.next();
        if presented.next().is_some() {
            // Clerk might use the other one, and that might be a token that must not reach Clerk.
            return Err(RequestRejection::Authorization);
        }
        let (mut key, mut token) = (None, None);
        if let Some(presented) = first.and_then(bearer) {
            // Always compares all of them, in constant time.
            for known in &self.tokens {
                if known.token.is(presented) {
                    token = Some(known);
                }
            }
            for known in &self.keys {
                if let Ok(current) = known.source.current()
                    && current.secret().is(presented)
                    && key.is_none()
                {
                    key = Some((known, current.is_machine()));
                }
            }
        }
        if self.holds_token(head, token.is_some() || key.is_some()) {
            return Err(RequestRejection::Token);
        }
        if let Some(KnownToken { instance, caller, priority, max_wait, .. }) = token {
            return Ok(Identity {
                owner: Owner::Instance(*instance),
                caller: *caller,
                credentials: Credentials::Instance,
                priority: *priority,
                max_wait: *max_wait,
                is_machine: false,
            });
        }
        let caller = key.and_then(|(known, _)| known.caller);
        let caller = caller.unwrap_or_else(|| callers.found(head.headers.get(USER_AGENT).map(HeaderValue::as_bytes)));
        let owner = match key {
            Some((known, _)) => Owner::Instance(known.instance),
            None => Owner::Unknown(shape(first)),
        };
        let is_machine = key.is_some_and(|(_, is_machine)| is_machine);
        Ok(Identity {
            owner,
            caller,
            credentials: Credentials::Client,
            priority: Priority::High,
            max_wait: None,
            is_machine,
        })
    }

    /// Whether the head contains a token anywhere except in a known `Authorization`.
    fn holds_token(&self, head: &request::Parts, is_known: bool) -> bool {
        let finds = |text: &[u8]| self.scanner.finds(text);
        let target = head.uri.path_and_query().map_or("", |target| target.as_str());
        let fields = head.headers.iter().filter(|(name, _)| !(is_known && *name == AUTHORIZATION));
        finds(target.as_bytes()) || fields.into_iter().any(|(_, value)| finds(value.as_bytes()))
    }
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    scheme(value, b"Bearer")
}

/// The value after a scheme, which is case-insensitive (RFC 9110, section 11.1).
fn scheme<'a>(value: &'a HeaderValue, name: &[u8]) -> Option<&'a [u8]> {
    let (scheme, rest) = value.as_bytes().trim_ascii().split_at_checked(name.len())?;
    (scheme.eq_ignore_ascii_case(name) && rest.first().is_some_and(u8::is_ascii_whitespace)).then(|| rest.trim_ascii())
}

/// The shape of an unknown credential.
fn shape(authorization: Option<&HeaderValue>) -> CredentialShape {
    let Some(value) = authorization else { return CredentialShape::None };
    let value_bytes = value.as_bytes().trim_ascii();
    if let Some(presented) = bearer(value) {
        return CredentialShape::of(presented);
    }
    if value_bytes.eq_ignore_ascii_case(b"Bearer") {
        return CredentialShape::None;
    }
    let decoded = scheme(value, b"Basic").map(base64_decoded).unwrap_or_default();
    let parts = decoded.split(|byte| *byte == b':').chain([value_bytes]);
    let told =
        parts.map(CredentialShape::of).find(|shape| !matches!(shape, CredentialShape::None | CredentialShape::Other));
    told.unwrap_or_else(|| CredentialShape::of(value_bytes))
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

    fn head(authorization: &[&str]) -> request::Parts {
        let mut request = http::Request::get("/v1/users");
        for value in authorization {
            request = request.header(AUTHORIZATION, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn identify(values: &[&str]) -> Result<Identity, RequestRejection> {
        let callers = CallerRegistry::new(5);
        let caller = callers.configured(&Arc::from("billing"));
        let tokens = vec![KnownToken {
            token: Secret::new(TOKEN.to_owned()),
            instance: 1,
            caller,
            priority: Priority::Low,
            max_wait: None,
        }];
        let mut register = CredentialStore { keys: vec![key(FIRST, 0), key(SECOND, 0)], ..CredentialStore::default() };
        register.set_tokens(tokens);
        register.identify(&head(values), &callers)
    }

    #[test]
    fn every_key_identifies_its_instance() {
        for value in [
            format!("Bearer {FIRST}"),
            format!("Bearer {SECOND}"),
            format!("bearer  {FIRST} "),
            format!("BEARER\t{SECOND}"),
        ] {
            let identity = identify(&[&value]).unwrap();
            assert_eq!((identity.owner, identity.credentials), (Owner::Instance(0), Credentials::Client));
        }
    }

    #[test]
    fn key_of_two_instances_counts_for_the_first_and_is_reported() {
        let keys = vec![key(FIRST, 0), key(SECOND, 0), key(SECOND, 0), key(FIRST, 1), key(SECOND, 2)];
        let register = CredentialStore { keys, ..CredentialStore::default() };
        assert_eq!(register.ambiguous(), [(0, 1), (0, 2)]);
        let head = head(&[&format!("Bearer {FIRST}")]);
        assert_eq!(register.identify(&head, &CallerRegistry::new(5)).unwrap().owner, Owner::Instance(0));
    }

    #[test]
    fn unknown_credential_has_no_instance() {
        let prefix = format!("Bearer {}", &FIRST[..FIRST.len() - 1]);
        let longer = format!("Bearer {FIRST}4");
        let bare = FIRST.to_owned();
        let basic = format!("Basic {FIRST}");
        let live = CredentialShape::SecretKeyLive;
        for (value, shape) in [
            (&*prefix, live),
            (&longer, live),
            (&bare, live),
            (&basic, CredentialShape::Other),
            ("Basic c2tfbGl2ZV94Og==", live),
            ("Basic OmFrX3g=", CredentialShape::MachineKey),
            ("Bearer", CredentialShape::None),
            ("Bearer ", CredentialShape::None),
            ("", CredentialShape::None),
            ("Bearer sk_live_other", live),
            ("bearer  pk_test_x", CredentialShape::PublishableKey),
            ("Token x", CredentialShape::Other),
        ] {
            assert_eq!(identify(&[value]).unwrap().owner, Owner::Unknown(shape), "{value}");
        }
        assert_eq!(identify(&[]).unwrap().owner, Owner::Unknown(CredentialShape::None));
    }

    #[test]
    fn token_is_replaced_by_the_key() {
        let identity = identify(&[&format!("Bearer {TOKEN}")]).unwrap();
        assert_eq!((identity.owner, identity.credentials), (Owner::Instance(1), Credentials::Instance));
        assert_eq!(identity.priority, Priority::Low);
    }

    #[test]
    fn two_authorization_fields_are_rejected() {
        let (key, token) = (format!("Bearer {FIRST}"), format!("Bearer {TOKEN}"));
        assert_eq!(identify(&[&key, &token]), Err(RequestRejection::Authorization));
    }
}
