// The Langfuse client before OpenTelemetry: traces, observations and scores in ingestion batches.

import { KEY, SESSION, URL, complain, finish } from "./witness.mjs";
import { Langfuse } from "langfuse";

const client = new Langfuse({ publicKey: "pk-lf-fleetlog", secretKey: KEY, baseUrl: URL });
client.on("error", complain);
const trace = client.trace({ name: "agent run", sessionId: SESSION, userId: "u1", input: "hi", tags: ["a"], metadata: { k: 1 } });
const span = trace.span({ name: "step", input: { q: 1 } });
const call = span.generation({ name: "llm", model: "gpt-4o", input: [{ role: "user", content: "hi" }] });
const usageDetails = { input: 8, output: 2, cache_read_input_tokens: 4 };
call.end({ output: "hello", usageDetails, costDetails: { input: 0.1, output: 0.2 } });
span.end({ output: "ok", level: "ERROR", statusMessage: "boom" });
trace.event({ name: "noted", input: "x" });
trace.score({ name: "quality", value: 0.9, comment: "good" });
trace.update({ output: "bye" });
await client.shutdownAsync();
await finish();
