//! One client library: what is run, and what must be found.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleetlog_tests::{Project, SOON, System, client_library, eventually, node_library, say, sdks};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

/// How long a script may take. It bounds a hang, it measures nothing.
const RUN: Duration = Duration::from_secs(120);

/// What runs a script.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Language {
    Python,
    JavaScript,
}

/// A client library, and what its script sends beside 8 uncached and 4 cached tokens in and 2 out.
pub(crate) struct Library {
    /// Name of its list of packages; with an underscore, of its script.
    pub(crate) name: &'static str,
    language: Language,
    /// Arguments of the script, which is run once with each.
    ways: &'static [&'static str],
    /// Calls to models.
    calls: u64,
    /// Its tool, and how the call of it ended.
    tool: Option<(&'static str, &'static str)>,
    /// A score of the trace, 0.9.
    score: Option<&'static str>,
    /// Reported cost in USD.
    cost: Option<f64>,
}

const LIBRARY: Library = Library {
    name: "",
    language: Language::Python,
    ways: &[""],
    calls: 1,
    tool: Some(("Bash", "error")),
    score: Some("quality"),
    cost: None,
};

const NODE: Library = Library { language: Language::JavaScript, ..LIBRARY };

pub(crate) const LIBRARIES: &[Library] = &[
    Library { name: "langfuse-2", tool: None, cost: Some(0.3), ..LIBRARY },
    Library { name: "langfuse-3", cost: Some(0.3), ..LIBRARY },
    Library { name: "langfuse-5", cost: Some(0.3), ..LIBRARY },
    Library { name: "langsmith-0", ..LIBRARY },
    Library { name: "openai-agents-0", calls: 2, tool: Some(("add", "ok")), score: None, ..LIBRARY },
    Library { name: "opik-2", ways: &["batches", "singly"], ..LIBRARY },
    Library { name: "opentelemetry-1", ways: &["http", "grpc"], score: None, ..LIBRARY },
    Library { name: "langfuse-js-3", tool: None, cost: Some(0.3), ..NODE },
    Library { name: "langfuse-js-5", cost: Some(0.3), ..NODE },
    Library { name: "langsmith-js-0", ..NODE },
    Library { name: "opentelemetry-js-2", ways: &["json", "proto", "grpc"], score: None, ..NODE },
    Library { name: "vercel-ai-6", calls: 2, score: None, ..NODE },
    Library { name: "vercel-ai-7", calls: 2, score: None, ..NODE },
];

/// Runs a library's script in each way, and finds what it sent.
pub(crate) async fn keeps_its_promise(system: Arc<System>, library: &'static Library) -> Result<()> {
    let script = match tokio::task::spawn_blocking(|| script(library)).await?? {
        Ok(script) => script,
        Err(why) => {
            say(&format!("{} is skipped: {why}", library.name));
            return Ok(());
        }
    };
    let project = Project::create(&system, &format!("sdk-{}", library.name)).await?;
    for way in library.ways {
        let session = format!("session-{}{way}", library.name);
        run(&script, way, &project, &session).await?;
        found(library, &project, &session).await.with_context(|| format!("{} {way}", library.name))?;
    }
    Ok(())
}

/// A script, and what runs it.
struct Script {
    program: PathBuf,
    arguments: &'static [&'static str],
    path: PathBuf,
    /// Holds the script where it has packages beside it.
    _folder: Option<TempDir>,
}

fn script(library: &Library) -> Result<Result<Script, String>> {
    let file = library.name.replace('-', "_");
    Ok(match library.language {
        Language::Python => client_library(library.name)?.map(|program| Script {
            program,
            // Nothing is written beside the scripts.
            arguments: &["-B", "-W", "ignore"],
            path: sdks().join(file).with_added_extension("py"),
            _folder: None,
        }),
        Language::JavaScript => node_library(library.name)?.map(|(program, folder)| Script {
            program,
            arguments: &[],
            path: folder.path().join(file).with_added_extension("mjs"),
            _folder: Some(folder),
        }),
    })
}

async fn run(script: &Script, way: &str, project: &Project, session: &str) -> Result<()> {
    let addresses = project.system.addresses();
    let mut command = Command::new(&script.program);
    // No setting of this machine's is heard.
    command.args(script.arguments).arg(&script.path).arg(way).env_clear().kill_on_drop(true);
    command.env("FLEETLOG_URL", &addresses.ingest).env("FLEETLOG_GRPC_URL", &addresses.grpc);
    command.env("FLEETLOG_KEY", project.admin.key()).env("FLEETLOG_SESSION", session);
    let done = tokio::time::timeout(RUN, command.output()).await.context("the script does not end")??;
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    ensure!(done.status.success(), "{} {way}: {}\n{out}{err}", script.path.display(), done.status);
    Ok(())
}

/// Waits until the session is complete, and then for each of its parts.
async fn found(library: &Library, project: &Project, session: &str) -> Result<()> {
    let path = format!("/v1/sessions/{session}");
    let known = json!({
        "llm_call_count": library.calls,
        "llm_error_count": 0,
        "tool_call_count": u64::from(library.tool.is_some()),
        "tool_error_count": u64::from(library.tool.is_some_and(|(_, status)| status == "error")),
        "in_uncached": 8,
        "cache_read": 4,
        "out_total": 2,
        "cost_reported": library.cost.map_or(json!(0), Value::from),
        // Although most clients name the model in one piece and the tokens in another.
        "cost_computed": 0.000_045,
    });
    eventually("the session has its numbers", SOON, || async {
        let answer = project.admin.read(&path, &[]).await?;
        let numbers: Value = known
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| (name.clone(), answer["data"][name].clone()))
            .collect();
        ensure!(numbers == known, "found {numbers}, sent {known}");
        Ok(())
    })
    .await?;
    let call = first(project, &format!("{path}/calls")).await?;
    ensure!(call["model"] == "gpt-4o" || call["model_requested"] == "gpt-4o", "{call}");
    if let Some((name, status)) = library.tool {
        let tool = first(project, &format!("{path}/tools")).await?;
        ensure!(tool["tool_name"] == name && tool["status"] == status, "{tool}");
    }
    let trace = call["trace_id"].as_str().context("a trace id")?;
    eventually("the trace has its parts", SOON, || async {
        let answer = project.admin.read(&format!("/v1/traces/{trace}"), &[]).await?;
        let scored = |name: &str| {
            let scores = answer["data"]["scores"].as_array();
            scores.is_some_and(|scores| {
                scores.iter().any(|score| score["name"] == name && score["value"] == 0.9)
            })
        };
        ensure!(answer["data"]["session_id"] == session, "{answer}");
        ensure!(answer["data"]["observations"].as_array().is_some_and(|tree| !tree.is_empty()), "{answer}");
        ensure!(library.score.is_none_or(scored), "{answer}");
        Ok(())
    })
    .await
}

async fn first(project: &Project, path: &str) -> Result<Value> {
    let answer = project.admin.read(path, &[]).await?;
    answer["data"].get(0).cloned().with_context(|| format!("{path}: {answer}"))
}
