//! Recordings of real clients, cut to a size that lets a million of them be sent.

use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::Value;

/// Longest seed, bytes; what cannot be made smaller is left out.
const LONGEST: usize = 6 * 1024;
/// Members of a list that are kept.
const MEMBERS: usize = 2;

/// What a seed's bytes are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    /// One JSON document.
    Document(Value),
    /// Lines of JSON.
    Lines(Vec<Value>),
    /// A protobuf message.
    Message(Vec<u8>),
    /// A form with its boundary.
    Form(Vec<u8>),
}

/// A body and where it belongs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seed {
    pub(crate) path: &'static str,
    pub(crate) content: Content,
}

/// All seeds.
#[derive(Clone, Debug)]
pub(crate) struct Seeds(Vec<Seed>);

impl Seeds {
    /// Reads every file below a folder.
    pub(crate) fn load(folder: &Path) -> anyhow::Result<Self> {
        let mut seeds = vec![universal()];
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
                let name =
                    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                seeds.extend(
                    seed(&name, &path.to_string_lossy(), &bytes)
                        .filter(|seed| seed.content.size() <= LONGEST),
                );
            }
        }
        ensure!(seeds.len() > 1, "no recordings there");
        // The order of a folder is the file system's; the same seed must give the same requests.
        seeds.sort_by_key(|seed| format!("{seed:?}"));
        Ok(Self(seeds))
    }

    pub(crate) fn all(&self) -> &[Seed] {
        &self.0
    }
}

impl Content {
    fn size(&self) -> usize {
        match self {
            Self::Document(value) => value.to_string().len(),
            Self::Lines(lines) => lines.iter().map(|line| line.to_string().len()).sum(),
            Self::Message(bytes) | Self::Form(bytes) => bytes.len(),
        }
    }
}

fn universal() -> Seed {
    let event = serde_json::json!({
        "id": "g1", "timestamp": 1_790_000_000_000_u64, "type": "llm.request", "sessionId": "garbage", "agentId": "a",
        "model": "gpt-5", "inUncached": 10, "outVisible": 3, "context": {"cwd": "/"}, "data": {"n": [1, 2.5, null]},
        "metrics": {"duration": 12, "tokenCount": 13},
    });
    Seed { path: "/v1/events", content: Content::Lines(vec![event.clone(), event]) }
}

fn seed(name: &str, path: &str, bytes: &[u8]) -> Option<Seed> {
    let content = match name.rsplit_once('.')?.1 {
        "json" | "traj" => Content::Document(pruned(serde_json::from_slice(bytes).ok()?)),
        "jsonl" => Content::Lines(
            bytes
                .split(|byte| *byte == b'\n')
                .filter_map(|line| serde_json::from_slice(line).ok())
                .map(pruned)
                .take(4)
                .collect(),
        ),
        "pb" => Content::Message(bytes.to_vec()),
        "form" => Content::Form(bytes.to_vec()),
        _ => return None,
    };
    Some(Seed { path: path_of(name, path), content })
}

/// Where its client sends it.
fn path_of(name: &str, path: &str) -> &'static str {
    const PLACES: &[(&str, &str)] = &[
        ("langfuse", "/api/public/ingestion"),
        ("langsmith", "/runs/multipart"),
        ("openai-agents", "/v1/traces/ingest"),
        ("opik", "/api/v1/private/spans/batch"),
        ("hooks", "/hooks/claude"),
    ];
    match name.split('.').next().unwrap_or_default() {
        "logs" => "/v1/logs",
        "spans" | "traces" if !path.contains("opik") && !path.contains("openai-agents") => "/v1/traces",
        "metrics" => "/v1/metrics",
        _ => PLACES.iter().find(|(word, _)| path.contains(word)).map_or("/v1/raw", |(_, place)| place),
    }
}

/// The same with short lists.
fn pruned(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().take(MEMBERS).map(pruned).collect(),
        Value::Object(members) => members.into_iter().map(|(name, value)| (name, pruned(value))).collect(),
        Value::String(text) if text.len() > 200 => Value::String(text.chars().take(200).collect()),
        other => other,
    }
}
