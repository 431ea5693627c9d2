// An API key and a machine token, each presented N times at once and N times one after the other, then revoked. Prints what
// @clerk/backend says of them, one JSON line each.
//
//   node verify.mjs N

import { createRequire } from "node:module";

const { createClerkClient } = createRequire(import.meta.url)("@clerk/backend");

const { CLERK_API_URL: apiUrl, CLERK_SECRET_KEY: secretKey, CLERK_MACHINE_SECRET_KEY: machineSecretKey } = process.env;
const client = createClerkClient({ apiUrl, secretKey });
const machine = createClerkClient({ apiUrl, machineSecretKey });
const count = Number(process.argv[2]);

async function present(kind, verify, revoke) {
  const answers = await Promise.all(Array.from({ length: count }, verify));
  for (let time = 0; time < count; time += 1) answers.push(await verify());
  const ids = new Set(answers.map((answer) => answer.id));
  const valid = answers.filter((answer) => answer.revoked === false && answer.expired === false).length;
  await revoke();
  const after = await verify();
  process.stdout.write(`${JSON.stringify({ kind, tokens: ids.size, valid, revokedAfterwards: after.revoked })}\n`);
}

const subject = (await client.users.getUserList({ limit: 1 })).data[0].id;
const key = await client.apiKeys.create({ name: "a key", subject });
await present("api_key", () => client.apiKeys.verify(key.secret), () => client.apiKeys.revoke({ apiKeyId: key.id }));
const token = await machine.m2m.createToken({ secondsUntilExpiration: 3600 });
await present(
  "m2m_token",
  () => machine.m2m.verify({ token: token.token }),
  () => client.m2m.revokeToken({ m2mTokenId: token.id, machineSecretKey: secretKey }),
);
