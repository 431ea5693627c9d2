//! Tags: the vocabulary shared by webhooks and caches.
//!
//! A tag is something that a Backend API response shows. A cache gets the tags of a response from [`tags_of_route`]; an
//! event lists the tags that changed. A response is outdated as soon as one of its tags changes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

macro_rules! tags {
    (
        plain { $($(#[$plain_doc:meta])* $plain:ident $plain_word:literal,)* }
        of { $($(#[$of_doc:meta])* $of:ident $of_word:literal,)* }
    ) => {
        /// Something that Backend API responses show and that events change.
        ///
        /// Its text form, such as `user:user_2abc` or `user_list`, can be sent to other processes and parsed.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Tag {
            $($(#[$plain_doc])* $plain,)*
            $($(#[$of_doc])* $of(Arc<str>),)*
        }

        impl fmt::Display for Tag {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$plain => f.write_str($plain_word),)*
                    $(Self::$of(id) => write!(f, concat!($of_word, ":{}"), id),)*
                }
            }
        }

        impl FromStr for Tag {
            type Err = ParseTagError;

            fn from_str(text: &str) -> Result<Self, ParseTagError> {
                match text.split_once(':') {
                    None => match text {
                        $($plain_word => Ok(Self::$plain),)*
                        _ => Err(ParseTagError),
                    },
                    Some((word, id)) => match word {
                        $($of_word => Ok(Self::$of(id.into())),)*
                        _ => Err(ParseTagError),
                    },
                }
            }
        }
    };
}

tags! {
    plain {
        /// Named by events that do not say what changed. On every response that has tags.
        Everything "everything",
        /// Lists and counts of users.
        UserList "user_list",
        /// Other responses that show users not named by their route, such as members.
        UsersShown "users_shown",
        /// Lists of sessions and of clients.
        SessionList "session_list",
        /// All responses that show a session: named when sessions end without an event that identifies them.
        AnySession "any_session",
        /// Lists of organizations.
        OrganizationList "organization_list",
        /// Responses of routes that name the organization by its slug, which events do not reliably contain.
        OrganizationBySlug "organization_by_slug",
        /// Other responses that show organizations not named by their route, such as a user's memberships.
        OrganizationsShown "organizations_shown",
        /// Lists and counts over memberships of all organizations and users.
        MembershipList "membership_list",
        /// All responses that show or count memberships.
        AnyMembership "any_membership",
        /// Lists and counts over invitations of all organizations.
        InvitationList "invitation_list",
        /// Lists over domains of all organizations.
        DomainList "domain_list",
        /// Roles, role sets and permissions, and all responses that show them, such as memberships.
        Roles "roles",
        /// The waiting list.
        WaitlistEntries "waitlist_entries",
        /// Lists over the billing of all payers.
        BillingList "billing_list",
        /// All responses that show a payer's billing.
        AnyBilling "any_billing",
        /// All verifications of tokens.
        AnyVerification "any_verification",
        /// Verifications whose token's ID is not known: those in flight, and those in Redis.
        UnknownVerification "unknown_verification",
        /// API keys and machine tokens, and lists of them. No event tells of a change.
        Tokens "tokens",
    }
    of {
        /// A user, and everything below the user's route.
        User "user",
        /// A session.
        Session "session",
        /// A client: a browser or device with its sessions.
        Client "client",
        /// An organization, and everything below its route.
        Organization "organization",
        /// Members of an organization, and their number.
        Members "members",
        /// Memberships of a user.
        MembershipsOfUser "memberships_of_user",
        /// Invitations of an organization, and their number.
        Invitations "invitations",
        /// Domains of an organization.
        Domains "domains",
        /// Billing of a payer: a user or an organization.
        Billing "billing",
        /// Verifications of an API key or a machine token, by the ID that a revocation names.
        Verification "verification",
    }
}

impl Tag {
    /// Returns whether the tag is about verifications of tokens alone.
    #[must_use]
    pub fn is_of_verifications(&self) -> bool {
        matches!(self, Self::AnyVerification | Self::UnknownVerification | Self::Verification(_))
    }

    /// Returns whether the tag identifies a single object and not a group of responses.
    #[must_use]
    pub fn names_one(&self) -> bool {
        matches!(self, Self::User(_) | Self::Session(_) | Self::Client(_) | Self::Organization(_) | Self::Billing(_))
    }
}

/// A text that is not a [`Tag`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown cache tag, perhaps of a newer version; treat it as `everything`")]
pub struct ParseTagError;

/// Returns the tags of the response to a GET of this route.
///
/// `template` is the route's path with placeholders, such as `/v1/users/{user_id}`; `parameters` are their values from
/// left to right, percent-decoded. Queries are not needed: the tags cover the widest query.
///
/// Empty if no event covers the route, the route is unknown, or the parameters do not fit the template: such a response
/// can only expire. Times of activity (such as `last_active_at`) change without an event and also only expire.
///
/// ```
/// use clerk_client::webhook::{Tag, tags_of_route};
///
/// assert_eq!(tags_of_route("/v1/users/{user_id}", &["user_1"]), [Tag::Everything, Tag::User("user_1".into())]);
/// assert!(tags_of_route("/v1/jwks", &[]).is_empty());
/// ```
#[must_use]
pub fn tags_of_route(template: &str, parameters: &[&str]) -> Vec<Tag> {
    if template.bytes().filter(|byte| *byte == b'{').count() != parameters.len() {
        return Vec::new();
    }
    let first: Arc<str> = parameters.first().copied().unwrap_or_default().into();
    let mut tags = match template.strip_prefix("/v1/").unwrap_or(template) {
        // Users can be filtered by organization.
        "users" | "users/count" => vec![Tag::UserList, Tag::MembershipList, Tag::AnyMembership],
        "users/{user_id}" | "users/{user_id}/oauth_access_tokens/{provider}" | "users/{user_id}/trusted_devices" => {
            vec![Tag::User(first)]
        }
        "users/{user_id}/billing/credits" | "users/{user_id}/billing/subscription" => {
            vec![Tag::User(Arc::clone(&first)), Tag::Billing(first), Tag::AnyBilling]
        }
        "users/{user_id}/organization_memberships" => vec![
            Tag::User(Arc::clone(&first)),
            Tag::MembershipsOfUser(first),
            Tag::AnyMembership,
            Tag::OrganizationsShown,
            Tag::Roles,
        ],
        "users/{user_id}/organization_invitations" => {
            vec![Tag::User(first), Tag::InvitationList, Tag::OrganizationsShown, Tag::Roles]
        }
        // They belong to an unknown user, and their events are those of the user.
        "email_addresses/{email_address_id}" | "phone_numbers/{phone_number_id}" => vec![Tag::UsersShown],
        "sessions" | "clients" => vec![Tag::SessionList, Tag::AnySession],
        "sessions/{session_id}" => vec![Tag::Session(first), Tag::AnySession],
        "clients/{client_id}" => vec![Tag::Client(first), Tag::AnySession],
        // Organizations optionally include the number of members and of open invitations.
        "organizations" => {
            vec![Tag::OrganizationList, Tag::MembershipList, Tag::AnyMembership, Tag::InvitationList]
        }
        "organization_memberships" => {
            vec![Tag::MembershipList, Tag::AnyMembership, Tag::UsersShown, Tag::OrganizationsShown, Tag::Roles]
        }
        "organization_invitations" => vec![Tag::InvitationList, Tag::OrganizationsShown, Tag::Roles],
        "organization_domains" => vec![Tag::DomainList, Tag::OrganizationsShown],
        "organization_roles"
        | "organization_roles/{organization_role_id}"
        | "organization_permissions"
        | "organization_permissions/{permission_id}"
        | "role_sets"
        | "role_sets/{role_set_key_or_id}" => vec![Tag::Roles],
        "waitlist_entries" => vec![Tag::WaitlistEntries],
        "billing/statements"
        | "billing/statements/{statementID}"
        | "billing/statements/{statementID}/payment_attempts"
        | "billing/subscription_items" => vec![Tag::BillingList, Tag::AnyBilling],
        other => match other.strip_prefix("organizations/{organization_id}") {
            Some(below) => tags_of_organization(below, first),
            None => Vec::new(),
        },
    };
    if !tags.is_empty() {
        tags.insert(0, Tag::Everything);
    }
    tags
}

fn tags_of_organization(below: &str, id: Arc<str>) -> Vec<Tag> {
    let mut tags = match below {
        "" => vec![Tag::Members(Arc::clone(&id)), Tag::AnyMembership, Tag::Invitations(Arc::clone(&id))],
        "/memberships" => {
            vec![Tag::Members(Arc::clone(&id)), Tag::AnyMembership, Tag::UsersShown, Tag::Roles]
        }
        "/invitations" | "/invitations/pending" | "/invitations/{invitation_id}" => {
            vec![Tag::Invitations(Arc::clone(&id)), Tag::Roles]
        }
        "/domains" => vec![Tag::Domains(Arc::clone(&id))],
        "/billing/credits" | "/billing/subscription" => vec![Tag::Billing(Arc::clone(&id)), Tag::AnyBilling],
        _ => return Vec::new(),
    };
    // Clerk accepts the slug instead of the id; ids begin with `org_`.
    if !id.starts_with("org_") {
        tags.push(Tag::OrganizationBySlug);
    }
    tags.push(Tag::Organization(id));
    tags
}
