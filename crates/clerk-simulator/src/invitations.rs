//! Invitations to an instance or an organization: plausible responses, nothing is stored.

use serde_json::{Value, json};

use super::error::ApiError;
use super::ids::{ksuid, mix, mix_text};
use super::users::edits::metadata;

/// Clerk's largest bulk request.
const MAX_BULK: usize = 10;
const DEFAULT_EXPIRY_DAYS: i64 = 30;
const DAY_MILLIS: i64 = 86_400_000;

/// What an invitation is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target<'a> {
    Instance,
    Organization(&'a str),
}

/// Handles `POST …/invitations`. `serial` distinguishes two invitations of the same address.
///
/// # Errors
///
/// 400 if the body is not an object, 422 if a field is missing or invalid.
pub(super) fn create(target: Target<'_>, body: &[u8], serial: u64, now_millis: i64) -> Result<Value, ApiError> {
    let given = serde_json::from_slice(body).map_err(|_| ApiError::body_invalid())?;
    invitation(target, given, serial, now_millis)
}

/// Handles `POST …/invitations/bulk`.
///
/// # Errors
///
/// As [`create`], and 400 for more than ten items.
pub(super) fn create_bulk(target: Target<'_>, body: &[u8], serial: u64, now_millis: i64) -> Result<Value, ApiError> {
    let given: Vec<Value> = serde_json::from_slice(body).map_err(|_| ApiError::body_invalid())?;
    if given.len() > MAX_BULK {
        return Err(ApiError::bulk_size_exceeded(MAX_BULK));
    }
    let made = given.into_iter().zip(0..).map(|(item, place)| invitation(target, item, mix(serial, place), now_millis));
    let made: Vec<Value> = made.collect::<Result<_, _>>()?;
    Ok(match target {
        Target::Instance => Value::Array(made),
        Target::Organization(_) => json!({ "total_count": made.len(), "data": made }),
    })
}

fn invitation(target: Target<'_>, given: Value, serial: u64, now_millis: i64) -> Result<Value, ApiError> {
    let Value::Object(mut given) = given else { return Err(ApiError::body_invalid()) };
    let email = required_text(&given, "email_address")?;
    if !email.contains('@') {
        let message = "email_address must be an e-mail address";
        return Err(ApiError::parameter("form_param_format_invalid", "email_address", message));
    }
    let email = email.to_owned();
    let public_metadata = metadata("public_metadata", given.remove("public_metadata").unwrap_or_default())?;
    let days = given.get("expires_in_days").and_then(Value::as_i64).unwrap_or(DEFAULT_EXPIRY_DAYS);
    let expires_at = now_millis.saturating_add(days.saturating_mul(DAY_MILLIS));
    let spread = mix_text(serial, &email);
    let seconds = u64::try_from(now_millis / 1_000).unwrap_or(0);
    match target {
        Target::Instance => Ok(json!({
            "object": "invitation",
            "id": ksuid("inv_", seconds, spread, mix(spread, 1)),
            "email_address": email,
            "public_metadata": public_metadata,
            "revoked": false,
            "status": "pending",
            "url": "https://accounts.example.com/v1/tickets/accept?ticket=simulated",
            "expires_at": expires_at,
            "created_at": now_millis,
            "updated_at": now_millis,
        })),
        Target::Organization(organization) => {
            let role = required_text(&given, "role")?;
            Ok(json!({
                "object": "organization_invitation",
                "id": ksuid("orginv_", seconds, spread, mix(spread, 1)),
                "email_address": email,
                "role": role,
                "role_name": role.rsplit(':').next(),
                "organization_id": organization,
                "inviter_id": given.get("inviter_user_id"),
                "public_inviter_data": null,
                "status": "pending",
                "public_metadata": public_metadata,
                "private_metadata": {},
                "url": null,
                "expires_at": expires_at,
                "created_at": now_millis,
                "updated_at": now_millis,
            }))
        }
    }
}

fn required_text<'a>(given: &'a serde_json::Map<String, Value>, name: &str) -> Result<&'a str, ApiError> {
    match given.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        None | Some(Value::Null | Value::String(_)) => {
            Err(ApiError::parameter("form_param_missing", name, format!("{name} must be given")))
        }
        Some(_) => Err(ApiError::parameter("form_param_format_invalid", name, format!("{name} must be text"))),
    }
}
