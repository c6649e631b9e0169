//! Groups are written, shown and compared; usage is recomputed from them.

use std::collections::BTreeSet;

use fleetlog_store::GroupKind;
use fleetlog_store::derived::{DerivedGroup, Difference, GroupKey, Part, Repricing, Scale};

use crate::support::{NOON, engine};
use crate::{count, group, key};

#[tokio::test(flavor = "multi_thread")]
async fn views_show_a_groups_highest_version_and_nothing_of_the_others() {
    let Some(engine) = engine().await else { return };
    engine.store.migrate().await.unwrap();
    let store = engine.store.clone().validating_rows();
    let minutes: BTreeSet<(String, u32)> = [("p".to_owned(), (NOON / 1_000_000_000) as u32)].into();

    let versions = [
        (vec![("a", 10), ("b", 20), ("c", 30)], 2),
        (vec![("a", 11), ("c", 31)], 1),
        // A late runner with an older version, written last, must not show.
        (vec![("x", 1)], 5),
    ];
    let (first, second) = (store.next_version().await.unwrap(), store.next_version().await.unwrap());
    assert!(second > first);
    for ((calls, tools), version) in versions.iter().zip([first, second, first - 1]) {
        store.write_groups(&[group("s", calls, *tools)], version).await.unwrap();
        store.recompute_usage(&minutes).await.unwrap();
    }
    assert_eq!(count(&store, "p", "llm_calls WHERE in_uncached IN (11, 31)").await, 2);
    assert_eq!(count(&store, "p", "llm_calls").await, 2);
    assert_eq!(count(&store, "p", "tool_calls WHERE exit_code = 1").await, 1);
    let session = "sessions WHERE llm_call_count = 2 AND in_uncached = 42 AND tool_error_count = 1 \
         AND cost_reported = 0.005286 AND agents = ['main'] AND cost_computed_calls = 0";
    assert_eq!(count(&store, "p", session).await, 1);
    for view in ["usage_1m", "usage_1h"] {
        let usage =
            format!("{view} WHERE calls = 2 AND in_uncached = 42 AND cost_reported = 0.001 AND model = 'm'");
        assert_eq!(count(&store, "p", &usage).await, 1, "{view}");
        assert_eq!(count(&store, "p", view).await, 1, "{view}");
    }

    // Two groups share the minute; then one of them has nothing in it any more.
    let third = store.next_version().await.unwrap();
    store.write_groups(&[group("t", &[("a", 100)], 0)], third).await.unwrap();
    store.recompute_usage(&minutes).await.unwrap();
    assert_eq!(count(&store, "p", "usage_1h WHERE calls = 3 AND in_uncached = 142").await, 1);
    let trace = "traces WHERE llm_call_count = 3 AND in_uncached = 142 AND name = 'answer' AND session_id = 's' \
         AND duration_ms = 1500";
    assert_eq!(count(&store, "p", trace).await, 1);
    let fourth = store.next_version().await.unwrap();
    store.write_groups(&[group("s", &[], 0), group("t", &[], 0)], fourth).await.unwrap();
    store.recompute_usage(&minutes).await.unwrap();
    assert_eq!(count(&store, "p", "usage_1m").await + count(&store, "p", "usage_1h").await, 0);
    assert_eq!(count(&store, "p", "llm_calls").await + count(&store, "p", "traces").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_compared_column_by_column() {
    let Some(engine) = engine().await else { return };
    engine.store.migrate().await.unwrap();
    let store = engine.store.clone().validating_rows();
    let stored = [group("a", &[("x", 5), ("y", 7)], 2), group("b", &[], 0)];
    let version = store.next_version().await.unwrap();
    store.write_groups(&stored, version).await.unwrap();
    let minute = stored[0].contributions[0].minute;
    store.recompute_usage(&[("p".to_owned(), minute)].into()).await.unwrap();
    let compared = store.compare_groups(&stored, 0).await.unwrap();
    assert_eq!((compared.differences.as_slice(), compared.versions[&key("a")]), (&[][..], version));
    let usage = async |scale: Scale| store.differing_usage(scale, "", (0, u32::MAX), 10).await.unwrap();
    assert!(usage(Scale::Minute).await.is_empty() && usage(Scale::Hour).await.is_empty());

    let differing = async |change: fn(&mut DerivedGroup)| {
        let mut groups = stored.clone();
        change(&mut groups[0]);
        let differences = store.compare_groups(&groups, 0).await.unwrap().differences;
        assert!(differences.iter().all(|Difference { key: of, .. }| *of == key("a")));
        let parts = differences.into_iter().map(|difference| (difference.part, difference.fields.join(" ")));
        parts.collect::<Vec<_>>()
    };
    let one = |part: Part, fields: &str| vec![(part, fields.to_owned())];
    let found = differing(|group| group.calls[1].cost_computed = Some(0)).await;
    assert_eq!(found, one(Part::Group, "calls.cost_computed"));
    let found = differing(|group| group.tools[0].duration_ms = Some(f64::NAN)).await;
    assert_eq!(found, one(Part::Group, "tools.duration_ms"));
    let found = differing(|group| group.calls[0].event_ids.push("e".to_owned())).await;
    assert_eq!(found, one(Part::Group, "calls.event_ids"));
    let found = differing(|group| group.session.ended = true).await;
    assert_eq!(found, one(Part::Group, "status"));
    let found = differing(|group| group.traces[0].guessed_calls = 1).await;
    assert_eq!(found, one(Part::Shares, "guessed_calls"));
    let found = differing(|group| group.contributions[0].usage[0].errors = 1).await;
    assert_eq!(found, one(Part::Contributions, "usage.errors"));
    let found = differing(|group| group.contributions[0].minute += 60).await;
    assert_eq!(found[0].0, Part::Contributions);
    assert!(found[0].1.contains("is missing") && found[0].1.contains("is left over"), "{found:?}");
    // What was stored has seen facts that are gone: it is all that is known.
    let found = differing(|group| group.session.first_received_at += 1).await;
    assert!(found.is_empty());

    // A minute that was not recomputed after its groups.
    let mut more = group("c", &[("z", 100)], 0);
    store.write_groups(std::slice::from_ref(&more), store.next_version().await.unwrap()).await.unwrap();
    let buckets = usage(Scale::Minute).await;
    assert_eq!((buckets.len(), buckets[0].start, buckets[0].project_id.as_str()), (1, minute, "p"));
    assert!(store.differing_usage(Scale::Minute, "q", (0, u32::MAX), 10).await.unwrap().is_empty());
    store.recompute_usage(&[("p".to_owned(), minute)].into()).await.unwrap();
    assert!(usage(Scale::Minute).await.is_empty() && usage(Scale::Hour).await.is_empty());
    // What is said to have happened before 1970 counts in its first minute.
    store.recompute_usage(&[("p".to_owned(), 0)].into()).await.unwrap();
    // Of a loose minute nothing but the calls is looked at; without any, it need not be there.
    let minute = GroupKey { kind: GroupKind::Loose, ..key("1772366400") };
    let loose = |mut group: DerivedGroup| {
        group.key = minute.clone();
        (group.contributions, group.traces) = (Vec::new(), Vec::new());
        group
    };
    let silent = loose(group("l", &[], 0));
    assert!(store.compare_groups(&[silent], 0).await.unwrap().differences.is_empty());
    let mut told = loose(group("l", &[("z", 1)], 0));
    assert_eq!(store.compare_groups(std::slice::from_ref(&told), 0).await.unwrap().differences.len(), 1);
    store.write_groups(std::slice::from_ref(&told), store.next_version().await.unwrap()).await.unwrap();
    told.session.event_count += 1;
    assert!(store.compare_groups(&[told], 0).await.unwrap().differences.is_empty());
    more.key = key("never written");
    let compared = store.compare_groups(&[more], 0).await.unwrap();
    assert_eq!(compared.differences[0].fields, ["is missing"]);
    assert_eq!(compared.differences.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_has_outlived_facts_comes_back_as_it_was_written() {
    let Some(engine) = engine().await else { return };
    engine.store.migrate().await.unwrap();
    let store = engine.store.clone().validating_rows();
    let written = [group("a", &[("x", 5), ("y", 7)], 2), group("b", &[("z", 1)], 0)];
    store.write_groups(&written, store.next_version().await.unwrap()).await.unwrap();
    let keys = [key("a"), key("b"), key("never written")];
    assert!(store.groups_before(NOON, &keys).await.unwrap().is_empty());
    assert_eq!(store.groups_before(NOON + 1, &keys).await.unwrap(), keys[..2]);
    assert!(store.outlived_groups(NOON, &keys, &[("p", "trace")]).await.unwrap().is_empty());
    let mut found = store.outlived_groups(NOON + 1, &keys, &[("p", "trace")]).await.unwrap();
    found.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(found.len(), 2);
    for (found, written) in found.iter().zip(&written) {
        assert_eq!((&found.key, &found.session), (&written.key, &written.session));
        assert_eq!((&found.calls, &found.tools), (&written.calls, &written.tools));
        assert_eq!(found.traces, written.traces);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn repricings_come_back_last_first_and_their_mark_tells_of_every_new_one() {
    let Some(engine) = engine().await else { return };
    engine.store.migrate().await.unwrap();
    let store = engine.store.clone().validating_rows();
    let none = store.repricing_mark().await.unwrap();
    let repricing = |at: i64| Repricing {
        repriced_at: at,
        model: "gpt-*".to_owned(),
        from_time: NOON,
        until_time: i64::MAX,
        versions: vec!["own".to_owned(), "shipped".to_owned()],
        sheets: vec!["version = \"own\"".to_owned()],
        ..Repricing::default()
    };
    let mut marks = vec![none];
    for at in [NOON, NOON + 1] {
        store.add_repricing(&repricing(at)).await.unwrap();
        marks.push(store.repricing_mark().await.unwrap());
    }
    assert!(marks.windows(2).all(|pair| pair[0] != pair[1]), "{marks:?}");
    assert_eq!(store.repricings().await.unwrap(), [repricing(NOON + 1), repricing(NOON)]);
    assert_eq!(count(&store, "p", "repricings").await, 0, "operators only");
}

/// A minute that cannot be recomputed would keep every other one from it, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_and_the_last_minute_that_a_rollup_can_name_are_recomputed() {
    let Some(engine) = engine().await else { return };
    engine.store.migrate().await.unwrap();
    for minute in [0, 60, 7_200, 36_000, u32::MAX - u32::MAX % 60] {
        let minutes = BTreeSet::from([("p".to_owned(), minute)]);
        engine.store.recompute_usage(&minutes).await.unwrap_or_else(|e| panic!("minute {minute}: {e}"));
    }
}
