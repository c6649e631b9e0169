//! Migrations on a real engine: once, twice, all at once.

mod support;

use fleetlog_schemas::ddl::MIGRATIONS;
use fleetlog_store::{Store, StoreConfig};
use support::{config_of, engine, store_of};

#[tokio::test(flavor = "multi_thread")]
async fn migrations_can_run_twice_and_all_at_once() {
    let Some(engine) = engine().await else { return };
    let runs = (0..4).map(|_| {
        let store = store_of(&engine.url, "fleetlog");
        async move { store.migrate().await }
    });
    for run in futures::future::join_all(runs).await {
        assert!(run.unwrap().confined);
    }
    let again = engine.store.migrate().await.unwrap();
    assert!(again.applied.is_empty() && again.retention_changed.is_empty(), "{again:?}");
    let fresh = store_of(&engine.url, "fresh").migrate().await.unwrap();
    assert_eq!(fresh.applied, MIGRATIONS.iter().map(|migration| migration.name).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_retention_is_applied_to_the_tables_it_concerns() {
    let Some(engine) = engine().await else { return };
    engine.store.migrate().await.unwrap();
    let config = StoreConfig { retention_days: 30, ..config_of(&engine.url, "fleetlog") };
    let shorter = Store::new(&config).unwrap();
    let changed = shorter.migrate().await.unwrap().retention_changed;
    let facts =
        ["events", "dead_letters", "settlements", "piece_settlements", "group_hours", "trace_sessions"];
    assert_eq!(changed, facts);
    assert!(shorter.migrate().await.unwrap().retention_changed.is_empty());
}
