// OpenTelemetry for an application as on Vercel, where Next.js calls this in its file `instrumentation`. Sends the spans to
// OTEL_EXPORTER_OTLP_ENDPOINT.
//
//   node --import ./vercel.mjs calls.mjs calls

import { createRequire } from "node:module";

// scripts/setup-sdks installs the packages in NODE_PATH, which `import` does not search.
const require = createRequire(import.meta.url);
const { trace } = require("@opentelemetry/api");
const { registerOTel } = require("@vercel/otel");

registerOTel({ instrumentationConfig: { fetch: { attributesFromResponseHeaders: { "http.response.header.retry-after": "retry-after" } } } });

// Once: the export itself is more work, after which the event follows again.
process.once("beforeExit", () => trace.getTracerProvider().getDelegate().shutdown());
