//! Organizations and memberships: plausible responses from their identifier, nothing is stored.
//!
//! Every well-formed identifier (`org_…`) is an organization, and every user is a member of each.

use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::ids::{ksuid, mix, mix_text};
use super::users::edits::{merge, metadata, parse_object};
use super::users::json::View;

/// 2023-01-01T00:00:00Z
const CREATED_MILLIS: i64 = 1_672_531_200_000;

/// Returns an organization as Clerk writes it, after the changes of `body` (empty: none).
///
/// # Errors
///
/// 404 if the identifier is malformed; 400 or 422 if the body is invalid.
pub(super) fn organization(id: &str, body: &[u8], now_millis: i64) -> Result<Value, ApiError> {
    check_id(id)?;
    let mut changes = if body.is_empty() { Map::new() } else { parse_object(body)? };
    let tail = id.trim_start_matches("org_");
    let tail = tail.get(tail.len().saturating_sub(6)..).unwrap_or(tail);
    let name = match changes.remove("name") {
        Some(Value::String(name)) => name,
        None | Some(Value::Null) => format!("Organization {tail}"),
        Some(_) => return Err(ApiError::parameter("form_param_format_invalid", "name", "name must be text")),
    };
    let updated_at = if body.is_empty() { CREATED_MILLIS } else { now_millis };
    Ok(json!({
        "object": "organization",
        "id": id,
        "name": name,
        "slug": format!("organization-{}", tail.to_ascii_lowercase()),
        "image_url": "https://img.clerk.com/simulated",
        "has_image": false,
        "members_count": 1 + mix_text(0, id) % 50,
        "max_allowed_memberships": 0,
        "admin_delete_enabled": true,
        "public_metadata": given_metadata(&mut changes, "public_metadata")?,
        "private_metadata": given_metadata(&mut changes, "private_metadata")?,
        "created_at": CREATED_MILLIS,
        "updated_at": updated_at,
    }))
}

/// Returns a membership as Clerk writes it, after the changes of `body`.
///
/// # Errors
///
/// 404 if the organization's identifier is malformed or the user does not exist; 400 or 422 if the body is invalid.
pub(super) fn membership(
    organization_id: &str,
    user_id: &str,
    view: View<'_>,
    body: &[u8],
    now_millis: i64,
) -> Result<Value, ApiError> {
    let organization = organization(organization_id, &[], now_millis)?;
    let user = view.directory.find(user_id).ok_or_else(|| ApiError::not_found("membership", user_id))?;
    let mut changes = parse_object(body)?;
    let role = match changes.remove("role") {
        Some(Value::String(role)) => role,
        None | Some(Value::Null) => "org:member".to_owned(),
        Some(_) => return Err(ApiError::parameter("form_param_format_invalid", "role", "role must be text")),
    };
    let spread = mix_text(mix_text(1, organization_id), user_id);
    Ok(json!({
        "object": "organization_membership",
        "id": ksuid("orgmem_", CREATED_MILLIS.unsigned_abs() / 1_000, spread, mix(spread, 1)),
        "role_name": role.rsplit(':').next(),
        "role": role,
        "permissions": [],
        "public_metadata": given_metadata(&mut changes, "public_metadata")?,
        "private_metadata": given_metadata(&mut changes, "private_metadata")?,
        "organization": organization,
        "public_user_data": {
            "user_id": user_id,
            "first_name": view.directory.first_name(user),
            "last_name": view.directory.last_name(user),
            "image_url": "https://img.clerk.com/simulated",
            "profile_image_url": "https://img.clerk.com/simulated",
            "has_image": false,
            "identifier": view.directory.email(user),
        },
        "created_at": CREATED_MILLIS,
        "updated_at": now_millis,
    }))
}

/// Checks that the identifier is one of an organization.
///
/// # Errors
///
/// 404 if it is not.
pub(super) fn check_id(id: &str) -> Result<(), ApiError> {
    let tail = id.strip_prefix("org_").unwrap_or_default();
    if tail.is_empty() || !tail.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(ApiError::not_found("organization", id));
    }
    Ok(())
}

fn given_metadata(changes: &mut Map<String, Value>, name: &str) -> Result<Map<String, Value>, ApiError> {
    // A merge into an empty object drops `null` values.
    let mut kept = Map::new();
    merge(&mut kept, metadata(name, changes.remove(name).unwrap_or_default())?);
    Ok(kept)
}
