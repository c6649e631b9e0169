//! The migrations' own promises; that rows fit them is proved against the engine, in `crates/store/tests`.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;

use fleetlog_schemas::ddl::{
    DatabaseName, Engine, LEDGER, MIGRATIONS, Parameters, TABLES, row_policies, users_config_xml,
};

fn parameters() -> Parameters {
    Parameters {
        database: DatabaseName::parse("fleet_test").unwrap(),
        retention_days: 7,
        derived_retention_days: 30,
        engine: Engine::SingleNode,
    }
}

#[test]
fn every_file_is_listed_once_in_order_of_its_number() {
    let listed: BTreeSet<String> = MIGRATIONS
        .iter()
        .chain([&LEDGER])
        .map(|migration| format!("{:04}_{}.sql", migration.number, migration.name))
        .collect();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/ddl");
    let files: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(listed, files);
    // A number may be left out: two changes made at the same time do not share one.
    assert!(MIGRATIONS.is_sorted_by(|a, b| a.number < b.number));
}

#[test]
fn a_statement_leaves_no_parameter_open_and_makes_what_its_name_says() {
    for migration in MIGRATIONS.iter().chain([&LEDGER]) {
        let statement = migration.statement(&parameters());
        assert!(!statement.contains(['{', '}']), "{}: {statement}", migration.name);
        let creates = statement.contains(&format!(" IF NOT EXISTS fleet_test.{}\n", migration.name));
        let extends = statement.contains(&format!("ALTER TABLE fleet_test.{}\n", migration.name));
        let replaces = statement.contains(&format!("CREATE OR REPLACE VIEW fleet_test.{}\n", migration.name));
        assert!(creates || extends || replaces, "{statement}");
        let repeatable = statement.lines().filter(|line| line.contains("ADD COLUMN"));
        assert!(repeatable.clone().all(|line| line.contains("ADD COLUMN IF NOT EXISTS")));
        assert!(!statement.trim_end().ends_with(';'));
    }
}

#[test]
fn every_base_table_has_a_row_filter() {
    let tables: BTreeSet<&str> = MIGRATIONS
        .iter()
        .chain([&LEDGER])
        .filter(|migration| migration.statement(&parameters()).contains("CREATE TABLE"))
        .map(|migration| migration.name)
        .collect();
    assert_eq!(tables, TABLES.iter().map(|(table, _)| *table).collect::<BTreeSet<_>>());

    let xml = users_config_xml(&parameters().database);
    let policies = row_policies(&parameters().database);
    for table in tables {
        assert!(xml.contains(&format!("<{table}><filter>getSetting('log_comment') = ''")), "{table}");
        assert!(
            policies.iter().any(|policy| policy.contains(&format!(" ON fleet_test.{table} "))),
            "{table}"
        );
    }
}

#[test]
fn facts_and_derivations_have_their_own_retention() {
    let retention = |name: &str| {
        let migration = MIGRATIONS.iter().find(|migration| migration.name == name).unwrap();
        migration.retention(&parameters())
    };
    assert_eq!(retention("events").unwrap(), "toDateTime(received_at) + toIntervalDay(7)");
    assert_eq!(retention("usage_1h_groups").unwrap(), "bucket + toIntervalDay(30)");
    assert_eq!(retention("sessions"), None);
}

#[test]
fn a_database_name_that_needs_quoting_is_refused() {
    assert!(DatabaseName::parse("fleetlog_2").is_ok());
    for name in ["", "2fleet", "a-b", "a`b", "a b", "a.b", &"x".repeat(65)] {
        assert!(DatabaseName::parse(name).is_err(), "{name}");
    }
}
