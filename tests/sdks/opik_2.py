"""The Opik client: a trace with spans that begin and end, and scores of both."""

import os
import sys
from datetime import datetime, timezone

from witness import KEY, SESSION, URL, finish

# Nothing may be told to anyone else than Fleetlog.
os.environ.update(OPIK_SENTRY_ENABLE="false", OPIK_ANALYTICS_ENABLE="false", OPIK_CONFIG_PATH=os.devnull)

import opik

# In batches a span is sent once, when it has ended; singly it is sent when it begins, and patched when it ends.
batching = sys.argv[1] == "batches"
usage = {
    "prompt_tokens": 12,
    "completion_tokens": 2,
    "total_tokens": 14,
    "prompt_tokens_details": {"cached_tokens": 4},
}
error = {"exception_type": "ValueError", "message": "boom", "traceback": "at line 1"}
model = {"model": "gpt-4o", "provider": "openai"}
client = opik.Opik(project_name="proj", workspace="default", host=f"{URL}/api", api_key=KEY, batching=batching)
trace = client.trace(name="agent run", input={"q": "hi"}, thread_id=SESSION)
if batching:
    now = datetime.now(timezone.utc)
    trace.span(name="Bash", type="tool", input={"cmd": "ls"}, end_time=now, error_info=error)
    call = trace.span(name="llm", type="llm", output={"text": "hello"}, usage=usage, end_time=now, **model)
else:
    trace.span(name="Bash", type="tool", input={"cmd": "ls"}).end(error_info=error)
    call = trace.span(name="llm", type="llm", input={"messages": []}, **model)
    call.end(output={"text": "hello"}, usage=usage)
call.log_feedback_score(name="fluency", value=0.5)
trace.log_feedback_score(name="quality", value=0.9, reason="good")
if not batching:
    trace.end(output={"a": "bye"})
assert client.flush()
client.end()
finish()
