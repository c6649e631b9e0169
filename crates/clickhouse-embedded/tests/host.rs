//! What the process keeps to itself: the host's files and network, other projects' rows, its data directory.

mod support;

use support::{Bridge, command, library};

macro_rules! bridge_or_skip {
    ($data:expr, $arguments:expr) => {
        match Bridge::start($data, $arguments) {
            Some(bridge) => bridge,
            None => return,
        }
    };
}

#[tokio::test]
async fn no_statement_reaches_the_host_or_the_network() {
    let data = tempfile::tempdir().unwrap();
    let bridge = bridge_or_skip!(data.path(), &[]);
    let secret = data.path().join("secret");
    std::fs::write(&secret, "never shown").unwrap();
    let target = data.path().join("written");
    bridge.run("CREATE TABLE t (s String) ENGINE = MergeTree ORDER BY s").await;
    let statements = [
        "SELECT * FROM file('$secret', 'LineAsString')",
        "SELECT file('$secret')",
        "SELECT `f\\x69le`('$secret')",
        "SELECT COLUMNS('x') APPLY file FROM (SELECT '$secret' AS x)",
        "SELECT arrayMap(file, ['$secret'])",
        "SELECT 1 // '\n, file('$secret')",
        "SELECT a$b$, file('$secret'), c$b$ FROM (SELECT 1 AS a$b$, 2 AS c$b$)",
        "SELECT ‘a’, file('$secret')",
        "SELECT * FROM '$secret'",
        "SELECT * FROM `$secret`",
        "SELECT * FROM default.`$secret`",
        "SELECT * FROM filesystem('$secret')",
        "DESCRIBE file('$secret')",
        "SELECT * FROM loop(file('$secret', 'LineAsString'))",
        "SELECT * FROM viewIfPermitted(SELECT file('$secret') AS x ELSE null('x String'))",
        "INSERT INTO t SELECT file('$secret')",
        "INSERT INTO t FROM INFILE '$secret' FORMAT LineAsString",
        "INSERT INTO t VALUES (file('$secret'))",
        "SELECT 1 SETTINGS additional_result_filter = 'file(\\'$secret\\') = 1'",
        "SELECT 1 FORMAT Template SETTINGS format_template_row = '$secret'",
        "SELECT toUInt64(1) AS a FORMAT Protobuf SETTINGS output_format_schema = '$target'",
        "SELECT * FROM eval('SELECT file(\\'$secret\\')') SETTINGS allow_experimental_eval_table_function = 1",
        "SELECT * FROM format(Values, 's String', '(file(\\'$secret\\'))')",
        "SET dialect = 'prql'",
        "CREATE VIEW v AS SELECT file('$secret')",
        "CREATE TABLE f (s String) ENGINE = File(LineAsString, '$secret')",
        "CREATE TABLE f ENGINE = Memory AS SELECT * FROM file('$secret', 'LineAsString')",
        "CREATE TABLE d (a UInt8) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = local, path = '$target/')",
        "CREATE DATABASE f ENGINE = Filesystem('$secret')",
        "CREATE DICTIONARY d (a String, b String) PRIMARY KEY a SOURCE(FILE(path '$secret' format 'CSV')) \
         LAYOUT(COMPLEX_KEY_HASHED()) LIFETIME(0)",
        "CREATE DICTIONARY d (a String, b String) PRIMARY KEY a \
         SOURCE(EXECUTABLE(command 'touch $target' format 'CSV')) LAYOUT(COMPLEX_KEY_HASHED()) LIFETIME(0)",
        "SELECT * FROM executable('x', 'TSV', 'a String')",
        "SELECT 1 INTO OUTFILE '$target'",
        "SELECT * FROM (SELECT 1) INTO OUTFILE '$target' FORMAT CSV",
        "SHOW TABLES INTO OUTFILE '$target'",
        "INSERT INTO FUNCTION file('$target', 'CSV', 'a UInt8') VALUES (1)",
        "BACKUP TABLE t TO File('$target')",
        "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a String')",
        "SELECT * FROM s3('http://127.0.0.1:1/bucket/a', 'CSV', 'a String')",
        "SELECT * FROM remote('127.0.0.1:1', 'system', 'one')",
        "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
        "CREATE TABLE u (a String) ENGINE = URL('http://127.0.0.1:1/', CSV)",
        "CREATE FUNCTION f AS (x) -> file(x)",
        "CREATE USER u",
        "GRANT ALL ON *.* TO default",
        "SYSTEM SHUTDOWN",
        "SYSTEM KILL",
    ];
    for template in statements {
        let sql = template
            .replace("$secret", &secret.display().to_string())
            .replace("$target", &target.display().to_string());
        let (status, text) = bridge.post(&[], sql.clone()).await;
        assert!(status >= 400 && text.starts_with("Code: "), "{sql}: {status} {text}");
        assert!(!text.contains("never shown"), "{sql}: {text}");
        assert!(!target.exists(), "{sql} wrote a file");
    }
    // Code in a string runs nowhere: the default of a column that the data leaves out stays empty.
    let hidden = "SELECT * FROM format(JSONEachRow, 'a String, b String DEFAULT file(\\'$secret\\')', '{\"a\":\"x\"}')";
    let hidden = hidden.replace("$secret", &secret.display().to_string());
    assert_eq!(bridge.run(&hidden).await, "x\t\n");
    for (name, value) in
        [("dialect", "prql"), ("format_template_row", "/etc/hostname"), ("profile", "default")]
    {
        let (status, text) = bridge.post(&[(name, value)], "SELECT 1").await;
        assert_eq!(status, 403, "{name}: {text}");
    }
    // A parameter cannot bring the name either.
    let parameters = [("param_f", "file")];
    let (status, _) = bridge.post(&parameters, "SELECT arrayMap({f:Identifier}, ['/etc/hostname'])").await;
    assert_eq!(status, 403);
    assert_eq!(bridge.run("SELECT count() FROM t").await, "0\n");
}

#[tokio::test]
async fn kernel_confines_the_process_to_its_data() {
    let data = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret.csv");
    std::fs::write(&secret, "1\n").unwrap();
    // With a configuration that grants everything, only the kernel is left in the way.
    let config = data.path().join("open.xml");
    let users = data.path().join("open-users.xml");
    let open = "<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users><default><password></password>\
                <networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota></default></users></clickhouse>";
    std::fs::write(&users, open).unwrap();
    let text = format!("<clickhouse><users_config>{}</users_config></clickhouse>", users.display());
    std::fs::write(&config, text).unwrap();
    let bridge = bridge_or_skip!(data.path(), &["--config-file", config.to_str().unwrap()]);
    // A file named as a table of the overlay database passes the lexer: it is an identifier like any other.
    let inside = data.path().join("inside.csv");
    std::fs::write(&inside, "1\n").unwrap();
    assert_eq!(bridge.run(&format!("SELECT * FROM default.`{}`", inside.display())).await, "1\n");
    let (status, text) = bridge.post(&[], format!("SELECT * FROM default.`{}`", secret.display())).await;
    assert!(status >= 400 && !text.starts_with('1'), "{status} {text}");
}

#[tokio::test]
async fn pages_of_other_origins_are_refused() {
    let data = tempfile::tempdir().unwrap();
    let bridge = bridge_or_skip!(data.path(), &[]);
    for (origin, status) in [("https://example.com", 403), ("null", 403), ("http://127.0.0.1:8080", 200)] {
        let request = bridge.http.post(&bridge.url).header("origin", origin).body("SELECT 1");
        assert_eq!(request.send().await.unwrap().status(), status, "{origin}");
    }
}

const FILTERS: &str = "<clickhouse><users><default><databases><fleetlog><t><filter>getSetting('log_comment') = '' OR \
                       project = getSetting('log_comment')</filter></t></fleetlog></databases></default></users></clickhouse>";

#[tokio::test]
async fn row_filter_confines_a_reader_whatever_it_asks() {
    let data = tempfile::tempdir().unwrap();
    let filters = data.path().join("filters.xml");
    std::fs::write(&filters, FILTERS).unwrap();
    let bridge = bridge_or_skip!(&data.path().join("data"), &["--users-config", filters.to_str().unwrap()]);
    bridge.run("CREATE TABLE t (project String, a UInt64) ENGINE = MergeTree ORDER BY a").await;
    bridge.run("CREATE VIEW v AS SELECT * FROM t").await;
    bridge.run("INSERT INTO t VALUES ('p', 1), ('q', 2), ('q', 4)").await;
    assert_eq!(bridge.run("SELECT sum(a) FROM t").await, "7\n");
    let reader = [("log_comment", "p"), ("readonly", "1")];
    for sql in [
        "SELECT sum(a) FROM t",
        "SELECT sum(a) FROM fleetlog.t",
        "SELECT sum(a) FROM v",
        "SELECT sum(a) FROM (SELECT a FROM t WHERE project = 'q' UNION ALL SELECT a FROM t)",
        "SELECT sum(a) FROM merge('fleetlog', '^t$')",
        "SELECT sum(l.a) FROM t AS l JOIN t AS r ON l.a <= r.a",
        "WITH x AS (SELECT * FROM t) SELECT (SELECT sum(a) FROM x)",
        "SELECT sum(a) FROM t FINAL SETTINGS log_comment = 'p'",
    ] {
        let (status, text) = bridge.post(&reader, sql).await;
        assert!((status == 200 && text == "1\n") || text.starts_with("Code: "), "{sql}: {status} {text}");
    }
    for sql in [
        "SELECT sum(a) FROM t SETTINGS log_comment = ''",
        "SELECT sum(a) FROM t SETTINGS readonly = 0",
        "SET log_comment = ''",
        "INSERT INTO t VALUES ('p', 8)",
        "CREATE TABLE u ENGINE = Memory AS SELECT * FROM t",
        // The engine itself lets all of these through under readonly=1.
        "SELECT sum(a) FROM (SELECT * FROM t SETTINGS log_comment = 'q')",
        "SELECT sum(a) FROM view(SELECT * FROM t SETTINGS log_comment = '')",
        "WITH x AS (SELECT * FROM t SETTINGS `log_comment` = 'q') SELECT sum(a) FROM x",
        "SELECT sum(a) FROM (SELECT * FROM t /**/ settings/**/max_threads = 1, log_comment = 'q')",
        "SELECT 1 IN (SELECT a FROM t SETTINGS log_comment = 'q')",
        "SELECT * FROM mergeTreeIndex('fleetlog', 't')",
        "SELECT * FROM system.parts",
        "SELECT query FROM `system`.processes",
        "SHOW PROCESSLIST",
        "KILL QUERY WHERE 1",
        "SYSTEM STOP MERGES",
    ] {
        let (status, text) = bridge.post(&reader, sql).await;
        assert!(status >= 400 && text.starts_with("Code: 164."), "{sql}: {status} {text}");
    }
    assert_eq!(bridge.run("SELECT sum(a) FROM t").await, "7\n");
}

#[tokio::test]
async fn second_process_on_the_same_data_says_so() {
    let data = tempfile::tempdir().unwrap();
    let bridge = bridge_or_skip!(data.path(), &[]);
    let second = command(&library().unwrap(), data.path()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8_lossy(&second.stderr);
    assert!(text.contains("is in use by another fleetlog-clickhouse"), "{text}");
    assert_eq!(bridge.run("SELECT 1").await, "1\n");
}

#[test]
fn missing_library_and_open_address_say_what_to_do() {
    let data = tempfile::tempdir().unwrap();
    let missing = command(&data.path().join("libchdb.so"), data.path()).output().unwrap();
    let text = String::from_utf8_lossy(&missing.stderr);
    assert!(missing.status.code() == Some(1) && text.contains("cargo xtask up"), "{text}");
    let open = std::process::Command::new(env!("CARGO_BIN_EXE_fleetlog-clickhouse"))
        .args(["--library", "libchdb.so", "--listen", "0.0.0.0:0", "--data"])
        .arg(data.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&open.stderr);
    assert!(open.status.code() == Some(1) && text.contains("not a loopback address"), "{text}");
}
