//! Which responses an event invalidates, and which it does not.

use std::collections::BTreeSet;

use clerk_client::webhook::{Event, EventKind, MalformedEvent, Tag, tags_of_route};
use proptest::prelude::*;

use crate::support::event;

/// All GET routes without events. A new route must be listed here or given tags.
const WITHOUT_EVENTS: &[&str] = &[
    "/v1/allowlist_identifiers",
    "/v1/api_keys",
    "/v1/billing/plans",
    "/v1/billing/prices",
    "/v1/blocklist_identifiers",
    "/v1/directories",
    "/v1/domains",
    "/v1/email",
    "/v1/enterprise_connections",
    "/v1/instance",
    "/v1/invitations",
    "/v1/jwks",
    "/v1/jwt_templates",
    "/v1/logs",
    "/v1/m2m_tokens",
    "/v1/machines",
    "/v1/oauth_applications",
    "/v1/public/interstitial",
    "/v1/redirect_urls",
    "/v1/saml_connections",
    "/v1/scim_directories",
    "/v1/sign_ups",
    "/v1/templates",
];

fn get_routes() -> impl Iterator<Item = &'static str> {
    include_str!("../../../clerk-quota/src/bapi-paths.txt").lines().filter_map(|line| line.strip_prefix("GET "))
}

/// The tags of a path, by its template.
fn shown(template: &str, parameters: &[&str]) -> BTreeSet<Tag> {
    let tags: BTreeSet<_> = tags_of_route(template, parameters).into_iter().collect();
    assert!(!tags.is_empty(), "{template} has no tags");
    tags
}

fn named(event_type: &str, data: &str) -> BTreeSet<Tag> {
    Event::read(event(event_type, data).as_bytes()).unwrap().tags.into_iter().collect()
}

const MEMBERSHIP: &str = r#"{"id":"orgmem_1","organization":{"id":"org_1"},"public_user_data":{"user_id":"user_1"}}"#;
const SESSION: &str = r#"{"id":"sess_1","user_id":"user_1","client_id":"client_1"}"#;
const INVITATION: &str = r#"{"id":"orginv_1","organization_id":"org_1"}"#;
const PAYER_USER: &str = r#"{"id":"sub_1","payer":{"user_id":"user_1"}}"#;
const PAYER_ORG: &str = r#"{"id":"sub_1","payer":{"organization_id":"org_1"}}"#;

/// A route's template and its parameter, empty if it has none.
type Answer = (&'static str, &'static str);

#[test]
fn event_invalidates_exactly_the_responses_that_changed() {
    const STALE: bool = true;
    const FRESH: bool = false;
    let user = ("/v1/users/{user_id}", "user_1");
    let other_user = ("/v1/users/{user_id}", "user_2");
    let users = ("/v1/users", "");
    let count = ("/v1/users/count", "");
    let organization = ("/v1/organizations/{organization_id}", "org_1");
    let other_organization = ("/v1/organizations/{organization_id}", "org_2");
    let by_slug = ("/v1/organizations/{organization_id}", "acme");
    let organizations = ("/v1/organizations", "");
    let members = ("/v1/organizations/{organization_id}/memberships", "org_1");
    let other_members = ("/v1/organizations/{organization_id}/memberships", "org_2");
    let memberships_of_user = ("/v1/users/{user_id}/organization_memberships", "user_1");
    let memberships_of_other = ("/v1/users/{user_id}/organization_memberships", "user_2");
    let memberships = ("/v1/organization_memberships", "");
    let invitations = ("/v1/organizations/{organization_id}/invitations", "org_1");
    let pending = ("/v1/organizations/{organization_id}/invitations/pending", "org_1");
    let other_invitations = ("/v1/organizations/{organization_id}/invitations", "org_2");
    let invitations_of_user = ("/v1/users/{user_id}/organization_invitations", "user_2");
    let domains = ("/v1/organizations/{organization_id}/domains", "org_1");
    let all_domains = ("/v1/organization_domains", "");
    let session = ("/v1/sessions/{session_id}", "sess_1");
    let other_session = ("/v1/sessions/{session_id}", "sess_2");
    let sessions = ("/v1/sessions", "");
    let client = ("/v1/clients/{client_id}", "client_1");
    let email = ("/v1/email_addresses/{email_address_id}", "idn_1");
    let roles = ("/v1/organization_roles", "");
    let permissions = ("/v1/organization_permissions", "");
    let waitlist = ("/v1/waitlist_entries", "");
    let user_billing = ("/v1/users/{user_id}/billing/subscription", "user_1");
    let other_billing = ("/v1/users/{user_id}/billing/subscription", "user_2");
    let organization_billing = ("/v1/organizations/{organization_id}/billing/subscription", "org_1");
    let statements = ("/v1/billing/statements", "");

    let user_1 = r#"{"id":"user_1","banned":false}"#;
    let org_1 = r#"{"id":"org_1","slug":"acme"}"#;
    let cases: &[(&str, &str, bool, &[Answer])] = &[
        ("user.created", user_1, STALE, &[user, users, count]),
        ("user.created", user_1, FRESH, &[other_user, members, session, memberships_of_other]),
        ("user.updated", user_1, STALE, &[user, users, count, members, memberships, email, memberships_of_user]),
        ("user.updated", user_1, FRESH, &[other_user, organization, memberships_of_other, session, sessions, roles]),
        ("user.updated", r#"{"id":"user_1","banned":true}"#, STALE, &[user, session, sessions, client]),
        (
            "user.deleted",
            r#"{"id":"user_1","deleted":true}"#,
            STALE,
            &[user, users, count, members, memberships, organization, organizations, session, client, user_billing],
        ),
        ("user.deleted", user_1, FRESH, &[other_user, roles, waitlist, domains, other_billing]),
        ("session.created", SESSION, STALE, &[session, sessions, client, user, users]),
        ("session.created", SESSION, FRESH, &[other_session, other_user, members, organization]),
        ("session.revoked", SESSION, STALE, &[session, sessions, client]),
        ("session.revoked", SESSION, FRESH, &[other_session, user, users]),
        ("session.ended", r#"{"id":"sess_1"}"#, STALE, &[session, sessions, client]),
        ("organization.created", org_1, STALE, &[organization, organizations, by_slug]),
        ("organization.created", org_1, FRESH, &[other_organization, memberships_of_other, users]),
        (
            "organization.updated",
            org_1,
            STALE,
            &[
                organization,
                organizations,
                by_slug,
                members,
                invitations,
                memberships_of_other,
                memberships,
                all_domains,
            ],
        ),
        ("organization.updated", org_1, FRESH, &[other_organization, other_members, user, users, session]),
        (
            "organization.deleted",
            r#"{"id":"org_1","deleted":true}"#,
            STALE,
            &[
                organization,
                organizations,
                users,
                members,
                memberships_of_other,
                domains,
                organization_billing,
                statements,
            ],
        ),
        (
            "organizationMembership.created",
            MEMBERSHIP,
            STALE,
            &[members, memberships_of_user, memberships, organization, organizations, by_slug, users],
        ),
        (
            "organizationMembership.deleted",
            MEMBERSHIP,
            FRESH,
            &[other_members, memberships_of_other, other_organization, user, roles, invitations],
        ),
        (
            "organizationMembership.updated",
            r#"{"id":"orgmem_1"}"#,
            STALE,
            &[members, memberships_of_other, memberships],
        ),
        (
            "organizationInvitation.accepted",
            INVITATION,
            STALE,
            &[invitations, pending, invitations_of_user, organization, organizations],
        ),
        ("organizationInvitation.revoked", INVITATION, FRESH, &[other_invitations, members, user, domains]),
        ("organizationDomain.created", INVITATION, STALE, &[domains, all_domains]),
        ("organizationDomain.deleted", INVITATION, FRESH, &[invitations, members, organization, user]),
        ("role.updated", r#"{"id":"role_1"}"#, STALE, &[roles, members, memberships_of_user, invitations]),
        ("role.deleted", r#"{"id":"role_1"}"#, FRESH, &[user, users, organization]),
        ("permission.updated", r#"{"id":"perm_1"}"#, STALE, &[permissions, roles, memberships_of_user]),
        ("waitlistEntry.updated", r#"{"id":"wait_1"}"#, STALE, &[waitlist]),
        ("waitlistEntry.updated", r#"{"id":"wait_1"}"#, FRESH, &[users]),
        ("subscription.updated", PAYER_USER, STALE, &[user_billing, statements]),
        ("subscriptionItem.canceled", PAYER_USER, FRESH, &[other_billing, organization_billing, user]),
        ("subscriptionItem.freeTrialEnding", PAYER_ORG, STALE, &[organization_billing, statements]),
        ("paymentAttempt.updated", PAYER_ORG, FRESH, &[user_billing, organization]),
        ("paymentAttempt.created", r#"{"id":"pay_1"}"#, STALE, &[user_billing, organization_billing, statements]),
    ];
    for (event_type, data, stale, answers) in cases {
        let named = named(event_type, data);
        for (template, parameter) in *answers {
            let parameters = if parameter.is_empty() { &[][..] } else { &[*parameter][..] };
            let is_stale = !shown(template, parameters).is_disjoint(&named);
            assert_eq!(is_stale, *stale, "{event_type} and {template} of {parameter:?}: {named:?}");
        }
    }
}

#[test]
fn every_get_route_has_tags_or_is_listed_without_events() {
    for template in get_routes() {
        let parameters = vec!["x_1"; template.matches('{').count()];
        let has_tags = !tags_of_route(template, &parameters).is_empty();
        let is_excepted = WITHOUT_EVENTS
            .iter()
            .any(|route| template.strip_prefix(route).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
        assert_ne!(has_tags, is_excepted, "{template}");
    }
    for route in WITHOUT_EVENTS {
        assert!(get_routes().any(|template| template.starts_with(route)), "{route} is not a route");
    }
}

#[test]
fn event_without_ids_invalidates_everything() {
    let odd = ["{}", "null", "[]", "7", r#"{"id":7}"#, r#"{"id":""}"#, r#"{"id":"user 1\n"}"#];
    for event_type in ["user.updated", "session.created", "organization.deleted", "organizationInvitation.created"] {
        for data in odd {
            assert_eq!(named(event_type, data), BTreeSet::from([Tag::Everything]), "{event_type} {data}");
        }
    }
    for template in get_routes() {
        let parameters = vec!["x_1"; template.matches('{').count()];
        let tags = tags_of_route(template, &parameters);
        assert!(tags.is_empty() || tags.contains(&Tag::Everything), "{template}");
    }
}

#[test]
fn mismatched_parameters_give_no_tags() {
    assert!(tags_of_route("/v1/users/{user_id}", &[]).is_empty());
    assert!(tags_of_route("/v1/users", &["user_1"]).is_empty());
    assert!(tags_of_route("other", &[]).is_empty());
}

#[test]
fn messages_and_unknown_types_invalidate_nothing() {
    for (event_type, family) in [
        ("email.created", EventKind::Email),
        ("sms.created", EventKind::Sms),
        ("spaceship.launched", EventKind::Unknown),
        ("user", EventKind::Unknown),
        ("", EventKind::Unknown),
    ] {
        let event = Event::read(event(event_type, "{}").as_bytes()).unwrap();
        assert_eq!((event.kind, event.tags), (family, Vec::new()), "{event_type}");
    }
}

#[test]
fn odd_events_are_accepted_and_malformed_bodies_rejected() {
    let plain = Event::read(event("user.updated", r#"{"id":"user_1"}"#).as_bytes()).unwrap();
    assert_eq!(&*plain.event_type, "user.updated");
    assert_eq!(plain.timestamp_ms, Some(1_795_608_000_000));
    assert_eq!(plain.instance_id.as_deref(), Some("ins_1"));
    let odd = br#"{"type":"user.updated","data":{"id":"user_1"},"timestamp":"soon","instance_id":[],"new":1}"#;
    let odd = Event::read(odd).unwrap();
    assert_eq!((odd.timestamp_ms, odd.instance_id, odd.tags), (None, None, plain.tags));

    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    for body in ["", "x", "\u{feff}{}", &deep] {
        assert_eq!(Event::read(body.as_bytes()), Err(MalformedEvent::NotJson));
    }
    for body in ["null", "[]", "{}", r#"{"type":7}"#, r#"{"type":null,"data":{}}"#] {
        assert_eq!(Event::read(body.as_bytes()), Err(MalformedEvent::NoType));
    }
}

#[test]
fn every_kind_has_its_own_name() {
    let words: BTreeSet<_> = EventKind::ALL.iter().map(|family| family.as_str()).collect();
    assert_eq!(words.len(), EventKind::ALL.len());
    for family in EventKind::ALL.into_iter().filter(|family| !matches!(family, EventKind::Unknown | EventKind::Unread))
    {
        assert_eq!(EventKind::of(&format!("{}.created", family.as_str())), family);
    }
    assert_eq!(EventKind::of("subscriptionItem.active"), EventKind::Subscription);
}

#[test]
fn invalid_tag_texts_are_rejected() {
    for text in ["", "user", "user_list:", "user_list:x", "nonsense", "nonsense:x", "User:x"] {
        let parsed = text.parse::<Tag>();
        assert!(parsed.is_err(), "{text:?} is {parsed:?}");
    }
    assert_eq!("user:a:b".parse(), Ok(Tag::User("a:b".into())));
}

/// One user's life, another user's update, and a membership.
const STORY: [(&str, &str); 6] = [
    ("user.created", r#"{"id":"user_1"}"#),
    ("user.updated", r#"{"id":"user_1","banned":true}"#),
    ("user.deleted", r#"{"id":"user_1","deleted":true}"#),
    ("session.created", SESSION),
    ("organizationMembership.created", MEMBERSHIP),
    ("user.updated", r#"{"id":"user_2"}"#),
];

proptest! {
    /// Invalidation gives the same result in any order, and if any event is delivered again.
    #[test]
    fn order_and_repetition_do_not_matter(
        order in Just((0..STORY.len()).collect::<Vec<_>>()).prop_shuffle(),
        again in proptest::collection::vec(0..STORY.len(), 0..6),
    ) {
        let left_over = |order: &[usize]| {
            let mut cached: Vec<_> = get_routes()
                .flat_map(|template| ["user_1", "user_2", "org_1", "sess_1"].map(|id| (template, id)))
                .map(|(template, id)| (template, id, tags_of_route(template, &vec![id; template.matches('{').count()])))
                .collect();
            for &index in order {
                let named = named(STORY[index].0, STORY[index].1);
                cached.retain(|(_, _, tags)| !tags.iter().any(|tag| named.contains(tag)));
            }
            cached
        };
        let in_order: Vec<_> = (0..STORY.len()).collect();
        let shuffled: Vec<_> = order.into_iter().chain(again).collect();
        prop_assert_eq!(left_over(&in_order), left_over(&shuffled));
    }
}
