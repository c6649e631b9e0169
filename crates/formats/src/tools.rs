//! Tools by name: what kind of thing a call of it is.

use fleetlog_schemas::event::{AgentEvent, EventType};

/// Sets the type, kind and server of a call of one of Claude Code's tools.
pub(crate) fn refine_claude(event: &mut AgentEvent) {
    let (event_type, kind) = match event.tool_name.as_str() {
        "" => (EventType::ToolCall, ""),
        "Bash" | "BashOutput" | "PowerShell" => (EventType::CommandRun, "builtin"),
        "Read" => (EventType::FileRead, "builtin"),
        "Edit" | "MultiEdit" | "NotebookEdit" => (EventType::FileEdit, "builtin"),
        "Write" => (EventType::FileCreate, "builtin"),
        "Grep" | "Glob" => (EventType::Search, "builtin"),
        "WebFetch" | "WebSearch" => (EventType::WebFetch, "builtin"),
        "Agent" | "Task" => (EventType::ToolCall, "agent"),
        // The name that stands for any MCP tool while details are not logged.
        "mcp_tool" => (EventType::McpCall, "mcp"),
        name => match name.strip_prefix("mcp__") {
            Some(rest) => {
                event.mcp_server = rest.split("__").next().unwrap_or_default().to_owned();
                (EventType::McpCall, "mcp")
            }
            None => (EventType::ToolCall, "builtin"),
        },
    };
    event.event_type = event_type;
    event.tool_kind = kind.to_owned();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_decide_type_and_kind() {
        let refined = |name: &str| {
            let mut event = AgentEvent { tool_name: name.to_owned(), ..AgentEvent::default() };
            refine_claude(&mut event);
            (event.event_type, event.tool_kind, event.mcp_server)
        };
        assert_eq!(refined("Bash"), (EventType::CommandRun, "builtin".into(), String::new()));
        assert_eq!(refined("mcp__github__create_issue"), (EventType::McpCall, "mcp".into(), "github".into()));
        assert_eq!(refined("Agent"), (EventType::ToolCall, "agent".into(), String::new()));
        assert_eq!(refined("TodoWrite"), (EventType::ToolCall, "builtin".into(), String::new()));
    }
}
