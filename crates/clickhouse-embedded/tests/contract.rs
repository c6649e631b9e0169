//! The contract with clients: the official `clickhouse` crate and plain HTTP get what a ClickHouse server gives.

mod support;

use clickhouse::Row;
use serde::{Deserialize, Serialize};
use support::{Bridge, eventually};

#[derive(Debug, Clone, PartialEq, Row, Serialize, Deserialize)]
struct Line {
    id: u64,
    text: String,
    value: Option<f64>,
    tags: Vec<(String, String)>,
}

fn line(id: u64) -> Line {
    let tags = vec![("k".to_owned(), id.to_string())];
    Line { id, text: format!("line\n\n{id}; 'é'"), value: id.is_multiple_of(2).then_some(0.5), tags }
}

const LINES: &str = "CREATE TABLE lines (id UInt64, text String, value Nullable(Float64), tags Map(String, String)) \
                     ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 100";

async fn insert(
    client: &clickhouse::Client,
    token: &str,
    ids: std::ops::Range<u64>,
) -> clickhouse::error::Result<()> {
    let mut insert = client.insert::<Line>("lines").await?.with_setting("insert_deduplication_token", token);
    for id in ids {
        insert.write(&line(id)).await?;
    }
    insert.end().await
}

macro_rules! bridge_or_skip {
    ($data:expr, $arguments:expr) => {
        match Bridge::start($data, $arguments) {
            Some(bridge) => bridge,
            None => return,
        }
    };
}

#[tokio::test]
async fn official_client_reads_back_what_it_inserted() {
    let data = tempfile::tempdir().unwrap();
    let bridge = bridge_or_skip!(data.path(), &[]);
    let client = bridge.client();
    client.query(LINES).execute().await.unwrap();
    // Large enough for many compressed blocks in, and a streamed answer with repeated headers out.
    insert(&client, "a", 0..150_000).await.unwrap();
    let rows: Vec<Line> = client.query("SELECT ?fields FROM lines ORDER BY id").fetch_all().await.unwrap();
    assert_eq!(rows.len(), 150_000);
    assert!(rows.iter().enumerate().all(|(id, row)| *row == line(id as u64)));

    let found: String = client
        .query("SELECT text FROM lines WHERE id = {id:UInt64} AND text LIKE {like:String}")
        .param("id", 7_u64)
        .param("like", "line\n%'é'")
        .fetch_one()
        .await
        .unwrap();
    assert_eq!(found, line(7).text);
    let plain = client.clone().with_compression(clickhouse::Compression::None);
    assert_eq!(plain.query("SELECT count() FROM lines").fetch_one::<u64>().await.unwrap(), 150_000);
    let none: Option<u64> = client.query("SELECT id FROM lines WHERE id < 0").fetch_optional().await.unwrap();
    assert_eq!(none, None);
}

#[tokio::test]
async fn a_parameter_is_taken_up_to_the_size_that_a_server_takes() {
    let data = tempfile::tempdir().unwrap();
    let bridge = bridge_or_skip!(data.path(), &[]);
    let length = async |bytes: usize| {
        let query = bridge.client().query("SELECT length({text:String})").param("text", "x".repeat(bytes));
        query.fetch_one::<u64>().await
    };
    assert_eq!(length(128 << 10).await.unwrap(), 128 << 10);
    let refused = length((128 << 10) + 1).await.unwrap_err().to_string();
    assert!(refused.contains("Code: 1000") && refused.contains("Field value too long"), "{refused}");
}

#[tokio::test]
async fn repeated_token_is_ignored_and_an_empty_insert_is_fine() {
    let data = tempfile::tempdir().unwrap();
    let bridge = bridge_or_skip!(data.path(), &[]);
    let client = bridge.client();
    client.query(LINES).execute().await.unwrap();
    for (token, ids) in [("a", 0..10), ("a", 0..10), ("b", 0..10), ("c", 0..0)] {
        insert(&client, token, ids).await.unwrap();
    }
    assert_eq!(bridge.run("SELECT count() FROM lines").await, "20\n");
}

#[tokio::test]
async fn exceptions_carry_code_and_status() {
    let data = tempfile::tempdir().unwrap();
    let bridge = bridge_or_skip!(data.path(), &[]);
    for (sql, status, code) in [
        ("SELECT * FROM missing", 404, 60),
        ("SELECT * FROM missing.t", 404, 81),
        ("SELECT missing()", 404, 46),
        ("selec", 400, 62),
        ("", 400, 62),
        ("SELECT 1; SELECT 2", 400, 62),
        ("SELECT 1; selec", 400, 62),
        ("SELECT toUInt8('x')", 400, 6),
        ("SELECT throwIf(1)", 500, 395),
        ("SELECT 1 FORMAT Missing", 404, 73),
        ("SELECT 1 SETTINGS missing = 1", 404, 115),
        ("SELECT {x:UInt8}", 400, 456),
    ] {
        let response = bridge.http.post(&bridge.url).body(sql).send().await.unwrap();
        let header = response.headers().get("x-clickhouse-exception-code").cloned();
        let (got, text) = (response.status().as_u16(), response.text().await.unwrap());
        assert!(text.starts_with(&format!("Code: {code}. DB::Exception: ")), "{sql}: {text}");
        assert!(text.ends_with("(version 26.7.2.1)\n"), "{sql}: {text}");
        assert_eq!(header.unwrap(), code.to_string().as_str(), "{sql}");
        if code != 456 {
            assert_eq!(got, status, "{sql}");
        }
    }
    let (status, _) = bridge.post(&[("missing_setting", "1")], "SELECT 1").await;
    assert_eq!(status, 404);
    let (status, _) = bridge.post(&[("database", "missing")], "SELECT 1").await;
    assert_eq!(status, 404);
    assert_eq!(bridge.http.get(format!("{}/nothing", bridge.url)).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn failure_in_the_middle_of_an_answer_is_a_failure_for_the_client() {
    let data = tempfile::tempdir().unwrap();
    let bridge = bridge_or_skip!(data.path(), &[]);
    let sql = "SELECT throwIf(number = 2900000, 'in the middle'), number FROM numbers(3000000)";
    for compression in [clickhouse::Compression::Lz4, clickhouse::Compression::None] {
        let client = bridge.client().with_compression(compression);
        let mut rows = client.query(sql).fetch::<(u8, u64)>().unwrap();
        let mut count = 0_u64;
        let error = loop {
            match rows.next().await {
                Ok(Some(_)) => count += 1,
                Ok(None) => panic!("the answer ended as if it were complete"),
                Err(error) => break error,
            }
        };
        assert!(count > 100_000, "nothing was streamed: {count}");
        assert!(error.to_string().contains("in the middle"), "{error}");
    }
    // Held back until its end, the same failure still gets its own status.
    let (status, text) = bridge.post(&[("wait_end_of_query", "1")], sql).await;
    assert_eq!((status, &text[..9]), (500, "Code: 395"));
}

#[tokio::test]
async fn statement_and_data_may_come_in_any_of_the_usual_places() {
    let data = tempfile::tempdir().unwrap();
    let bridge = bridge_or_skip!(data.path(), &[]);
    bridge.run("CREATE TABLE t (a UInt64, s String) ENGINE = MergeTree ORDER BY a").await;
    for (query, body) in [
        ("INSERT INTO t FORMAT CSV", "1,\"x\n\ny\"\n"),
        ("INSERT INTO t VALUES", "(2, 'a;\n\nb')"),
        ("INSERT INTO t (a, s) SETTINGS max_threads = 1 FORMAT", " TSV\n3\tc\n"),
        ("", "INSERT INTO t FORMAT JSONEachRow\n{\"a\":4,\"s\":\"d\"}\n"),
        ("", "INSERT INTO t VALUES (5, 'e'), (6, 'f');"),
        ("INSERT INTO t SELECT 7, 'g'", ""),
        ("INSERT INTO t VALUES ({a:UInt64}, {s:String})", ""),
    ] {
        let parameters = [("query", query), ("param_a", "8"), ("param_s", "h")];
        let parameters = if query.contains('{') { &parameters[..] } else { &parameters[..1] };
        let (status, text) = bridge.post(parameters, body).await;
        assert_eq!((status, text.as_str()), (200, ""), "{query} {body}");
    }
    let sum = bridge.run("SELECT sum(a), count(), countIf(s LIKE '%\n\n%') FROM t").await;
    assert_eq!(sum, "36\t8\t2\n");
    let form = reqwest::multipart::Form::new()
        .text("query", "SELECT {x:Array(String)}[2]")
        .text("param_x", "['a','b']");
    let text = bridge.http.post(&bridge.url).multipart(form).send().await.unwrap().text().await.unwrap();
    assert_eq!(text, "b\n");
    bridge.run("DROP DATABASE fleetlog SYNC").await;
    bridge.run("CREATE DATABASE fleetlog").await;
    bridge.run("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a").await;
    let get = |url: &str| bridge.http.get(format!("{}/?query={url}", bridge.url)).send();
    assert_eq!(get("SELECT+1").await.unwrap().text().await.unwrap(), "1\n");
    // A GET promises to change nothing, and is held to it.
    assert!(get("DROP+TABLE+t").await.unwrap().text().await.unwrap().starts_with("Code: 164."));
    let ping = bridge.http.get(format!("{}/ping", bridge.url)).send().await.unwrap();
    assert_eq!(ping.text().await.unwrap(), "Ok.\n");
}

#[tokio::test]
async fn answer_says_format_summary_and_query_id() {
    let data = tempfile::tempdir().unwrap();
    let bridge = bridge_or_skip!(data.path(), &[]);
    bridge.run("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a").await;
    let request = bridge.http.post(&bridge.url).query(&[("query_id", "mine"), ("default_format", "JSON")]);
    let response = request.body("INSERT INTO t SELECT number FROM numbers(5)").send().await.unwrap();
    let summary = response.headers()["x-clickhouse-summary"].to_str().unwrap();
    let summary: serde_json::Value = serde_json::from_str(summary).unwrap();
    assert_eq!(summary["written_rows"], "5");
    assert_eq!(response.headers()["x-clickhouse-query-id"], "mine");
    let response =
        bridge.http.post(&bridge.url).query(&[("default_format", "JSON")]).body("SELECT 1 AS x").send();
    let response = response.await.unwrap();
    assert_eq!(response.headers()["x-clickhouse-format"], "JSON");
    assert_eq!(response.headers()["content-type"], "application/json; charset=UTF-8");
    let body: serde_json::Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(body["data"][0]["x"], 1);
}

#[tokio::test]
async fn query_id_is_seen_while_its_query_runs_and_is_refused_twice() {
    let data = tempfile::tempdir().unwrap();
    let bridge = bridge_or_skip!(data.path(), &[]);
    let slow = bridge.post(&[("query_id", "events:0:1")], "SELECT sleepEachRow(0.5) FROM numbers(4)");
    let watch = async {
        eventually("the query is seen", async || !bridge.running("events:0:").await.is_empty()).await;
        assert_eq!(bridge.running("events:1:").await, Vec::<String>::new());
        let (status, text) = bridge.post(&[("query_id", "events:0:1")], "SELECT 1").await;
        assert_eq!(status, 409, "{text}");
    };
    let ((status, _), ()) = tokio::join!(slow, watch);
    assert_eq!(status, 200);
    eventually("the query is gone", async || bridge.running("").await.is_empty()).await;
}

#[tokio::test]
async fn query_of_a_client_that_left_is_cancelled() {
    let data = tempfile::tempdir().unwrap();
    let bridge = bridge_or_skip!(data.path(), &[]);
    for sql in
        ["SELECT sum(sipHash64(number)) FROM numbers(1000000000000)", "SELECT number FROM system.numbers"]
    {
        let request = bridge.http.post(&bridge.url).query(&[("query_id", "left")]).body(sql);
        let mut asked = tokio::task::JoinSet::new();
        asked.spawn(async move {
            let _begun = request.send().await;
            std::future::pending::<()>().await;
        });
        eventually("the query runs", async || {
            bridge.run("SELECT count() FROM system.processes WHERE query LIKE '%fleetlog:%'").await != "1\n"
        })
        .await;
        asked.abort_all();
        eventually("the query is cancelled", async || bridge.running("left").await.is_empty()).await;
    }
}

#[tokio::test]
async fn insert_whose_sender_vanished_is_not_committed() {
    let data = tempfile::tempdir().unwrap();
    let bridge = bridge_or_skip!(data.path(), &[]);
    bridge.run("CREATE TABLE t (a UInt64, s String) ENGINE = MergeTree ORDER BY a").await;
    let rows = "1,abc\n".repeat(100_000);
    let pieces: Vec<Result<String, std::io::Error>> = vec![Ok(rows), Err(std::io::Error::other("gone"))];
    let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    let request =
        bridge.http.post(&bridge.url).query(&[("query", "INSERT INTO t FORMAT CSV"), ("query_id", "cut")]);
    assert!(request.body(body).send().await.is_err());
    eventually("the insert has ended", async || bridge.running("cut").await.is_empty()).await;
    assert_eq!(bridge.run("SELECT count() FROM t").await, "0\n");
}

#[tokio::test]
async fn insert_that_fails_early_is_answered_although_its_body_goes_on() {
    let data = tempfile::tempdir().unwrap();
    let bridge = bridge_or_skip!(data.path(), &[]);
    let rows = "1,abc\n".repeat(3_000_000);
    let (status, text) = bridge.post(&[("query", "INSERT INTO missing FORMAT CSV")], rows).await;
    assert!(status == 404 && text.starts_with("Code: 60."), "{status} {text}");
    let error = insert(&bridge.client(), "a", 0..100_000).await.unwrap_err();
    assert!(error.to_string().contains("Code: 60."), "{error}");
}

#[tokio::test]
async fn insert_with_a_damaged_body_stores_nothing() {
    let data = tempfile::tempdir().unwrap();
    let bridge = bridge_or_skip!(data.path(), &[]);
    bridge.run("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a").await;
    let query = ("query", "INSERT INTO t FORMAT RowBinary");
    let (status, text) = bridge.post(&[query, ("decompress", "1")], vec![7_u8; 1000]).await;
    assert!(status == 500 && text.starts_with("Code: 271."), "{status} {text}");
    let (status, text) = bridge.post(&[query], vec![0_u8; 8 * 100 + 3]).await;
    assert!(status >= 400 && text.starts_with("Code: 33."), "{status} {text}");
    assert_eq!(bridge.run("SELECT count() FROM t").await, "0\n");
}

#[tokio::test]
async fn more_queries_than_may_run_wait_and_more_than_may_wait_get_503() {
    let data = tempfile::tempdir().unwrap();
    let bridge = bridge_or_skip!(data.path(), &["--max-concurrent-queries", "1"]);
    let sleep = || bridge.post(&[], "SELECT sleep(1)");
    let all = futures::future::join_all((0..7).map(|_| sleep())).await;
    let count = |status: u16| all.iter().filter(|(got, _)| *got == status).count();
    assert!(count(200) >= 4, "{all:?}");
    assert!(count(503) >= 2, "{all:?}");
    assert!(all.iter().filter(|(status, _)| *status == 503).all(|(_, text)| text.starts_with("Code: 202.")));
}

#[tokio::test]
async fn result_kept_whole_is_bounded_and_a_streamed_one_is_not() {
    let data = tempfile::tempdir().unwrap();
    let bridge = bridge_or_skip!(data.path(), &["--max-result-bytes", "1000000"]);
    let sql = "SELECT number FROM numbers(3000000)";
    let (status, text) = bridge.post(&[("default_format", "JSON")], sql).await;
    assert!(status == 500 && text.starts_with("Code: 396."), "{status} {}", &text[..100]);
    let (status, text) = bridge.post(&[("wait_end_of_query", "1")], sql).await;
    assert!(status == 500 && text.starts_with("Code: 307."), "{status}");
    let (status, text) = bridge.post(&[], sql).await;
    assert_eq!((status, text.lines().count()), (200, 3_000_000));
}
