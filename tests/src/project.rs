//! A project of a running system, with keys of its own.

use std::sync::Arc;

use anyhow::{Result, ensure};

use crate::client::Client;
use crate::process::run;
use crate::system::System;
use crate::wait::{SOON, eventually};

/// A project that no other test uses, so that its numbers can be compared exactly.
pub struct Project {
    /// The system it is in.
    pub system: Arc<System>,
    /// Its id.
    pub id: String,
    /// The holder of a key of role admin.
    pub admin: Client,
}

impl Project {
    /// Creates a project with an admin key, as an operator does, and waits until the key is known everywhere.
    ///
    /// # Errors
    /// When the key cannot be created or does not become valid.
    pub async fn create(system: &Arc<System>, id: &str) -> Result<Self> {
        let admin = key(system, id, "admin").await?;
        let project = Self { system: Arc::clone(system), id: id.to_owned(), admin };
        eventually("the new key is known", SOON, || async {
            let posted = project.admin.post_json("/v1/events", "[]").await?;
            ensure!(posted.status != 401, "the gateway does not know the key yet");
            let read = project.admin.get("/v1/sessions", &[]).await?;
            ensure!(read.status != 401, "the query API does not know the key yet");
            Ok(())
        })
        .await?;
        Ok(project)
    }

    /// The holder of another key of this project.
    ///
    /// # Errors
    /// When the key cannot be created.
    pub async fn with_role(&self, role: &str) -> Result<Client> {
        key(&self.system, &self.id, role).await
    }

    /// The number of rows of a table or view in this project.
    ///
    /// # Errors
    /// ClickHouse's.
    pub async fn count(&self, table: &str) -> Result<u64> {
        let sql = format!("SELECT count() FROM {table} WHERE project_id = {{project:String}}");
        let [count] = self.system.clickhouse().select_one::<[u64; 1]>(&sql, &[("project", &self.id)]).await?;
        Ok(count)
    }
}

async fn key(system: &System, project: &str, role: &str) -> Result<Client> {
    Ok(system.client(&create_key(&system.addresses().kafka, project, role).await?))
}

/// Creates a key as an operator does: `fleetlog keys create`.
///
/// # Errors
/// When the command fails or prints no key.
pub async fn create_key(brokers: &str, project: &str, role: &str) -> Result<String> {
    let arguments = ["keys", "create", "--project", project, "--role", role].map(str::to_owned);
    let brokers = brokers.to_owned();
    let made = tokio::task::spawn_blocking(move || {
        run("fleetlog", |command| {
            command.args(arguments).env("FLEETLOG__KAFKA__BROKERS", brokers);
        })
    })
    .await??;
    let (out, err) = (String::from_utf8_lossy(&made.stdout), String::from_utf8_lossy(&made.stderr));
    ensure!(made.status.success(), "keys create: {}\n{out}{err}", made.status);
    // Nothing but the key stands on stdout, so that a script can take it.
    let key = out.trim();
    ensure!(key.starts_with("fl_") && !key.contains(char::is_whitespace), "keys create printed {out:?}");
    Ok(key.to_owned())
}
