//! Starts the real binary on the real engine; every test skips with a message when there is no library.

#![allow(dead_code, reason = "each test binary uses its own part of the harness")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a harness reports by panicking")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The engine's library: `FLEETLOG_LIBCHDB`, else the place where the one-command run keeps it.
pub(crate) fn library() -> Option<PathBuf> {
    let given = std::env::var_os("FLEETLOG_LIBCHDB").map(PathBuf::from);
    let cache = std::env::var_os("FLEETLOG_CACHE")
        .or_else(|| std::env::var_os("XDG_CACHE_HOME"))
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let kept = cache.map(|cache| cache.join("fleetlog/engines/chdb-26.7.3-stable.1/libchdb.so"));
    let found = given.or(kept).filter(|path| path.is_file());
    if found.is_none() {
        eprintln!(
            "SKIPPED: no libchdb.so; set FLEETLOG_LIBCHDB or let `cargo xtask up` fetch the engine once"
        );
    }
    found
}

/// A running `fleetlog-clickhouse`, killed when dropped.
pub(crate) struct Bridge {
    process: Child,
    pub(crate) url: String,
    pub(crate) http: reqwest::Client,
}

impl Bridge {
    /// Starts on a data directory; None without a library.
    pub(crate) fn start(data: &Path, arguments: &[&str]) -> Option<Self> {
        let library = library()?;
        let mut process = command(&library, data).args(arguments).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).expect("no line of readiness");
        assert_eq!(ready["ready"], true);
        let url = format!("http://{}", ready["http"].as_str().unwrap());
        Some(Self { process, url, http: reqwest::Client::new() })
    }

    /// The official client, with LZ4 as by default.
    pub(crate) fn client(&self) -> clickhouse::Client {
        clickhouse::Client::default().with_url(&self.url)
    }

    /// Posts a statement: status, body.
    pub(crate) async fn post(
        &self,
        parameters: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> (u16, String) {
        let response = self.http.post(&self.url).query(parameters).body(body).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Runs a statement that must succeed.
    pub(crate) async fn run(&self, sql: &str) -> String {
        let (status, text) = self.post(&[], sql.to_owned()).await;
        assert_eq!(status, 200, "{sql}: {text}");
        text
    }

    /// The query ids on their way.
    pub(crate) async fn running(&self, prefix: &str) -> Vec<String> {
        let url = format!("{}/fleetlog/running", self.url);
        let text = self
            .http
            .get(url)
            .query(&[("query_id_prefix", prefix)])
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        let ids = list["running"].as_array().unwrap().iter();
        ids.map(|one| one["query_id"].as_str().unwrap().to_owned()).collect()
    }

    /// SIGKILL, as a crash.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// SIGTERM, and how it ended.
    pub(crate) fn stop(mut self) -> ExitStatus {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        self.process.wait().unwrap()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // After `kill` or `stop` there is nothing left to end.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The command line on a free port.
pub(crate) fn command(library: &Path, data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetlog-clickhouse"));
    command.arg("--library").arg(library).arg("--data").arg(data);
    command.args(["--listen", "127.0.0.1:0", "--exit-with-parent"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits for a condition, at most 20 s.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
