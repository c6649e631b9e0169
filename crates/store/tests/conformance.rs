//! What exactly once rests on (INV-4), asked of the embedded engine and of a configured server.
//!
//! `FLEETLOG_TEST_CLICKHOUSE_URL` names a server (`_USER`, `_PASSWORD` when it wants them), `FLEETLOG_TEST_CLICKHOUSE_CLUSTER`
//! its cluster of one shard; without the cluster its tables are those of a single node. It gets a database of its own,
//! which is left behind.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use fleetlog_runtime::Secret;
use fleetlog_schemas::ddl::MIGRATIONS;
use fleetlog_store::{Attempt, FactTable, Located, Store, StoreConfig, StoreError, Stored};
use support::{at, attempt, config_of, engine, full_event, range};

/// Everything that the aggregator relies on, in the order in which it does.
async fn conforms(store: &Store, again: &Store) {
    let applied = store.migrate().await.unwrap().applied;
    assert_eq!(applied.len(), MIGRATIONS.len());
    assert!(again.migrate().await.unwrap().applied.is_empty());

    // A token is the fast path: the same rows again are stored once, whoever sends them.
    let events: Vec<_> = (0..1000).map(|n| full_event("p", "s", n)).collect();
    let first = attempt(store, 1).await;
    for sends in 0..4 {
        let sender = if sends % 2 == 0 { store } else { again };
        let attempt = Attempt { sends, ..first };
        sender.insert_events(&range(0, 9), &attempt, at(0, &events)).await.unwrap();
    }
    // The positions are the proof, read by whoever asks.
    for reader in [store, again] {
        let stored = reader.stored_facts(FactTable::Events, &range(0, 9)).await.unwrap();
        assert_eq!((stored.facts.len(), stored.repeats), (1000, 0));
    }
    assert!(!store.is_inserting(FactTable::Events, &range(0, 9)).await.unwrap());

    // A further attempt is not taken for the first.
    let missing = at(0, &events).take(1).map(|(at, event)| (Located { offset: 9, ..at }, event));
    store.insert_events(&range(0, 9), &attempt(store, 2).await, missing).await.unwrap();
    let stored = again.stored_facts(FactTable::Events, &range(0, 9)).await.unwrap();
    assert_eq!((stored.facts.len(), stored.repeats), (1001, 0));

    // What comes after its insert_before is not stored, and what is refused says so.
    let mut late = attempt(store, 1).await;
    late.insert_before_ms -= 40_000 + store.clock_skew_ms();
    let refused = store.insert_events(&range(10, 10), &late, at(10, &events)).await.unwrap_err();
    assert!(matches!(refused, StoreError::TooLate), "{refused}");
    let nothing = again.stored_facts(FactTable::Events, &range(10, 10)).await.unwrap();
    assert_eq!(nothing, Stored::default());
    for table in FactTable::ALL {
        store.renew_probe(table).await.unwrap();
    }
    store.probe_events(at(0, &events)).await.unwrap();

    // Versions rise, whoever asks for them.
    let mut last = 0;
    for round in 0..20 {
        let asked = if round % 2 == 0 { store } else { again };
        let version = asked.next_version().await.unwrap();
        assert!(version > last, "{version} after {last}");
        last = version;
    }

    // Side by side, and each once.
    let inserts = (20..40).map(|offset| {
        let (sender, events) = (if offset % 2 == 0 { store } else { again }, &events);
        async move {
            let attempt = attempt(sender, 1).await;
            let mut outcome =
                sender.insert_events(&range(offset, offset), &attempt, at(offset, events)).await;
            for sends in 1..200 {
                // On a cluster an insert is refused while another one waits for its quorum.
                let Err(StoreError::Unavailable(_)) = outcome else { break };
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                let attempt = Attempt { sends, ..attempt };
                outcome = sender.insert_events(&range(offset, offset), &attempt, at(offset, events)).await;
            }
            outcome.unwrap();
        }
    });
    futures::future::join_all(inserts).await;
    let stored = again.stored_facts(FactTable::Events, &range(20, 39)).await.unwrap();
    assert_eq!((stored.facts.len(), stored.repeats), (20_000, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_engine_conforms() {
    let Some(engine) = engine().await else { return };
    let again = Store::new(&config_of(&engine.url, "fleetlog")).unwrap();
    conforms(&engine.store, &again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_server_conforms() {
    let of = |name: &str| std::env::var(format!("FLEETLOG_TEST_CLICKHOUSE_{name}")).unwrap_or_default();
    let url = of("URL");
    if url.is_empty() {
        println!("SKIPPED: FLEETLOG_TEST_CLICKHOUSE_URL names no server; replicated tables are not proved");
        return;
    }
    let base = config_of(&url, &format!("fleetlog_conformance_{}", std::process::id()));
    let config = StoreConfig {
        user: Some(of("USER")).filter(|user| !user.is_empty()).unwrap_or(base.user.clone()),
        password: Secret::new(of("PASSWORD")),
        cluster: of("CLUSTER"),
        ..base
    };
    conforms(&Store::new(&config).unwrap(), &Store::new(&config).unwrap()).await;
}
