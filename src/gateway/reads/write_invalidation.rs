//! Invalidation by writes through the gateway, so that clients read their own writes.
//!
//! Webhooks report every change, including those made elsewhere, but later, and only where they are configured. RFC
//! 9111, section 4.4, requires caches to invalidate what a write through them may have changed.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};

use super::path_params::path_params;
use crate::gateway::request::routing_table::InstanceRuntime;
use clerk_client::outbound::{Phase, SendError};
use clerk_client::webhook::{Tag, tags_of_route};

/// Writes that only issue or verify something and change no cached response. They are frequent: sessions get tokens
/// this way.
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

/// The tags of what a request may change; none for reads. Rare writes invalidate everything.
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

/// Whether Clerk reports that the requested resource does not exist.
pub(in crate::gateway) fn is_gone(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

/// The tags of the innermost resource in the path that has its own tag. Tags of lists are left out: otherwise a client
/// that keeps requesting missing resources would keep lists out of the cache.
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

/// Invalidates all responses that show the requested resource, in all gateways: Clerk reported that it does not exist.
pub(in crate::gateway) async fn forget_named(instance: &InstanceRuntime, template: &str, path: &str) {
    let tags = named_tags(template, path);
    if !tags.is_empty() {
        invalidate(instance, &tags, Duration::ZERO).await;
    }
}

/// The known outcome of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum WriteEnd {
    /// Not executed.
    NotDone,
    /// Possibly executed; cannot be executed later.
    Done,
    /// Possibly executed, or may still be executed later.
    Unknown,
}

impl WriteEnd {
    /// The outcome of a write that got no response.
    pub(in crate::gateway) const fn of_error(error: &SendError) -> Self {
        match error {
            SendError::Shed(_) => Self::NotDone,
            SendError::Request { error, attempts } if *attempts == 1 && matches!(error.phase(), Phase::Connect) => {
                Self::Done
            }
            SendError::Request { .. } => Self::Unknown,
        }
    }

    /// The outcome of a write with this response status. `is_first`: it was sent only once.
    pub(in crate::gateway) fn of_status(status: StatusCode, is_first: bool) -> Self {
        match status.as_u16() {
            // A proxy in front of Clerk gave up; Clerk may still execute the write. 520 to 530 are Cloudflare's.
            408 | 502..=504 | 520..=530 => Self::Unknown,
            // Clerk rejected the request.
            400..=499 if is_first => Self::NotDone,
            _ => Self::Done,
        }
    }
}

/// How long after the attempt's timeout a write may still be executed.
const AFTER_TIMEOUT: Duration = Duration::from_secs(1);

/// A write in flight. If the client disconnects, Clerk may still execute the write. Dropping the guard therefore
/// invalidates what the write may have changed, and keeps it out of the cache for a while.
pub(in crate::gateway) struct WriteGuard {
    instance: Arc<InstanceRuntime>,
    changes: Vec<Tag>,
}

impl WriteGuard {
    /// `None` if the request changes nothing.
    pub(in crate::gateway) fn of(
        instance: &Arc<InstanceRuntime>,
        method: &Method,
        template: &str,
        path: &str,
    ) -> Option<Self> {
        let changes = changed_tags(method, template, path);
        (!changes.is_empty()).then(|| Self { instance: Arc::clone(instance), changes })
    }

    /// Ends the write. Invalidates before the response is sent.
    pub(in crate::gateway) async fn ended(mut self, end: WriteEnd) {
        match end {
            WriteEnd::NotDone => {}
            WriteEnd::Done => invalidate(&self.instance, &self.changes, Duration::ZERO).await,
            WriteEnd::Unknown => invalidate(&self.instance, &self.changes, self.doubt()).await,
        }
        self.changes.clear();
    }

    /// How long from now a write with an unknown outcome may still be executed.
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
                "failed to invalidate Redis after a write; retrying; other gateways may serve stale responses meanwhile"
            );
        }
    }
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
            assert_eq!(named_tags(template, path), expected, "{path}");
        }
    }

    #[test]
    fn write_yields_tags_of_what_it_may_change() {
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
