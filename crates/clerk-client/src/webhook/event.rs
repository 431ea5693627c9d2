//! Parses events: which cached responses does an event outdate?
//!
//! Parsing is lenient, since events gain fields and types. An odd or missing field makes the event invalidate more,
//! never less. The payload is dropped: events arrive in any order and repeatedly, so an older one could overwrite a
//! newer state. Only the tags are used, and invalidating them is idempotent in any order.

use std::sync::Arc;

use serde_json::Value;

use super::tag::Tag;

/// The kind of object that an event is about: its type before the full stop. A closed set, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventKind {
    /// `user.*`
    User,
    /// `session.*`
    Session,
    /// `organization.*`
    Organization,
    /// `organizationMembership.*`
    OrganizationMembership,
    /// `organizationInvitation.*`
    OrganizationInvitation,
    /// `organizationDomain.*`
    OrganizationDomain,
    /// `role.*`
    Role,
    /// `permission.*`
    Permission,
    /// `email.*`
    Email,
    /// `sms.*`
    Sms,
    /// `waitlistEntry.*`
    WaitlistEntry,
    /// `subscription.*`, `subscriptionItem.*`
    Subscription,
    /// `paymentAttempt.*`
    PaymentAttempt,
    /// A type unknown to this version. It invalidates nothing.
    Unknown,
    /// The delivery was rejected before its type was read.
    Unread,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 15] = [
        Self::User,
        Self::Session,
        Self::Organization,
        Self::OrganizationMembership,
        Self::OrganizationInvitation,
        Self::OrganizationDomain,
        Self::Role,
        Self::Permission,
        Self::Email,
        Self::Sms,
        Self::WaitlistEntry,
        Self::Subscription,
        Self::PaymentAttempt,
        Self::Unknown,
        Self::Unread,
    ];

    /// Returns the kind of an event type such as `user.updated`.
    #[must_use]
    pub fn of(event_type: &str) -> Self {
        match event_type.split_once('.').map_or("", |(family, _)| family) {
            "user" => Self::User,
            "session" => Self::Session,
            "organization" => Self::Organization,
            "organizationMembership" => Self::OrganizationMembership,
            "organizationInvitation" => Self::OrganizationInvitation,
            "organizationDomain" => Self::OrganizationDomain,
            "role" => Self::Role,
            "permission" => Self::Permission,
            "email" => Self::Email,
            "sms" => Self::Sms,
            "waitlistEntry" => Self::WaitlistEntry,
            "paymentAttempt" => Self::PaymentAttempt,
            family if family.starts_with("subscription") => Self::Subscription,
            _ => Self::Unknown,
        }
    }

    /// Returns the kind as a label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Session => "session",
            Self::Organization => "organization",
            Self::OrganizationMembership => "organizationMembership",
            Self::OrganizationInvitation => "organizationInvitation",
            Self::OrganizationDomain => "organizationDomain",
            Self::Role => "role",
            Self::Permission => "permission",
            Self::Email => "email",
            Self::Sms => "sms",
            Self::WaitlistEntry => "waitlistEntry",
            Self::Subscription => "subscription",
            Self::PaymentAttempt => "paymentAttempt",
            Self::Unknown => "unknown",
            Self::Unread => "unread",
        }
    }
}

/// A parsed event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The type, such as `user.updated`.
    pub event_type: Box<str>,
    /// The kind.
    pub kind: EventKind,
    /// Time of the event in milliseconds since 1970, if given.
    pub timestamp_ms: Option<u64>,
    /// Clerk's id of the instance, `ins_...`, if given.
    pub instance_id: Option<Box<str>>,
    /// The tags to invalidate, unordered and unique. Empty if the event changes nothing that can be fetched.
    pub tags: Vec<Tag>,
}

impl Event {
    /// Parses the body of a verified delivery.
    ///
    /// # Errors
    ///
    /// Returns an error unless it is a JSON object with a string `type`.
    pub fn read(body: &[u8]) -> Result<Self, MalformedEvent> {
        let event: Value = serde_json::from_slice(body).map_err(|_| MalformedEvent::NotJson)?;
        let event_type = event.get("type").and_then(Value::as_str).ok_or(MalformedEvent::NoType)?;
        let family = EventKind::of(event_type);
        let mut tags = tags_to_invalidate(family, event_type, Data(event.get("data").unwrap_or(&Value::Null)));
        tags.sort_unstable();
        tags.dedup();
        Ok(Self {
            event_type: event_type.into(),
            kind: family,
            timestamp_ms: event.get("timestamp").and_then(Value::as_u64),
            instance_id: event.get("instance_id").and_then(Value::as_str).map(Into::into),
            tags,
        })
    }
}

/// A body that is not an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedEvent {
    /// Not JSON, or nested too deeply.
    #[error("the body is not JSON")]
    NotJson,
    /// JSON without a type.
    #[error("the body has no string `type`; Clerk's events have one")]
    NoType,
}

/// The object that an event is about.
#[derive(Clone, Copy)]
struct Data<'a>(&'a Value);

impl Data<'_> {
    /// The first valid id at one of these JSON pointers.
    fn id(self, pointers: &[&str]) -> Option<Arc<str>> {
        let is_id = |text: &&str| {
            (1..=128).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        };
        pointers.iter().find_map(|pointer| self.0.pointer(pointer).and_then(Value::as_str).filter(is_id)).map(Arc::from)
    }

    fn is_true(self, key: &str) -> bool {
        self.0.get(key) == Some(&Value::Bool(true))
    }
}

/// The tags that an event invalidates. An event that does not identify its object invalidates everything it could be
/// about.
fn tags_to_invalidate(family: EventKind, event_type: &str, data: Data<'_>) -> Vec<Tag> {
    let action = event_type.split_once('.').map_or("", |(_, action)| action);
    let tags = match family {
        EventKind::User => user(action, data),
        EventKind::Session => session(action, data),
        EventKind::Organization => organization(action, data),
        EventKind::OrganizationMembership => Some(membership(data)),
        EventKind::OrganizationInvitation => data
            .id(&["/organization_id", "/organization/id"])
            .map(|id| vec![Tag::Invitations(id), Tag::InvitationList, Tag::OrganizationBySlug]),
        EventKind::OrganizationDomain => data
            .id(&["/organization_id", "/organization/id"])
            .map(|id| vec![Tag::Domains(id), Tag::DomainList, Tag::OrganizationBySlug]),
        EventKind::Role | EventKind::Permission => Some(vec![Tag::Roles]),
        EventKind::WaitlistEntry => Some(vec![Tag::WaitlistEntries]),
        EventKind::Subscription | EventKind::PaymentAttempt => Some(billing(data)),
        EventKind::Email | EventKind::Sms | EventKind::Unknown | EventKind::Unread => Some(Vec::new()),
    };
    tags.unwrap_or_else(|| vec![Tag::Everything])
}

fn user(action: &str, data: Data<'_>) -> Option<Vec<Tag>> {
    let mut tags = vec![Tag::User(data.id(&["/id"])?), Tag::UserList];
    // A new user is not shown elsewhere yet.
    if action != "created" {
        tags.push(Tag::UsersShown);
    }
    // Events for the user's other objects come later or not at all, and an ended session must not look active.
    if action == "deleted" {
        tags.extend([Tag::SessionList, Tag::AnySession, Tag::MembershipList, Tag::AnyMembership, Tag::AnyVerification]);
    } else if data.is_true("banned") {
        tags.extend([Tag::SessionList, Tag::AnySession, Tag::AnyVerification]);
    }
    Some(tags)
}

fn session(action: &str, data: Data<'_>) -> Option<Vec<Tag>> {
    let mut tags = vec![Tag::Session(data.id(&["/id"])?), Tag::SessionList];
    tags.push(data.id(&["/client_id"]).map_or(Tag::AnySession, Tag::Client));
    // A sign-in changes the user, too.
    if action == "created" {
        tags.extend([Tag::User(data.id(&["/user_id"])?), Tag::UserList]);
    }
    Some(tags)
}

fn organization(action: &str, data: Data<'_>) -> Option<Vec<Tag>> {
    let mut tags = vec![Tag::Organization(data.id(&["/id"])?), Tag::OrganizationList, Tag::OrganizationBySlug];
    if action != "created" {
        tags.push(Tag::OrganizationsShown);
    }
    if action == "deleted" {
        tags.extend([
            Tag::MembershipList,
            Tag::InvitationList,
            Tag::DomainList,
            Tag::BillingList,
            Tag::AnyVerification,
        ]);
    }
    Some(tags)
}

fn membership(data: Data<'_>) -> Vec<Tag> {
    let organization = data.id(&["/organization/id", "/organization_id"]);
    let user = data.id(&["/public_user_data/user_id", "/user_id"]);
    let mut tags = vec![Tag::MembershipList, Tag::OrganizationBySlug];
    tags.push(organization.map_or(Tag::AnyMembership, Tag::Members));
    tags.push(user.map_or(Tag::AnyMembership, Tag::MembershipsOfUser));
    tags
}

fn billing(data: Data<'_>) -> Vec<Tag> {
    let payers = [data.id(&["/payer/user_id", "/user_id"]), data.id(&["/payer/organization_id", "/organization_id"])];
    let mut tags: Vec<Tag> = payers.into_iter().flatten().map(Tag::Billing).collect();
    if tags.is_empty() {
        tags.push(Tag::AnyBilling);
    }
    tags.extend([Tag::BillingList, Tag::OrganizationBySlug]);
    tags
}
