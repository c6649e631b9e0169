//! A project reads its own rows only (INV-10).

use fleetlog_store::{ReaderLimits, StoreError};

use crate::support::{NOON, at, attempt, engine, full_event, range, store_of};
use crate::{Counted, count, group};

#[tokio::test(flavor = "multi_thread")]
async fn a_project_reads_its_own_rows_whatever_it_asks() {
    let Some(engine) = engine().await else { return };
    let store = &engine.store;
    assert!(store.migrate().await.unwrap().confined);
    let attempt = attempt(store, 1).await;
    let events = [full_event("mine", "s", 1), full_event("theirs", "s", 2)];
    store.insert_events(&range(0, 0), &attempt, at(0, &events)).await.unwrap();
    let version = store.next_version().await.unwrap();
    for project in ["mine", "theirs"] {
        let mut group = group("s", &[("a", 1)], 1);
        group.key.project_id = project.to_owned();
        store.write_groups(&[group], version).await.unwrap();
        let minutes = [(project.to_owned(), (NOON / 1_000_000_000) as u32)].into();
        store.recompute_usage(&minutes).await.unwrap();
    }
    for from in [
        "events",
        "(SELECT * FROM events WHERE project_id = 'theirs' UNION ALL SELECT * FROM events)",
        "merge('fleetlog', '^events$')",
        "llm_calls",
        "tool_calls",
        "sessions",
        "usage_1m",
        "usage_1h",
        "session_groups",
        "(SELECT * FROM events AS a JOIN events AS b ON a.session_id = b.session_id)",
    ] {
        assert_eq!(count(store, "mine", from).await, 1, "{from}");
        assert_eq!(count(store, "nobody", from).await, 0, "{from}");
    }
    assert_eq!(count(store, "mine", "schema_migrations").await, 0);

    let reader = store.reader(ReaderLimits::default()).await.unwrap();
    assert!(matches!(reader.project(""), Err(StoreError::NoProject)));
    let mine = reader.project("mine").unwrap();
    for sql in [
        "SELECT count() AS n FROM events SETTINGS log_comment = ''",
        "SELECT count() AS n FROM events SETTINGS log_comment = 'theirs'",
        "INSERT INTO events (project_id) VALUES ('mine')",
        "SELECT count() AS n FROM file('/etc/hostname', 'LineAsString')",
    ] {
        assert!(mine.query(sql).fetch_all::<Counted>().await.is_err(), "{sql}");
    }
    let bound = mine.query("SELECT count() AS n FROM events WHERE session_id = {s:String}");
    assert_eq!(bound.param("s", "s'").fetch_all::<Counted>().await.unwrap(), [Counted { n: 0 }]);

    // A database that nobody confined must not get a reader.
    let other = store_of(&engine.url, "unconfined");
    assert!(!other.migrate().await.unwrap().confined);
    let refused = other.reader(ReaderLimits::default()).await.err().unwrap();
    assert!(
        matches!(refused, StoreError::NotConfined { ref tables } if tables.iter().any(|t| t == "events"))
    );
}
