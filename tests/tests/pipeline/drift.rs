//! A client that changes what it sends is seen in the query API.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use fleetlog_tests::{Project, SOON, System, eventually};
use serde_json::{Value, json};

pub(crate) async fn a_field_that_nobody_knew_shows_in_the_list_of_formats(system: Arc<System>) -> Result<()> {
    let project = Project::create(&system, "drift").await?;
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let record = |attribute: Value| {
        json!({"body": {"stringValue": "claude_code.user_prompt"}, "attributes": [
            text("event.name", "user_prompt"), text("session.id", "s"), text("prompt_length", "3"), attribute]})
    };
    let body = json!({"resourceLogs": [{
        "resource": {"attributes": [text("service.name", "claude-code"), text("service.version", "9.9.9")]},
        "scopeLogs": [{
            "scope": {"name": "com.anthropic.claude_code.events"},
            "logRecords": [record(text("prompt", "hi!")), record(text("brand_new_field", "x"))],
        }],
    }]});
    project.admin.post_json("/v1/logs", body.to_string()).await?.expect_status(200)?;
    eventually("the version and its unknown field are listed", SOON, || async {
        let answer = project.admin.read("/v1/formats", &[("format", "claude.otlp.logs")]).await?;
        let row = answer["data"].get(0).with_context(|| format!("no row: {answer}"))?;
        ensure!(row["version"] == "9.9.9" && row["events"] == 2 && row["unknown"] == 0, "{row}");
        ensure!(row["unknown_fields"] == 1 && row["with_unknown_fields"] == 1, "{row}");
        Ok(())
    })
    .await
}
