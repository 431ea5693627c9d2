// Calls of @clerk/backend against the server of the environment. One JSON line per call, the same as calls.py prints.
//
//   node calls.mjs calls      every kind of call once, sequentially
//   node calls.mjs burst N    N concurrent lookups of one user
//   node calls.mjs all N      both
//   node calls.mjs machines   calls with the machine secret key in CLERK_MACHINE_SECRET_KEY, and of API keys
//
// CLERK_API_URL is the server without /v1; CLERK_SECRET_KEY a key that it accepts. What is printed depends on nothing but
// the server's data: no times, no order in which parallel calls end.

import { createHash } from "node:crypto";
import { createRequire } from "node:module";

// scripts/setup-sdks installs the SDK in NODE_PATH, which `import` does not search.
const { createClerkClient } = createRequire(import.meta.url)("@clerk/backend");

const PAGE = 30;
const WRONG_KEY = "sk_test_0000000000000000WRONG";
const UNKNOWN_USER = "user_000000000000000000000000000";
// Arrives unchanged only if no proxy decodes and re-encodes the query.
const AWKWARD = "a b+c&d=ü%2F/?#é";

const apiUrl = process.env.CLERK_API_URL;
const client = createClerkClient({ apiUrl, secretKey: process.env.CLERK_SECRET_KEY });

function print(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

function digest(ids) {
  return createHash("sha256").update(ids.join("\n")).digest("hex");
}

function summary(user) {
  const { id, firstName, lastName, username, externalId, publicMetadata, privateMetadata } = user;
  const email = user.emailAddresses[0].emailAddress;
  return { id, email, firstName, lastName, username, externalId, publicMetadata, privateMetadata };
}

function failure(error) {
  const { status, retryAfter, clerkTraceId, errors } = error;
  const code = errors?.[0]?.code ?? null;
  return { status: status ?? null, code, retryAfter: retryAfter ?? null, hasTraceId: Boolean(clerkTraceId) };
}

async function call(name, work) {
  try {
    const result = await work();
    print({ call: name, ok: true, result });
    return result;
  } catch (error) {
    print({ call: name, ok: false, error: failure(error) });
    return undefined;
  }
}

async function ids(parameters) {
  const { data } = await client.users.getUserList({ orderBy: "+created_at", ...parameters });
  return data.map((user) => user.id);
}

async function calls() {
  const first = await call("users.list", () => ids({ limit: 5 }));
  if (!first) return;
  const [user, other] = first;
  await call("users.count", () => client.users.getCount());
  await call("users.get", async () => summary(await client.users.getUser(user)));
  await call("users.get_many", async () => (await ids({ userId: [other, user, UNKNOWN_USER], limit: 100 })).sort());
  await call("users.pages", async () => {
    const all = [];
    let pages = 0;
    for (let page; page === undefined || page.length === PAGE; pages += 1) {
      page = await ids({ limit: PAGE, offset: all.length });
      all.push(...page);
    }
    return { pages, users: all.length, distinct: new Set(all).size, digest: digest(all) };
  });
  await call("users.update", async () => summary(await client.users.updateUser(user, { firstName: "Zoë", externalId: AWKWARD })));
  await call("users.update_metadata", async () =>
    summary(await client.users.updateUserMetadata(user, { publicMetadata: { plan: "pro", seats: { used: 3 } } })));
  await call("users.get_updated", async () => summary(await client.users.getUser(user)));
  await call("users.list_by_external_id", () => ids({ externalId: [AWKWARD] }));
  await call("jwks.get", async () => {
    const { keys } = await client.jwks.getJwks();
    return keys.map(({ kid, kty, alg, use }) => ({ kid, kty, alg, use }));
  });
  await call("users.get_unknown", () => client.users.getUser(UNKNOWN_USER));
  await call("users.list_limit_out_of_range", () => ids({ limit: 501 }));
  await call("users.update_metadata_too_large", () =>
    client.users.updateUserMetadata(user, { publicMetadata: { text: "x".repeat(9000) } }));
  await call("users.get_wrong_key", () => createClerkClient({ apiUrl, secretKey: WRONG_KEY }).users.getUser(user));
  // The tests make the server reject every DELETE with 429 and fail every POST.
  await call("users.delete", () => client.users.deleteUser(user));
  await call("users.create", () => client.users.createUser({ emailAddress: ["new@example.com"] }));
}

async function burst(count) {
  const [user] = await ids({ limit: 1 });
  const outcomes = await Promise.all(
    Array.from({ length: count }, () =>
      client.users.getUser(user).then(
        () => ({ ok: true }),
        (error) => ({ ok: false, error: failure(error) }),
      ),
    ),
  );
  const throttled = outcomes.filter(({ error }) => error?.status === 429);
  print({
    call: "burst",
    calls: count,
    ok: outcomes.filter(({ ok }) => ok).length,
    throttled: throttled.length,
    throttledWithRetryAfter: throttled.filter(({ error }) => error.retryAfter > 0).length,
    otherErrors: outcomes.filter(({ ok, error }) => !ok && error.status !== 429).map(({ error }) => error),
  });
}

async function machines() {
  const machineSecretKey = process.env.CLERK_MACHINE_SECRET_KEY;
  const machine = createClerkClient({ apiUrl, machineSecretKey });
  const made = await call("m2m.create_token", () => machine.m2m.createToken({ claims: { job: 7 }, secondsUntilExpiration: 60 }));
  const token = made?.token ?? "mt_unknown";
  await call("m2m.verify", () => machine.m2m.verify({ token }));
  await call("m2m.verify_unknown", () => machine.m2m.verify({ token: "mt_unknown" }));
  // The key in the call, and not in the client; and a revocation with the instance's.
  await call("m2m.verify_with_key", () => client.m2m.verify({ token, machineSecretKey }));
  await call("m2m.revoke_token", () => client.m2m.revokeToken({ m2mTokenId: "mt_1", machineSecretKey: process.env.CLERK_SECRET_KEY }));
  const { apiKeys } = client;
  await call("api_keys.create", () => apiKeys.create({ name: "a b+ü", subject: "user_1" }));
  await call("api_keys.list", () => apiKeys.list({ subject: "user_1", limit: 10 }));
  await call("api_keys.get", () => apiKeys.get("ak_1"));
  await call("api_keys.get_secret", () => apiKeys.getSecret("ak_1"));
  await call("api_keys.verify", () => apiKeys.verify("ak_secret"));
  await call("api_keys.verify_unknown", () => apiKeys.verify("ak_unknown"));
  await call("api_keys.revoke", () => apiKeys.revoke({ apiKeyId: "ak_1" }));
}

const [scenario, count] = process.argv.slice(2);
if (scenario === "calls") {
  await calls();
} else if (scenario === "machines") {
  await machines();
} else if (scenario === "burst" && Number(count) > 0) {
  await burst(Number(count));
} else if (scenario === "all" && Number(count) > 0) {
  await calls();
  await burst(Number(count));
} else {
  process.stderr.write("usage: calls.mjs calls | burst N | all N | machines\n");
  process.exitCode = 2;
}
