"""The Langfuse client before OpenTelemetry: traces, observations and scores in ingestion batches."""

from witness import KEY, SESSION, URL, finish

from langfuse import Langfuse

client = Langfuse(public_key="pk-lf-fleetlog", secret_key=KEY, host=URL)
assert client.auth_check()
trace = client.trace(name="agent run", session_id=SESSION, user_id="u1", input="hi", tags=["a"], metadata={"k": 1})
span = trace.span(name="step", input={"q": 1})
call = span.generation(name="llm", model="gpt-4o", input=[{"role": "user", "content": "hi"}])
usage = {"input": 8, "output": 2, "cache_read_input_tokens": 4}
call.end(output="hello", usage_details=usage, cost_details={"input": 0.1, "output": 0.2})
span.end(output="ok", level="ERROR", status_message="boom")
trace.event(name="noted", input="x")
trace.score(name="quality", value=0.9, comment="good")
trace.update(output="bye")
client.flush()
client.shutdown()
finish()
