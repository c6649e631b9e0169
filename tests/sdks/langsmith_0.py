"""The LangSmith client: runs in compressed forms, and feedback."""

import os

from witness import KEY, SESSION, URL, finish

os.environ.update(
    LANGSMITH_TRACING="true",
    LANGSMITH_ENDPOINT=URL,
    LANGSMITH_API_KEY=KEY,
    LANGSMITH_PROJECT="proj",
)

from langsmith import Client, get_current_run_tree, traceable

client = Client()
usage = {"input_tokens": 12, "output_tokens": 2, "total_tokens": 14, "input_token_details": {"cache_read": 4}}


@traceable(run_type="tool", name="Bash", client=client)
def bash(cmd):
    raise ValueError("boom")


@traceable(run_type="llm", client=client, metadata={"ls_provider": "openai", "ls_model_name": "gpt-4o"})
def llm(messages):
    return {"role": "assistant", "content": "hello", "usage_metadata": usage}


@traceable(run_type="chain", client=client)
def agent(question):
    try:
        bash("ls")
    except ValueError:
        pass
    llm([{"role": "user", "content": question}])
    return get_current_run_tree()


root = agent("hi", langsmith_extra={"metadata": {"session_id": SESSION}})
client.create_feedback(root.id, key="quality", score=0.9, comment="good", trace_id=root.trace_id)
client.flush()
client.close()
finish()
