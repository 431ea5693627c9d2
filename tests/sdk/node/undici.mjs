// OpenTelemetry for an application, with the instrumentation of undici and so of `fetch`. Sends the spans to
// OTEL_EXPORTER_OTLP_ENDPOINT, as protobuf, or as JSON if OTEL_EXPORTER_OTLP_PROTOCOL is http/json.
//
//   node --import ./undici.mjs calls.mjs calls

import { createRequire } from "node:module";

// scripts/setup-sdks installs the packages in NODE_PATH, which `import` does not search.
const require = createRequire(import.meta.url);
const { defaultResource, detectResources, envDetector } = require("@opentelemetry/resources");
const { UndiciInstrumentation } = require("@opentelemetry/instrumentation-undici");
const { BatchSpanProcessor, NodeTracerProvider } = require("@opentelemetry/sdk-trace-node");

const isJson = process.env.OTEL_EXPORTER_OTLP_PROTOCOL === "http/json";
const { OTLPTraceExporter } = require(`@opentelemetry/exporter-trace-otlp-${isJson ? "http" : "proto"}`);

const provider = new NodeTracerProvider({
  // OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
  resource: defaultResource().merge(detectResources({ detectors: [envDetector] })),
  spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter())],
});
provider.register();
new UndiciInstrumentation({ headersToSpanAttributes: { responseHeaders: ["retry-after"] } }).enable();

// Once: the export itself is more work, after which the event follows again.
process.once("beforeExit", () => provider.shutdown());
