//! The tags of what a write may change.
//!
//! Webhooks report every change, also those made elsewhere, but later and only where they are set up. RFC 9111, section
//! 4.4, requires a cache to invalidate what a write through it may have changed.

use std::sync::Arc;

use http::Method;

use super::{Tag, tags_of_route};
use clerk_quota::route::path_params;

/// Writes that issue or verify something and change no cached response. They are frequent: sessions get tokens this way.
const CHANGE_NOTHING: [&str; 16] = [
    "/v1/accountless_applications",
    "/v1/accountless_applications/complete",
    "/v1/api_keys/verify",
    "/v1/clients/verify",
    "/v1/email",
    "/v1/email/batch",
    "/v1/m2m_tokens/verify",
    "/v1/oauth_applications/access_tokens/verify",
    "/v1/proxy_checks",
    "/v1/sessions/{session_id}/tokens",
    "/v1/sessions/{session_id}/tokens/{template_name}",
    "/v1/sessions/{session_id}/verify",
    "/v1/sign_in_tokens",
    "/v1/testing_tokens",
    "/v1/users/{user_id}/verify_password",
    "/v1/users/{user_id}/verify_totp",
];

/// The tags of what a request may change: none for a read, [`Tag::Everything`] for rare kinds of writes.
///
/// `template` is the route's, as [`clerk_quota::route::find`] returns it, and `path` the path as it is sent.
///
/// ```
/// use clerk_client::webhook::{Tag, tags_of_write};
/// use http::Method;
///
/// assert_eq!(tags_of_write(&Method::POST, "/v1/users", "/v1/users"), [Tag::UserList]);
/// assert!(tags_of_write(&Method::GET, "/v1/users", "/v1/users").is_empty());
/// ```
#[must_use]
pub fn tags_of_write(method: &Method, template: &str, path: &str) -> Vec<Tag> {
    if method.is_safe() || CHANGE_NOTHING.contains(&template) {
        return Vec::new();
    }
    let id = || match path_params(template, path)?.as_slice() {
        [id] => Some(Arc::<str>::from(&**id)),
        _ => None,
    };
    let of_user = || id().map(Tag::User);
    let tags = match template {
        "/v1/users" => Some(vec![Tag::UserList]),
        "/v1/users/{user_id}" if *method == Method::PATCH => {
            of_user().map(|user| vec![user, Tag::UserList, Tag::UsersShown])
        }
        "/v1/users/{user_id}/metadata" => of_user().map(|user| vec![user, Tag::UserList, Tag::UsersShown]),
        "/v1/api_keys" | "/v1/m2m_tokens" => Some(vec![Tag::Tokens]),
        // It names the token, of which only verifications are known, and in their bodies.
        "/v1/oauth_applications/{oauth_application_id}/revoke_token" => {
            Some(vec![Tag::Everything, Tag::AnyVerification])
        }
        // A revocation names the ID, a verification the token.
        "/v1/api_keys/{apiKeyID}" | "/v1/api_keys/{apiKeyID}/revoke" | "/v1/m2m_tokens/{m2m_token_id}/revoke" => {
            // SDKs send these also without the version.
            let short = || path_params(template.strip_prefix("/v1")?, path)?.into_iter().next();
            let id = id().or_else(|| short().map(|id| Arc::from(&*id)));
            id.map(|id| vec![Tag::Verification(id), Tag::UnknownVerification, Tag::Tokens])
        }
        _ => None,
    };
    tags.unwrap_or_else(|| vec![Tag::Everything])
}

/// The tags of the innermost resource that a path names. Lists that may show it are left out: a program that requests what
/// does not exist would otherwise keep them from being cached.
#[must_use]
pub fn tags_named_by(template: &str, path: &str) -> Vec<Tag> {
    let Some(params) = path_params(template, path) else { return Vec::new() };
    let params: Vec<&str> = params.iter().map(AsRef::as_ref).collect();
    let ends = template.match_indices('}').map(|(place, _)| place + 1);
    let prefixes: Vec<&str> = ends.map(|end| &template[..end]).collect();
    let of_prefix = |(place, prefix): (usize, &&str)| {
        let mut tags = tags_of_route(prefix, &params[..=place]);
        tags.retain(Tag::names_one);
        Some(tags).filter(|tags| !tags.is_empty())
    };
    prefixes.iter().enumerate().rev().find_map(of_prefix).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_names_its_innermost_tagged_resource() {
        let user = || vec![Tag::User("user_1".into())];
        for (template, path, expected) in [
            ("/v1/users/{user_id}", "/v1/users/user_1", user()),
            ("/v1/users/{user_id}", "/v1/users/user%5F1", user()),
            ("/v1/users/{user_id}/metadata", "/v1/users/user_1/metadata", user()),
            ("/v1/users/{user_id}/totp", "/v1/users/user_1/totp", user()),
            ("/v1/sessions/{session_id}", "/v1/sessions/sess_1", vec![Tag::Session("sess_1".into())]),
            (
                "/v1/sessions/{session_id}/tokens/{template_name}",
                "/v1/sessions/sess_1/tokens/t",
                vec![Tag::Session("sess_1".into())],
            ),
            ("/v1/users", "/v1/users", vec![]),
            ("/v1/users/{user_id}", "/v1/x/../users/user_1", vec![]),
            ("other", "/v1/new", vec![]),
        ] {
            assert_eq!(tags_named_by(template, path), expected, "{path}");
        }
    }

    #[test]
    fn write_yields_tags_of_what_it_may_change() {
        let named = |id: &str| vec![Tag::Verification(id.into()), Tag::UnknownVerification, Tag::Tokens];
        let user = || Tag::User("user_1".into());
        for (method, template, path, expected) in [
            (Method::GET, "/v1/users", "/v1/users", vec![]),
            (Method::HEAD, "/v1/users", "/v1/users", vec![]),
            (Method::POST, "/v1/users", "/v1/users", vec![Tag::UserList]),
            (Method::PATCH, "/v1/users/{user_id}", "/v1/users/user%5F1", vec![user(), Tag::UserList, Tag::UsersShown]),
            (
                Method::PUT,
                "/v1/users/{user_id}/metadata",
                "/v1/users/user_1/metadata",
                vec![user(), Tag::UserList, Tag::UsersShown],
            ),
            (Method::PATCH, "/v1/users/{user_id}", "/v1/x/../users/user_1", vec![Tag::Everything]),
            (Method::DELETE, "/v1/users/{user_id}", "/v1/users/user_1", vec![Tag::Everything]),
            (Method::POST, "/v1/sessions/{session_id}/tokens", "/v1/sessions/sess_1/tokens", vec![]),
            (Method::POST, "/v1/api_keys/{apiKeyID}/revoke", "/api_keys/ak_1/revoke", named("ak_1")),
            (Method::DELETE, "/v1/api_keys/{apiKeyID}", "/v1/api_keys/ak%5F1", named("ak_1")),
            (Method::POST, "/v1/m2m_tokens/{m2m_token_id}/revoke", "/v1/m2m_tokens/mt_1/revoke", named("mt_1")),
            (Method::POST, "/v1/api_keys", "/v1/api_keys", vec![Tag::Tokens]),
            (Method::POST, "/v1/m2m_tokens", "/m2m_tokens", vec![Tag::Tokens]),
            // It names a token, and the application by its ID.
            (
                Method::POST,
                "/v1/oauth_applications/{oauth_application_id}/revoke_token",
                "/v1/oauth_applications/o_1/revoke_token",
                vec![Tag::Everything, Tag::AnyVerification],
            ),
            (Method::POST, "other", "/v1/new", vec![Tag::Everything]),
        ] {
            assert_eq!(tags_of_write(&method, template, path), expected, "{method} {path}");
        }
    }
}
