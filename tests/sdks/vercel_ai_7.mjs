// The Vercel AI SDK, whose conventions are now OpenTelemetry's: a run with a tool, against a model that is played here, traced over OpenTelemetry.

import { KEY, SESSION, URL, complain, finish } from "./witness.mjs";
import { DiagLogLevel, diag } from "@opentelemetry/api";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { OpenTelemetry } from "@ai-sdk/otel";
import { BatchSpanProcessor, NodeTracerProvider } from "@opentelemetry/sdk-trace-node";
import { generateText, registerTelemetry, stepCountIs, tool } from "ai";
import { MockLanguageModelV4 } from "ai/test";
import { z } from "zod";

const silent = () => {};
diag.setLogger({ error: complain, warn: complain, info: silent, debug: silent, verbose: silent }, DiagLogLevel.WARN);
const exporter = new OTLPTraceExporter({ url: `${URL}/v1/traces`, headers: { authorization: `Bearer ${KEY}` } });
const provider = new NodeTracerProvider({ spanProcessors: [new BatchSpanProcessor(exporter)] });
provider.register();
registerTelemetry(new OpenTelemetry({ runtimeContext: true }));

const usage = {
  inputTokens: { total: 6, noCache: 4, cacheRead: 2, cacheWrite: undefined },
  outputTokens: { total: 1, text: 1, reasoning: undefined },
};
const answers = [
  { reason: "tool-calls", content: [{ type: "tool-call", toolCallId: "call_1", toolName: "Bash", input: '{"cmd":"ls"}' }] },
  { reason: "stop", content: [{ type: "text", text: "done" }] },
];
const model = new MockLanguageModelV4({
  provider: "openai.chat",
  modelId: "gpt-4o",
  doGenerate: async () => {
    const { reason, content } = answers.shift();
    return { content, finishReason: { unified: reason, raw: reason }, usage, warnings: [] };
  },
});
const Bash = tool({
  inputSchema: z.object({ cmd: z.string() }),
  execute: async () => {
    throw new Error("boom");
  },
});
await generateText({
  model,
  tools: { Bash },
  prompt: "list",
  stopWhen: stepCountIs(3),
  runtimeContext: { sessionId: SESSION },
  telemetry: { functionId: "helper", includeRuntimeContext: { sessionId: true } },
});
await provider.forceFlush();
await provider.shutdown();
await finish();
