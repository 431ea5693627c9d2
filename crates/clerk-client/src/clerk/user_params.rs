//! Bodies that create and change users.

use std::fmt;

use bytes::Bytes;
use serde_json::{Map, Value};

macro_rules! field_setters {
    ($($(#[$doc:meta])* $name:ident($value:ident: $type:ty);)*) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub fn $name(self, $value: impl Into<$type>) -> Self {
                self.field(stringify!($name), Value::from($value.into()))
            }
        )*
    };
}

macro_rules! body {
    ($name:ident) => {
        impl $name {
            /// No fields yet.
            #[must_use]
            pub fn new() -> Self {
                Self::default()
            }

            /// Sets any field of the request by its name in Clerk's API, such as `locale`.
            #[must_use]
            pub fn field(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
                self.fields.insert(name.into(), value.into());
                self
            }

            pub(super) fn to_body(&self) -> Bytes {
                Value::Object(self.fields.clone()).to_string().into()
            }
        }

        /// Shows the names of the fields: their values are personal data and passwords.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.fields.keys().collect::<Vec<_>>()).finish()
            }
        }
    };
}

/// A user to be created with [`Users::create`](super::Users::create).
///
/// Fields, from [Clerk's reference](https://clerk.com/docs/reference/backend-api/tag/users/post/users):
#[derive(Clone, PartialEq, Default)]
pub struct CreateUser {
    fields: Map<String, Value>,
}

/// Changes of a user, for [`Users::update`](super::Users::update).
///
/// Fields that are not set stay as they are. Metadata has its own route, `PATCH /v1/users/{user_id}/metadata`, for
/// [`Clerk::request`](super::Clerk::request).
///
/// Fields, from [Clerk's reference](https://clerk.com/docs/reference/backend-api/tag/users/patch/users/{user_id}):
#[derive(Clone, PartialEq, Default)]
pub struct UpdateUser {
    fields: Map<String, Value>,
}

body!(CreateUser);
body!(UpdateUser);

impl CreateUser {
    field_setters! {
        /// The application's own id of the user.
        external_id(id: String);
        /// The first name.
        first_name(name: String);
        /// The last name.
        last_name(name: String);
        /// The username.
        username(name: String);
        /// The password, in the clear.
        password(password: String);
        /// Accepts a password that the instance's rules would reject.
        skip_password_checks(skip: bool);
        /// Creates the user without a password where the instance requires one.
        skip_password_requirement(skip: bool);
        /// Metadata that browsers can read.
        public_metadata(metadata: Map<String, Value>);
        /// Metadata that only the Backend API can read.
        private_metadata(metadata: Map<String, Value>);
        /// Metadata that browsers can read and write.
        unsafe_metadata(metadata: Map<String, Value>);
    }

    /// Adds an email address, which Clerk takes for verified.
    #[must_use]
    pub fn email_address(self, address: impl Into<String>) -> Self {
        self.push("email_address", address.into())
    }

    /// Adds a phone number in E.164 form, such as `+15555550100`, which Clerk takes for verified.
    #[must_use]
    pub fn phone_number(self, number: impl Into<String>) -> Self {
        self.push("phone_number", number.into())
    }

    fn push(mut self, name: &str, value: String) -> Self {
        let list = self.fields.entry(name).or_insert_with(|| Value::Array(Vec::new()));
        match list {
            Value::Array(values) => values.push(value.into()),
            other => *other = Value::from(vec![value]),
        }
        self
    }
}

impl UpdateUser {
    field_setters! {
        /// The application's own id of the user.
        external_id(id: String);
        /// The first name.
        first_name(name: String);
        /// The last name.
        last_name(name: String);
        /// The username.
        username(name: String);
        /// The password, in the clear.
        password(password: String);
        /// Accepts a password that the instance's rules would reject.
        skip_password_checks(skip: bool);
        /// Ends the user's other sessions when the password changes.
        sign_out_of_other_sessions(sign_out: bool);
        /// The id of the email address that becomes the primary one.
        primary_email_address_id(id: String);
        /// The id of the phone number that becomes the primary one.
        primary_phone_number_id(id: String);
    }

    /// Clears a field: sends `null`.
    #[must_use]
    pub fn clear(self, name: impl Into<String>) -> Self {
        self.field(name, Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn body(bytes: &Bytes) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn bodies_have_the_given_fields_only() {
        let metadata = json!({"plan": "pro"}).as_object().cloned().unwrap_or_default();
        let create = CreateUser::new()
            .email_address("a@example.com")
            .email_address("b@example.com")
            .first_name("Ada")
            .public_metadata(metadata)
            .field("locale", "en-GB");
        let expected = json!({
            "email_address": ["a@example.com", "b@example.com"], "first_name": "Ada",
            "public_metadata": {"plan": "pro"}, "locale": "en-GB",
        });
        assert_eq!(body(&create.to_body()), expected);
        let update = UpdateUser::new().sign_out_of_other_sessions(true).clear("username");
        assert_eq!(body(&update.to_body()), json!({"sign_out_of_other_sessions": true, "username": null}));
        assert_eq!(body(&UpdateUser::new().to_body()), json!({}));
    }

    #[test]
    fn debug_shows_no_values() {
        let text = format!("{:?}", CreateUser::new().password("hunter2").email_address("ada@example.com"));
        assert_eq!(text, r#"CreateUser(["email_address", "password"])"#);
    }
}
