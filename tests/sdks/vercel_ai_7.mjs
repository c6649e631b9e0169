// The Vercel AI SDK, whose conventions are now OpenTelemetry's.

import { SESSION } from "./witness.mjs";
import { run } from "./vercel_ai.mjs";
import { OpenTelemetry } from "@ai-sdk/otel";
import { registerTelemetry } from "ai";
import { MockLanguageModelV4 } from "ai/test";

registerTelemetry(new OpenTelemetry({ runtimeContext: true }));
await run(MockLanguageModelV4, {
  runtimeContext: { sessionId: SESSION },
  telemetry: { functionId: "helper", includeRuntimeContext: { sessionId: true } },
});
