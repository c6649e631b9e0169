// The current Langfuse client: OpenTelemetry, and scores in an API of their own.

import { KEY, SESSION, URL, complain, finish } from "./witness.mjs";
import { LangfuseClient } from "@langfuse/client";
import { LangfuseSpanProcessor } from "@langfuse/otel";
import { propagateAttributes, startActiveObservation } from "@langfuse/tracing";
import { DiagLogLevel, diag } from "@opentelemetry/api";
import { NodeTracerProvider } from "@opentelemetry/sdk-trace-node";

const silent = () => {};
diag.setLogger({ error: complain, warn: complain, info: silent, debug: silent, verbose: silent }, DiagLogLevel.WARN);
const account = { publicKey: "pk-lf-fleetlog", secretKey: KEY, baseUrl: URL };
const processor = new LangfuseSpanProcessor(account);
const provider = new NodeTracerProvider({ spanProcessors: [processor] });
provider.register();
const client = new LangfuseClient(account);

await propagateAttributes({ sessionId: SESSION, userId: "u1", tags: ["a"] }, () =>
  startActiveObservation("agent run", async (root) => {
    root.update({ input: "hi" });
    const tool = root.startObservation("Bash", { input: { cmd: "ls" } }, { asType: "tool" });
    tool.update({ output: "", level: "ERROR", statusMessage: "boom" }).end();
    const call = root.startObservation("llm", { model: "gpt-4o", input: "hi" }, { asType: "generation" });
    const usageDetails = { input: 8, output: 2, cache_read_input_tokens: 4 };
    call.update({ output: "hello", usageDetails, costDetails: { input: 0.1, output: 0.2 } }).end();
    client.score.trace(root, { name: "quality", value: 0.9, comment: "good" });
    root.update({ output: "bye" });
  }, { asType: "agent" }),
);
await processor.forceFlush();
await client.shutdown();
await provider.shutdown();
await finish();
