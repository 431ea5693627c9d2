// Calls of Clerk's SDK: users one by one, one that does not exist, and a change.
import { createClerkClient } from "@clerk/backend";

export const dynamic = "force-dynamic";

export async function GET() {
  const client = createClerkClient({ apiUrl: process.env.CLERK_API_URL, secretKey: process.env.CLERK_SECRET_KEY });
  try {
    const { data } = await client.users.getUserList({ limit: 5 });
    const calls = data.map(({ id }) => client.users.getUser(id));
    calls.push(client.users.getUser("user_000000000000000000000000000"));
    calls.push(client.users.updateUserMetadata(data[0].id, { publicMetadata: { seen: true } }));
    const statuses = (await Promise.allSettled(calls)).map(({ reason }) => reason?.status ?? 200);
    return Response.json({ statuses });
  } catch (error) {
    return Response.json({ statuses: [error.status] });
  }
}
