//! One raw record in, its events, dead letters and settlement out: a pure function.
//!
//! # Invariants
//! Every record that the gateway accepted has exactly one fate, so the settlement balances (INV-6). A record that makes a
//! decoder fail, or panic, becomes a dead letter and takes nobody with it (INV-8).

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fleetlog_formats::compression::{CompressionError, Encoding, decompress};
use fleetlog_formats::{Decoded, Fate, Implausible, Input};
use fleetlog_pricing::{PriceTable, Unpriced};
use fleetlog_schemas::avro::{Blob, from_single_object, to_single_object};
use fleetlog_schemas::event::AgentEvent;
use fleetlog_schemas::id::Position;
use fleetlog_schemas::record::{
    DeadLetter, DeadReason, Envelope, EventBatch, PieceCount, RawBatch, Settlement,
};
use fleetlog_schemas::topic;

use crate::config::Config;
use crate::drift::{Drift, KnownFields};
use crate::error::ProcessorError;
use crate::redact::{Redactions, Redactor};
use crate::span_policy::SpanPolicy;

/// This stage's name in a dead letter.
const STAGE: &str = "processor";

/// What every transformation needs; shared, never changed.
pub struct Transform {
    /// Prices of models.
    pub prices: PriceTable,
    /// Redaction rules.
    pub redactor: Redactor,
    /// Which spans are noise.
    pub span_policy: SpanPolicy,
    /// Which fields each format is known to have.
    pub known_fields: KnownFields,
    /// Partitions of the events topic.
    pub partitions: u32,
    /// Largest body after decompression, bytes.
    pub decoded_max_bytes: usize,
    /// Largest encoding of one record's events, bytes; above it the record becomes a dead letter.
    pub event_max_bytes: usize,
    /// Longest beginning of a dead letter's bytes that is shown, secrets replaced, to whoever may not see the bytes.
    pub preview_max_bytes: usize,
}

/// Room for what surrounds the contents of a message.
pub(crate) const MESSAGE_OVERHEAD: usize = 64 * 1024;

/// What one raw record became.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transformed {
    /// Events by partition of the events topic.
    pub events: BTreeMap<i32, Vec<AgentEvent>>,
    /// Its settlement.
    pub settlement: Settlement,
    /// What could not be used.
    pub dead: Vec<DeadLetter>,
    /// Secrets that were replaced.
    pub redactions: Redactions,
    /// Calls that have no computed cost, by why.
    pub unpriced: BTreeMap<Unpriced, u64>,
    /// How well each client version is understood.
    pub drift: Drift,
    /// Records dropped by policy, by the rule's name.
    pub filtered: BTreeMap<String, u64>,
    /// Events with a number that cannot be, by what it is of.
    pub implausible: Implausible,
}

impl Transform {
    /// What the configuration says, for an events topic of so many partitions.
    ///
    /// # Errors
    /// [`ProcessorError::Settings`] naming the key whose prices or rules cannot be used.
    pub fn configured(config: &Config, partitions: u32) -> Result<Self, ProcessorError> {
        let Config { processor: config, prices, .. } = config;
        Ok(Self {
            prices: prices.table()?,
            redactor: config.redactor()?,
            span_policy: config.spans()?,
            known_fields: KnownFields::built_in()?,
            partitions,
            decoded_max_bytes: config.decoded_max_bytes,
            event_max_bytes: topic::EVENTS_MAX_MESSAGE_BYTES - MESSAGE_OVERHEAD,
            preview_max_bytes: config.preview_max_bytes,
        })
    }

    /// Transforms the raw record at `position`.
    ///
    /// `redacts` tells whether a project wants its secrets replaced; `now_ns` dates dead letters.
    pub fn apply(
        &self,
        position: Position,
        payload: &[u8],
        redacts: impl Fn(&str) -> bool,
        now_ns: i64,
    ) -> Transformed {
        let batch = match envelope(position, payload, now_ns) {
            Ok(batch) => batch,
            Err(unreadable) => return *unreadable,
        };
        let whole = Obituary { transform: self, batch: &batch, position, now_ns };
        let encoding = Encoding::of(&batch.content_encoding, &batch.payload.0);
        let body = encoding.and_then(|encoding| {
            decompress(encoding, &batch.payload.0, self.decoded_max_bytes, |_| Ok::<_, CompressionError>(()))
        });
        let body = match body {
            Ok(body) => body,
            Err(e) => {
                let reason = match e {
                    CompressionError::TooLarge { .. } => DeadReason::TooLarge,
                    CompressionError::Unknown(_) | CompressionError::Corrupt { .. } => {
                        DeadReason::BadCompression
                    }
                };
                return whole.of_all(reason, e.to_string(), &batch.payload.0);
            }
        };
        let input = Input::of(&batch, &body, position.partition, position.offset);
        let redact = redacts(&batch.project_id);
        let decode = || fleetlog_formats::decode(&input).map(|decoded| self.settle(whole, decoded, redact));
        // All of it only reads what is shared: nothing half-changed can be seen after a panic.
        match catch_unwind(AssertUnwindSafe(decode)) {
            Ok(Ok(done)) => done,
            Ok(Err(e)) => whole.of_all(DeadReason::Undecodable, e.message, &body),
            Err(_panic) => whole.of_all(DeadReason::Poison, "processing it panicked".to_owned(), &body),
        }
    }

    /// Gives the raw record up without decoding what it holds, nor showing any of it: `tries` processes have ended over
    /// it (INV-8).
    pub(crate) fn bury(&self, position: Position, payload: &[u8], tries: u32, now_ns: i64) -> Transformed {
        let batch = match envelope(position, payload, now_ns) {
            Ok(batch) => batch,
            Err(unreadable) => return *unreadable,
        };
        let message = format!("the process ended {tries} times while this record was decoded");
        Obituary { transform: self, batch: &batch, position, now_ns }.of_all(DeadReason::Poison, message, &[])
    }

    /// What may be shown of a dead letter's bytes.
    fn preview(&self, bytes: &[u8]) -> String {
        self.redactor.preview(bytes, self.preview_max_bytes)
    }

    /// Gives every record its fate, and every event its price and its place.
    fn settle(&self, whole: Obituary<'_>, decoded: Decoded, redact: bool) -> Transformed {
        let mut done = Transformed {
            settlement: whole.settlement(),
            implausible: decoded.implausible,
            ..Transformed::default()
        };
        for eventless in decoded.eventless {
            match eventless.fate {
                Fate::Context => done.settlement.context += 1,
                Fate::Filtered(policy) => done.filter(policy),
                Fate::Dead(dead) => {
                    done.settlement.dead += 1;
                    let index = whole.batch.first_record.saturating_add(eventless.index);
                    let preview = self.preview(&dead.bytes);
                    let letter = whole.of_record(index, dead.reason, dead.message, dead.bytes, "");
                    done.dead.push(DeadLetter { preview, ..letter });
                }
            }
        }
        let mut records: BTreeMap<i32, u32> = BTreeMap::new();
        for mut record in by_record(decoded.events) {
            if let Some(rule) = self.span_policy.drops(&record) {
                done.filter(rule);
                continue;
            }
            for event in &mut record {
                self.known_fields.observe(event, &mut done.drift);
                if let Some(why) = self.prices.enrich(event) {
                    *done.unpriced.entry(why).or_default() += 1;
                }
                if redact {
                    self.redactor.redact(event, &mut done.redactions);
                }
            }
            // They travel in one message, so together they must fit into it.
            let size: usize = record.iter().map(encoded_len).sum();
            if size > self.event_max_bytes {
                done.settlement.dead += 1;
                done.dead.extend(whole.of_events(record, self.event_max_bytes));
                continue;
            }
            // All events of one record go where its first one goes, so that its fate is known in one place.
            let Some(first) = record.first() else { continue };
            let partition = topic::events_partition(first, self.partitions);
            *records.entry(partition).or_default() += 1;
            done.settlement.events += u32::try_from(record.len()).unwrap_or(u32::MAX);
            done.events.entry(partition).or_default().append(&mut record);
        }
        done.settlement.pieces =
            records.into_iter().map(|(partition, records)| PieceCount { partition, records }).collect();
        done
    }
}

impl Transformed {
    /// A record is dropped by the policy of that name.
    fn filter(&mut self, policy: &str) {
        self.settlement.filtered += 1;
        *self.filtered.entry(policy.to_owned()).or_default() += 1;
    }
}

/// Splits events, which come in the order of their records, into one group a record.
fn by_record(events: Vec<AgentEvent>) -> impl Iterator<Item = Vec<AgentEvent>> {
    let mut events = events.into_iter().peekable();
    std::iter::from_fn(move || {
        let first = events.next()?;
        let mut record = vec![first];
        let index = record.first().map(|event| event.raw_index);
        while let Some(event) = events.next_if(|event| Some(event.raw_index) == index) {
            record.push(event);
        }
        Some(record)
    })
}

/// Upper bound of an event's encoded size without encoding it: its texts, and the most that everything else takes.
pub(crate) fn encoded_len(event: &AgentEvent) -> usize {
    // Fewer than 80 fields: at most 10 bytes for a number and a branch, or for the length before a text.
    const EVERYTHING_ELSE: usize = 80 * 11;
    let texts: usize = event.texts().map(|(_, text)| text.len()).sum();
    event.data.len() + event.context.len() + texts + EVERYTHING_ELSE
}

/// Writes dead letters for one raw record.
#[derive(Clone, Copy)]
struct Obituary<'a> {
    transform: &'a Transform,
    batch: &'a RawBatch,
    position: Position,
    now_ns: i64,
}

impl Obituary<'_> {
    fn settlement(self) -> Settlement {
        Settlement {
            project_id: self.batch.project_id.clone(),
            raw_partition: self.position.partition,
            raw_offset: self.position.offset,
            received_at: self.batch.received_at,
            request_id: self.batch.request_id.clone(),
            records: self.batch.accepted(),
            ..Settlement::default()
        }
    }

    /// Everything of the raw record is lost to its stream, and kept here as it came; `body` is what could be read of it.
    fn of_all(self, reason: DeadReason, message: String, body: &[u8]) -> Transformed {
        let records = self.batch.accepted();
        let envelope = Envelope { rejected: self.batch.rejected.clone(), ..self.envelope() };
        let dead = DeadLetter {
            raw_index: -1,
            records,
            content_encoding: self.batch.content_encoding.clone(),
            payload: self.batch.payload.clone(),
            envelope: Some(envelope),
            preview: self.transform.preview(body),
            ..self.letter(reason, message)
        };
        let settlement = Settlement { dead: records, ..self.settlement() };
        Transformed { settlement, dead: vec![dead], ..Transformed::default() }
    }

    fn of_record(
        self,
        index: u32,
        reason: DeadReason,
        message: String,
        bytes: Vec<u8>,
        content_encoding: &str,
    ) -> DeadLetter {
        DeadLetter {
            raw_index: i32::try_from(index).unwrap_or(i32::MAX),
            records: 1,
            content_encoding: content_encoding.to_owned(),
            payload: Blob(bytes),
            ..self.letter(reason, message)
        }
    }

    /// A record's events, too large for their topic, compressed: what made them large is nearly always text.
    fn of_events(self, events: Vec<AgentEvent>, limit: usize) -> Option<DeadLetter> {
        let first = events.first()?;
        let (index, preview) = (first.raw_index, self.transform.preview(first.data.as_bytes()));
        let message = format!("the record's events are larger than {limit} bytes");
        let mut bytes = to_single_object(&EventBatch { events, settlements: Vec::new() }).unwrap_or_default();
        let mut encoding = "";
        if let Ok(packed) = zstd::encode_all(bytes.as_slice(), 3) {
            (bytes, encoding) = (packed, "zstd");
        }
        Some(DeadLetter {
            content_type: "application/vnd.fleetlog.events+avro".to_owned(),
            preview,
            ..self.of_record(index, DeadReason::EventTooLarge, message, bytes, encoding)
        })
    }

    fn letter(self, reason: DeadReason, message: String) -> DeadLetter {
        DeadLetter {
            project_id: self.batch.project_id.clone(),
            reason,
            message,
            stage: STAGE.to_owned(),
            raw_partition: self.position.partition,
            raw_offset: self.position.offset,
            received_at: self.batch.received_at,
            failed_at: self.now_ns,
            request_id: self.batch.request_id.clone(),
            key_id: self.batch.key_id.clone(),
            route: self.batch.route,
            format_hint: self.batch.format_hint.clone(),
            content_type: self.batch.content_type.clone(),
            envelope: Some(self.envelope()),
            ..DeadLetter::default()
        }
    }

    /// Which records the gateway rejected is left out: it says nothing of a single record.
    fn envelope(self) -> Envelope {
        let RawBatch { idempotency_key, gateway_id, user_agent, stream, replay_of, .. } = self.batch;
        Envelope {
            idempotency_key: idempotency_key.clone(),
            gateway_id: gateway_id.clone(),
            spool_sequence: self.batch.spool_sequence,
            user_agent: user_agent.clone(),
            record_count: self.batch.record_count,
            first_record: self.batch.first_record,
            rejected: Vec::new(),
            piece: self.batch.piece,
            pieces: self.batch.pieces,
            stream: stream.clone(),
            replay_of: replay_of.clone(),
        }
    }
}

/// Reads the envelope: a flat record of known fields, unlike what senders put into it.
fn envelope(position: Position, payload: &[u8], now_ns: i64) -> Result<RawBatch, Box<Transformed>> {
    from_single_object(payload).map_err(|e| Box::new(unreadable(position, payload, e.to_string(), now_ns)))
}

/// A record whose envelope cannot be read: whose it is and what it held is unknown.
fn unreadable(position: Position, payload: &[u8], message: String, now_ns: i64) -> Transformed {
    let dead = DeadLetter {
        reason: DeadReason::BadEnvelope,
        message,
        stage: STAGE.to_owned(),
        raw_partition: position.partition,
        raw_offset: position.offset,
        raw_index: -1,
        failed_at: now_ns,
        payload: Blob(payload.to_vec()),
        ..DeadLetter::default()
    };
    let settlement = Settlement {
        raw_partition: position.partition,
        raw_offset: position.offset,
        // When it was accepted is unknown; a time long ago would have expired at once, and with it the settlement.
        received_at: now_ns,
        ..Settlement::default()
    };
    Transformed { settlement, dead: vec![dead], ..Transformed::default() }
}

#[cfg(test)]
mod tests {
    use fleetlog_schemas::avro::Field;
    use fleetlog_schemas::record::Route;
    use proptest::prelude::*;

    use super::*;
    use crate::span_policy::SpanRule;

    fn transform() -> Transform {
        Transform {
            prices: PriceTable::built_in().unwrap(),
            redactor: Redactor::built_in().unwrap(),
            known_fields: KnownFields::built_in().unwrap(),
            span_policy: SpanPolicy::new(crate::span_policy::default_rules()).unwrap(),
            partitions: 4,
            decoded_max_bytes: 1_000_000,
            event_max_bytes: 100_000,
            preview_max_bytes: 500,
        }
    }

    fn raw(body: &[u8], records: u32) -> RawBatch {
        RawBatch {
            project_id: "p".into(),
            request_id: "r".into(),
            received_at: 5,
            route: Route::Events,
            content_type: "application/x-ndjson".into(),
            record_count: records,
            pieces: 1,
            payload: Blob(body.to_vec()),
            ..RawBatch::default()
        }
    }

    fn apply(batch: &RawBatch) -> Transformed {
        let position = Position { partition: 2, offset: 9 };
        transform().apply(position, &to_single_object(batch).unwrap(), |_| true, 77)
    }

    #[test]
    fn events_of_one_session_share_a_partition_and_the_settlement_balances() {
        let body = "{\"type\":\"log\",\"sessionId\":\"a\"}\n{\"type\":\"log\",\"sessionId\":\"a\"}\n{\"type\":\"log\",\"sessionId\":\"b\"}\n";
        let done = apply(&raw(body.as_bytes(), 3));
        assert!(done.settlement.balances(), "{:?}", done.settlement);
        assert_eq!((done.settlement.records, done.settlement.events), (3, 3));
        for (partition, events) in &done.events {
            assert!(events.iter().all(|event| topic::events_partition(event, 4) == *partition));
        }
        assert_eq!(done.settlement.raw_offset, 9);
    }

    #[test]
    fn rejected_records_are_neither_events_nor_counted() {
        let batch = RawBatch { rejected: vec![0], ..raw(b"{\"type\":1}\n{\"type\":\"log\"}\n", 2) };
        let done = apply(&batch);
        assert_eq!((done.settlement.records, done.settlement.events), (1, 1));
        assert!(done.settlement.balances() && done.dead.is_empty());
    }

    #[test]
    fn a_body_that_cannot_be_decompressed_becomes_one_dead_letter_with_its_bytes() {
        let batch = RawBatch { content_encoding: "gzip".into(), ..raw(b"not gzip", 7) };
        let done = apply(&batch);
        assert!(done.settlement.balances() && done.events.is_empty());
        assert_eq!(done.settlement.dead, 7);
        let dead = &done.dead[0];
        assert_eq!((dead.reason, dead.raw_index, dead.records), (DeadReason::BadCompression, -1, 7));
        assert_eq!((dead.payload.0.as_slice(), dead.failed_at), (b"not gzip".as_slice(), 77));
    }

    #[test]
    fn a_dead_letter_has_the_rest_of_its_envelope_and_a_preview_without_secrets() {
        let secret = format!("sk-{}-{}", "ant", "a1B2c3D4e5F6g7H8i9J0");
        let body = format!("{{\"type\":\"log\",\"projectId\":\"other\",\"data\":{{\"k\":\"{secret}\"}}}}\n[");
        let batch = RawBatch {
            idempotency_key: "k".into(),
            first_record: 40,
            rejected: vec![1],
            piece: 2,
            pieces: 3,
            replay_of: "1/2".into(),
            ..raw(body.as_bytes(), 2)
        };
        let done = apply(&batch);
        let letter = &done.dead[0];
        let envelope = letter.envelope.clone().unwrap();
        assert_eq!((letter.raw_index, envelope.first_record, envelope.piece), (40, 40, 2));
        assert_eq!((envelope.idempotency_key.as_str(), letter.replay_of()), ("k", "1/2"));
        assert!(envelope.rejected.is_empty() && !letter.preview.contains(&secret), "{}", letter.preview);
        assert!(letter.preview.starts_with("{\"type\":\"log\"") && letter.preview.contains("[redacted"));

        let broken = apply(&RawBatch { content_encoding: "gzip".into(), ..batch });
        let envelope = broken.dead[0].envelope.clone().unwrap();
        assert_eq!(
            (envelope.rejected, envelope.record_count),
            (vec![1], 2),
            "a whole batch is replayed whole"
        );
    }

    #[test]
    fn a_bomb_becomes_a_dead_letter() {
        let bomb = zstd::encode_all(vec![b' '; 2_000_000].as_slice(), 3).unwrap();
        let done = apply(&RawBatch { content_encoding: "zstd".into(), ..raw(&bomb, 1) });
        assert_eq!(done.dead[0].reason, DeadReason::TooLarge);
    }

    #[test]
    fn an_unreadable_envelope_becomes_a_dead_letter_without_a_project() {
        let done = transform().apply(Position { partition: 1, offset: 3 }, b"garbage", |_| true, 1);
        assert_eq!(done.dead[0].reason, DeadReason::BadEnvelope);
        assert_eq!(done.dead[0].payload.0, b"garbage");
        assert!(done.settlement.balances());
        // A settlement of 1970 would expire before anybody counts it.
        assert_eq!(done.settlement.received_at, 1);
    }

    #[test]
    fn a_record_that_is_given_up_keeps_its_bytes_and_balances() {
        let batch = raw(b"{}\n{}\n", 2);
        let position = Position { partition: 2, offset: 9 };
        let done = transform().bury(position, &to_single_object(&batch).unwrap(), 3, 77);
        assert!(done.settlement.balances() && done.events.is_empty());
        let dead = &done.dead[0];
        assert_eq!((dead.reason, dead.records, dead.raw_offset), (DeadReason::Poison, 2, 9));
        assert_eq!((&dead.payload, dead.failed_at), (&batch.payload, 77));
        assert!(dead.message.contains("3 times"), "{}", dead.message);
        assert_eq!(transform().bury(position, b"garbage", 3, 77).dead[0].reason, DeadReason::BadEnvelope);
    }

    #[test]
    fn noise_is_filtered_and_settled() {
        let attribute = r#"{"key":"code.module.name","value":{"stringValue":"codex_core::session"}}"#;
        let span = |id: u8, session: &str| {
            format!(
                r#"{{"traceId":"5b0965da0d293e45beb618ce926625a2","spanId":"85c17ca66cc022{id:02x}","name":"auth","kind":1,"attributes":[{attribute},{{"key":"session.id","value":{{"stringValue":"{session}"}}}}]}}"#
            )
        };
        let body = format!(
            r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{},{}]}}]}}]}}"#,
            span(1, ""),
            span(2, "s")
        );
        let rule = SpanRule {
            name: "auth".into(),
            span: "auth".into(),
            module: "codex_*".into(),
            ..SpanRule::default()
        };
        let transform = Transform { span_policy: SpanPolicy::new(vec![rule]).unwrap(), ..transform() };
        let batch = RawBatch {
            route: Route::OtlpTraces,
            content_type: "application/json".into(),
            ..raw(body.as_bytes(), 2)
        };
        let done = transform.apply(Position::default(), &to_single_object(&batch).unwrap(), |_| true, 1);
        assert!(done.settlement.balances(), "{:?}", done.settlement);
        assert_eq!((done.settlement.filtered, done.settlement.events), (1, 1));
        assert_eq!(done.filtered, BTreeMap::from([("auth".to_owned(), 1)]));
    }

    #[test]
    fn an_event_above_the_message_size_becomes_a_dead_letter_and_spares_its_neighbours() {
        let big = "x".repeat(120_000);
        let body = format!("{{\"type\":\"log\",\"data\":{{\"t\":\"{big}\"}}}}\n{{\"type\":\"log\"}}\n");
        let done = apply(&raw(body.as_bytes(), 2));
        assert!(done.settlement.balances());
        assert_eq!((done.settlement.dead, done.settlement.events), (1, 1));
        assert_eq!((done.dead[0].reason, done.dead[0].raw_index), (DeadReason::EventTooLarge, 0));
        let unpacked = zstd::decode_all(done.dead[0].payload.0.as_slice()).unwrap();
        let batch: EventBatch = from_single_object(&unpacked).unwrap();
        assert!(batch.events[0].data.contains(&big));
    }

    #[test]
    fn secrets_are_replaced_unless_the_project_says_no() {
        let secret = format!("sk-{}-{}", "ant", "a1B2c3D4e5F6g7H8i9J0");
        let batch = raw(format!("{{\"type\":\"log\",\"data\":{{\"k\":\"{secret}\"}}}}\n").as_bytes(), 1);
        let bytes = to_single_object(&batch).unwrap();
        let with = |redacts: bool| {
            let done = transform().apply(Position::default(), &bytes, |_| redacts, 1);
            let event = done.events.into_values().next().unwrap().remove(0);
            (event.data.contains(&secret), done.redactions.total(), event.dedup_key)
        };
        let (kept, shown) = (with(true), with(false));
        assert_eq!(((kept.0, kept.1), (shown.0, shown.1)), ((false, 1), (true, 0)));
        assert_eq!(kept.2, shown.2, "redaction does not change an event's identity");
    }

    #[test]
    fn estimated_size_is_never_below_the_encoded_one() {
        let mut event = AgentEvent {
            timestamp: i64::MIN,
            end_timestamp: Some(i64::MAX),
            duration_ms: Some(f64::MAX),
            in_uncached: u64::MAX,
            cost_reported: Some(fleetlog_schemas::id::NanoUsd(i64::MIN)),
            lines_added: Some(u64::MAX),
            raw_offset: i64::MAX,
            raw_index: u32::MAX,
            data: "d".repeat(5_000),
            ..AgentEvent::default()
        };
        event.texts_mut().for_each(|(_, text)| *text = "t".repeat(200));
        let mut bytes = Vec::new();
        event.encode(&mut bytes);
        let estimate = encoded_len(&event);
        assert!(bytes.len() <= estimate && estimate < bytes.len() + 1_000, "{} {estimate}", bytes.len());
    }

    #[test]
    fn ids_of_megabytes_cannot_make_an_event_that_kafka_refuses() {
        let id = "i".repeat(900_000);
        let body = format!("{{\"type\":\"llm.request\",\"id\":\"{id}\",\"sessionId\":\"{id}\"}}\n");
        let batch = raw(body.as_bytes(), 1);
        let transform = Transform { decoded_max_bytes: 4_000_000, event_max_bytes: 4_000_000, ..transform() };
        let done = transform.apply(Position::default(), &to_single_object(&batch).unwrap(), |_| true, 1);
        let event = done.events.values().flatten().next().unwrap();
        assert!(event.event_id.len() < 1_000 && event.llm_call_key.len() < 1_000);
        let mut bytes = Vec::new();
        event.encode(&mut bytes);
        assert!(bytes.len() < 2_000_000);
    }

    proptest! {
        #[test]
        fn whatever_comes_in_every_record_has_exactly_one_fate(
            lines in prop::collection::vec(prop_oneof![
                Just("{\"type\":\"log\"}".to_owned()),
                Just("{\"type\":\"nonsense\",\"sessionId\":\"s\"}".to_owned()),
                "[ -~]{1,20}",
            ], 1..20),
            route in 0usize..Route::ALL.len(),
        ) {
            let body = lines.join("\n");
            let route = Route::ALL[route];
            let inspected = fleetlog_formats::inspect::inspect(&fleetlog_formats::Body {
                route, content_type: "application/x-ndjson", format_hint: "", bytes: body.as_bytes(),
            }, "p");
            if let Ok(inspection) = inspected {
                let rejected = inspection.rejected.iter().map(|rejected| rejected.index).collect();
                let done = apply(&RawBatch { route, rejected, ..raw(body.as_bytes(), inspection.records) });
                prop_assert!(done.settlement.balances(), "{:?}", done.settlement);
            }
        }
    }
}
