//! What could not be used is tried again, and what is stored is held against what it would become today.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleetlog_tests::{
    ClickHouse, Client, Deployment, Engines, Process, SOON, create_key, eventually, fixture, run,
};
use serde_json::{Value, json};

/// How long a service may take to end after SIGTERM.
const STOP: Duration = Duration::from_secs(45);
const GATEWAY: usize = 0;
const AGGREGATOR: usize = 2;
const QUERY_API: usize = 3;
const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

/// Everything but a processor, which each test starts as it needs it.
struct House {
    // Services first: they drain into the engines.
    _services: Vec<Process>,
    admin: Client,
    engines: Engines,
    config: PathBuf,
    folder: tempfile::TempDir,
}

impl House {
    async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let engines = Engines::start(folder.path()).await?;
        let deployment = Deployment::write(folder.path(), &engines)?;
        let admin = deployment.prepare(&engines).await?;
        let mut services = Vec::new();
        for service in [GATEWAY, AGGREGATOR, QUERY_API] {
            let process = deployment.launch(service)?;
            deployment.ready(service, &process).await?;
            services.push(process);
        }
        let config = folder.path().join("fleetlog.toml");
        Ok(Self { _services: services, admin, engines, config, folder })
    }

    /// A processor with further settings.
    fn processor(&self, settings: &[&str]) -> Result<Process> {
        Process::start("fleetlog-processor", |command| {
            command.arg("--config").arg(&self.config);
            for setting in settings {
                command.args(["--set", setting]);
            }
        })
    }

    /// Runs a command with `--json`; its exit code, its last line as JSON, and what it said beside.
    fn command(&self, arguments: &[&str]) -> Result<(i32, Value, String)> {
        let output = run("fleetlog", |command| {
            command.args(arguments).arg("--json").arg("--config").arg(&self.config);
        })?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let code = output.status.code().context("it was killed")?;
        let json = stdout.lines().last().map_or(Ok(Value::Null), serde_json::from_str);
        Ok((code, json.with_context(|| format!("{stdout}\n{stderr}"))?, stderr))
    }

    fn clickhouse(&self) -> ClickHouse {
        ClickHouse::at(&self.engines.clickhouse.url())
    }

    /// Waits until so many raw records are settled, with so many records stored and duplicate.
    async fn settled(&self, raw_records: u64, stored: u64, duplicate: u64) -> Result<()> {
        let clickhouse = self.clickhouse();
        eventually("all raw records are settled", SOON, || async {
            let settled: [u64; 1] = clickhouse.select_one("SELECT count() FROM settlements", &[]).await?;
            let pieces: [u64; 2] = clickhouse
                .select_one("SELECT sum(stored), sum(duplicate) FROM piece_settlements", &[])
                .await?;
            ensure!(settled == [raw_records] && pieces == [stored, duplicate], "{settled:?} {pieces:?}");
            Ok(())
        })
        .await
    }

    async fn dead_letters(&self, count: usize) -> Result<Vec<Value>> {
        eventually("the dead letters are listed", SOON, || async {
            let page = self.admin.read("/v1/dead-letters", &[]).await?;
            let letters = page["data"].as_array().context("no data")?.clone();
            ensure!(letters.len() == count, "{} letters: {letters:?}", letters.len());
            Ok(letters)
        })
        .await
    }
}

fn lines(events: &[Value]) -> String {
    events.iter().map(|event| format!("{event}\n")).collect()
}

fn padded(session: &str, n: usize, id: bool) -> Value {
    let mut event = json!({"type": "log", "sessionId": session, "data": {"n": n, "pad": "x".repeat(300)}});
    if id {
        event["id"] = format!("{session}-{n}").into();
    }
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_shown_to_administrators_and_replayed_once_however_often() -> Result<()> {
    let house = House::start().await?;
    let small = house.processor(&["processor.decoded_max_bytes=300"])?;

    // One request whose events have ids, with a secret in it, and one whose events have neither id nor time.
    let secret = format!("sk-{}-{}", "ant", "a1B2c3D4e5F6g7H8i9J0");
    let mut first = padded("named", 0, true);
    first["data"]["key"] = secret.clone().into();
    let named = [first, padded("named", 1, true), padded("named", 2, true)];
    let nameless = [padded("nameless", 0, false), padded("nameless", 0, false)];
    for events in [&named[..], &nameless[..]] {
        house.admin.post("/v1/events", &[NDJSON], lines(events)).await?.expect_status(202)?;
    }
    let letters = house.dead_letters(2).await?;
    ensure!(
        letters.iter().all(|letter| letter["reason"] == "too_large" && letter["replay_of"] == ""),
        "{letters:?}"
    );
    let of_named =
        letters.iter().find(|letter| letter["records"] == 3).context("no letter of three records")?;

    // The list shows what may be shown; the bytes are for administrators of the project, and for nobody else.
    ensure!(!letters.iter().any(|letter| letter.to_string().contains(&secret)), "a secret in the list");
    let place = format!("/v1/dead-letters/{}/{}", of_named["log_partition"], of_named["log_offset"]);
    let original = house.admin.read(&place, &[]).await?;
    let text = original["data"]["text"].as_str().context("no text")?;
    ensure!(text == lines(&named) && original["data"]["truncated"] == false, "{original}");
    for (project, role, status) in [("demo", "viewer", 403), ("other", "admin", 404)] {
        let key = create_key(&house.engines.kafka.bootstrap(), project, role).await?;
        let other = Client::new(house.admin.ingest_url(), house.admin.query_url(), &key);
        eventually("the key is known", SOON, || async {
            other.get(&place, &[]).await?.expect_status(status).map(drop)
        })
        .await?;
    }
    for nowhere in ["/v1/dead-letters/0/999999", "/v1/dead-letters/99/0", "/v1/dead-letters/x/0"] {
        house.admin.get(nowhere, &[]).await?.expect_status(404)?;
    }

    // Nothing is mended yet: what is replayed dies again, and says of which letter it came.
    let (code, summary, said) =
        house.command(&["replay", "dead", "--reason", "too_large", "--project", "demo"])?;
    ensure!(code == 0 && summary["published"] == 2 && summary["replays_skipped"] == 0, "{summary} {said}");
    let letters = house.dead_letters(4).await?;
    let again = letters.iter().filter(|letter| letter["replay_of"] != "").count();
    ensure!(again == 2, "{letters:?}");
    let status = small.terminate(STOP)?;
    ensure!(status.code() == Some(0), "the processor ended with {status}");

    // Now it takes them.
    let _processor = house.processor(&[])?;
    let (_, summary, _) = house.command(&["replay", "dead", "--dry-run"])?;
    ensure!(
        summary["selected"] == 2 && summary["replays_skipped"] == 2 && summary["dry_run"] == true,
        "{summary}"
    );
    let (_, summary, _) = house.command(&["replay", "dead", "--reason", "poison"])?;
    ensure!(summary["selected"] == 0 && summary["published"] == 0, "{summary}");
    house.settled(4, 0, 0).await?;
    let (_, summary, _) = house.command(&["replay", "dead"])?;
    ensure!(summary["published"] == 2 && summary["refused"] == json!({}), "{summary}");
    house.settled(6, 5, 0).await?;
    // Again, with the letters of the replay too: five are known, and five are known again.
    let (_, summary, _) = house.command(&["replay", "dead", "--replays", "--from", "now-1h"])?;
    ensure!(summary["published"] == 4, "{summary}");
    house.settled(10, 5, 10).await?;
    let sql = "SELECT session_id, count(), uniqExact(dedup_key) FROM events GROUP BY session_id ORDER BY session_id";
    let rows: Vec<(String, u64, u64)> = house.clickhouse().select(sql, &[]).await?;
    ensure!(rows == [("named".to_owned(), 3, 3), ("nameless".to_owned(), 2, 2)], "{rows:?}");
    let left = house.clickhouse().select_one::<[u64; 1]>("SELECT count() FROM dead_letters", &[]).await?;
    ensure!(left == [4], "the replays of what is mended made new letters: {left:?}");
    Ok(())
}

fn call(n: u32, model: &str) -> Value {
    json!({
        "type": "llm.response", "id": format!("call-{model}-{n}"), "sessionId": "priced", "provider": "anthropic",
        "model": model, "inUncached": 1_000_000, "outVisible": 0, "timestamp": "2026-11-01T12:00:00Z",
    })
}

fn prices(folder: &Path) -> Result<String> {
    let file = folder.join("prices.toml");
    std::fs::write(
        &file,
        "version = \"dearer\"\nsource = \"a contract\"\nlicence = \"none\"\n[[price]]\nmodel = \"claude-3-haiku\"\ninput = 0.75\noutput = 1.25\n",
    )?;
    Ok(format!("prices.file={}", file.display()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_of_raw_records_finds_nothing_until_a_price_changes_and_then_exactly_that() -> Result<()> {
    let house = House::start().await?;
    let _processor = house.processor(&[])?;
    // Sent before the window: its retry within the window is one there too.
    house
        .admin
        .post("/v1/events", &[NDJSON], lines(&[call(0, "claude-3-haiku")]))
        .await?
        .expect_status(202)?;
    house.settled(1, 1, 0).await?;
    let clickhouse = house.clickhouse();
    // Kafka's times are milliseconds, and the window begins with the first whole one after what is stored.
    let sql = "SELECT formatDateTime(now64(3) + toIntervalMillisecond(5), '%FT%T.%fZ')";
    let (from,): (String,) = clickhouse.select_one(sql, &[]).await?;
    eventually("the window has begun", SOON, || async {
        let sql = "SELECT now64(3) > parseDateTime64BestEffort({from:String}, 3)";
        let [begun] = clickhouse.select_one::<[u8; 1]>(sql, &[("from", &from)]).await?;
        ensure!(begun == 1, "not yet");
        Ok(())
    })
    .await?;

    let calls: Vec<Value> =
        (0..4).map(|n| call(n, "claude-3-haiku")).chain((0..2).map(|n| call(n, "claude-3-opus"))).collect();
    let tool =
        json!({"type": "tool.call", "id": "t", "sessionId": "priced", "toolName": "Bash", "toolCallId": "t"});
    house.admin.post("/v1/events", &[NDJSON], lines(&calls)).await?.expect_status(202)?;
    house.admin.post("/v1/events", &[NDJSON], lines(&[tool, calls[1].clone()])).await?.expect_status(202)?;
    for name in ["logs", "traces"] {
        let body = fixture(&format!("claude-code-2.1-session/{name}.json"))?;
        house.admin.post_json(&format!("/v1/{name}"), body).await?.expect_status(200)?;
    }
    let window = ["replay", "raw", "--from", from.as_str()];
    let replay = |further: &[&str]| house.command(&[&window[..], further].concat());

    let (code, report, said) = replay(&[])?;
    ensure!(code == 0 && report["equal"] == true, "{code}: {report}\n{said}");
    let (before, after) = (&report["usage"]["before"], &report["usage"]["after"]);
    ensure!(before == after && report["records"]["before"]["raw_records"] == 4, "{report}");
    let of = |report: &Value, model: &str| {
        report["models"].as_array().into_iter().flatten().find(|line| line["name"] == model).cloned()
    };
    // Five of them were sent within the window; that of number 0 was stored before it, that of number 1 came twice.
    let haiku = of(&report, "claude-3-haiku").context("no haiku")?;
    ensure!(haiku["before"]["calls"] == 3 && haiku["before"]["cost_computed"] == 0.75, "{haiku}");
    let tools = report["tools"].as_array().context("no tools")?;
    ensure!(tools.iter().any(|line| line["name"] == "Bash" && line["before"] != 0), "{tools:?}");

    let dearer = prices(house.folder.path())?;
    let (code, report, said) = replay(&["--set", &dearer])?;
    ensure!(code == 1 && report["equal"] == false, "{code}: {report}\n{said}");
    let haiku = of(&report, "claude-3-haiku").context("no haiku")?;
    let (before, after) = (&haiku["before"]["cost_computed"], &haiku["after"]["cost_computed"]);
    ensure!((before, after) == (&json!(0.75), &json!(2.25)), "{haiku}");
    let (before, after) = (&report["usage"]["before"], &report["usage"]["after"]);
    let cost = |usage: &Value| usage["cost_computed"].as_f64().context("no cost");
    ensure!((cost(after)? - cost(before)? - 1.5).abs() < 1e-9, "{before} {after}");
    ensure!(
        before["in_uncached"] == after["in_uncached"] && before["calls"] == after["calls"],
        "{before} {after}"
    );
    ensure!(report["rows"] == json!({"only_before": 0, "only_after": 0, "changed": 3}), "{}", report["rows"]);
    ensure!(report["sessions_differing"] == 1 && report["sessions"][0]["session_id"] == "priced", "{report}");

    // Nothing is left behind, unless that is asked for; and what is left is not taken for nothing.
    let shadows = async || {
        let sql = "SELECT count() FROM system.databases WHERE name LIKE 'fleetlog_shadow%'";
        clickhouse.select_one::<[u64; 1]>(sql, &[]).await
    };
    ensure!(shadows().await? == [0], "shadow databases are left");
    let (code, _, said) = replay(&["--project", "nobody", "--keep-tables"])?;
    ensure!(code == 0 && shadows().await? == [2], "{code}: {said}");
    let (code, _, said) = replay(&[])?;
    ensure!(code == 2 && said.contains("--replace"), "{code}: {said}");
    let (code, report, said) = replay(&["--project", "demo", "--replace"])?;
    ensure!(code == 0 && report["records"]["after"]["raw_records"] == 4, "{code}: {report}\n{said}");
    let (code, _, said) = house.command(&["replay", "raw", "--from", "now", "--to", "now-1h"])?;
    ensure!(code == 2 && said.contains("--from"), "{code}: {said}");
    let rows: [u64; 1] =
        clickhouse.select_one("SELECT countIf(model = 'claude-3-haiku') FROM events", &[]).await?;
    ensure!(rows == [4], "what is stored was changed: {rows:?}");
    Ok(())
}
