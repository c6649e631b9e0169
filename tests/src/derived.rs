//! What is derived, held against its facts by the program's own means.

use anyhow::{Result, ensure};

use crate::process::run;
use crate::suite::say;

/// `fleetlog rederive --check` finds nothing to change in the ClickHouse at this URL, and nothing that waits.
///
/// # Errors
/// When it does, or cannot be run.
pub async fn rederives_to_the_same(clickhouse: &str) -> Result<()> {
    let url = clickhouse.to_owned();
    let checked = tokio::task::spawn_blocking(move || {
        run("fleetlog", |command| {
            command.args(["rederive", "--check"]).env("FLEETLOG__CLICKHOUSE__URL", url);
        })
    })
    .await??;
    let (out, err) = (String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    ensure!(checked.status.success(), "rederive --check: {}\n{out}{err}", checked.status);
    ensure!(!out.starts_with("0 groups") && !out.contains("still wait"), "rederive --check: {out}{err}");
    say(&format!("rederived: {}", out.trim_end()));
    Ok(())
}
