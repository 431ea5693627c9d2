// Every request that @clerk/backend can make: calls each method of its API with made-up arguments against a server of its
// own. Prints one JSON line per method: its name, and the requests as "METHOD /path".
//
//   node routes.mjs

import { createServer } from "node:http";
import { createRequire } from "node:module";

const { createClerkClient } = createRequire(import.meta.url)("@clerk/backend");

// An argument in a path, and what stands there for one of another type.
const VALUE = "value_1";
const WRONG = /undefined|null|\[object|NaN/;

const received = [];
const server = createServer((request, response) => {
  received.push(`${request.method} ${request.url.split("?")[0]}`);
  request.resume();
  response.writeHead(404, { "content-type": "application/json" });
  response.end(JSON.stringify({ errors: [{ code: "resource_not_found", message: "not found" }] }));
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const apiUrl = `http://127.0.0.1:${server.address().port}`;
const client = createClerkClient({ apiUrl, secretKey: "sk_test_routes0000000000000", machineSecretKey: "ak_routes" });

// Parameters with any name, each a text.
const parameters = new Proxy(
  {},
  { get: (_, name) => (typeof name === "symbol" || name === "then" || name === "toJSON" ? undefined : VALUE), ownKeys: () => [] },
);
const message = { to: { address: VALUE }, from: { address: VALUE }, subject: VALUE, text: VALUE };
const lists = [
  [],
  [VALUE],
  [VALUE, VALUE],
  [VALUE, VALUE, VALUE],
  [parameters],
  [VALUE, parameters],
  [VALUE, VALUE, parameters],
  [[parameters]],
  [VALUE, [parameters]],
  [message],
  [[message]],
];

// Of the class that all have in common: it sends any request, and checks an argument.
const NO_CALLS = ["constructor", "request", "requireId"];

function methods(api) {
  const names = new Set();
  for (let level = api; level && level !== Object.prototype; level = Object.getPrototypeOf(level)) {
    Object.getOwnPropertyNames(level).forEach((name) => names.add(name));
  }
  const isPublic = (name) => !NO_CALLS.includes(name) && !/^[_#]/.test(name) && typeof api[name] === "function";
  return [...names].filter(isPublic).sort();
}

for (const [group, api] of Object.entries(client).sort()) {
  // `authenticateRequest` and the like are functions of the client itself; `telemetry` talks to another server.
  if (typeof api !== "object" || api === null || group === "telemetry") continue;
  for (const name of methods(api)) {
    received.length = 0;
    for (const list of lists) {
      try {
        await api[name](...list);
      } catch {
        // Refused by the SDK, or answered by 404.
      }
    }
    // The SDK leaves out what is missing in a path, so the longest paths are the complete ones.
    const good = received.filter((request) => !WRONG.test(request));
    const segments = (request) => request.split("/").length;
    const most = Math.max(...good.map(segments));
    const requests = [...new Set(good.filter((request) => segments(request) === most))].sort();
    process.stdout.write(`${JSON.stringify({ method: `${group}.${name}`, requests })}\n`);
  }
}
server.closeAllConnections();
server.close();
