// OpenTelemetry's own exporters of spans, in JSON, protobuf or over gRPC, with the attribute conventions.

import { GRPC_URL, KEY, SESSION, URL, WAY, complain, finish } from "./witness.mjs";
import { DiagLogLevel, SpanStatusCode, diag } from "@opentelemetry/api";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { BatchSpanProcessor, NodeTracerProvider } from "@opentelemetry/sdk-trace-node";

const silent = () => {};
diag.setLogger({ error: complain, warn: complain, info: silent, debug: silent, verbose: silent }, DiagLogLevel.WARN);

async function exporter() {
  if (WAY === "grpc") {
    const { OTLPTraceExporter } = await import("@opentelemetry/exporter-trace-otlp-grpc");
    const { Metadata, credentials } = await import("@grpc/grpc-js");
    const metadata = new Metadata();
    metadata.set("authorization", `Bearer ${KEY}`);
    return new OTLPTraceExporter({ url: GRPC_URL, metadata, credentials: credentials.createInsecure() });
  }
  const kind = WAY === "json" ? "http" : "proto";
  const { OTLPTraceExporter } = await import(`@opentelemetry/exporter-trace-otlp-${kind}`);
  return new OTLPTraceExporter({ url: `${URL}/v1/traces`, headers: { authorization: `Bearer ${KEY}` }, compression: "gzip" });
}

const provider = new NodeTracerProvider({
  resource: resourceFromAttributes({ "service.name": "agent-x" }),
  spanProcessors: [new BatchSpanProcessor(await exporter())],
});
const tracer = provider.getTracer("agent-x");
const session = { "session.id": SESSION };
provider.register();
tracer.startActiveSpan("invoke_agent helper", { attributes: { ...session, "gen_ai.operation.name": "invoke_agent" } }, (root) => {
  const tool = { ...session, "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "Bash", "gen_ai.tool.call.id": "call_1" };
  tracer.startActiveSpan("execute_tool Bash", { attributes: tool }, (span) => {
    span.setStatus({ code: SpanStatusCode.ERROR, message: "boom" });
    span.end();
  });
  const chat = {
    ...session,
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.usage.input_tokens": 12,
    "gen_ai.usage.cache_read.input_tokens": 4,
    "gen_ai.usage.output_tokens": 2,
  };
  tracer.startSpan("chat gpt-4o", { attributes: chat }).end();
  root.end();
});
await provider.forceFlush();
await provider.shutdown();
await finish(WAY !== "grpc");
