"""OpenAI's Agents SDK: a run with a tool, against a model that is played here, traced to Fleetlog."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from witness import KEY, SESSION, URL, finish

from agents import Agent, OpenAIChatCompletionsModel, RunConfig, Runner, function_tool, set_trace_processors
from agents.tracing import flush_traces
from agents.tracing.processors import BackendSpanExporter, BatchTraceProcessor
from openai import AsyncOpenAI

CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a":1,"b":2}'}}
ANSWERS = [
    ("tool_calls", {"role": "assistant", "content": None, "tool_calls": [CALL]}),
    ("stop", {"role": "assistant", "content": "3"}),
]


class Model(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        reason, message = ANSWERS.pop(0)
        usage = {"prompt_tokens": 6, "completion_tokens": 1, "total_tokens": 7, "prompt_tokens_details": {"cached_tokens": 2}}
        choice = {"index": 0, "finish_reason": reason, "message": message}
        answer = {"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o", "choices": [choice], "usage": usage}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
threading.Thread(target=server.serve_forever, daemon=True).start()


@function_tool
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


exporter = BackendSpanExporter(api_key=KEY, endpoint=f"{URL}/v1/traces/ingest")
set_trace_processors([BatchTraceProcessor(exporter)])
openai = AsyncOpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="none", max_retries=0)
agent = Agent(name="helper", tools=[add], model=OpenAIChatCompletionsModel(model="gpt-4o", openai_client=openai))
result = Runner.run_sync(agent, "1 + 2?", run_config=RunConfig(workflow_name="sums", group_id=SESSION))
assert result.final_output == "3"
flush_traces()
server.shutdown()
finish()
