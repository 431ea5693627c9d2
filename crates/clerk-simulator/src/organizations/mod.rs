//! Organizations with their members and invitations.

pub(super) mod invitations;
mod json;
pub(super) mod memberships;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use http::Uri;
use serde_json::{Map, Value, json};

use super::body::{Fields, malformed};
use super::collection::Collection;
use super::context::Context;
use super::error::ApiError;
use super::ids::{ksuid, mix};
use super::list_query::ListQuery;
use super::users::Directory;
use super::users::store::Users;
use super::users::view::View;
use invitations::OrganizationInvitation;
use memberships::Member;

/// 2023-01-01T00:00:00Z
const FIRST_CREATED_MILLIS: i64 = 1_672_531_200_000;
const DAY_MILLIS: i64 = 86_400_000;
const NAME_MAX_CHARS: usize = 256;

/// The organizations of one instance.
#[derive(Debug, Default)]
pub(super) struct Organizations {
    all: Collection<Organization>,
    /// Identifiers by slug. One may have left `all`.
    by_slug: HashMap<String, String>,
}

#[derive(Debug)]
pub(super) struct Organization {
    id: String,
    name: String,
    slug: String,
    max_allowed_memberships: u64,
    admin_delete_enabled: bool,
    public_metadata: Map<String, Value>,
    private_metadata: Map<String, Value>,
    created_by: Option<String>,
    /// Milliseconds since the epoch.
    created_at: i64,
    updated_at: i64,
    /// By the number of the user.
    members: BTreeMap<u32, Member>,
    invitations: Collection<OrganizationInvitation>,
}

/// Most generated organizations of an instance.
pub(super) const MAX_GENERATED: u32 = 10_000;

/// Returns the creation time of a generated organization, in milliseconds since the epoch, and its random number.
fn generated(seed: u64, number: u32) -> (i64, u64) {
    (FIRST_CREATED_MILLIS + i64::from(number) * DAY_MILLIS, mix(seed ^ (20 << 56), u64::from(number)))
}

/// Returns the identifier of a generated organization.
pub(super) fn generated_id(seed: u64, number: u32) -> String {
    let (created_at, spread) = generated(seed, number);
    ksuid("org_", created_at.unsigned_abs() / 1_000, spread, mix(spread, 4))
}

impl Organizations {
    /// Returns `count` (at most [`MAX_GENERATED`]) generated organizations with a few of the generated users each.
    pub(super) fn generated(count: u32, seed: u64, directory: &Directory) -> Self {
        let mut organizations = Self::default();
        for number in 0..count.min(MAX_GENERATED) {
            let (created_at, spread) = generated(seed, number);
            let seconds = created_at.unsigned_abs() / 1_000;
            let size = u32::try_from(1 + spread % 9).unwrap_or(1).min(directory.len());
            let first = u32::try_from(mix(spread, 5) % u64::from(directory.len().max(1))).unwrap_or(0);
            let members = (0..size).map(|place| {
                let user = (first + place) % directory.len().max(1);
                let id = ksuid("orgmem_", seconds, mix(spread, 6), u64::from(place));
                (user, Member::new(id, if place == 0 { "org:admin" } else { "org:member" }, created_at))
            });
            organizations.add(Organization {
                id: generated_id(seed, number),
                name: format!("Organization {number}"),
                slug: format!("organization-{number}"),
                max_allowed_memberships: 0,
                admin_delete_enabled: true,
                public_metadata: Map::new(),
                private_metadata: Map::new(),
                created_by: (size > 0).then(|| directory.id(first)),
                created_at,
                updated_at: created_at,
                members: members.collect(),
                invitations: Collection::default(),
            });
        }
        organizations
    }

    fn add(&mut self, organization: Organization) {
        self.by_slug.insert(organization.slug.clone(), organization.id.clone());
        self.all.insert(organization.id.clone(), organization);
    }

    fn find(&self, id_or_slug: &str) -> Result<&Organization, ApiError> {
        let by_slug = || self.all.get(self.by_slug.get(id_or_slug)?);
        self.all.get(id_or_slug).or_else(by_slug).ok_or_else(|| ApiError::not_found("organization", id_or_slug))
    }

    fn find_mut(&mut self, id: &str) -> Result<&mut Organization, ApiError> {
        self.all.get_mut(id).ok_or_else(|| ApiError::not_found("organization", id))
    }

    /// `GET /v1/organizations`.
    ///
    /// # Errors
    ///
    /// 422 for a parameter that Clerk would reject.
    pub(super) fn list(&self, view: &View<'_>, uri: &Uri) -> Result<Value, ApiError> {
        let query = ListQuery::of(uri)?;
        let text = query.get("query").map(str::to_lowercase);
        let members: Vec<u32> = query.all("user_id").filter_map(|id| view.find(id)).collect();
        let matches = |organization: &&Organization| {
            let has_text = |text: &String| {
                organization.name.to_lowercase().contains(text)
                    || organization.slug.contains(text)
                    || organization.id.to_lowercase() == *text
            };
            text.as_ref().is_none_or(has_text)
                && query.allows("organization_id", &organization.id)
                && (query.get("user_id").is_none() || members.iter().any(|it| organization.members.contains_key(it)))
        };
        let mut found: Vec<&Organization> = self.all.newest_first().filter(matches).collect();
        let (field, is_descending) = query.order().unwrap_or(("created_at", true));
        match field {
            "name" => found.sort_by_key(|it| it.name.to_lowercase()),
            "members_count" => found.sort_by_key(|it| it.members.len()),
            "created_at" => found.sort_by_key(|it| it.created_at),
            _ => {
                return Err(malformed("order_by", "name, created_at or members_count with an optional leading + or -"));
            }
        }
        if is_descending {
            found.reverse();
        }
        let with_count = query.is_set("include_members_count");
        Ok(query.page(found.into_iter().map(|organization| organization.json(with_count))).counted())
    }

    /// `GET /v1/organizations/{organization_id}`, by identifier or slug.
    ///
    /// # Errors
    ///
    /// 404 if there is none.
    pub(super) fn get(&self, id: &str, uri: &Uri) -> Result<Value, ApiError> {
        Ok(self.find(id)?.json(ListQuery::of(uri)?.is_set("include_members_count")))
    }

    /// `POST /v1/organizations`.
    ///
    /// # Errors
    ///
    /// 400 or 422 if the body is invalid or the slug is taken; 404 if the creator does not exist.
    pub(super) fn create(&mut self, context: &mut Context<'_>, users: &Users, body: &[u8]) -> Result<Value, ApiError> {
        let mut fields = Fields::parse(body)?;
        let name = fields.required_text("name")?;
        let created_by = fields.text("created_by")?.flatten();
        let view = View { directory: context.directory, users };
        let creator = match &created_by {
            Some(id) => Some(view.find(id).ok_or_else(|| ApiError::not_found("user", id))?),
            None => None,
        };
        let id = context.new_id("org_");
        let slug = match fields.text("slug")?.flatten() {
            Some(slug) => slug,
            None => self.free_slug(&name, &id),
        };
        self.check_slug(&slug, None)?;
        let now = context.now;
        let organization = Organization {
            id: id.clone(),
            name,
            slug,
            max_allowed_memberships: fields.number("max_allowed_memberships")?.unwrap_or(0),
            admin_delete_enabled: true,
            public_metadata: fields.metadata("public_metadata")?.unwrap_or_default(),
            private_metadata: fields.metadata("private_metadata")?.unwrap_or_default(),
            created_by,
            created_at: now,
            updated_at: now,
            members: BTreeMap::new(),
            invitations: Collection::default(),
        };
        let json = organization.json(false);
        self.add(organization);
        context.emit("organization.created", &id, &json);
        if let Some(user) = creator {
            let member = Member::new(context.new_id("orgmem_"), "org:admin", now);
            self.find_mut(&id)?.add_member(context, users, user, member);
        }
        Ok(json)
    }

    /// `PATCH /v1/organizations/{organization_id}`.
    ///
    /// # Errors
    ///
    /// 404 if there is none; 400 or 422 if the body is invalid or the slug is taken.
    pub(super) fn update(&mut self, context: &mut Context<'_>, id: &str, body: &[u8]) -> Result<Value, ApiError> {
        let mut fields = Fields::parse_optional(body)?;
        let name = fields.text("name")?.flatten();
        let slug = fields.text("slug")?.flatten();
        let most = fields.number("max_allowed_memberships")?;
        let deletable = fields.boolean("admin_delete_enabled")?;
        let (public, private) = (fields.metadata("public_metadata")?, fields.metadata("private_metadata")?);
        if let Some(slug) = &slug {
            self.check_slug(slug, Some(id))?;
        }
        let organization = self.find_mut(id)?;
        organization.name = name.unwrap_or_else(|| std::mem::take(&mut organization.name));
        organization.max_allowed_memberships = most.unwrap_or(organization.max_allowed_memberships);
        organization.admin_delete_enabled = deletable.unwrap_or(organization.admin_delete_enabled);
        organization.public_metadata = public.unwrap_or_else(|| std::mem::take(&mut organization.public_metadata));
        organization.private_metadata = private.unwrap_or_else(|| std::mem::take(&mut organization.private_metadata));
        let renamed = slug.map(|slug| (std::mem::replace(&mut organization.slug, slug.clone()), slug));
        let json = organization.updated(context);
        if let Some((before, after)) = renamed {
            self.by_slug.remove(&before);
            self.by_slug.insert(after, id.to_owned());
        }
        Ok(json)
    }

    /// `PATCH` (merge) and `PUT` (`replace`) `/v1/organizations/{organization_id}/metadata`.
    ///
    /// # Errors
    ///
    /// 404 if there is none; 400 or 422 if the body is invalid.
    pub(super) fn update_metadata(
        &mut self,
        context: &mut Context<'_>,
        id: &str,
        body: &[u8],
        replace: bool,
    ) -> Result<Value, ApiError> {
        let mut fields = Fields::parse(body)?;
        let organization = self.find_mut(id)?;
        fields.merge_metadata("public_metadata", &mut organization.public_metadata, replace)?;
        fields.merge_metadata("private_metadata", &mut organization.private_metadata, replace)?;
        Ok(organization.updated(context))
    }

    /// `DELETE /v1/organizations/{organization_id}`.
    ///
    /// # Errors
    ///
    /// 404 if there is none.
    pub(super) fn delete(&mut self, context: &mut Context<'_>, id: &str) -> Result<Value, ApiError> {
        let gone = self.all.remove(id).ok_or_else(|| ApiError::not_found("organization", id))?;
        self.by_slug.remove(&gone.slug);
        let json = json!({ "object": "organization", "id": id, "slug": gone.slug, "deleted": true });
        context.emit("organization.deleted", id, &json);
        Ok(json)
    }

    fn check_slug(&self, slug: &str, own: Option<&str>) -> Result<(), ApiError> {
        let is_well_formed = slug.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if slug.is_empty() || slug.chars().count() > NAME_MAX_CHARS || !is_well_formed {
            return Err(malformed("slug", "letters, digits, - and _"));
        }
        match self.by_slug.get(slug) {
            Some(id) if Some(id.as_str()) != own && self.all.get(id).is_some() => {
                Err(ApiError::identifier_exists("slug"))
            }
            _ => Ok(()),
        }
    }

    /// Returns a slug for the name, with a part of the identifier as Clerk's have.
    fn free_slug(&self, name: &str, id: &str) -> String {
        let word = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let words: String = name.chars().map(word).take(NAME_MAX_CHARS / 2).collect();
        let words = words.trim_matches('-');
        let slug = if words.is_empty() { "organization" } else { words };
        if self.check_slug(slug, None).is_ok() { slug.to_owned() } else { format!("{slug}-{}", id.replace("org_", "")) }
    }

    /// Removes a deleted user from all organizations.
    pub(super) fn forget_user(&mut self, user: u32) {
        for organization in self.all.values_mut() {
            organization.members.remove(&user);
        }
    }
}

impl Organization {
    /// Notes a change, and returns the organization's JSON.
    fn updated(&mut self, context: &mut Context<'_>) -> Value {
        self.updated_at = context.now;
        let json = self.json(false);
        context.emit("organization.updated", &self.id, &json);
        json
    }

    /// Members by the time at which they joined, newest first.
    fn members_newest_first(&self) -> Vec<(u32, &Member)> {
        let mut members: Vec<_> = self.members.iter().map(|(user, member)| (*user, member)).collect();
        members.sort_by_key(|(user, member)| (Reverse(member.created_at()), *user));
        members
    }
}
