// Three ways to have spans of calls: @vercel/otel's own instrumentation of `fetch`, which switches off that of Next.js; the
// one of undici, beside that of Next.js unless NEXT_OTEL_FETCH_DISABLED is 1; and that of Next.js alone.
import { UndiciInstrumentation } from "@opentelemetry/instrumentation-undici";
import { registerOTel } from "@vercel/otel";

const instrumentations = { vercel: () => ["fetch"], undici: () => [new UndiciInstrumentation()], next: () => [] };

export function register() {
  registerOTel({ instrumentations: instrumentations[process.env.FETCH_SPANS]() });
}
