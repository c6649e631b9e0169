//! What happens when something is wrong with a request: its answer, and that the stream goes on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use fleetlog_tests::{Answer, Client, Project, SOON, System, eventually, peak_memory, run, say};
use serde_json::{Value, json};

const MIB: usize = 1024 * 1024;
const JSON: (&str, &str) = ("content-type", "application/json");
const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");

/// The machine-readable part of a refusal.
fn error_of(answer: &Answer) -> Result<Value> {
    let error = answer.json()?["error"].take();
    ensure!(
        error["code"].is_string() && error["message"].is_string(),
        "no code and message: {}",
        answer.text
    );
    Ok(error)
}

/// Sends an event after the trouble and waits until it is stored.
async fn the_stream_goes_on(project: &Project, id: &str) -> Result<()> {
    let event = json!({"id": id, "type": "log", "sessionId": "afterwards"}).to_string();
    project.admin.post_json("/v1/events", event).await?.expect_status(202)?;
    eventually("an event sent afterwards is visible", SOON, || async {
        project.admin.read(&format!("/v1/events/{id}"), &[]).await
    })
    .await?;
    Ok(())
}

pub(crate) async fn malformed_json_is_refused_with_its_position_and_nothing_of_it_is_stored(
    system: Arc<System>,
) -> Result<()> {
    let project = Project::create(&system, "malformed").await?;
    for (body, position) in [(r#"{"type":"log","#, 14), (r#"{"type":"log"} x"#, 15), ("no json", 0)] {
        let answer = project.admin.post_json("/v1/events", body).await?.expect_status(400)?;
        let error = error_of(&answer)?;
        ensure!(error["position"] == position, "{body}: {error}");
    }
    let answer = project.admin.post_json("/v1/logs", r#"{"resourceLogs":[{"#).await?;
    ensure!(answer.status == 400, "{}: {}", answer.status, answer.text);
    // The tag announces five bytes of which there is one.
    for path in ["/v1/logs", "/v1/traces"] {
        let answer = project.admin.post(path, &[PROTOBUF], vec![0x0A, 0x05, 0xFF]).await?;
        ensure!(answer.status == 400, "{path}: {}: {}", answer.status, answer.text);
    }
    the_stream_goes_on(&project, "after-malformed").await?;
    let rows = project.count("events").await?;
    ensure!(rows == 1, "{rows} rows");
    Ok(())
}

pub(crate) async fn a_key_does_what_its_role_allows_and_nothing_else(system: Arc<System>) -> Result<()> {
    let project = Project::create(&system, "roles").await?;
    let (ingest, viewer) = (project.with_role("ingest").await?, project.with_role("viewer").await?);
    let event = r#"{"type":"log"}"#;
    eventually("the keys are known", SOON, || async {
        ingest.post_json("/v1/events", event).await?.expect_status(202)?;
        viewer.get("/v1/events", &[]).await?.expect_status(200)
    })
    .await?;
    let answer = viewer.post_json("/v1/events", event).await?.expect_status(403)?;
    error_of(&answer)?;
    let answer = ingest.get("/v1/events", &[]).await?.expect_status(403)?;
    error_of(&answer)?;
    let altered = format!("{}x", project.admin.key());
    for key in ["", "nonsense", "fl_nobody_secret", &altered] {
        let stranger = system.client(key);
        let answer = stranger.post_json("/v1/events", event).await?.expect_status(401)?;
        error_of(&answer)?;
        ensure!(key.is_empty() || !answer.text.contains(key), "the answer repeats the key: {}", answer.text);
        error_of(&stranger.get("/v1/events", &[]).await?.expect_status(401)?)?;
    }
    revoke(&system, viewer.key()).await?;
    eventually("the revoked key is refused", SOON, || async {
        viewer.get("/v1/events", &[]).await?.expect_status(401)
    })
    .await?;
    Ok(())
}

async fn revoke(system: &System, key: &str) -> Result<()> {
    let id = key.split('_').nth(1).context("no id in the key")?.to_owned();
    let brokers = system.addresses().kafka.clone();
    let revoked = tokio::task::spawn_blocking(move || {
        run("fleetlog", |command| {
            command.args(["keys", "revoke", &id]).env("FLEETLOG__KAFKA__BROKERS", brokers);
        })
    });
    let revoked = revoked.await??;
    ensure!(revoked.status.success(), "keys revoke: {}", String::from_utf8_lossy(&revoked.stderr));
    Ok(())
}

pub(crate) async fn an_oversized_body_is_refused_and_costs_no_memory(system: Arc<System>) -> Result<()> {
    let project = Project::create(&system, "oversized").await?;
    let before = peak_memory(system.process().pid())?;
    // Announced by its length, and found out while it arrives in chunks.
    for chunked in [false, true] {
        let client = project.admin.clone();
        let answer =
            tokio::task::spawn_blocking(move || post_endlessly(&client, 100 * MIB, chunked)).await??;
        ensure!(answer.starts_with("HTTP/1.1 413"), "chunked {chunked}: {answer}");
        ensure!(answer.contains("20971520"), "the limit is not named: {answer}");
    }
    for (encoding, bomb) in bombs()? {
        let size = bomb.len();
        let headers = [JSON, ("content-encoding", encoding)];
        let answer = project.admin.post("/v1/events", &headers, bomb).await?;
        ensure!(
            matches!(answer.status, 400 | 413),
            "{encoding} of {size}: {} {}",
            answer.status,
            answer.text
        );
    }
    let grown = peak_memory(system.process().pid())?.saturating_sub(before);
    say(&format!("100 MB bodies and bombs of 8 GB raised the peak memory by {} MiB", grown / MIB as u64));
    ensure!(grown < 512 * MIB as u64, "{} MiB", grown / MIB as u64);
    the_stream_goes_on(&project, "after-oversized").await
}

/// Small bodies of 8 GB each: compressed parts, which both formats allow to be strung together.
fn bombs() -> Result<[(&'static str, Vec<u8>); 2]> {
    let part = vec![b' '; 64 * MIB];
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&part)?;
    let (gzip, zstd) = (gzip.finish()?, zstd::encode_all(&part[..], 1)?);
    Ok([("gzip", gzip.repeat(128)), ("zstd", zstd.repeat(128))])
}

/// Posts spaces as a sender does that does not look for an early answer; returns the answer.
fn post_endlessly(client: &Client, bytes: usize, chunked: bool) -> Result<String> {
    let address = client.ingest_url().trim_start_matches("http://");
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.set_write_timeout(Some(Duration::from_secs(30)))?;
    let length = match chunked {
        true => "transfer-encoding: chunked".to_owned(),
        false => format!("content-length: {bytes}"),
    };
    write!(
        stream,
        "POST /v1/events HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n{length}\r\n\r\n",
        client.key()
    )?;
    let part = vec![b' '; MIB];
    for _ in 0..bytes / MIB {
        let head = if chunked { format!("{MIB:x}\r\n") } else { String::new() };
        let tail = if chunked { "\r\n" } else { "" };
        let sent = stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(&part))
            .and_then(|()| stream.write_all(tail.as_bytes()));
        // The gateway has answered and hung up: the answer is waiting.
        if sent.is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") || !answer.ends_with(b"}") {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
            Err(e) if answer.is_empty() => return Err(e).context("no answer"),
            Err(_) => break,
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

pub(crate) async fn an_unknown_content_type_or_encoding_is_unsupported(system: Arc<System>) -> Result<()> {
    let project = Project::create(&system, "unsupported").await?;
    for path in ["/v1/events", "/v1/logs", "/v1/traces"] {
        let answer = project.admin.post(path, &[("content-type", "text/html")], "<p>").await?;
        ensure!(answer.status == 415, "{path}: {}: {}", answer.status, answer.text);
        let answer = project.admin.post(path, &[JSON, ("content-encoding", "rot13")], "{}").await?;
        ensure!(answer.status == 415, "{path}: {}: {}", answer.status, answer.text);
    }
    let answer = project.admin.post("/v1/events", &[JSON, ("content-encoding", "gzip")], "{}").await?;
    error_of(&answer.expect_status(400)?)?;
    the_stream_goes_on(&project, "after-unsupported").await
}

pub(crate) async fn an_event_that_nothing_maps_is_kept_as_raw_unknown(system: Arc<System>) -> Result<()> {
    let project = Project::create(&system, "unmappable").await?;
    let event = r#"{"id":"odd","type":"no.such.type","sessionId":"s","novel":{"deep":[1,2]},"data":{"kept":"whole"}}"#;
    let answer = project.admin.post_json("/v1/events", event).await?.expect_status(202)?.json()?;
    ensure!(answer["accepted"] == 1, "{answer}");
    let event =
        eventually("it is stored", SOON, || async { project.admin.read("/v1/events/odd", &[]).await })
            .await?["data"]
            .take();
    ensure!(event["type"] == "raw.unknown" && event["name"] == "no.such.type", "{event}");
    ensure!(event["data"]["kept"] == "whole" && event["data"].to_string().contains("[1,2]"), "{event}");
    the_stream_goes_on(&project, "after-unmappable").await
}

pub(crate) async fn a_bad_record_costs_itself_only(system: Arc<System>) -> Result<()> {
    let project = Project::create(&system, "bad-record").await?;
    let lines: Vec<String> = (0..1_000)
        .map(|number| match number {
            137 => r#"{"id":"bad-137","type":"log""#.to_owned(),
            number => format!(r#"{{"id":"line-{number}","type":"log","sessionId":"s"}}"#),
        })
        .collect();
    let headers = [("content-type", "application/x-ndjson")];
    let answer = project.admin.post("/v1/events", &headers, lines.join("\n")).await?;
    let answer = answer.expect_status(202)?.json()?;
    ensure!(answer["accepted"] == 999, "{answer}");
    let rejected = answer["rejected"].as_array().context("no list of the rejected")?;
    ensure!(rejected.len() == 1 && rejected[0]["index"] == 137, "{answer}");
    ensure!(rejected[0]["code"] == "malformed_json" && rejected[0]["message"].is_string(), "{answer}");
    ensure!(!answer["receipt"].is_null(), "no receipt: {answer}");
    eventually("the other 999 are stored", SOON, || async {
        let sql = "SELECT count(), uniqExact(event_id), countIf(event_id = 'bad-137') FROM events
                   WHERE project_id = {project:String}";
        let found: (u64, u64, u64) =
            system.clickhouse().select_one(sql, &[("project", project.id.as_str())]).await?;
        ensure!(found == (999, 999, 0), "{found:?}");
        Ok(())
    })
    .await?;
    the_stream_goes_on(&project, "after-bad-record").await
}

/// The engines share the disk: `fleetlog up` has the gateway watch it.
pub(crate) async fn the_disk_of_the_one_machine_run_is_watched(system: Arc<System>) -> Result<()> {
    let metrics = reqwest::get(format!("{}/metrics", system.addresses().ingest)).await?.text().await?;
    let value =
        |name: &str| metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    ensure!(
        value("fleetlog_gateway_disk_free_bytes ").is_some_and(|free| free > 0.0),
        "not watched:\n{metrics}"
    );
    ensure!(value("fleetlog_gateway_disk_low ") == Some(0.0), "low");
    Ok(())
}
