"""The Langfuse client on OpenTelemetry, whose scores still go to the ingestion API."""

from witness import KEY, SESSION, URL, finish

from langfuse import Langfuse

client = Langfuse(public_key="pk-lf-fleetlog", secret_key=KEY, host=URL)
assert client.auth_check()
with client.start_as_current_observation(as_type="agent", name="agent run", input="hi") as root:
    root.update_trace(session_id=SESSION, user_id="u1", tags=["a"])
    with client.start_as_current_observation(as_type="tool", name="Bash", input={"cmd": "ls"}) as tool:
        tool.update(output="", level="ERROR", status_message="boom")
    with client.start_as_current_observation(as_type="generation", name="llm", model="gpt-4o", input="hi") as call:
        usage = {"input": 8, "output": 2, "cache_read_input_tokens": 4}
        call.update(output="hello", usage_details=usage, cost_details={"input": 0.1, "output": 0.2})
    root.score_trace(name="quality", value=0.9, comment="good")
    root.update(output="bye")
client.flush()
client.shutdown()
finish()
