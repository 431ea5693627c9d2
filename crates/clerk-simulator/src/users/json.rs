//! A user as Clerk's Backend API writes it.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Map, Value};

use super::Directory;
use super::edits::{Edit, Edits};

/// The users of one instance: generated, with that instance's changes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) directory: &'a Directory,
    pub(crate) edits: &'a Edits,
    pub(crate) instance: usize,
}

/// The fields of the `User` schema in Clerk's public OpenAPI description.
#[derive(Serialize)]
struct User<'a> {
    id: String,
    object: &'static str,
    username: Option<Cow<'a, str>>,
    first_name: Option<Cow<'a, str>>,
    last_name: Option<Cow<'a, str>>,
    locale: Option<&'static str>,
    image_url: &'static str,
    has_image: bool,
    primary_email_address_id: &'a str,
    primary_phone_number_id: Option<&'static str>,
    primary_web3_wallet_id: Option<&'static str>,
    password_enabled: bool,
    two_factor_enabled: bool,
    totp_enabled: bool,
    backup_code_enabled: bool,
    email_addresses: [EmailAddress<'a>; 1],
    phone_numbers: [(); 0],
    web3_wallets: [(); 0],
    passkeys: [(); 0],
    external_accounts: [(); 0],
    saml_accounts: [(); 0],
    enterprise_accounts: [(); 0],
    password_last_updated_at: Option<i64>,
    public_metadata: Metadata<'a>,
    private_metadata: Metadata<'a>,
    unsafe_metadata: Metadata<'a>,
    external_id: Option<Cow<'a, str>>,
    last_sign_in_at: Option<i64>,
    banned: bool,
    locked: bool,
    lockout_expires_in_seconds: Option<i64>,
    verification_attempts_remaining: Option<i64>,
    created_at: i64,
    updated_at: i64,
    delete_self_enabled: bool,
    bypass_client_trust: bool,
    create_organization_enabled: bool,
    last_active_at: Option<i64>,
    mfa_enabled_at: Option<i64>,
    mfa_disabled_at: Option<i64>,
    legal_accepted_at: Option<i64>,
}

#[derive(Serialize)]
struct EmailAddress<'a> {
    id: &'a str,
    object: &'static str,
    email_address: String,
    reserved: bool,
    verification: Verification,
    linked_to: [(); 0],
    matches_sso_connection: bool,
    created_at: i64,
    updated_at: i64,
}

#[derive(Serialize)]
struct Verification {
    object: &'static str,
    status: &'static str,
    strategy: &'static str,
    attempts: u32,
    expire_at: i64,
}

/// A metadata object; `None` is an empty one.
struct Metadata<'a>(Option<&'a Map<String, Value>>);

impl Serialize for Metadata<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(map) => map.serialize(serializer),
            None => serializer.collect_map(std::iter::empty::<((), ())>()),
        }
    }
}

impl<'a> View<'a> {
    /// Appends the user's JSON to `out`.
    pub(crate) fn write(&self, user: u32, out: &mut Vec<u8>) {
        let directory = self.directory;
        let edit = self.edit(user);
        let created_at = directory.created_at(user);
        let email_id = directory.email_id(user);
        let json = User {
            id: directory.id(user),
            object: "user",
            username: self.username(user),
            first_name: self.first_name(user),
            last_name: self.last_name(user),
            locale: None,
            image_url: "https://img.clerk.com/simulated",
            has_image: false,
            primary_email_address_id: &email_id,
            primary_phone_number_id: None,
            primary_web3_wallet_id: None,
            password_enabled: true,
            two_factor_enabled: false,
            totp_enabled: false,
            backup_code_enabled: false,
            email_addresses: [EmailAddress {
                id: &email_id,
                object: "email_address",
                email_address: directory.email(user),
                reserved: false,
                verification: Verification {
                    object: "verification_otp",
                    status: "verified",
                    strategy: "email_code",
                    attempts: 1,
                    expire_at: created_at + 600_000,
                },
                linked_to: [],
                matches_sso_connection: false,
                created_at,
                updated_at: created_at,
            }],
            phone_numbers: [],
            web3_wallets: [],
            passkeys: [],
            external_accounts: [],
            saml_accounts: [],
            enterprise_accounts: [],
            password_last_updated_at: Some(created_at),
            public_metadata: Metadata(edit.map(|edit| &edit.public_metadata)),
            private_metadata: Metadata(edit.map(|edit| &edit.private_metadata)),
            unsafe_metadata: Metadata(edit.map(|edit| &edit.unsafe_metadata)),
            external_id: self.external_id(user),
            last_sign_in_at: directory.last_sign_in_at(user),
            banned: directory.is_banned(user),
            locked: false,
            lockout_expires_in_seconds: None,
            verification_attempts_remaining: Some(100),
            created_at,
            updated_at: self.updated_at(user),
            delete_self_enabled: true,
            bypass_client_trust: false,
            create_organization_enabled: true,
            last_active_at: directory.last_active_at(user),
            mfa_enabled_at: None,
            mfa_disabled_at: None,
            legal_accepted_at: None,
        };
        // Writing plain data to a Vec does not fail.
        let _ = serde_json::to_writer(out, &json);
    }

    pub(super) fn first_name(&self, user: u32) -> Option<Cow<'a, str>> {
        let generated = || Some(Cow::Borrowed(self.directory.first_name(user)));
        self.edited(user, |edit| &edit.first_name).unwrap_or_else(generated)
    }

    pub(super) fn last_name(&self, user: u32) -> Option<Cow<'a, str>> {
        let generated = || Some(Cow::Borrowed(self.directory.last_name(user)));
        self.edited(user, |edit| &edit.last_name).unwrap_or_else(generated)
    }

    pub(super) fn username(&self, user: u32) -> Option<Cow<'a, str>> {
        let generated = || Some(Cow::Owned(self.directory.username(user)));
        self.edited(user, |edit| &edit.username).unwrap_or_else(generated)
    }

    pub(super) fn external_id(&self, user: u32) -> Option<Cow<'a, str>> {
        let generated = || self.directory.external_id(user).map(Cow::Owned);
        self.edited(user, |edit| &edit.external_id).unwrap_or_else(generated)
    }

    pub(super) fn updated_at(&self, user: u32) -> i64 {
        let generated = || self.directory.last_sign_in_at(user).unwrap_or_else(|| self.directory.created_at(user));
        self.edit(user).map_or_else(generated, |edit| edit.updated_at)
    }

    fn edit(&self, user: u32) -> Option<&'a Edit> {
        self.edits.get(self.instance, user)
    }

    fn edited(&self, user: u32, field: impl Fn(&Edit) -> &Option<Option<String>>) -> Option<Option<Cow<'a, str>>> {
        let value = field(self.edit(user)?).as_ref()?;
        Some(value.as_deref().map(Cow::Borrowed))
    }
}
