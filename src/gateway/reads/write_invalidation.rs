//! What a write that went through the gateway makes old: whoever changed something must not read what was before.
//!
//! Webhooks tell of every change, also of those that were made elsewhere, but later, and only where they are set up. RFC
//! 9111, section 4.4, asks of every cache to forget what a write through it may have changed.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};

use super::path_params::path_params;
use crate::gateway::request::routing_table::InstanceRuntime;
use clerk_client::outbound::{Phase, SendError};
use clerk_client::webhook::{Tag, tags_of_route};

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

/// Whether Clerk says that what a request names does not exist.
pub(in crate::gateway) fn is_gone(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

/// What the path of a request names: the innermost resource of those in it that answers are known by. Lists that may show
/// it are left out, or a program that asks for what does not exist would keep them from being kept.
fn named_tags(template: &str, path: &str) -> Vec<Tag> {
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

/// Clerk says that what a request named does not exist: whatever answers show of it is old, in all gateways.
pub(in crate::gateway) async fn forget_named(instance: &InstanceRuntime, template: &str, path: &str) {
    let tags = named_tags(template, path);
    if !tags.is_empty() {
        invalidate(instance, &tags, Duration::ZERO).await;
    }
}

/// How a write ended, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum WriteEnd {
    /// It was not carried out.
    NotDone,
    /// It may have been carried out, and will not be any more.
    Done,
    /// It may have been carried out, or may still be.
    Unknown,
}

impl WriteEnd {
    /// Of a write that brought no answer.
    pub(in crate::gateway) const fn of_error(error: &SendError) -> Self {
        match error {
            SendError::Shed(_) => Self::NotDone,
            SendError::Request { error, attempts } if *attempts == 1 && matches!(error.phase(), Phase::Connect) => {
                Self::Done
            }
            SendError::Request { .. } => Self::Unknown,
        }
    }

    /// Of a write that was answered with this status; `is_first`: it was sent once.
    pub(in crate::gateway) fn of_status(status: StatusCode, is_first: bool) -> Self {
        match status.as_u16() {
            // Somebody before Clerk gave it up, which says nothing of Clerk: 520 to 530 are those of Cloudflare.
            408 | 502..=504 | 520..=530 => Self::Unknown,
            // What the client got wrong was not done.
            400..=499 if is_first => Self::NotDone,
            _ => Self::Done,
        }
    }
}

/// How much longer than an attempt may take a write may still be carried out.
const AFTER_TIMEOUT: Duration = Duration::from_secs(1);

/// A write under way. Where its client does not wait for the answer, it may be carried out all the same, and later: dropped,
/// it makes old what it may have changed, and for a while nothing of that is kept.
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

    /// It ended: what it may have changed is forgotten before the answer goes out.
    pub(in crate::gateway) async fn ended(mut self, end: WriteEnd) {
        match end {
            WriteEnd::NotDone => {}
            WriteEnd::Done => invalidate(&self.instance, &self.changes, Duration::ZERO).await,
            WriteEnd::Unknown => invalidate(&self.instance, &self.changes, self.doubt()).await,
        }
        self.changes.clear();
    }

    /// How long a write of which the end is not known may still be carried out, from now.
    fn doubt(&self) -> Duration {
        self.instance.policies.attempt_timeout + AFTER_TIMEOUT
    }
}

impl Drop for WriteGuard {
    fn drop(&mut self) {
        if !self.changes.is_empty() {
            let doubt = self.doubt();
            let caches = self.instance.state.caches();
            caches.iter().for_each(|cache| cache.invalidate_in_doubt_soon(&self.changes, doubt));
        }
    }
}

async fn invalidate(instance: &InstanceRuntime, tags: &[Tag], doubt: Duration) {
    for cache in instance.state.caches() {
        if let Err(error) = cache.invalidate_in_doubt(tags, doubt).await {
            tracing::warn!(
                clerk_instance = &*instance.name,
                %error,
                "failed to invalidate Redis after a write; retrying, and until then other gateways may answer from before it"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_the_innermost_resource_that_is_known() {
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
            assert_eq!(named_tags(template, path), expected, "{path}");
        }
    }

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
