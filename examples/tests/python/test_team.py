"""Run without an account:

clerk-exporter test --max-requests 20 -- python -m unittest
"""

import os
import unittest

from clerk_backend_api import Clerk, models

# The Python SDK takes the server in code, with /v1.
CLERK = Clerk(bearer_auth=os.environ["CLERK_SECRET_KEY"], server_url=os.environ["CLERK_API_URL"] + "/v1")


class Team(unittest.TestCase):
    def test_created_user_is_found_by_address(self):
        user = CLERK.users.create(email_address=["ada@example.org"], first_name="Ada")
        found = CLERK.users.list(request={"email_address": ["ada@example.org"]})
        self.assertEqual([user.id], [other.id for other in found])

    def test_address_is_taken_only_once(self):
        CLERK.users.create(email_address=["alan@example.org"])
        with self.assertRaises(models.ClerkErrors) as caught:
            CLERK.users.create(email_address=["alan@example.org"])
        self.assertEqual("form_identifier_exists", caught.exception.data.errors[0].code)

    def test_member_leaves_with_the_user(self):
        owner = CLERK.users.create(email_address=["grace@example.org"])
        team = CLERK.organizations.create(request={"name": "Compilers", "created_by": owner.id})
        CLERK.users.delete(user_id=owner.id)
        self.assertEqual(0, CLERK.organization_memberships.list(organization_id=team.id).total_count)


if __name__ == "__main__":
    unittest.main()
