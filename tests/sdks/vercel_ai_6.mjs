// The Vercel AI SDK with conventions of its own.

import { SESSION } from "./witness.mjs";
import { run } from "./vercel_ai.mjs";
import { MockLanguageModelV3 } from "ai/test";

await run(MockLanguageModelV3, {
  experimental_telemetry: { isEnabled: true, functionId: "helper", metadata: { sessionId: SESSION } },
});
