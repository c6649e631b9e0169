//! The migrations' own promises; that rows fit them is proved against the engine, in `crates/store/tests`.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;

use fleetlog_schemas::ddl::{
    ClusterName, DatabaseName, Engine, LEDGER, MIGRATIONS, Migration, Parameters, TABLES, renew_probe,
    row_policies, users_config_xml,
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
    assert!(MIGRATIONS.is_sorted_by(|a, b| a.number + 1 == b.number));
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
    for database in ["fleet_test", "fleet_test_shadow_stored", "fleet_test_shadow_replayed"] {
        assert!(xml.contains(&format!("<{database}>")), "{database}");
    }
    let policies = row_policies(&parameters());
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

fn replicated(migration: &Migration) -> String {
    let cluster = ClusterName::parse("fleet").unwrap();
    migration.statement(&Parameters { engine: Engine::Replicated(cluster), ..parameters() })
}

/// What one line becomes, and nothing else of the statement.
#[test]
fn a_replicated_statement_differs_in_cluster_engine_and_window_alone() {
    for migration in MIGRATIONS.iter().chain([&LEDGER]) {
        let (single, replicated) = (migration.statement(&parameters()), replicated(migration));
        let kept = |text: &str| -> Vec<String> {
            let ours = |line: &&str| !line.starts_with("ENGINE = ") && !line.starts_with("SETTINGS ");
            text.lines().filter(ours).map(|line| line.replace(" ON CLUSTER fleet", "")).collect()
        };
        assert_eq!(kept(&single), kept(&replicated), "{}", migration.name);
        assert_eq!(replicated.matches(" ON CLUSTER fleet\n").count(), 1, "{replicated}");
        assert_eq!(migration.checksum().len(), 16);
    }
}

#[test]
fn every_merge_tree_is_replicated_and_leaves_no_window_to_a_default() {
    let mut families = BTreeSet::new();
    for migration in MIGRATIONS.iter().chain([&LEDGER]) {
        let (single, replicated) = (migration.statement(&parameters()), replicated(migration));
        let Some(engine) = single.lines().find_map(|line| line.strip_prefix("ENGINE = ")) else { continue };
        let lines: Vec<&str> = replicated.lines().collect();
        let place = lines.iter().position(|line| line.starts_with("ENGINE = ")).unwrap();
        if engine == "Null" {
            assert_eq!(lines[place], "ENGINE = Null");
            continue;
        }
        let (family, arguments) = engine.split_once('(').unwrap_or((engine, ")"));
        families.insert(family.to_owned());
        let comma = if arguments == ")" { "" } else { ", " };
        let path = format!("'/clickhouse/tables/{{shard}}/fleet_test/{}', '{{replica}}'", migration.name);
        assert_eq!(lines[place], format!("ENGINE = Replicated{family}({path}{comma}{arguments}"));
        let settings: Vec<&&str> = lines.iter().filter(|line| line.starts_with("SETTINGS ")).collect();
        assert_eq!(settings.len(), 1, "{replicated}");
        let inserts = if single.contains("insert_before") { 10_000 } else { 0 };
        assert!(
            settings[0].contains(&format!("replicated_deduplication_window = {inserts},")),
            "{replicated}"
        );
        assert!(settings[0].contains("replicated_deduplication_window_seconds = 604800"), "{replicated}");
        assert!(!replicated.contains("non_replicated"), "{replicated}");
        // Clauses in the order that ClickHouse's grammar wants.
        let at = |clause: &str| lines.iter().position(|line| line.starts_with(clause));
        assert!(at("ORDER BY") < at("SETTINGS") && at("SETTINGS") < at("COMMENT"), "{replicated}");
    }
    let known = ["AggregatingMergeTree", "MergeTree", "ReplacingMergeTree"];
    assert_eq!(families, known.iter().map(|name| (*name).to_owned()).collect());
}

#[test]
fn what_is_altered_later_is_altered_on_the_whole_cluster() {
    let engine = Engine::Replicated(ClusterName::parse("fleet").unwrap());
    let cluster = Parameters { engine, ..parameters() };
    let probe = renew_probe(&cluster, "events", "events_probe");
    assert!(
        probe.starts_with(
            "CREATE OR REPLACE TABLE fleet_test.events_probe ON CLUSTER fleet\nAS fleet_test.events\nENGINE = Null\n"
        ),
        "{probe}"
    );
    assert!(row_policies(&cluster).iter().all(|policy| policy.contains(" ON CLUSTER fleet ON fleet_test.")));
    assert!(row_policies(&parameters()).iter().all(|policy| !policy.contains("CLUSTER")));
    assert!(ClusterName::parse("a b").is_err() && ClusterName::parse("").is_err());
}

/// The whole text of one table, as an operator would review it.
#[test]
fn settlements_on_a_cluster_read_like_this() {
    let statement = replicated(MIGRATIONS.iter().find(|migration| migration.name == "settlements").unwrap());
    let ends = "ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/fleet_test/settlements', '{replica}')
PARTITION BY toDate(received_at)
ORDER BY (project_id, toStartOfMinute(received_at), raw_partition, raw_offset)
TTL toDateTime(received_at) + toIntervalDay(7)
SETTINGS ttl_only_drop_parts = 1, replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800
COMMENT 'Facts: the fate of every raw record, as the processor decided it. With piece_settlements it balances against what the gateway counted.'";
    assert!(
        statement.contains("CREATE TABLE IF NOT EXISTS fleet_test.settlements ON CLUSTER fleet\n("),
        "{statement}"
    );
    assert!(statement.ends_with(ends), "{statement}");
}
