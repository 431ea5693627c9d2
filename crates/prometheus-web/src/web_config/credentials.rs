//! The `Authorization: Basic` header ([RFC 7617](https://www.rfc-editor.org/rfc/rfc7617)).

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use secrecy::SecretSlice;

/// A user name and a password, as sent by a client.
pub(super) struct Credentials {
    pub(super) user: String,
    pub(super) password: SecretSlice<u8>,
}

impl Credentials {
    /// Parses the credentials of a request; `None` if there are none or they are malformed.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(AUTHORIZATION)?.as_bytes();
        let (scheme, encoded) = value.split_at_checked("Basic ".len())?;
        if !scheme.eq_ignore_ascii_case(b"Basic ") {
            return None;
        }
        let mut decoded = BASE64.decode(encoded.trim_ascii()).ok()?;
        let colon = decoded.iter().position(|&byte| byte == b':')?;
        let password = decoded.split_off(colon + 1);
        decoded.truncate(colon);
        Some(Self { user: String::from_utf8(decoded).ok()?, password: SecretSlice::from(password) })
    }
}

/// Standard base64 with its padding ([RFC 4648](https://www.rfc-editor.org/rfc/rfc4648#section-4)). Like Go's decoder,
/// accepts any unused bits at the end.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    fn read(value: &[u8]) -> Option<(String, Vec<u8>)> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        let credentials = Credentials::of(&headers)?;
        Some((credentials.user, credentials.password.expose_secret().to_vec()))
    }

    #[test]
    fn user_and_password_split_at_the_first_colon() {
        let expected = Some(("Aladdin".to_owned(), b"open sesame".to_vec()));
        // The example of RFC 7617, section 2.
        assert_eq!(read(b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), expected);
        assert_eq!(read(b"bAsIc QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), expected);
        assert_eq!(read(b"Basic YTpiOmM="), Some(("a".to_owned(), b"b:c".to_vec())));
        assert_eq!(read(b"Basic YTo="), Some(("a".to_owned(), Vec::new())));
    }

    #[test]
    fn malformed_credentials_are_none() {
        for value in [
            "",
            "Basic",
            "Basic ",
            "Bearer YTpi",
            "Basic YTpi=",
            "Basic Y===",
            "Basic YT-i",
            "Basic YWI=",
            "Basic /zo=",
        ] {
            assert_eq!(read(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn base64_decodes_rfc_4648_vectors() {
        for (encoded, decoded) in
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg==", "foob"), ("Zm9vYmFy", "foobar")]
        {
            assert_eq!(BASE64.decode(encoded).ok().as_deref(), Some(decoded.as_bytes()));
        }
    }

    proptest! {
        #[test]
        fn any_header_does_not_panic(value in proptest::collection::vec(0x20_u8..0x7f, 0..64)) {
            let _ = read(&[b"Basic ".as_slice(), &value].concat());
            let _ = read(&value);
        }
    }
}
