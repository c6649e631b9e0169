//! Recorded sessions of three coding agents, whose numbers are known: from each channel that carries usage alone, and
//! from all channels at once, in different orders and twice over, the same numbers come out.

use std::sync::Arc;

use anyhow::{Result, ensure};
use fleetlog_tests::{Project, SOON, System, eventually, recording};
use serde_json::{Map, Value, json};

/// A channel: its name, the path it is sent to, and its recordings.
type Channel = (&'static str, &'static str, &'static [&'static str]);

const LINES: &str = "/v1/raw/auto";

struct Agent {
    name: &'static str,
    session: &'static str,
    /// Channels that carry usage; each alone gives all numbers.
    counted: &'static [Channel],
    /// Channels that must change nothing.
    silent: &'static [Channel],
    numbers: fn() -> Value,
}

const CLAUDE: Agent = Agent {
    name: "claude",
    session: "ec31950f-465d-4586-9bf8-1990d065cae4",
    counted: &[
        ("logs", "/v1/logs", &["claude-code-2.1/logs.json"]),
        ("spans", "/v1/traces", &["claude-code-2.1/spans.json"]),
        (
            "transcript",
            LINES,
            &["claude-code-2.1/transcripts/session.jsonl", "claude-code-2.1/transcripts/subagent.jsonl"],
        ),
    ],
    silent: &[("metrics", "/v1/metrics", &["claude-code-2.1/metrics.json"])],
    numbers: || {
        json!({
            "llm_call_count": 8, "in_uncached": 168, "out_total": 136, "cache_read": 32_000, "cache_write_5m": 2_400,
            "tool_call_count": 6, "tool_error_count": 2, "cost_computed": 0.021_144,
        })
    },
};

const CODEX: Agent = Agent {
    name: "codex",
    session: "01a1fe08-c838-7360-910a-2042e11dd7b1",
    counted: &[
        ("logs", "/v1/logs", &["codex-0.169/logs.json"]),
        ("rollout", LINES, &["codex-0.169/rollout.jsonl"]),
    ],
    silent: &[
        ("spans", "/v1/traces", &["codex-0.169/spans.json"]),
        ("metrics", "/v1/metrics", &["codex-0.169/metrics.json"]),
    ],
    numbers: || {
        json!({
            "llm_call_count": 2, "in_total": 2_400, "cache_read": 2_000, "out_total": 100, "out_reasoning": 40,
            "tool_call_count": 1, "cost_computed": 0.001_75,
        })
    },
};

const GEMINI: Agent = Agent {
    name: "gemini",
    session: "2184ea55-fb33-4574-b6ca-07938e95f6d2",
    counted: &[
        ("logs", "/v1/logs", &["gemini-cli-0.61/logs.json"]),
        ("chat", LINES, &["gemini-cli-0.61/chat.jsonl"]),
    ],
    silent: &[
        ("spans", "/v1/traces", &["gemini-cli-0.61/spans.json"]),
        ("metrics", "/v1/metrics", &["gemini-cli-0.61/metrics.json"]),
    ],
    numbers: || {
        json!({
            "llm_call_count": 2, "in_total": 200, "cache_read": 120, "out_visible": 20, "out_reasoning": 20,
            "tool_call_count": 1,
        })
    },
};

async fn send(project: &Project, channel: &Channel) -> Result<()> {
    let (name, path, files) = channel;
    for file in *files {
        let content_type = if file.ends_with(".jsonl") { "application/x-ndjson" } else { "application/json" };
        let answer = project.admin.post(path, &[("content-type", content_type)], recording(file)?).await?;
        ensure!(matches!(answer.status, 200 | 202), "{name}: {}: {}", answer.status, answer.text);
    }
    Ok(())
}

/// Waits until everything sent is derived and the session has the agent's numbers.
async fn has_numbers(project: &Project, agent: &Agent, what: &str) -> Result<()> {
    let known = (agent.numbers)();
    let path = format!("/v1/sessions/{}", agent.session);
    eventually("the session has its known numbers", SOON, || async {
        let answer = project.admin.read(&path, &[]).await?;
        let names = known.as_object().into_iter().flatten();
        let found: Map<String, Value> =
            names.map(|(name, _)| (name.clone(), answer["data"][name].clone())).collect();
        ensure!(Value::Object(found.clone()) == known, "{what}: found {}, known {known}", json!(found));
        Ok(())
    })
    .await
}

/// Waits until nothing that was sent is still on its way: as many events as the records make, all of them derived.
async fn all_is_stored(project: &Project) -> Result<()> {
    let settled = "SELECT sum(records) = (SELECT sum(stored + duplicate) FROM piece_settlements
            WHERE project_id = {project:String}) + sum(filtered + dead + context) AND sum(dead) = 0
        FROM settlements WHERE project_id = {project:String}";
    eventually("every record is settled", SOON, || async {
        let (all,): (u8,) =
            project.system.clickhouse().select_one(settled, &[("project", &project.id)]).await?;
        ensure!(all == 1, "records are still on their way, or dead");
        Ok(())
    })
    .await
}

async fn gives_its_numbers(system: &Arc<System>, agent: &Agent) -> Result<()> {
    for channel in agent.counted {
        let project = Project::create(system, &format!("oracle-{}-{}", agent.name, channel.0)).await?;
        send(&project, channel).await?;
        has_numbers(&project, agent, channel.0).await?;
    }
    let forwards: Vec<&Channel> = agent.counted.iter().chain(agent.silent).collect();
    let backwards: Vec<&Channel> = forwards.iter().rev().copied().collect();
    for (order, channels) in [("forwards", forwards), ("backwards", backwards)] {
        let project = Project::create(system, &format!("oracle-{}-{order}", agent.name)).await?;
        for channel in channels.iter().chain(&channels) {
            send(&project, channel).await?;
        }
        all_is_stored(&project).await?;
        has_numbers(&project, agent, order).await?;
    }
    Ok(())
}

pub(crate) async fn a_claude_code_session_has_its_numbers_from_every_channel_and_from_all(
    system: Arc<System>,
) -> Result<()> {
    gives_its_numbers(&system, &CLAUDE).await
}

pub(crate) async fn a_codex_session_has_its_numbers_from_every_channel_and_from_all(
    system: Arc<System>,
) -> Result<()> {
    gives_its_numbers(&system, &CODEX).await
}

pub(crate) async fn a_gemini_session_has_its_numbers_from_every_channel_and_from_all(
    system: Arc<System>,
) -> Result<()> {
    gives_its_numbers(&system, &GEMINI).await
}
