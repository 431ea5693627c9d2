//! What a write that went through the gateway makes old: whoever changed something must not read what was before.
//!
//! Webhooks tell of every change, also of those that were made elsewhere, but later, and only where they are set up. RFC
//! 9111, section 4.4, asks of every cache to forget what a write through it may have changed.

use std::sync::Arc;

use http::Method;

use super::path_params::path_params;
use crate::gateway::request::routing_table::InstanceRuntime;
use clerk_client::outbound::SendError;
use clerk_client::webhook::{Invalidate, Tag};

/// Writes that issue or check something and change no answer. They are frequent: sessions get tokens that way.
const CHANGE_NOTHING: [&str; 12] = [
    "/v1/api_keys/verify",
    "/v1/clients/verify",
    "/v1/m2m_tokens",
    "/v1/m2m_tokens/verify",
    "/v1/oauth_applications/access_tokens/verify",
    "/v1/proxy_checks",
    "/v1/sessions/{session_id}/tokens",
    "/v1/sessions/{session_id}/tokens/{template_name}",
    "/v1/sign_in_tokens",
    "/v1/testing_tokens",
    "/v1/users/{user_id}/verify_password",
    "/v1/users/{user_id}/verify_totp",
];

/// What a request may change; nothing if it reads. Kinds of writes that are rare make everything old.
fn changed_tags(method: &Method, template: &str, path: &str) -> Vec<Tag> {
    if method.is_safe() || CHANGE_NOTHING.contains(&template) {
        return Vec::new();
    }
    let of_user = || match path_params(template, path)?.as_slice() {
        [id] => Some(Tag::User((**id).into())),
        _ => None,
    };
    let tags = match template {
        "/v1/users" => Some(vec![Tag::UserList]),
        "/v1/users/{user_id}" if *method == Method::PATCH => {
            of_user().map(|user| vec![user, Tag::UserList, Tag::UsersShown])
        }
        "/v1/users/{user_id}/metadata" => of_user().map(|user| vec![user, Tag::UserList, Tag::UsersShown]),
        _ => None,
    };
    tags.unwrap_or_else(|| vec![Tag::Everything])
}

/// Whether a request that brought no answer may have been carried out.
pub(in crate::gateway) const fn may_be_done(error: &SendError) -> bool {
    matches!(error, SendError::Request { .. })
}

/// A write under way. Where its client does not wait for the answer, it may be carried out all the same: dropped, it
/// makes old what it may have changed.
pub(in crate::gateway) struct WriteGuard {
    instance: Arc<InstanceRuntime>,
    changes: Vec<Tag>,
}

impl WriteGuard {
    /// None if nothing can change.
    pub(in crate::gateway) fn of(
        instance: &Arc<InstanceRuntime>,
        method: &Method,
        template: &str,
        path: &str,
    ) -> Option<Self> {
        let changes = changed_tags(method, template, path);
        (!changes.is_empty()).then(|| Self { instance: Arc::clone(instance), changes })
    }

    /// It may have been carried out: what it changed is forgotten before the answer goes out.
    pub(in crate::gateway) async fn done(mut self) {
        invalidate(&self.instance, &self.changes).await;
        self.changes.clear();
    }

    /// It was not carried out.
    pub(in crate::gateway) fn rejected(mut self) {
        self.changes.clear();
    }
}

impl Drop for WriteGuard {
    fn drop(&mut self) {
        if !self.changes.is_empty() {
            self.instance.state.caches().iter().for_each(|cache| cache.invalidate_soon(&self.changes));
        }
    }
}

async fn invalidate(instance: &InstanceRuntime, tags: &[Tag]) {
    for cache in instance.state.caches() {
        if let Err(error) = cache.invalidate(tags).await {
            tracing::warn!(
                clerk_instance = &*instance.name,
                %error,
                "Redis could not be told of a write; it is told again until it was, and until then other gateways may \
                 give answers from before it"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_names_what_it_may_change() {
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
            (Method::POST, "other", "/v1/new", vec![Tag::Everything]),
        ] {
            assert_eq!(changed_tags(&method, template, path), expected, "{method} {path}");
        }
    }
}
