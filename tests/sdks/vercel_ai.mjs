// What the scripts of the Vercel AI SDK share: a run with a tool, against a model that is played here, traced over
// OpenTelemetry.

import { KEY, URL, complain, finish } from "./witness.mjs";
import { DiagLogLevel, diag } from "@opentelemetry/api";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { BatchSpanProcessor, NodeTracerProvider } from "@opentelemetry/sdk-trace-node";
import { generateText, stepCountIs, tool } from "ai";
import { z } from "zod";

const silent = () => {};
diag.setLogger({ error: complain, warn: complain, info: silent, debug: silent, verbose: silent }, DiagLogLevel.WARN);
const exporter = new OTLPTraceExporter({ url: `${URL}/v1/traces`, headers: { authorization: `Bearer ${KEY}` } });
const provider = new NodeTracerProvider({ spanProcessors: [new BatchSpanProcessor(exporter)] });
provider.register();

const usage = {
  inputTokens: { total: 6, noCache: 4, cacheRead: 2, cacheWrite: undefined },
  outputTokens: { total: 1, text: 1, reasoning: undefined },
};

// Runs against a played model of that class; the settings say how it is traced.
export async function run(MockLanguageModel, settings) {
  const answers = [
    { reason: "tool-calls", content: [{ type: "tool-call", toolCallId: "call_1", toolName: "Bash", input: '{"cmd":"ls"}' }] },
    { reason: "stop", content: [{ type: "text", text: "done" }] },
  ];
  const model = new MockLanguageModel({
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
  await generateText({ model, tools: { Bash }, prompt: "list", stopWhen: stepCountIs(3), ...settings });
  await provider.forceFlush();
  await provider.shutdown();
  await finish();
}
