//! A user as Clerk's Backend API writes it.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Map, Value};

use super::store::Identification;
use super::view::View;

/// Of every user and organization.
pub(crate) const IMAGE_URL: &str = "https://img.clerk.com/simulated";

/// The fields of the `User` schema in Clerk's public OpenAPI description.
#[derive(Serialize)]
struct User<'a> {
    id: Cow<'a, str>,
    object: &'static str,
    username: Option<Cow<'a, str>>,
    first_name: Option<Cow<'a, str>>,
    last_name: Option<Cow<'a, str>>,
    locale: Option<&'static str>,
    image_url: &'static str,
    has_image: bool,
    primary_email_address_id: Option<&'a str>,
    primary_phone_number_id: Option<&'a str>,
    primary_web3_wallet_id: Option<&'static str>,
    password_enabled: bool,
    two_factor_enabled: bool,
    totp_enabled: bool,
    backup_code_enabled: bool,
    email_addresses: Vec<EmailAddress<'a>>,
    phone_numbers: Vec<PhoneNumber<'a>>,
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
    email_address: &'a str,
    reserved: bool,
    verification: Verification,
    linked_to: [(); 0],
    matches_sso_connection: bool,
    created_at: i64,
    updated_at: i64,
}

#[derive(Serialize)]
struct PhoneNumber<'a> {
    id: &'a str,
    object: &'static str,
    phone_number: &'a str,
    reserved_for_second_factor: bool,
    default_second_factor: bool,
    reserved: bool,
    verification: Verification,
    linked_to: [(); 0],
    backup_codes: Option<()>,
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
        let edit = self.users.edit(user);
        let created = self.users.created(user);
        let created_at = self.created_at(user);
        let phones = created.map_or(&[][..], |created| &created.phones);
        let (generated_id, generated_email);
        let email_addresses = match created {
            Some(created) => created.emails.iter().map(|it| EmailAddress::of(&it.id, &it.value, created_at)).collect(),
            None => {
                (generated_id, generated_email) = (self.directory.email_id(user), self.directory.email(user));
                vec![EmailAddress::of(&generated_id, &generated_email, created_at)]
            }
        };
        let json = User {
            id: self.id(user),
            object: "user",
            username: self.username(user),
            first_name: self.first_name(user),
            last_name: self.last_name(user),
            locale: None,
            image_url: IMAGE_URL,
            has_image: false,
            primary_email_address_id: email_addresses.first().map(|email| email.id),
            primary_phone_number_id: phones.first().map(|phone| phone.id.as_str()),
            primary_web3_wallet_id: None,
            password_enabled: created.is_none_or(|created| created.password_enabled),
            two_factor_enabled: false,
            totp_enabled: false,
            backup_code_enabled: false,
            email_addresses,
            phone_numbers: phones.iter().map(|phone| PhoneNumber::of(phone, created_at)).collect(),
            web3_wallets: [],
            passkeys: [],
            external_accounts: [],
            saml_accounts: [],
            enterprise_accounts: [],
            password_last_updated_at: created.is_none_or(|created| created.password_enabled).then_some(created_at),
            public_metadata: Metadata(edit.map(|edit| &edit.public_metadata)),
            private_metadata: Metadata(edit.map(|edit| &edit.private_metadata)),
            unsafe_metadata: Metadata(edit.map(|edit| &edit.unsafe_metadata)),
            external_id: self.external_id(user),
            last_sign_in_at: self.last_sign_in_at(user),
            banned: self.is_banned(user),
            locked: edit.is_some_and(|edit| edit.locked),
            lockout_expires_in_seconds: None,
            verification_attempts_remaining: Some(100),
            created_at,
            updated_at: self.updated_at(user),
            delete_self_enabled: true,
            bypass_client_trust: false,
            create_organization_enabled: true,
            last_active_at: self.last_active_at(user),
            mfa_enabled_at: None,
            mfa_disabled_at: None,
            legal_accepted_at: None,
        };
        // Writing plain data to a Vec does not fail.
        let _ = serde_json::to_writer(out, &json);
    }

    /// Returns the user's JSON.
    pub(crate) fn json(&self, user: u32) -> Vec<u8> {
        let mut json = Vec::with_capacity(2_048);
        self.write(user, &mut json);
        json
    }
}

impl<'a> EmailAddress<'a> {
    fn of(id: &'a str, address: &'a str, created_at: i64) -> Self {
        Self {
            id,
            object: "email_address",
            email_address: address,
            reserved: false,
            verification: Verification::verified("email_code", created_at),
            linked_to: [],
            matches_sso_connection: false,
            created_at,
            updated_at: created_at,
        }
    }
}

impl<'a> PhoneNumber<'a> {
    fn of(phone: &'a Identification, created_at: i64) -> Self {
        Self {
            id: &phone.id,
            object: "phone_number",
            phone_number: &phone.value,
            reserved_for_second_factor: false,
            default_second_factor: false,
            reserved: false,
            verification: Verification::verified("phone_code", created_at),
            linked_to: [],
            backup_codes: None,
            created_at,
            updated_at: created_at,
        }
    }
}

impl Verification {
    fn verified(strategy: &'static str, created_at: i64) -> Self {
        Self { object: "verification_otp", status: "verified", strategy, attempts: 1, expire_at: created_at + 600_000 }
    }
}
