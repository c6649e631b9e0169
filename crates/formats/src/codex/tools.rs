//! What rollouts and `codex exec` report of tool calls, in pieces: the call, its end, its output.

use fleetlog_schemas::event::{AgentEvent, EventType, Status};
use serde_json::Value;

use super::{FAMILY, exit_code, message, status};
use crate::records::{Object, number, object, text};
use crate::tools::refine_codex;

/// Reads a call or an output among the items of a response; false when the item is neither.
pub(super) fn response_item(event: &mut AgentEvent, item: &Object) -> bool {
    let kind = text(item, "type");
    let id = ["call_id", "id"].into_iter().map(|name| text(item, name)).find(|id| !id.is_empty());
    match kind {
        "function_call" | "custom_tool_call" => {
            event.tool_name = text(item, "name").to_owned();
            if let Some(server) = text(item, "namespace").strip_prefix("mcp__") {
                event.mcp_server = server.trim_end_matches('_').to_owned();
            }
            let input = ["arguments", "input"].into_iter().find_map(|name| item.get(name)?.as_str());
            event.bytes_in = input.map(|input| input.len() as u64);
        }
        "local_shell_call" => event.tool_name = "local_shell".to_owned(),
        "web_search_call" => {
            event.tool_name = "web_search".to_owned();
            event.status = status(text(item, "status"));
        }
        "function_call_output" | "custom_tool_call_output" => output(event, item),
        _ => return false,
    }
    called(event, id.unwrap_or_default());
    refine_codex(event);
    true
}

/// Reads the output that the model was given: text, or an object with text and success.
fn output(event: &mut AgentEvent, item: &Object) {
    let nested = object(item, "output");
    let output = nested.map_or_else(|| text(item, "output"), |nested| text(nested, "content"));
    event.exit_code = exit_code(output);
    event.bytes_out = (!output.is_empty()).then_some(output.len() as u64);
    event.status = match nested.and_then(|nested| nested.get("success")).and_then(Value::as_bool) {
        Some(true) => Status::Ok,
        Some(false) => Status::Error,
        None => Status::Unset,
    };
}

/// Reads the report of a tool that ran, by any of the names that its kind has had; false when it is none.
pub(super) fn ran(event: &mut AgentEvent, kind: &str, item: &Object) -> bool {
    event.status = status(text(item, "status"));
    match kind {
        "CommandExecution" | "exec_command_end" | "command_execution" => command(event, item),
        "FileChange" | "patch_apply_end" | "file_change" => patch(event, item),
        "McpToolCall" | "mcp_tool_call_end" | "mcp_tool_call" => mcp(event, item),
        "WebSearch" | "web_search_end" | "web_search" => typed(event, EventType::WebFetch),
        "ImageView" | "view_image_tool_call" => {
            event.file_path = text(item, "path").to_owned();
            typed(event, EventType::FileRead);
        }
        _ => return false,
    }
    event.duration_ms = item.get("duration").and_then(milliseconds).or_else(|| number(item, "duration_ms"));
    event.call_family = FAMILY.to_owned();
    true
}

/// The call that a piece belongs to.
pub(super) fn called(event: &mut AgentEvent, id: &str) {
    event.tool_call_id = id.to_owned();
    event.call_family = FAMILY.to_owned();
}

fn typed(event: &mut AgentEvent, event_type: EventType) {
    event.event_type = event_type;
    event.tool_kind = if event_type == EventType::McpCall { "mcp" } else { "builtin" }.to_owned();
}

fn command(event: &mut AgentEvent, item: &Object) {
    typed(event, EventType::CommandRun);
    event.exit_code = item.get("exit_code").and_then(Value::as_i64).and_then(|code| code.try_into().ok());
    event.bytes_out = item.get("aggregated_output").and_then(Value::as_str).map(|output| output.len() as u64);
    if event.status == Status::Unset {
        event.status = match event.exit_code {
            Some(0) => Status::Ok,
            Some(_) => Status::Error,
            None => Status::Unset,
        };
    }
}

fn mcp(event: &mut AgentEvent, item: &Object) {
    typed(event, EventType::McpCall);
    let invocation = object(item, "invocation").unwrap_or(item);
    event.mcp_server = text(invocation, "server").to_owned();
    event.tool_name = text(invocation, "tool").to_owned();
    // Older reports hold Rust's `Result`: {"Ok": …} or {"Err": "…"}.
    let result = object(item, "result");
    let refused = result.map(|result| message(result, "Err")).filter(|text| !text.is_empty());
    let done = result.and_then(|result| object(result, "Ok")).or(result);
    let flagged = done.and_then(|done| done.get("isError").or(done.get("is_error"))).and_then(Value::as_bool);
    event.error_message = refused.unwrap_or(message(item, "error")).to_owned();
    if !event.error_message.is_empty() || flagged == Some(true) {
        event.status = Status::Error;
    } else if event.status == Status::Unset && done.is_some() {
        event.status = Status::Ok;
    }
}

/// What a change did to a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deed {
    Add,
    Delete,
    Update,
}

fn patch(event: &mut AgentEvent, item: &Object) {
    match item.get("success").and_then(Value::as_bool) {
        Some(true) => event.status = Status::Ok,
        Some(false) => event.status = Status::Error,
        None => {}
    }
    if event.status == Status::Error {
        event.error_message = text(item, "stderr").to_owned();
    }
    let changes = changes(item);
    let deeds: Vec<_> = changes.iter().map(|(_, change)| deed(change)).collect();
    let all = |deed| !deeds.is_empty() && deeds.iter().all(|other| *other == deed);
    typed(
        event,
        match () {
            () if all(Deed::Add) => EventType::FileCreate,
            () if all(Deed::Delete) => EventType::FileDelete,
            () => EventType::FileEdit,
        },
    );
    // Several files are one call; their paths stay in `data`.
    if let [(path, _)] = changes.as_slice() {
        (*path).clone_into(&mut event.file_path);
    }
    let lines: Option<Vec<_>> =
        changes.iter().zip(&deeds).map(|((_, change), deed)| lines(*deed, change)).collect();
    if let Some(lines) = lines.filter(|lines| !lines.is_empty()) {
        event.lines_added = Some(lines.iter().map(|(added, _)| added).sum());
        event.lines_removed = Some(lines.iter().map(|(_, removed)| removed).sum());
    }
}

/// The changes of a patch: members by path, or a list whose elements name theirs.
fn changes(item: &Object) -> Vec<(&str, &Object)> {
    match item.get("changes") {
        Some(Value::Object(by_path)) => {
            by_path.iter().filter_map(|(path, change)| Some((path.as_str(), change.as_object()?))).collect()
        }
        Some(Value::Array(list)) => {
            list.iter().filter_map(Value::as_object).map(|change| (text(change, "path"), change)).collect()
        }
        _ => Vec::new(),
    }
}

fn deed(change: &Object) -> Deed {
    let kind = object(change, "kind").unwrap_or(change);
    let word = [text(kind, "type"), text(change, "kind")].into_iter().find(|word| !word.is_empty());
    match word {
        Some("add") => Deed::Add,
        Some("delete") => Deed::Delete,
        // Rust's own spelling of an enum: the member is the word.
        None if change.contains_key("add") => Deed::Add,
        None if change.contains_key("delete") => Deed::Delete,
        _ => Deed::Update,
    }
}

/// Lines added and removed, where the change says its text.
fn lines(deed: Deed, change: &Object) -> Option<(u64, u64)> {
    let word = match deed {
        Deed::Add => "add",
        Deed::Delete => "delete",
        Deed::Update => "update",
    };
    let change = object(change, word).unwrap_or(change);
    let of = |name: &str| change.get(name).and_then(Value::as_str);
    let count = |text: &str| text.lines().count() as u64;
    match deed {
        Deed::Add => Some((count(of("content")?), 0)),
        Deed::Delete => Some((0, count(of("content")?))),
        Deed::Update => {
            let diff = of("unified_diff").or(of("diff"))?;
            let with = |sign: char, header: &str| {
                diff.lines().filter(|line| line.starts_with(sign) && !line.starts_with(header)).count() as u64
            };
            Some((with('+', "+++ "), with('-', "--- ")))
        }
    }
}

/// A duration as Rust writes it, `{"secs":…,"nanos":…}`.
fn milliseconds(duration: &Value) -> Option<f64> {
    let duration = duration.as_object()?;
    Some(number(duration, "secs")? * 1e3 + number(duration, "nanos")? / 1e6)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn after(kind: &str, item: Value) -> AgentEvent {
        let mut event = AgentEvent::default();
        assert!(ran(&mut event, kind, item.as_object().unwrap()), "{kind}");
        event
    }

    #[test]
    fn a_patch_says_what_it_did_to_its_file() {
        let update = json!({"changes": {"/a.rs": {"type": "update", "unified_diff": "@@ -1 +1,2 @@\n-x\n+y\n+z\n"}},
            "success": true, "call_id": "c"});
        let event = after("patch_apply_end", update);
        assert_eq!((event.event_type, event.status), (EventType::FileEdit, Status::Ok));
        assert_eq!(
            (event.file_path.as_str(), event.lines_added, event.lines_removed),
            ("/a.rs", Some(2), Some(1))
        );
        let created = json!({"changes": [{"path": "/b", "kind": "add"}, {"path": "/c", "kind": {"type": "add"}}],
            "status": "failed"});
        let event = after("file_change", created);
        assert_eq!((event.event_type, event.status), (EventType::FileCreate, Status::Error));
        assert_eq!((event.file_path.as_str(), event.lines_added), ("", None));
        let deleted = json!({"changes": {"/d": {"delete": {"content": "1\n2\n"}}}});
        let event = after("patch_apply_end", deleted);
        assert_eq!((event.event_type, event.lines_removed), (EventType::FileDelete, Some(2)));
    }

    #[test]
    fn a_call_to_a_server_fails_in_any_of_its_spellings() {
        let invocation = json!({"server": "github", "tool": "search", "arguments": {}});
        let ended = |result: Value| json!({"call_id": "c", "invocation": invocation, "duration": {"secs": 1, "nanos": 5_000_000}, "result": result});
        let good = after("mcp_tool_call_end", ended(json!({"Ok": {"content": []}})));
        assert_eq!((good.mcp_server.as_str(), good.tool_name.as_str()), ("github", "search"));
        assert_eq!((good.status, good.duration_ms), (Status::Ok, Some(1005.0)));
        let refused = after("mcp_tool_call_end", ended(json!({"Err": "no such tool"})));
        assert_eq!((refused.status, refused.error_message.as_str()), (Status::Error, "no such tool"));
        let flagged = after("mcp_tool_call_end", ended(json!({"Ok": {"isError": true}})));
        assert_eq!(flagged.status, Status::Error);
        let item = json!({"server": "s", "tool": "t", "status": "failed", "error": {"message": "late"}});
        let item = after("McpToolCall", item);
        assert_eq!((item.status, item.error_message.as_str()), (Status::Error, "late"));
    }
}
