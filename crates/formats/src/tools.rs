//! Tools by name: what kind of thing a call of it is.

use fleetlog_schemas::event::{AgentEvent, EventType};

use crate::records::{Object, text};

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

/// Sets the type of a call of a tool of any agent by what tools of that name do everywhere, and the kind and server
/// where the name says them.
pub(crate) fn refine(event: &mut AgentEvent) {
    let name = event.tool_name.to_ascii_lowercase().replace('-', "_");
    if let Some(rest) = name.strip_prefix("mcp__")
        && event.mcp_server.is_empty()
    {
        event.mcp_server = rest.split("__").next().unwrap_or_default().to_owned();
    }
    event.event_type = match name.as_str() {
        _ if !event.mcp_server.is_empty() || event.tool_kind == "mcp" => EventType::McpCall,
        "bash" | "shell" | "terminal" | "powershell" | "execute_command" | "run_command"
        | "run_terminal_cmd" | "run_shell_command" | "run_in_terminal" | "local_shell" | "exec_command"
        | "execute_bash" | "run" | "cmd_run" => EventType::CommandRun,
        "read" | "read_file" | "readfile" | "view" | "view_file" | "open_file" | "file_read" => {
            EventType::FileRead
        }
        "edit" | "edit_file" | "multiedit" | "str_replace" | "str_replace_editor" | "apply_diff"
        | "apply_patch" | "replace_in_file" | "search_replace" | "patch" | "replace" | "file_editor"
        | "editedexistingfile" | "applieddiff" => EventType::FileEdit,
        "write" | "write_file" | "write_to_file" | "create" | "create_file" | "newfilecreated" => {
            EventType::FileCreate
        }
        "delete_file" | "remove_file" | "filedeleted" => EventType::FileDelete,
        "grep" | "glob" | "search" | "search_files" | "searchfiles" | "grep_search" | "file_search"
        | "codebase_search" | "codebasesearch" | "list" | "ls" | "list_dir" | "list_files"
        | "listfilestoplevel" | "listfilesrecursive" => EventType::Search,
        "webfetch" | "web_fetch" | "websearch" | "web_search" | "fetch" | "fetch_webpage" => {
            EventType::WebFetch
        }
        _ => EventType::ToolCall,
    };
    if event.tool_kind.is_empty() {
        event.tool_kind = match name.as_str() {
            _ if event.event_type == EventType::McpCall => "mcp",
            "task" | "agent" | "new_task" | "delegate" => "agent",
            _ => "",
        }
        .to_owned();
    }
}

/// Finds the file that a tool's arguments name.
pub(crate) fn note_arguments(event: &mut AgentEvent, arguments: &Object) {
    if event.file_path.is_empty() {
        let names = ["file_path", "filePath", "path", "notebook_path", "filename"];
        let path = names.iter().map(|name| text(arguments, name)).find(|path| !path.is_empty());
        event.file_path = path.unwrap_or_default().to_owned();
    }
}

/// Sets the type, kind and server of a call of one of Codex's tools; the server may be known already.
pub(crate) fn refine_codex(event: &mut AgentEvent) {
    let (event_type, kind) = match event.tool_name.as_str() {
        _ if !event.mcp_server.is_empty() => (EventType::McpCall, "mcp"),
        "" => (EventType::ToolCall, ""),
        "shell" | "shell_command" | "local_shell" | "exec_command" | "unified_exec" | "container.exec" => {
            (EventType::CommandRun, "builtin")
        }
        "apply_patch" => (EventType::FileEdit, "builtin"),
        "read_file" | "view_image" => (EventType::FileRead, "builtin"),
        "grep_files" | "list_dir" => (EventType::Search, "builtin"),
        "web_search" => (EventType::WebFetch, "builtin"),
        "spawn_agent" | "send_input" | "wait_agent" | "resume_agent" | "close_agent" => {
            (EventType::ToolCall, "agent")
        }
        name => match name.strip_prefix("mcp__").unwrap_or(name).split_once("__") {
            Some((server, _)) => {
                event.mcp_server = server.to_owned();
                (EventType::McpCall, "mcp")
            }
            None => (EventType::ToolCall, "builtin"),
        },
    };
    event.event_type = event_type;
    event.tool_kind = kind.to_owned();
}

/// Sets the type, kind and server of a call of one of Gemini CLI's tools; the server may be known already.
pub(crate) fn refine_gemini(event: &mut AgentEvent) {
    let (event_type, kind) = match event.tool_name.as_str() {
        _ if !event.mcp_server.is_empty() => (EventType::McpCall, "mcp"),
        "" => (EventType::ToolCall, ""),
        "run_shell_command" => (EventType::CommandRun, "builtin"),
        "read_file" | "read_many_files" => (EventType::FileRead, "builtin"),
        "write_file" => (EventType::FileCreate, "builtin"),
        "replace" | "edit" => (EventType::FileEdit, "builtin"),
        "glob" | "grep_search" | "search_file_content" | "list_directory" => (EventType::Search, "builtin"),
        "web_fetch" | "google_web_search" => (EventType::WebFetch, "builtin"),
        "agent" | "task" | "delegate_to_agent" | "invoke_agent" | "codebase_investigator" => {
            (EventType::ToolCall, "agent")
        }
        name => match name.strip_prefix("mcp_") {
            Some(rest) => {
                event.mcp_server =
                    rest.split('_').find(|part| !part.is_empty()).unwrap_or_default().to_owned();
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

    #[test]
    fn tools_of_any_agent_are_known_by_what_they_do() {
        let refined = |name: &str| {
            let mut event = AgentEvent { tool_name: name.to_owned(), ..AgentEvent::default() };
            refine(&mut event);
            (event.event_type, event.tool_kind, event.mcp_server)
        };
        let plain = |event_type| (event_type, String::new(), String::new());
        assert_eq!(refined("Bash"), plain(EventType::CommandRun));
        assert_eq!(refined("run-shell-command"), plain(EventType::CommandRun));
        assert_eq!(refined("write_to_file"), plain(EventType::FileCreate));
        assert_eq!(refined("book_flight"), plain(EventType::ToolCall));
        assert_eq!(refined("task"), (EventType::ToolCall, "agent".into(), String::new()));
        assert_eq!(refined("mcp__github__read"), (EventType::McpCall, "mcp".into(), "github".into()));
    }

    #[test]
    fn a_server_makes_any_tool_a_call_of_it() {
        let refined = |refine: fn(&mut AgentEvent), name: &str, server: &str| {
            let mut event = AgentEvent {
                tool_name: name.to_owned(),
                mcp_server: server.to_owned(),
                ..AgentEvent::default()
            };
            refine(&mut event);
            (event.event_type, event.tool_kind, event.mcp_server)
        };
        let mcp = (EventType::McpCall, "mcp".to_owned(), "github".to_owned());
        for name in ["mcp__github__create_issue", "github__create_issue"] {
            assert_eq!(refined(refine_codex, name, ""), mcp);
        }
        assert_eq!(refined(refine_codex, "shell", "github"), mcp);
        assert_eq!(refined(refine_gemini, "mcp_github_create_issue", ""), mcp);
        assert_eq!(refined(refine_gemini, "create_issue", "github"), mcp);
        let command = (EventType::CommandRun, "builtin".to_owned(), String::new());
        assert_eq!(refined(refine_codex, "exec_command", ""), command);
        assert_eq!(refined(refine_gemini, "run_shell_command", ""), command);
    }
}
