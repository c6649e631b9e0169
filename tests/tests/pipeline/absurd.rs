//! Numbers that cannot be: they are kept, and make nothing else of the project worthless.

use std::sync::Arc;

use anyhow::{Result, ensure};
use fleetlog_tests::{Project, SOON, System, eventually};
use serde_json::json;

pub(crate) async fn absurd_numbers_stay_out_of_a_sessions_sums(system: Arc<System>) -> Result<()> {
    let project = Project::create(&system, "absurd").await?;
    let call = |id: &str, tokens: u64, time: &str| {
        json!({"id": id, "type": "llm.request", "session_id": "s", "timestamp": time, "provider": "openai",
            "model": "gpt-5", "input_tokens": tokens, "output_tokens": 10, "duration_ms": 5})
    };
    let body = json!([
        call("plain", 1_000, "1901-01-01T00:00:00Z"),
        call("absurd", 1_000_000_000_000, "2261-01-01T00:00:00Z"),
    ]);
    project.admin.post_json("/v1/events", body.to_string()).await?.expect_status(202)?;
    eventually("the session has both calls and the tokens of one", SOON, || async {
        let answer = project.admin.read("/v1/sessions/s", &[]).await?;
        let session = &answer["data"];
        ensure!(session["llm_call_count"] == 2, "{session}");
        ensure!(session["in_uncached"] == 1_000 && session["out_total"] == 10, "{session}");
        // 1,000 tokens in and 10 out at gpt-5's prices.
        ensure!(session["cost_computed"] == 0.00135, "{session}");
        let years = session["duration_ms"].as_f64().unwrap_or(0.0) / (365.25 * 86_400_000.0);
        ensure!((359.0..361.0).contains(&years), "{years} years: {session}");
        Ok(())
    })
    .await?;
    let event = project.admin.read("/v1/events/absurd", &[("at", "2261-01-01T00:00:00Z")]).await?;
    let data = &event["data"]["data"];
    ensure!(data["implausible"]["inUncached"] == 1_000_000_000_000_u64, "what was said is kept: {event}");
    Ok(())
}
