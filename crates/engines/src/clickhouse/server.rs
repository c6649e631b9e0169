//! Settings and readiness of a real ClickHouse server on loopback.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clickhouse::ClickHouseOptions;
use crate::error::{IoContext as _, Result};

/// One user without a password, as the embedded engine has; the server listens on loopback only.
const USERS: &str = "<clickhouse>
    <profiles><default/></profiles>
    <users>
        <default>
            <password></password>
            <networks><ip>127.0.0.1</ip></networks>
            <profile>default</profile>
            <quota>default</quota>
            <access_management>1</access_management>
        </default>
    </users>
    <quotas><default/></quotas>
</clickhouse>
";

/// How often a starting server is asked whether it serves.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Writes the server's settings into its data folder and returns their path. No system log is configured: on a
/// developer's machine they would soon be larger than the data.
pub(super) fn write_config(
    options: &ClickHouseOptions,
    folder: &Path,
    port: u16,
    users_config: Option<&Path>,
) -> Result<PathBuf> {
    let users = match users_config {
        Some(path) => path.to_owned(),
        None => {
            let path = folder.join("users.xml");
            fs::write(&path, USERS).context("write", &path)?;
            path
        }
    };
    let config = folder.join("config.xml");
    fs::write(&config, config_xml(folder, port, options.max_memory, &users)).context("write", &config)?;
    Ok(config)
}

fn config_xml(folder: &Path, port: u16, max_memory: u64, users: &Path) -> String {
    let place = |name: &str| escaped(&folder.join(name));
    format!(
        "<clickhouse>
    <logger><level>information</level><console>1</console></logger>
    <listen_host>127.0.0.1</listen_host>
    <http_port>{port}</http_port>
    <path>{data}/</path>
    <tmp_path>{tmp}/</tmp_path>
    <user_files_path>{user_files}/</user_files_path>
    <format_schema_path>{format_schemas}/</format_schema_path>
    <max_server_memory_usage>{max_memory}</max_server_memory_usage>
    <timezone>UTC</timezone>
    <mlock_executable>false</mlock_executable>
    <user_directories>
        <users_xml><path>{users}</path></users_xml>
        <local_directory><path>{access}/</path></local_directory>
    </user_directories>
</clickhouse>
",
        data = place("data"),
        tmp = place("tmp"),
        user_files = place("user_files"),
        format_schemas = place("format_schemas"),
        access = place("access"),
        users = escaped(users),
    )
}

fn escaped(path: &Path) -> String {
    path.display().to_string().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Waits until the server answers and has the database; returns its version.
///
/// # Cancellation
///
/// Safe; it asks without end, so the caller brings the deadline.
pub(super) async fn answering(port: u16, database: &str) -> String {
    let client = reqwest::Client::new();
    let url = format!("http://127.0.0.1:{port}/");
    loop {
        let created = ask(&client, &url, &format!("CREATE DATABASE IF NOT EXISTS `{database}`")).await;
        if created.is_ok()
            && let Ok(version) = ask(&client, &url, "SELECT version()").await
        {
            return version.trim().to_owned();
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

async fn ask(client: &reqwest::Client, url: &str, sql: &str) -> reqwest::Result<String> {
    client.post(url).body(sql.to_owned()).send().await?.error_for_status()?.text().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_listens_on_loopback_and_keeps_everything_in_its_folder() {
        let xml = config_xml(Path::new("/data/a&b"), 8123, 1_000, Path::new("/etc/users.xml"));
        assert!(xml.contains("<listen_host>127.0.0.1</listen_host>"));
        assert!(xml.contains("<http_port>8123</http_port>"));
        assert!(xml.contains("<path>/data/a&amp;b/data/</path>"));
        assert!(xml.contains("<users_xml><path>/etc/users.xml</path></users_xml>"));
        assert!(!xml.contains("tcp_port") && !xml.contains("_log>"));
    }
}
