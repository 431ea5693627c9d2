// Calls every route that the simulator has through @clerk/backend.
//
//   node simulated.mjs
//
// CLERK_API_URL is the server without /v1, CLERK_SECRET_KEY a key that it accepts, CLERK_MACHINE_SECRET_KEY one of a machine
// of the same instance, and OAUTH_TOKEN an OAuth access token. Prints one line at the end; fails on any call that fails.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

// scripts/setup-sdks installs the SDK in NODE_PATH, which `import` does not search.
const { createClerkClient } = createRequire(import.meta.url)("@clerk/backend");

const { CLERK_API_URL: apiUrl, CLERK_SECRET_KEY: secretKey, CLERK_MACHINE_SECRET_KEY: machineSecretKey } = process.env;
const clerk = createClerkClient({ apiUrl, secretKey });
const machine = createClerkClient({ apiUrl, machineSecretKey });

async function users() {
  const api = clerk.users;
  const user = await api.createUser({
    emailAddress: ["js@example.org"], phoneNumber: ["+15555550102"], username: "js", password: "correct horse",
    firstName: "Js", publicMetadata: { plan: "pro" },
  });
  assert.deepEqual(await api.getUser(user.id), user);
  assert.equal(user.phoneNumbers[0].phoneNumber, "+15555550102");
  const found = await api.getUserList({ emailAddress: ["js@example.org"] });
  assert.deepEqual([found.totalCount, found.data[0].id], [1, user.id]);
  assert.equal((await api.updateUser(user.id, { firstName: "Node" })).firstName, "Node");
  const merged = await api.updateUserMetadata(user.id, { publicMetadata: { a: 1 } });
  assert.deepEqual(merged.publicMetadata, { plan: "pro", a: 1 });
  const replaced = await api.replaceUserMetadata(user.id, { publicMetadata: { b: 2 } });
  assert.deepEqual(replaced.publicMetadata, { b: 2 });
  assert.equal((await api.banUser(user.id)).banned, true);
  assert.equal((await api.unbanUser(user.id)).banned, false);
  assert.equal((await api.lockUser(user.id)).locked, true);
  assert.equal((await api.unlockUser(user.id)).locked, false);
  await assert.rejects(api.createUser({ emailAddress: ["js@example.org"] }), (error) => {
    assert.deepEqual([error.status, error.errors[0].code], [422, "form_identifier_exists"]);
    assert.equal(error.errors[0].meta.paramName, "email_address");
    return true;
  });
  return user.id;
}

async function organizations(userId) {
  const api = clerk.organizations;
  const { id: organizationId } = await api.createOrganization({ name: "Js", createdBy: userId });
  const found = await api.getOrganization({ organizationId, includeMembersCount: true });
  assert.equal(found.membersCount, 1);
  assert.equal((await api.getOrganizationList({ query: "Js" })).totalCount, 1);
  assert.equal((await api.updateOrganization(organizationId, { name: "Node" })).name, "Node");
  const merged = await api.updateOrganizationMetadata(organizationId, { publicMetadata: { a: 1 } });
  assert.deepEqual(merged.publicMetadata, { a: 1 });
  const replaced = await api.replaceOrganizationMetadata(organizationId, { publicMetadata: { b: 2 } });
  assert.deepEqual(replaced.publicMetadata, { b: 2 });

  const { data: [other] } = await clerk.users.getUserList({ limit: 1, orderBy: "+created_at" });
  const place = { organizationId, userId: other.id };
  const joined = await api.createOrganizationMembership({ ...place, role: "org:member" });
  assert.equal(joined.publicUserData.userId, other.id);
  assert.equal((await api.getOrganizationMembershipList({ organizationId })).totalCount, 2);
  assert.equal((await api.updateOrganizationMembership({ ...place, role: "org:admin" })).role, "org:admin");
  const changed = await api.updateOrganizationMembershipMetadata({ ...place, publicMetadata: { a: 1 } });
  assert.deepEqual(changed.publicMetadata, { a: 1 });
  assert.equal((await api.deleteOrganizationMembership(place)).id, joined.id);
  assert.equal((await clerk.users.getOrganizationMembershipList({ userId })).totalCount, 1);

  const invitation = { emailAddress: "js@example.org", role: "org:member", inviterUserId: userId };
  const invited = await api.createOrganizationInvitation({ organizationId, ...invitation });
  const items = [{ emailAddress: "js2@example.org", role: "org:member" }];
  assert.equal((await api.createOrganizationInvitationBulk(organizationId, items)).totalCount, 1);
  assert.equal((await api.getOrganizationInvitationList({ organizationId, status: ["pending"] })).totalCount, 2);
  const own = { organizationId, invitationId: invited.id };
  assert.equal((await api.getOrganizationInvitation(own)).emailAddress, "js@example.org");
  const ofUser = await clerk.users.getOrganizationInvitationList({ userId });
  assert.equal(ofUser.data[0].publicOrganizationData.id, organizationId);
  assert.equal((await api.revokeOrganizationInvitation({ ...own, requestingUserId: userId })).status, "revoked");
  return organizationId;
}

async function invitations() {
  const api = clerk.invitations;
  const made = await api.createInvitation({ emailAddress: "js-guest@example.org" });
  assert.equal((await api.createInvitationBulk([{ emailAddress: "js-guest2@example.org" }])).length, 1);
  assert.equal((await api.getInvitationList()).totalCount, 2);
  assert.equal((await api.revokeInvitation(made.id)).status, "revoked");
  assert.equal((await api.deleteInvitation(made.id)).deleted, true);
}

async function sessions(userId) {
  const api = clerk.sessions;
  const made = await api.createSession({ userId });
  assert.deepEqual(await api.getSession(made.id), made);
  assert.equal((await api.getSessionList({ userId })).data[0].id, made.id);
  assert.equal((await api.revokeSession(made.id)).status, "revoked");
}

async function apiKeys(subject) {
  const api = clerk.apiKeys;
  const made = await api.create({ name: "CI", subject, secondsUntilExpiration: 60 });
  const apiKeyId = made.id;
  assert.equal((await api.list({ subject })).totalCount, 1);
  assert.equal((await api.get(apiKeyId)).name, "CI");
  assert.equal((await api.getSecret(apiKeyId)).secret, made.secret);
  assert.equal((await api.update({ apiKeyId, description: "d" })).description, "d");
  assert.equal((await api.verify(made.secret)).id, apiKeyId);
  assert.equal((await api.revoke({ apiKeyId })).revoked, true);
  assert.equal((await api.verify(made.secret)).revoked, true);
  assert.equal((await api.delete(apiKeyId)).deleted, true);
  await assert.rejects(api.verify(made.secret), { status: 404 });
}

async function machineTokens() {
  const made = await machine.m2m.createToken({ claims: { job: 7 }, secondsUntilExpiration: 60 });
  const reuse = { claims: { job: 7 }, secondsUntilExpiration: 60, minRemainingTtlSeconds: 5 };
  assert.equal((await machine.m2m.createToken(reuse)).token, made.token);
  assert.equal((await machine.m2m.list({ subject: made.subject })).totalCount, 1);
  assert.deepEqual((await machine.m2m.verify({ token: made.token })).claims, { job: 7 });
  const revocation = { m2mTokenId: made.id, machineSecretKey: secretKey };
  assert.equal((await clerk.m2m.revokeToken(revocation)).revoked, true);
  assert.equal((await machine.m2m.verify({ token: made.token })).revoked, true);
}

const userId = await users();
const organizationId = await organizations(userId);
await invitations();
await sessions(userId);
await apiKeys(userId);
await machineTokens();
assert.match((await clerk.idPOAuthAccessToken.verify(process.env.OAUTH_TOKEN)).subject, /^user_/);
assert.equal((await clerk.instance.get()).environmentType, "development");
assert.ok((await clerk.jwks.getJwks()).keys.length > 0);
assert.equal((await clerk.organizations.deleteOrganization(organizationId)).deleted, true);
assert.equal((await clerk.users.deleteUser(userId)).deleted, true);
process.stdout.write(`${JSON.stringify({ done: true })}\n`);
