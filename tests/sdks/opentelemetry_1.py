"""OpenTelemetry's own exporters, over HTTP or gRPC: spans with the attribute conventions, a log record, a counter."""

import logging
import os
import sys

from witness import KEY, SESSION, URL, finish

transport = sys.argv[1]
if transport == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
else:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Status, StatusCode


def exporter(kind, path):
    if transport == "grpc":
        address = os.environ["FLEETLOG_GRPC_URL"]
        return kind(endpoint=address, insecure=True, headers=(("authorization", f"Bearer {KEY}"),))
    return kind(endpoint=URL + path, headers={"authorization": f"Bearer {KEY}"}, compression=Compression.Gzip)


resource = Resource.create({"service.name": "agent-x"})
traces = TracerProvider(resource=resource)
traces.add_span_processor(BatchSpanProcessor(exporter(OTLPSpanExporter, "/v1/traces")))
logs = LoggerProvider(resource=resource)
logs.add_log_record_processor(BatchLogRecordProcessor(exporter(OTLPLogExporter, "/v1/logs")))
reader = PeriodicExportingMetricReader(exporter(OTLPMetricExporter, "/v1/metrics"))
metrics = MeterProvider(resource=resource, metric_readers=[reader])

tracer = traces.get_tracer("agent-x")
with tracer.start_as_current_span("invoke_agent helper", attributes={"session.id": SESSION, "gen_ai.operation.name": "invoke_agent"}):
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "Bash", "gen_ai.tool.call.id": "call_1", "session.id": SESSION}
    with tracer.start_as_current_span("execute_tool Bash", attributes=tool) as span:
        span.set_status(Status(StatusCode.ERROR, "boom"))
    chat = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.output_tokens": 2,
        "session.id": SESSION,
    }
    with tracer.start_as_current_span("chat gpt-4o", attributes=chat):
        pass
    note = logging.getLogger("agent-x.notes")
    note.addHandler(LoggingHandler(logger_provider=logs))
    note.info("noted", extra={"session.id": SESSION})
metrics.get_meter("agent-x").create_counter("agent.turns").add(1)
for provider in (traces, logs, metrics):
    assert provider.force_flush()
    provider.shutdown()
finish(requests=transport == "http")
