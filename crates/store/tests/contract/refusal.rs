//! What ClickHouse refuses is found beforehand, and nothing for what it says.

use fleetlog_schemas::AgentEvent;
use fleetlog_schemas::id::NanoUsd;
use fleetlog_store::{FactTable, Located, StoreError};

use crate::support::{at, attempt, engine, full_event, range};
use crate::{count, operator};

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_has_its_tables_columns_and_constraints_and_keeps_nothing() {
    let Some(engine) = engine().await else { return };
    let store = &engine.store;
    store.migrate().await.unwrap();
    let columns = async |table: &str| {
        let sql = format!(
            "SELECT name, type, default_kind, default_expression FROM system.columns \
             WHERE database = 'fleetlog' AND table = '{table}' ORDER BY position"
        );
        operator(&engine.url, &sql).await
    };
    let constraint = "ALTER TABLE fleetlog.events ADD CONSTRAINT short CHECK length(data) < 100";
    for altered in [false, true] {
        if altered {
            operator(&engine.url, constraint).await;
            operator(&engine.url, "ALTER TABLE fleetlog.events ADD COLUMN ours UInt8 DEFAULT 7").await;
            store.renew_probe(FactTable::Events).await.unwrap();
        }
        for table in FactTable::ALL {
            let (own, probes) = (columns(table.name()).await, columns(table.probe()).await);
            assert!(own.lines().count() > 5);
            assert_eq!(own, probes, "{}", table.name());
        }
        let text = r#"{"text":"secret of a customer"}"#;
        let long = AgentEvent { data: text.repeat(5), ..full_event("p", "s", 1) };
        let events = [full_event("p", "s", 0), long];
        let answers =
            (store.probe_events(at(0, &events[..1])).await, store.probe_events(at(0, &events)).await);
        assert!(answers.0.is_ok(), "{answers:?}");
        let attempt = attempt(store, 1).await;
        let offset = i64::from(altered);
        let stored = store.insert_events(&range(offset, offset), &attempt, at(offset, &events)).await;
        match (altered, answers.1, stored) {
            (false, Ok(()), Ok(())) => {}
            (
                true,
                Err(StoreError::Refused { code: a, message }),
                Err(StoreError::Refused { code: b, .. }),
            ) => {
                assert_eq!((a, b), (469, 469));
                assert!(message.contains("short") && !message.contains("secret"), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(count(store, "p", "events").await, 2);
    assert_eq!(operator(&engine.url, "SELECT count() FROM fleetlog.events_probe").await.trim(), "0");
}

/// What an event can carry, at its worst. ClickHouse keeps all of it as text and numbers, and has no reason to refuse any.
#[tokio::test(flavor = "multi_thread")]
async fn no_payload_is_refused_for_what_it_says() {
    let Some(engine) = engine().await else { return };
    let store = &engine.store;
    store.migrate().await.unwrap();
    let texts = [
        r#"{"a":1,"a":2,"A":3}"#.to_owned(),
        r#"{"a":1,"a.b":2,"a":{"b":3}}"#.to_owned(),
        r#"{"":{"":null}}"#.to_owned(),
        r#"{"n":1e999999,"m":-0.0,"k":123456789012345678901234567890123456789012345678901234567890}"#
            .to_owned(),
        r#"{"s":"\ud800","t":"\u0000"}"#.to_owned(),
        format!("{}1{}", r#"{"d":"#.repeat(20_000), "}".repeat(20_000)),
        format!("[{}1{}", "[".repeat(50_000), "]".repeat(50_000)),
        format!("{{{}\"z\":0}}", (0..20_000).map(|n| format!("\"k{n}\":{n},")).collect::<String>()),
        "x".repeat(8 << 20),
        "\0\u{fffe}\u{202e}\\'\"`\n\r\t".to_owned(),
        "{not json".to_owned(),
        String::new(),
    ];
    let mut events: Vec<AgentEvent> = Vec::new();
    for (number, text) in (0..).zip(&texts) {
        let mut event = full_event("p", "s", number);
        event.data = text.clone();
        event.context = text.clone();
        event.name = text.clone();
        event.model = text.clone();
        event.error_message = text.clone();
        event.tool_name = text.clone();
        events.push(event);
    }
    for number in 100..104 {
        let mut event = full_event("p", "s", number);
        let extreme = [i64::MIN, i64::MAX, -1, 0][number as usize - 100];
        (event.timestamp, event.end_timestamp, event.revision) = (extreme, Some(extreme), extreme);
        (event.cost_reported, event.cost_computed) = (Some(NanoUsd(extreme)), Some(NanoUsd(extreme)));
        let float = [f64::NAN, f64::INFINITY, f64::MIN, -0.0][number as usize - 100];
        (event.duration_ms, event.ttft_ms) = (Some(float), Some(float));
        (event.in_uncached, event.bytes_in, event.exit_code) = (u64::MAX, Some(u64::MAX), Some(i32::MIN));
        (event.raw_offset, event.raw_partition) = (extreme, i32::MIN);
        events.push(event);
    }
    for (index, event) in (0..).zip(&events) {
        let place = Located { partition: 0, offset: 0, index };
        let probed = store.probe_events([(place, event)].into_iter()).await;
        assert!(probed.is_ok(), "event {index}: {probed:?}");
    }
    store.insert_events(&range(0, 0), &attempt(store, 1).await, at(0, &events)).await.unwrap();
    let stored = store.stored_facts(FactTable::Events, &range(0, 0)).await.unwrap();
    assert_eq!(stored.facts.len(), events.len());
}
