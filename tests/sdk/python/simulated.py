"""Calls every route that the simulator has through clerk-backend-api, whose models are strict.

    python simulated.py

CLERK_API_URL is the server without /v1, CLERK_SECRET_KEY a key that it accepts, CLERK_MACHINE_SECRET_KEY one of a machine of
the same instance, and OAUTH_TOKEN an OAuth access token. Prints one line with what the calls returned; fails on any body that
a model does not accept.
"""

import json
import os
import warnings

from clerk_backend_api import Clerk, models

SERVER = os.environ["CLERK_API_URL"] + "/v1"


def client(key):
    return Clerk(bearer_auth=key, server_url=SERVER, retry_config=None, timeout_ms=60_000)


CLERK = client(os.environ["CLERK_SECRET_KEY"])
MACHINE = client(os.environ["CLERK_MACHINE_SECRET_KEY"])


def users():
    api = CLERK.users
    user = api.create(
        email_address=["py@example.org"], phone_number=["+15555550101"], username="py", password="correct horse",
        first_name="Py", public_metadata={"plan": "pro"},
    )
    assert api.get(user_id=user.id).phone_numbers[0].phone_number == "+15555550101"
    assert [found.id for found in api.list(request={"email_address": ["py@example.org"]})] == [user.id]
    assert api.count().total_count > 1
    assert api.update(user_id=user.id, first_name="Python").first_name == "Python"
    assert api.update_metadata(user_id=user.id, public_metadata={"a": 1}).public_metadata == {"plan": "pro", "a": 1}
    assert api.replace_metadata(user_id=user.id, public_metadata={"b": 2}).public_metadata == {"b": 2}
    assert api.ban(user_id=user.id).banned
    assert not api.unban(user_id=user.id).banned
    assert api.lock(user_id=user.id).locked
    assert not api.unlock(user_id=user.id).locked
    try:
        api.create(email_address=["py@example.org"])
    except models.ClerkErrors as error:
        assert error.data.errors[0].code == "form_identifier_exists", error
    else:
        raise AssertionError("an address was taken twice")
    return user.id


def organizations(user_id):
    api = CLERK.organizations
    made = api.create(request={"name": "Py", "created_by": user_id})
    assert api.get(organization_id=made.id, include_members_count=True).members_count == 1
    assert api.list(query="Py").total_count == 1
    assert api.update(organization_id=made.id, name="Python").name == "Python"
    assert api.merge_metadata(organization_id=made.id, public_metadata={"a": 1}).public_metadata == {"a": 1}
    assert api.replace_metadata(organization_id=made.id, public_metadata={"b": 2}).public_metadata == {"b": 2}

    members = CLERK.organization_memberships
    other = CLERK.users.list(request={"limit": 1, "order_by": "+created_at"})[0].id
    place = {"organization_id": made.id, "user_id": other}
    assert members.create(**place, role="org:member").public_user_data.user_id == other
    assert members.list(organization_id=made.id).total_count == 2
    assert members.update(**place, role="org:admin").role == "org:admin"
    assert members.update_metadata(**place, public_metadata={"a": 1}).public_metadata == {"a": 1}
    assert members.delete(**place).id
    assert CLERK.users.get_organization_memberships(user_id=user_id).total_count == 1

    invitations = CLERK.organization_invitations
    invited = invitations.create(
        organization_id=made.id, email_address="py@example.org", role="org:member", inviter_user_id=user_id
    )
    items = [{"email_address": "py2@example.org", "role": "org:member"}]
    assert invitations.bulk_create(organization_id=made.id, request_body=items).total_count == 1
    assert invitations.list(organization_id=made.id).total_count == 2
    with warnings.catch_warnings():
        # Clerk advises against it and still has it.
        warnings.simplefilter("ignore", DeprecationWarning)
        assert invitations.list_pending(organization_id=made.id).total_count == 2
    assert invitations.get(organization_id=made.id, invitation_id=invited.id) == invited
    assert CLERK.users.get_organization_invitations(user_id=user_id).data[0].public_organization_data.id == made.id
    revoked = invitations.revoke(organization_id=made.id, invitation_id=invited.id, requesting_user_id=user_id)
    assert revoked.status == "revoked"
    return made.id


def invitations():
    api = CLERK.invitations
    made = api.create(request={"email_address": "guest@example.org"})
    assert len(api.bulk_create(request=[{"email_address": "guest2@example.org"}])) == 1
    assert len(api.list()) == 2
    assert api.revoke(invitation_id=made.id).id == made.id


def sessions(user_id):
    api = CLERK.sessions
    made = api.create(request={"user_id": user_id})
    assert api.get(session_id=made.id) == made
    assert [session.id for session in api.list(user_id=user_id)] == [made.id]
    assert api.revoke(session_id=made.id).status == "revoked"


def api_keys(user_id):
    api = CLERK.api_keys
    made = api.create_api_key(name="CI", subject=user_id, seconds_until_expiration=60)
    assert api.get_api_keys(subject=user_id).total_count == 1
    assert api.get_api_key(api_key_id=made.id).name == "CI"
    assert api.get_api_key_secret(api_key_id=made.id).secret == made.secret
    assert api.update_api_key(api_key_id=made.id, description="d").description == "d"
    assert api.verify_api_key(secret=made.secret).id == made.id
    assert api.revoke_api_key(api_key_id=made.id).revoked
    assert api.verify_api_key(secret=made.secret).revoked
    assert api.delete_api_key(api_key_id=made.id).id == made.id
    try:
        api.verify_api_key(secret=made.secret)
    except models.ClerkBaseError as error:
        assert error.status_code == 404, error
    else:
        raise AssertionError("a deleted key was verified")


def machine_tokens():
    made = MACHINE.m2m.create_token(claims={"job": 7}, seconds_until_expiration=60)
    again = MACHINE.m2m.create_token(claims={"job": 7}, seconds_until_expiration=60, min_remaining_ttl_seconds=5)
    assert again.token == made.token
    assert MACHINE.m2m.list_tokens(subject=made.subject).total_count == 1
    assert MACHINE.m2m.verify_token(token=made.token).claims == {"job": 7}
    assert CLERK.m2m.revoke_token(m2m_token_id=made.id).revoked
    assert MACHINE.m2m.verify_token(token=made.token).revoked


def main():
    user_id = users()
    organization_id = organizations(user_id)
    invitations()
    sessions(user_id)
    api_keys(user_id)
    machine_tokens()
    assert CLERK.oauth_access_tokens.verify(access_token=os.environ["OAUTH_TOKEN"]).subject.startswith("user_")
    assert CLERK.instance_settings.get().environment_type == "development"
    assert CLERK.jwks.get_jwks().keys
    assert CLERK.organizations.delete(organization_id=organization_id).deleted
    assert CLERK.users.delete(user_id=user_id).deleted
    print(json.dumps({"done": True}))


main()
