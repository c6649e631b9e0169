//! A raw record is settled by the store alone.

use fleetlog_schemas::id::Position;
use fleetlog_schemas::record::PieceCount;
use fleetlog_schemas::{DeadLetter, Settlement};
use fleetlog_store::{Located, PieceRow};

use crate::support::{NOON, attempt, engine, range};

/// A raw record of partition 2 whose three pieces' records went to partitions 0 and 3, and which has a dead one too.
fn settlement(raw_offset: i64) -> Settlement {
    Settlement {
        project_id: "p".to_owned(),
        raw_partition: 2,
        raw_offset,
        received_at: NOON,
        records: 8,
        dead: 1,
        context: 1,
        pieces: vec![PieceCount { partition: 0, records: 4 }, PieceCount { partition: 3, records: 2 }],
        ..Settlement::default()
    }
}

fn piece(raw_offset: i64, stored: u32, duplicate: u32) -> PieceRow {
    PieceRow {
        project_id: "p".to_owned(),
        raw_partition: 2,
        raw_offset,
        received_at: NOON,
        first_index: 0,
        last_index: 9,
        stored,
        duplicate,
        events: stored,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_record_is_settled_once_everything_that_its_settlement_names_is_stored() {
    let Some(engine) = engine().await else { return };
    engine.store.migrate().await.unwrap();
    let store = engine.store.clone().validating_rows();
    let attempt = attempt(&store, 1).await;
    let place = |partition: i32, offset: i64| Located { partition, offset, index: 0 };
    let runs = async || -> Vec<(i64, i64)> {
        let runs = store.settled_runs(&[(2, 0..100), (7, 0..100)]).await.unwrap();
        assert!(runs.iter().all(|run| run.raw_partition == 2), "{runs:?}");
        runs.iter().map(|run| (run.first, run.last)).collect()
    };
    let settlements: Vec<Settlement> = (4..=6).map(settlement).collect();
    let located = settlements.iter().map(|one| (place(0, one.raw_offset), one));
    store.insert_settlements(&range(4, 6), &attempt, located).await.unwrap();
    assert_eq!(runs().await, [], "no piece is stored");

    // One partition's pieces of all three: what is too much here does not make up for what the other lacks.
    let pieces = [piece(4, 4, 0), piece(5, 3, 1), piece(6, 4, 2)];
    store
        .insert_pieces(&range(4, 6), &attempt, pieces.iter().map(|one| (place(0, one.raw_offset), one)))
        .await
        .unwrap();
    let other = [piece(4, 0, 2), piece(5, 2, 0)];
    let located = other.iter().map(|one| (place(3, one.raw_offset), one));
    store.insert_pieces(&range(14, 15), &attempt, located).await.unwrap();
    assert_eq!(runs().await, [], "the dead ones are not stored");
    let letters: Vec<DeadLetter> = (4..=6)
        .map(|raw_offset| DeadLetter {
            project_id: "p".to_owned(),
            records: 1,
            raw_partition: 2,
            raw_offset,
            failed_at: NOON,
            ..DeadLetter::default()
        })
        .collect();
    let located = letters.iter().map(|one| (place(0, one.raw_offset), one));
    store.insert_dead_letters(&range(4, 6), &attempt, located).await.unwrap();
    assert_eq!(runs().await, [(4, 5)]);

    // A piece that came in two messages, and one whose records are all context: no more than its settlement.
    let halves = [piece(6, 1, 0), piece(6, 0, 1)];
    let located = halves.iter().zip(20..).map(|(one, offset)| (place(3, offset), one));
    store.insert_pieces(&range(20, 21), &attempt, located).await.unwrap();
    let silent = [
        Settlement { records: 1, pieces: Vec::new(), dead: 0, ..settlement(7) },
        Settlement { records: 1, pieces: Vec::new(), dead: 0, ..settlement(9) },
    ];
    let located = silent.iter().map(|one| (place(1, one.raw_offset), one));
    store.insert_settlements(&range(7, 9), &attempt, located).await.unwrap();
    assert_eq!(runs().await, [(4, 7), (9, 9)]);
    assert_eq!(store.settled_runs(&[(2, 5..6)]).await.unwrap().len(), 1);
    assert_eq!(store.settled_runs(&[]).await.unwrap(), []);

    let at = |offset| Position { partition: 2, offset };
    let mut carried = store.carried_to(&[at(4), at(6)]).await.unwrap();
    carried.sort_unstable();
    // A duplicate is there once the original before it is.
    assert_eq!(carried, [(0, 6), (3, 21)]);
}
