// Run without an account:
//
//   clerk-exporter test --max-requests 20 --max-per-route 'GET /v1/users/{user_id}=1' -- node --test

import assert from "node:assert/strict";
import { test } from "node:test";

import { createClerkClient } from "@clerk/backend";

import { foundTeam, inviteColleague, memberNames } from "./team.mjs";

const { CLERK_API_URL: apiUrl, CLERK_SECRET_KEY: secretKey } = process.env;
const clerk = createClerkClient({ apiUrl, secretKey });

test("a team has its owner as its first member", async () => {
  const { owner, organization } = await foundTeam(clerk, "Engines", "ada@example.org");
  assert.deepEqual(await memberNames(clerk, organization.id), ["Ada"]);
  assert.equal((await clerk.users.getUser(owner.id)).firstName, "Ada");
});

test("a second invitation of a colleague is no error", async () => {
  const { organization } = await foundTeam(clerk, "Looms", "joseph@example.org");
  assert.equal(await inviteColleague(clerk, organization.id, "basile@example.org"), "invited");
  assert.equal(await inviteColleague(clerk, organization.id, "basile@example.org"), "invited before");
});

test("an address is taken only once", async () => {
  await foundTeam(clerk, "Ciphers", "alan@example.org");
  await assert.rejects(foundTeam(clerk, "Codes", "alan@example.org"), (error) => {
    assert.equal(error.errors[0].code, "form_identifier_exists");
    return true;
  });
});

test("an unknown user is a 404", async () => {
  await assert.rejects(clerk.users.deleteUser("user_000000000000000000000000000"), { status: 404 });
});
