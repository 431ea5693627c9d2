// A page with a number that Next.js keeps for an hour, requested twice.
export const dynamic = "force-dynamic";

async function users() {
  const response = await fetch(`${process.env.CLERK_API_URL}/v1/users/count`, {
    headers: { authorization: `Bearer ${process.env.CLERK_SECRET_KEY}` },
    cache: "force-cache",
    next: { revalidate: 3600 },
  });
  return (await response.json()).total_count;
}

export default async function Page() {
  const counts = await Promise.all([users(), users()]);
  return <p>{counts.join(" and ")} users</p>;
}
