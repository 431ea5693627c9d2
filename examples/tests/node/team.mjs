// What the tests beside this file test: a page with the members of an organization.

/** Creates an organization with an owner. */
export async function foundTeam(clerk, name, email) {
  const owner = await clerk.users.createUser({ emailAddress: [email], firstName: "Ada" });
  const organization = await clerk.organizations.createOrganization({ name, createdBy: owner.id });
  return { owner, organization };
}

/** The members' names, with two requests whatever the number of members. */
export async function memberNames(clerk, organizationId) {
  const { data } = await clerk.organizations.getOrganizationMembershipList({ organizationId, limit: 100 });
  return data.map(({ publicUserData }) => publicUserData.firstName).sort();
}

/** Invites a colleague; one who was invited before is no error. */
export async function inviteColleague(clerk, organizationId, emailAddress) {
  try {
    await clerk.organizations.createOrganizationInvitation({ organizationId, emailAddress, role: "org:member" });
    return "invited";
  } catch (error) {
    if (error.errors?.[0]?.code === "duplicate_record") return "invited before";
    throw error;
  }
}
