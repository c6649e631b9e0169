//! The published Avro schemas and the generated codec are one contract.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use apache_avro::{Schema, from_avro_datum, from_value, to_avro_datum, to_value};
use fleetlog_schemas::avro::{Blob, DecodeError, Published, from_single_object, to_single_object};
use fleetlog_schemas::event::{AgentEvent, EventType, Status, TimestampSource, TokenBasis, UsageRole};
use fleetlog_schemas::id::{Key128, NanoUsd};
use fleetlog_schemas::record::{
    DeadLetter, DeadReason, Envelope, EventBatch, PieceCount, RawBatch, Route, Settlement, SpoolStanding,
    StreamContext,
};
use proptest::prelude::*;

fn fields_of(schema: &Schema) -> Vec<String> {
    let Schema::Record(record) = schema else { panic!("not a record: {schema:?}") };
    record.fields.iter().map(|field| field.name.clone()).collect()
}

fn assert_same_fields<R: Published>() {
    let schema = R::schemas().unwrap().current();
    assert_eq!(fields_of(schema), R::FIELDS, "{} and its .avsc list different fields", R::NAME);
}

#[test]
fn every_schema_lists_the_fields_of_its_record() {
    assert_same_fields::<RawBatch>();
    assert_same_fields::<AgentEvent>();
    assert_same_fields::<EventBatch>();
    assert_same_fields::<Settlement>();
    assert_same_fields::<DeadLetter>();
    assert_same_fields::<SpoolStanding>();
}

/// What we write, apache-avro reads; what apache-avro writes, we read.
fn assert_agrees_with_apache_avro<R: Published + serde::Serialize + PartialEq + std::fmt::Debug>(record: &R) {
    let schema = R::schemas().unwrap().current();
    let ours = to_single_object(record).unwrap();
    let read_by_them: R = from_value(&from_avro_datum(schema, &mut &ours[10..], None).unwrap()).unwrap();
    assert_eq!(&read_by_them, record);

    let value = to_value(record).unwrap().resolve(schema).unwrap();
    let theirs = to_avro_datum(schema, value).unwrap();
    let framed = [&ours[..10], &theirs[..]].concat();
    assert_eq!(&from_single_object::<R>(&framed).unwrap(), record);
}

prop_compose! {
    fn event()(
        texts in prop::collection::vec(".{0,12}", 12),
        numbers in prop::collection::vec(0u64..=i64::MAX as u64, 8),
        optional in prop::option::of(0u64..1_000_000),
        cost in prop::option::of(any::<i64>()),
        duration in prop::option::of(0.0f64..1e12),
        key in any::<[u8; 16]>(),
        times in any::<(i64, Option<i64>, i64)>(),
        pick in 0usize..1000,
        small in any::<(i32, Option<i32>, u32)>(),
    ) -> AgentEvent {
        AgentEvent {
            event_id: texts[0].clone(),
            dedup_key: Key128(key),
            project_id: texts[1].clone(),
            source: texts[2].clone(),
            timestamp: times.0,
            end_timestamp: times.1,
            received_at: times.2,
            timestamp_source: TimestampSource::ALL[pick % TimestampSource::ALL.len()],
            event_type: EventType::ALL[pick % EventType::ALL.len()],
            status: Status::ALL[pick % Status::ALL.len()],
            token_basis: TokenBasis::ALL[pick % TokenBasis::ALL.len()],
            usage_role: UsageRole::ALL[pick % UsageRole::ALL.len()],
            session_id: texts[3].clone(),
            model: texts[4].clone(),
            data: texts[5].clone(),
            context: texts[6].clone(),
            in_uncached: numbers[0],
            cache_read: numbers[1],
            out_visible: numbers[2],
            cost_reported: cost.map(NanoUsd),
            duration_ms: duration,
            lines_added: optional,
            exit_code: small.1,
            attempt: optional.map(|n| n as u32),
            redactions: small.2,
            raw_partition: small.0,
            raw_offset: times.0,
            raw_index: small.2,
            ..AgentEvent::default()
        }
    }
}

prop_compose! {
    fn settlement()(counts in any::<[u32; 5]>(), place in any::<(i32, i64, i64)>(), pieces in prop::collection::vec(any::<(i32, u32)>(), 0..4)) -> Settlement {
        Settlement {
            project_id: "p".into(),
            raw_partition: place.0,
            raw_offset: place.1,
            received_at: place.2,
            request_id: "r".into(),
            records: counts[0],
            filtered: counts[1],
            dead: counts[2],
            context: counts[3],
            events: counts[4],
            pieces: pieces.into_iter().map(|(partition, records)| PieceCount { partition, records }).collect(),
        }
    }
}

proptest! {
    #[test]
    fn event_batches_mean_the_same_to_apache_avro(
        events in prop::collection::vec(event(), 0..4),
        settlements in prop::collection::vec(settlement(), 0..3),
    ) {
        assert_agrees_with_apache_avro(&EventBatch { events, settlements });
    }

    #[test]
    fn raw_batches_mean_the_same_to_apache_avro(
        payload in prop::collection::vec(any::<u8>(), 0..300),
        rejected in prop::collection::vec(any::<u32>(), 0..5),
        stream in prop::option::of(".{0,9}"),
        route in 0usize..Route::ALL.len(),
        received_at in any::<i64>(),
    ) {
        assert_agrees_with_apache_avro(&RawBatch {
            project_id: "p".into(),
            received_at,
            route: Route::ALL[route],
            rejected,
            payload: Blob(payload.clone()),
            stream: stream.clone().map(|id| StreamContext { stream_id: id, first_line: 7, ..StreamContext::default() }),
            replay_of: "1/2".into(),
            ..RawBatch::default()
        });
        assert_agrees_with_apache_avro(&DeadLetter {
            reason: DeadReason::TooLarge,
            raw_index: -1,
            payload: Blob(payload),
            envelope: stream.map(|id| Envelope {
                piece: 3,
                stream: Some(StreamContext { stream_id: id, ..StreamContext::default() }),
                ..Envelope::default()
            }),
            preview: "p".into(),
            ..DeadLetter::default()
        });
    }

    #[test]
    fn spool_standings_mean_the_same_to_apache_avro(
        as_of in any::<i64>(),
        held in prop::collection::vec(0u64..=i64::MAX as u64, 2),
        oldest in prop::option::of(any::<i64>()),
    ) {
        let (records, bytes) = (held[0], held[1]);
        assert_agrees_with_apache_avro(&SpoolStanding { gateway_id: "g".into(), as_of, records, bytes, oldest });
    }

    #[test]
    fn garbage_is_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let header = to_single_object(&EventBatch::default()).unwrap();
        let framed = [&header[..10], &bytes[..]].concat();
        if let Ok(batch) = from_single_object::<EventBatch>(&framed) {
            prop_assert!(batch.events.len() <= bytes.len(), "more events than bytes");
        }
        prop_assert!(from_single_object::<EventBatch>(&bytes).is_err() || bytes.len() >= 10);
    }
}

#[test]
fn a_truncated_record_is_refused_at_every_length() {
    let whole = to_single_object(&RawBatch { project_id: "p".into(), ..RawBatch::default() }).unwrap();
    for len in 0..whole.len() {
        assert!(
            from_single_object::<RawBatch>(&whole[..len]).is_err(),
            "accepted {len} of {} bytes",
            whole.len()
        );
    }
    let longer = [&whole[..], b"x"].concat();
    assert_eq!(from_single_object::<RawBatch>(&longer), Err(DecodeError::Trailing(1)));
}

#[test]
fn a_schema_nobody_published_is_named_in_the_error() {
    let mut bytes = to_single_object(&RawBatch::default()).unwrap();
    bytes[2..10].copy_from_slice(&0x1122_3344_5566_7788u64.to_le_bytes());
    assert_eq!(
        from_single_object::<RawBatch>(&bytes),
        Err(DecodeError::UnknownSchema(0x1122_3344_5566_7788))
    );
}

/// A frozen record of each topic, as the first released version wrote it. Regenerate never: a schema change must
/// keep these readable, by adding the old `.avsc` to `avro/history/`.
#[test]
fn bytes_of_the_first_version_still_decode() {
    let raw: RawBatch = from_single_object(include_bytes!("golden/raw_batch.v1.avro")).unwrap();
    assert_eq!(
        (raw.project_id.as_str(), raw.route, raw.payload.0.as_slice()),
        ("demo", Route::Events, b"{}".as_slice())
    );
    assert_eq!(raw.stream.unwrap().first_line, 7);
    let batch: EventBatch = from_single_object(include_bytes!("golden/event_batch.v1.avro")).unwrap();
    assert_eq!(batch.events[0].event_type, EventType::LlmRequest);
    assert_eq!(batch.events[0].cost_reported, Some(NanoUsd(2_643_000)));
    assert_eq!(batch.settlements[0].pieces, [PieceCount { partition: 3, records: 1 }]);
    let dead: DeadLetter = from_single_object(include_bytes!("golden/dead_letter.v1.avro")).unwrap();
    assert_eq!((dead.reason, dead.raw_index), (DeadReason::TooLarge, -1));
    assert_eq!((dead.envelope, dead.preview.as_str()), (None, ""));
    let spool: SpoolStanding = from_single_object(include_bytes!("golden/spool_standing.v1.avro")).unwrap();
    assert_eq!((spool.gateway_id.as_str(), spool.as_of), ("gateway-a", 1_790_000_000_000_000_007));
    assert_eq!((spool.records, spool.bytes, spool.oldest), (3, 4_711, Some(1_789_999_999_000_000_000)));
}

/// The mechanism that every later version rests on: bytes of a schema without the last fields resolve to today's record,
/// with defaults for what they lack.
#[test]
fn a_record_written_before_a_field_existed_resolves_with_the_default() {
    let current = RawBatch::schemas().unwrap().current();
    let mut text: serde_json::Value = serde_json::from_str(RawBatch::CURRENT).unwrap();
    let fields = text["fields"].as_array_mut().unwrap();
    fields.retain(|field| field["name"] != "user_agent" && field["name"] != "stream");
    let older = Schema::parse_str(&text.to_string()).unwrap();
    let record = RawBatch { project_id: "p".into(), payload: Blob(b"x".to_vec()), ..RawBatch::default() };
    let datum = to_avro_datum(&older, to_value(&record).unwrap().resolve(&older).unwrap()).unwrap();
    let value = from_avro_datum(&older, &mut &datum[..], Some(current)).unwrap();
    assert_eq!(from_value::<RawBatch>(&value).unwrap(), record);
}
