//! The two representations of a user: decoded, and as Clerk wrote it.

use bytes::Bytes;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::User;

/// A user as Clerk wrote it, byte for byte: to be stored or forwarded.
///
/// ```
/// use clerk_client::RawUser;
///
/// let user: RawUser = serde_json::from_str(r#"{"id": "user_1",  "score": 1.10, "created_at": 5}"#)?;
/// assert_eq!((user.id(), user.created_at()), ("user_1", Some(5)));
/// assert_eq!(user.as_bytes(), br#"{"id": "user_1",  "score": 1.10, "created_at": 5}"#);
/// assert_eq!(user.parse()?.fields["created_at"], 5);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawUser {
    id: String,
    created_at: Option<i64>,
    json: Bytes,
}

impl RawUser {
    /// The identifier, `user_...`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// When the user was created, in milliseconds since the UNIX epoch.
    #[must_use]
    pub const fn created_at(&self) -> Option<i64> {
        self.created_at
    }

    /// The JSON object, without white space around it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.json
    }

    /// The JSON object. Its buffer holds this user only.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.json
    }

    /// Decodes the user.
    ///
    /// # Errors
    /// Returns an error if the object has a duplicate field.
    pub fn parse(&self) -> serde_json::Result<User> {
        serde_json::from_slice(&self.json)
    }
}

impl<'de> Deserialize<'de> for RawUser {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Head {
            id: String,
            // A field that changes its type must not fail a whole page.
            #[serde(default)]
            created_at: Value,
        }
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let Head { id, created_at } = serde_json::from_str(raw.get()).map_err(D::Error::custom)?;
        let json = Bytes::from(Box::<str>::from(raw).into_string());
        Ok(Self { id, created_at: created_at.as_i64(), json })
    }
}

/// A representation of a user: [`User`] or [`RawUser`]. Sealed.
pub trait UserRepr: DeserializeOwned + Clone + Send + 'static + private::Sealed {
    /// The identifier, `user_...`.
    fn id(&self) -> &str;

    /// When the user was created, in milliseconds since the UNIX epoch.
    fn created_at(&self) -> Option<i64>;
}

impl UserRepr for User {
    fn id(&self) -> &str {
        &self.id
    }

    fn created_at(&self) -> Option<i64> {
        self.created_at()
    }
}

impl UserRepr for RawUser {
    fn id(&self) -> &str {
        &self.id
    }

    fn created_at(&self) -> Option<i64> {
        self.created_at
    }
}

mod private {
    pub trait Sealed {}
    impl Sealed for super::User {}
    impl Sealed for super::RawUser {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_preserved_to_the_byte() {
        let text = "[ {\"id\":\"user_1\",\"n\":1e400, \"x\" :12345678901234567890123.10},\n{\"b\":null,\"id\":\"user_2\",\n \
                    \"created_at\":\"soon\"} ]";
        let users: Vec<RawUser> = serde_json::from_str(text).unwrap();
        assert_eq!(users[0].as_bytes(), br#"{"id":"user_1","n":1e400, "x" :12345678901234567890123.10}"#);
        assert!(text.contains(std::str::from_utf8(users[1].as_bytes()).unwrap()));
        assert_eq!((users[1].id(), users[1].created_at()), ("user_2", None));
    }

    #[test]
    fn object_without_id_is_refused() {
        for text in ["{}", "7", "{\"id\":7}", "null", "[]"] {
            assert!(serde_json::from_str::<RawUser>(text).is_err(), "{text}");
        }
    }
}
