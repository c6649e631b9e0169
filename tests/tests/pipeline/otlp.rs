//! What a real OpenTelemetry exporter sends.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use fleetlog_tests::{Project, SOON, System, eventually, fixture};
use serde_json::json;

/// The recording was made in this day.
const DAY: [(&str, &str); 2] = [("from", "2026-11-21T00:00:00Z"), ("to", "2026-11-22T00:00:00Z")];

pub(crate) async fn a_real_exporters_protobuf_is_accepted_and_queryable(system: Arc<System>) -> Result<()> {
    let project = Project::create(&system, "otlp").await?;
    let protobuf = ("content-type", "application/x-protobuf");
    let traces = fixture("opentelemetry-python-1.45/traces.pb.gz")?;
    let sent = project.admin.post("/v1/traces", &[protobuf, ("content-encoding", "gzip")], traces).await?;
    sent.expect_status(200)?;
    let logs = fixture("opentelemetry-python-1.45/logs.pb")?;
    project.admin.post("/v1/logs", &[protobuf], logs).await?.expect_status(200)?;

    let trace = "e1c50b75158ca31a9a0201ebcb002eff";
    eventually("the trace is there", SOON, || async {
        let parameters = [&DAY[..], &[("trace", trace)]].concat();
        let answer = project.admin.read("/v1/events", &parameters).await?;
        let events = answer["data"].as_array().context("no data")?;
        let chat = events.iter().find(|event| event["name"] == "chat gpt-4o").context("no chat span")?;
        ensure!(chat["inUncached"] == 10 && chat["outVisible"] == 2 && chat["source"] == "agent-x", "{chat}");
        ensure!(chat["modelRequested"] == "gpt-4o" && chat["provider"] == "openai", "{chat}");
        let tool =
            events.iter().find(|event| event["name"] == "execute_tool Bash").context("no tool span")?;
        ensure!(tool["toolName"] == "Bash" && tool["status"] == "error", "{tool}");
        Ok(())
    })
    .await?;
    eventually("the log record is there", SOON, || async {
        let parameters = [&DAY[..], &[("search", "hello"), ("include", "data")]].concat();
        let answer = project.admin.read("/v1/events", &parameters).await?;
        let events = answer["data"].as_array().context("no data")?;
        ensure!(events.len() == 1 && events[0]["level"] == "info", "{events:?}");
        Ok(())
    })
    .await?;
    eventually("the call is counted", SOON, || async {
        let parameters = [&DAY[..], &[("step", "1h")]].concat();
        let answer = project.admin.read("/v1/usage", &parameters).await?;
        let totals = &answer["totals"];
        let found = [&totals["calls"], &totals["in_uncached"], &totals["out_visible"]];
        ensure!(found == [&json!(1), &json!(10), &json!(2)], "{totals}");
        Ok(())
    })
    .await
}
