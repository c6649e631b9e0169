// The LangSmith client: runs and feedback in forms.

import { KEY, SESSION, URL, finish } from "./witness.mjs";
import { Client } from "langsmith";
import { getCurrentRunTree, traceable } from "langsmith/traceable";

Object.assign(process.env, { LANGSMITH_TRACING: "true", LANGSMITH_ENDPOINT: URL, LANGSMITH_API_KEY: KEY, LANGSMITH_PROJECT: "proj" });
const client = new Client();
const usage = { input_tokens: 12, output_tokens: 2, total_tokens: 14, input_token_details: { cache_read: 4 } };

const bash = traceable(async () => {
  throw new Error("boom");
}, { run_type: "tool", name: "Bash", client });
const llm = traceable(async () => ({ role: "assistant", content: "hello", usage_metadata: usage }), {
  run_type: "llm",
  name: "llm",
  client,
  metadata: { ls_provider: "openai", ls_model_name: "gpt-4o" },
});
let root;
const agent = traceable(async (question) => {
  root = getCurrentRunTree();
  await bash("ls").catch(() => {});
  await llm([{ role: "user", content: question }]);
  return "hello";
}, { run_type: "chain", name: "agent", client, metadata: { session_id: SESSION } });

await agent("hi");
// The session of the API is a project; without one the client warns of a coming version.
const of = { sessionId: "5d8c2f5e-5e0c-4f7a-9a83-0d6b8a7f0c11", traceId: root.trace_id };
await client.createFeedback(root.id, "quality", { score: 0.9, comment: "good", ...of });
await client.awaitPendingTraceBatches();
await finish();
