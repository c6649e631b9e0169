//! What may run: exactly one statement, and none that reaches the host or the network.
//!
//! Three layers, since each alone lets something through. The engine's own grants (see `config`) refuse the table
//! functions and engines that read files or hosts. The engine's parser says how many statements a text holds and
//! whether it leaves the engine (INTO OUTFILE, BACKUP). What neither covers is refused here by name: the scalar function
//! `file`, INFILE, dictionaries that run commands, SYSTEM SHUTDOWN. A text in which this lexer and the engine's could
//! differ is refused as a whole. `readonly` is no part of this: it is no sandbox.

use crate::error::{Code, ServerError};
use crate::ffi::{Analysis, StatementClass};
use crate::sql::{Kind, Lexer, Shape, Token, identifier, is_keyword};

/// Settings that hold code, name files or hosts, or change the language: the lexer sees none of that.
const FORBIDDEN_SETTINGS: &[&str] = &[
    "additional_result_filter",
    "additional_table_filters",
    "allow_experimental_ai_functions",
    "allow_experimental_eval_table_function",
    "dialect",
    "format_avro_schema_registry_url",
    "format_schema",
    "format_schema_source",
    "format_template_resultset",
    "format_template_row",
    "implicit_select",
    "input_format_defaults_for_omitted_fields",
    "input_format_values_deduce_templates_of_expressions",
    "input_format_values_interpret_expressions",
    "output_format_schema",
    "parallel_replicas_custom_key",
    "profile",
    "rename_files_after_processing",
];

/// Functions and table functions that leave the engine, in lower case.
const REACHING_OUT: &[&str] = &[
    "arrowflight",
    "azureblobstorage",
    "azureblobstoragecluster",
    "catboostevaluate",
    "cluster",
    "clusterallreplicas",
    "cosn",
    "deltalake",
    "deltalakeazure",
    "deltalakeazurecluster",
    "deltalakecluster",
    "deltalakelocal",
    "deltalakes3",
    "deltalakes3cluster",
    "disk",
    "eval",
    "executable",
    "executablepool",
    "file",
    "filecluster",
    "filesystem",
    "gcs",
    "hdfs",
    "hdfscluster",
    "hive",
    "hudi",
    "hudicluster",
    "iceberg",
    "icebergazure",
    "icebergazurecluster",
    "icebergcluster",
    "iceberghdfs",
    "iceberghdfscluster",
    "iceberglocal",
    "iceberglocalcluster",
    "icebergs3",
    "icebergs3cluster",
    "jdbc",
    "mongodb",
    "mysql",
    "nats",
    "odbc",
    "oss",
    "paimon",
    "paimonazure",
    "paimonazurecluster",
    "paimoncluster",
    "paimonhdfs",
    "paimonhdfscluster",
    "paimonlocal",
    "paimons3",
    "paimons3cluster",
    "postgresql",
    "prometheusquery",
    "prometheusqueryrange",
    "python",
    "redis",
    "remote",
    "remotesecure",
    "s3",
    "s3cluster",
    "sqlite",
    "url",
    "urlcluster",
    "ytsaurus",
];

/// Engines that keep their data inside the engine, in lower case; those of the MergeTree family are added by suffix.
const INSIDE: &[&str] = &[
    "atomic",
    "buffer",
    "dictionary",
    "embeddedrocksdb",
    "generaterandom",
    "join",
    "lazy",
    "log",
    "materializedview",
    "memory",
    "merge",
    "null",
    "set",
    "stripelog",
    "tinylog",
    "view",
];

/// Statements of class CONTROL that a client may send; the engine counts a statement with SETTINGS at its end among them.
const CONTROL: &[&str] =
    &["ALTER", "ATTACH", "DELETE", "DETACH", "KILL", "OPTIMIZE", "SET", "SYSTEM", "UPDATE", "USE"];

/// Decides by the engine's judgement and the text whether a statement may run.
///
/// # Errors
/// The text is not exactly one statement, or the statement reaches outside of the engine. A text that does not parse is
/// passed over: the caller asks the engine for its message, in a way that runs nothing.
pub(crate) fn admit(analysis: Analysis, sql: &[u8], shape: &Shape) -> Result<(), ServerError> {
    if analysis.statements > 1 {
        return Err(ServerError::new(Code::SyntaxError, "Syntax error: multi-statements are not allowed"));
    }
    match analysis.class {
        StatementClass::ReadOnly | StatementClass::Mutating | StatementClass::Unknown => {}
        StatementClass::MutatingGlobal => {
            return Err(denied("a statement that changes the engine as a whole"));
        }
        StatementClass::Control => {
            let known = matches!(shape, Shape::Other { verb, .. } if CONTROL.contains(&verb.as_str()));
            if !known {
                return Err(denied("a statement that leaves the engine"));
            }
        }
    }
    if *shape == Shape::InsertFile {
        return Err(denied("FROM INFILE"));
    }
    inspect(sql)
}

/// Refuses what would lead a confined reader out of its rows: the row filters compare with the setting `log_comment`,
/// and under `readonly=1` the engine protects it at the top of a statement only. A SETTINGS clause of a subquery is
/// applied unchecked, parts and marks show values past the filters, and the engine's own tables show everybody's queries.
///
/// # Errors
/// The request is confined (`readonly=1` and a `log_comment`), and its statement is more than a read of tables.
pub(crate) fn admit_confined(
    settings: &[(String, String)],
    database: Option<&str>,
    class: StatementClass,
    sql: &[u8],
) -> Result<(), ServerError> {
    let last = |wanted: &str| {
        settings.iter().rev().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
    };
    if last("readonly") != Some("1") || last("log_comment").is_none_or(str::is_empty) {
        return Ok(());
    }
    let engines_own =
        |name: &str| name.eq_ignore_ascii_case("system") || name.eq_ignore_ascii_case("information_schema");
    if !matches!(class, StatementClass::ReadOnly | StatementClass::Unknown) {
        return Err(confined("a statement that changes anything"));
    }
    if database.is_some_and(engines_own) {
        return Err(confined("the engine's own tables"));
    }
    let tokens: Vec<Token> = Lexer::new(sql).collect();
    for (index, token) in tokens.iter().enumerate() {
        let after = |ahead: usize| tokens.get(index + ahead).map(|token| token.kind);
        if is_keyword(sql, token, "SETTINGS") && after(2) == Some(Kind::Symbol(b'=')) {
            return Err(confined("settings within the statement"));
        }
        if is_keyword(sql, token, "PROCESSLIST") {
            return Err(confined("the engine's own tables"));
        }
        let Some(name) = identifier(sql, token) else { continue };
        if name == "log_comment" {
            return Err(confined("the setting that confines it"));
        }
        if engines_own(&name) && after(1) == Some(Kind::Symbol(b'.')) {
            return Err(confined("the engine's own tables"));
        }
        if name.to_ascii_lowercase().starts_with("mergetree") && after(1) == Some(Kind::Symbol(b'(')) {
            return Err(confined(&format!("{name}()")));
        }
    }
    Ok(())
}

fn confined(what: &str) -> ServerError {
    ServerError::new(Code::Readonly, format_args!("Cannot use {what} in a reader confined to one project"))
}

/// Refuses parameters that would put a forbidden name into the statement, which only one of type `Identifier` can: any
/// other is a value, whatever it says.
///
/// # Errors
/// The statement takes an identifier, and a value is the name of a function that leaves the engine.
pub(crate) fn admit_params(params: &[(String, String)], sql: &[u8]) -> Result<(), ServerError> {
    let Some((_, value)) = params.iter().find(|(_, value)| reaches_out(value.trim())) else { return Ok(()) };
    let takes_a_name = Lexer::new(sql)
        .any(|token| identifier(sql, &token).is_some_and(|name| name.eq_ignore_ascii_case("identifier")));
    if takes_a_name { Err(denied(format_args!("the name {value}"))) } else { Ok(()) }
}

/// Refuses settings that a statement could reach out with.
///
/// # Errors
/// One of the settings holds code or names a file.
pub(crate) fn admit_settings(settings: &[(String, String)]) -> Result<(), ServerError> {
    match settings.iter().find(|(name, _)| is_forbidden_setting(name)) {
        Some((name, _)) => Err(denied(format_args!("with the setting {name}"))),
        None => Ok(()),
    }
}

/// Refuses rows of VALUES that reach out: they are expressions.
///
/// # Errors
/// As [`admit`].
pub(crate) fn admit_rows(rows: &[u8]) -> Result<(), ServerError> {
    inspect(rows)
}

fn is_forbidden_setting(name: &str) -> bool {
    FORBIDDEN_SETTINGS.binary_search(&name).is_ok()
}

fn denied(what: impl std::fmt::Display) -> ServerError {
    ServerError::new(
        Code::AccessDenied,
        format_args!("default: Not enough privileges. The embedded engine does not run {what}"),
    )
}

fn reaches_out(name: &str) -> bool {
    REACHING_OUT.binary_search(&name.to_ascii_lowercase().as_str()).is_ok()
}

fn inspect(sql: &[u8]) -> Result<(), ServerError> {
    let tokens: Vec<Token> = Lexer::new(sql).collect();
    for (index, token) in tokens.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| &tokens[before]);
        let after = tokens.get(index + 1);
        if token.kind == Kind::Broken {
            return Err(ServerError::new(
                Code::SyntaxError,
                format_args!("Syntax error: unrecognized token at position {}", token.span.start + 1),
            ));
        }
        let Some(name) = identifier(sql, token) else { continue };
        let called = after.is_some_and(|after| after.kind == Kind::Symbol(b'('));
        let member = before.is_some_and(|before| before.kind == Kind::Symbol(b'.'));
        // `file` is a function even without brackets: `APPLY file`, `arrayMap(file, …)`.
        if (called && reaches_out(&name)) || (name == "file" && !member) {
            return Err(denied(format_args!("{name}()")));
        }
        let assigned = after.is_some_and(|after| after.kind == Kind::Symbol(b'='));
        if assigned && is_forbidden_setting(&name) {
            return Err(denied(format_args!("with the setting {name}")));
        }
        if token.kind != Kind::Word {
            continue;
        }
        if is_keyword(sql, token, "OUTFILE") && before.is_some_and(|before| is_keyword(sql, before, "INTO")) {
            return Err(denied("INTO OUTFILE"));
        }
        if is_keyword(sql, token, "ENGINE") && !member {
            engine_is_inside(sql, &tokens[index + 1..])?;
        }
        if is_keyword(sql, token, "SOURCE") && called {
            source_is_inside(sql, &tokens[index + 2..])?;
        }
        // ATTACH … FROM takes a path of the host.
        if index == 0
            && is_keyword(sql, token, "ATTACH")
            && tokens.iter().any(|token| is_keyword(sql, token, "FROM"))
        {
            return Err(denied("ATTACH FROM"));
        }
        if index == 0 && is_keyword(sql, token, "SYSTEM") {
            let stops = |word: &Token| is_keyword(sql, word, "SHUTDOWN") || is_keyword(sql, word, "KILL");
            if after.is_some_and(stops) {
                return Err(denied("SYSTEM SHUTDOWN"));
            }
        }
    }
    Ok(())
}

/// Looks at `ENGINE [=] Name`; a column named engine is followed by something else.
fn engine_is_inside(sql: &[u8], after: &[Token]) -> Result<(), ServerError> {
    let (assigned, name) = match after {
        [equals, name, ..] if equals.kind == Kind::Symbol(b'=') => (true, name),
        [name, ..] => (false, name),
        [] => return Ok(()),
    };
    let Some(name) = identifier(sql, name) else { return Ok(()) };
    let lower = name.to_ascii_lowercase();
    let inside = lower.ends_with("mergetree") || INSIDE.binary_search(&lower.as_str()).is_ok();
    // Without `=` only a known name of an engine that reaches out is refused: `SELECT engine FROM system.tables`.
    if inside || (!assigned && !reaches_out(&lower)) {
        Ok(())
    } else {
        Err(denied(format_args!("ENGINE = {name}")))
    }
}

/// Looks at a dictionary's `SOURCE(KIND(…))`: only tables of this engine.
fn source_is_inside(sql: &[u8], after: &[Token]) -> Result<(), ServerError> {
    let Some(kind) = after.first().and_then(|kind| identifier(sql, kind)) else { return Ok(()) };
    let local = kind.eq_ignore_ascii_case("clickhouse") || kind.eq_ignore_ascii_case("null");
    let remote = after
        .iter()
        .take_while(|token| !is_keyword(sql, token, "LAYOUT"))
        .any(|token| is_keyword(sql, token, "HOST") || is_keyword(sql, token, "PORT"));
    if local && !remote { Ok(()) } else { Err(denied(format_args!("SOURCE({kind})"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Analysis = Analysis { statements: 1, class: StatementClass::ReadOnly };
    const WRITE: Analysis = Analysis { statements: 1, class: StatementClass::Mutating };
    const CONTROLLING: Analysis = Analysis { statements: 1, class: StatementClass::Control };

    fn judge(analysis: Analysis, sql: &str) -> Option<u32> {
        admit(analysis, sql.as_bytes(), &Shape::of(sql.as_bytes())).err().map(|error| error.code())
    }

    #[test]
    fn ordinary_statements_pass() {
        for sql in [
            "SELECT engine, file_path, data.file FROM system.tables WHERE url = 'file(1)'",
            "SELECT count() FROM events -- file('/etc/passwd')",
            "SELECT cluster FROM t",
            "SELECT engine = 'x' FROM t",
        ] {
            assert_eq!(judge(READ, sql), None, "{sql}");
        }
        for sql in [
            "CREATE TABLE t (a UInt8) ENGINE = ReplacingMergeTree(v) ORDER BY a",
            "CREATE TABLE t (a UInt8) ENGINE Null",
            "CREATE DICTIONARY d (a UInt8) PRIMARY KEY a SOURCE(CLICKHOUSE(TABLE 't')) LAYOUT(FLAT()) LIFETIME(0)",
        ] {
            assert_eq!(judge(WRITE, sql), None, "{sql}");
        }
        assert_eq!(judge(CONTROLLING, "KILL QUERY WHERE 1"), None);
        assert_eq!(judge(CONTROLLING, "ALTER TABLE t DELETE WHERE 1 SETTINGS mutations_sync = 1"), None);
    }

    #[test]
    fn names_that_reach_the_host_are_refused_however_they_are_written() {
        for sql in [
            "SELECT file('/etc/passwd')",
            "SELECT `f\\x69le`('/etc/passwd')",
            "SELECT \"file\" ('/etc/passwd')",
            "SELECT COLUMNS('x') APPLY file FROM t",
            "SELECT arrayMap(file, ['/etc/passwd'])",
            "SELECT * FROM URL('http://127.0.0.1/')",
            "SELECT 1 // '\n, file('/etc/passwd')",
            "SELECT a$b$, file('/etc/passwd'), c$b$",
            "SELECT 1 into /**/ outfile '/tmp/x'",
            "SELECT * FROM eval('SELECT 1')",
            "SELECT 1 SETTINGS max_threads = 1, `dialect` = 'prql'",
            "SELECT 1 FORMAT Template SETTINGS format_template_row = '/etc/passwd'",
        ] {
            assert_eq!(judge(READ, sql), Some(497), "{sql}");
        }
        for sql in [
            "INSERT INTO t FROM INFILE '/etc/passwd' FORMAT CSV",
            "CREATE TABLE t (a UInt8) ENGINE = File(CSV)",
            "CREATE TABLE t (a UInt8) ENGINE URL('http://127.0.0.1/', CSV)",
            "CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = 'web')",
            "CREATE DICTIONARY d (a String) PRIMARY KEY a SOURCE(EXECUTABLE(command 'id' format 'TSV')) LAYOUT(FLAT())",
            "CREATE DICTIONARY d (a String) PRIMARY KEY a SOURCE(CLICKHOUSE(HOST '10.0.0.1' TABLE 't')) LAYOUT(FLAT())",
        ] {
            assert_eq!(judge(WRITE, sql), Some(497), "{sql}");
        }
        assert_eq!(judge(CONTROLLING, "SYSTEM SHUTDOWN"), Some(497));
        assert_eq!(judge(CONTROLLING, "ATTACH TABLE t FROM '/etc' (a UInt8) ENGINE = Log"), Some(497));
        assert_eq!(judge(CONTROLLING, "ATTACH TABLE t"), None);
        assert_eq!(judge(CONTROLLING, "BACKUP TABLE t TO File('x')"), Some(497));
        assert_eq!(judge(CONTROLLING, "SELECT 1 INTO OUTFILE 'x'"), Some(497));
        assert_eq!(judge(CONTROLLING, "ALTER TABLE t DELETE WHERE 1 INTO OUTFILE 'x'"), Some(497));
        assert_eq!(admit_rows(b" (1, file('/etc/passwd'))").unwrap_err().code(), 497);
        assert_eq!(admit_settings(&[("dialect".to_owned(), "kusto".to_owned())]).unwrap_err().code(), 497);
    }

    #[test]
    fn a_parameter_may_say_anything_but_where_it_becomes_a_name() {
        let params = [("f".to_owned(), " FILE".to_owned()), ("n".to_owned(), "1".to_owned())];
        for sql in [
            "SELECT {f:Identifier}(1)",
            "SELECT { f : `identifier` }(1)",
            "SELECT {f:/**/Identifier}({n:UInt8})",
        ] {
            assert_eq!(admit_params(&params, sql.as_bytes()).unwrap_err().code(), 497, "{sql}");
        }
        assert!(admit_params(&params, b"SELECT count() FROM t WHERE tool = {f:String}").is_ok());
        assert!(admit_params(&params[1..], b"SELECT * FROM {n:Identifier}").is_ok());
    }

    #[test]
    fn text_that_the_engine_may_read_differently_is_refused() {
        for sql in ["SELECT ‘ ', file(1) ’", "SELECT\u{2003}file(1)", "SELECT 1\0"] {
            assert_eq!(judge(READ, sql), Some(62), "{sql}");
        }
        assert_eq!(judge(READ, "SELECT 'é‘', `ü` FROM t"), None);
    }

    #[test]
    fn two_statements_are_refused() {
        let two = Analysis { statements: 2, class: StatementClass::ReadOnly };
        assert_eq!(judge(two, "SELECT 1; SELECT 2"), Some(62));
    }

    #[test]
    fn tables_of_names_are_sorted_for_the_search() {
        assert!(REACHING_OUT.is_sorted() && INSIDE.is_sorted() && FORBIDDEN_SETTINGS.is_sorted());
    }
}
