//! What travels through Kafka besides the event itself.

use crate::avro::{Blob, avro_record};
use crate::event::{AgentEvent, vocabulary};
use crate::id::Position;

vocabulary! {
    /// By which door a request came in; with the content type it selects the decoder.
    Route, default Raw, {
        /// `POST /v1/events`: universal events.
        Events = "events",
        /// OTLP logs, over HTTP or gRPC.
        OtlpLogs = "otlp.logs",
        /// OTLP traces, over HTTP or gRPC.
        OtlpTraces = "otlp.traces",
        /// OTLP metrics, over HTTP or gRPC.
        OtlpMetrics = "otlp.metrics",
        /// Any other body: the format hint or detection decides.
        Raw = "raw",
    }
}

avro_record! {
    /// What a stream's earlier lines said that its later lines need.
    ///
    /// Some formats are only understandable with what came before: the header line of a rollout names the session
    /// that its other lines belong to. The sender carries these facts with every chunk.
    pub struct StreamContext, "StreamContext" {
        /// Format of the stream, for instance `codex.rollout`.
        pub format: String,
        /// The sender's id of the stream, usually derived from the file's path.
        pub stream_id: String,
        /// Number of this chunk's first line within the stream, from 0.
        pub first_line: i64,
        /// Session named by the header.
        pub session_id: String,
        /// Model named by the header.
        pub model: String,
        /// Working directory named by the header.
        pub cwd: String,
        /// Turn that the last line belongs to.
        pub turn_id: String,
        /// Provider of the model.
        pub provider: String,
        /// Program that wrote the stream.
        pub source: String,
        /// Version of that program.
        pub version: String,
        /// Agent whose stream it is, where the file is that of a sub-agent.
        pub agent_id: String,
        /// What the format remembers of earlier lines beside these facts; only the format itself understands it.
        pub noted: String,
    }
}

avro_record! {
    /// One accepted request (or one piece of it): its bytes untouched, as compressed as they came.
    pub struct RawBatch, "RawBatch" {
        /// Project of the key that sent it.
        pub project_id: String,
        /// Public id of that key.
        pub key_id: String,
        /// Id minted by the gateway, the same for every piece of a request.
        pub request_id: String,
        /// The sender's `Idempotency-Key`, or empty.
        pub idempotency_key: String,
        /// When the gateway accepted it, nanoseconds UTC.
        pub received_at: i64,
        /// Gateway instance.
        pub gateway_id: String,
        /// Sequence number of a spooled batch within its gateway; 0 when it was not spooled.
        pub spool_sequence: i64,
        /// Door it came in by.
        pub route: Route,
        /// Format named by the sender, or empty.
        pub format_hint: String,
        /// `Content-Type` as sent.
        pub content_type: String,
        /// `Content-Encoding` as sent; the payload is still encoded so.
        pub content_encoding: String,
        /// `User-Agent` as sent.
        pub user_agent: String,
        /// Records in the payload of this piece, rejected ones included.
        pub record_count: u32,
        /// Index of this piece's first record within the request.
        pub first_record: u32,
        /// Indexes (within this piece) of records the gateway rejected; the processor skips them.
        pub rejected: Vec<u32>,
        /// Number of this piece, from 0.
        pub piece: u32,
        /// Pieces of the request.
        pub pieces: u32,
        /// Context of the stream the payload continues.
        pub stream: Option<StreamContext>,
        /// The bytes.
        pub payload: Blob,
        /// Dead letter that it repeats, `partition/offset` in the dead-letter topic; empty for what a gateway accepted.
        pub replay_of: String,
    }
}

avro_record! {
    /// How many of a raw record's events went to one partition of the events topic.
    pub struct PieceCount, "PieceCount" {
        /// Partition of the events topic.
        pub partition: i32,
        /// Records of the raw batch whose events went there.
        pub records: u32,
    }
}

avro_record! {
    /// The fate of one raw record's contents, as the processor decided it (INV-6).
    ///
    /// # Invariants
    /// `records = filtered + dead + context + Σ pieces.records`.
    pub struct Settlement, "Settlement" {
        /// Project.
        pub project_id: String,
        /// Partition of the raw record.
        pub raw_partition: i32,
        /// Offset of the raw record.
        pub raw_offset: i64,
        /// When the gateway accepted it, nanoseconds UTC.
        pub received_at: i64,
        /// The gateway's request id.
        pub request_id: String,
        /// Records as the gateway counted them, rejected ones excluded.
        pub records: u32,
        /// Records dropped by policy.
        pub filtered: u32,
        /// Records that became dead letters.
        pub dead: u32,
        /// Records that only gave context to others.
        pub context: u32,
        /// Events made of them.
        pub events: u32,
        /// Where the others went.
        pub pieces: Vec<PieceCount>,
    }
}

avro_record! {
    /// One record of the events topic: events and settlements for one destination partition.
    pub struct EventBatch, "EventBatch" {
        /// Events, in raw order.
        pub events: Vec<AgentEvent>,
        /// Settlements that travel with them.
        pub settlements: Vec<Settlement>,
    }
}

vocabulary! {
    /// Why something became a dead letter.
    DeadReason, default Undecodable, {
        /// The bytes do not decode as what they claim to be.
        Undecodable = "undecodable",
        /// Decompression failed.
        BadCompression = "bad_compression",
        /// Decompressed, it exceeds the limit.
        TooLarge = "too_large",
        /// The Kafka record is not a readable `RawBatch`.
        BadEnvelope = "bad_envelope",
        /// The event alone exceeds the events topic's message size.
        EventTooLarge = "event_too_large",
        /// Processing it failed or panicked repeatedly.
        Poison = "poison",
    }
}

avro_record! {
    /// What a dead letter keeps of its raw record's envelope beside what it says itself, so that what is replayed has
    /// the same identities.
    pub struct Envelope, "Envelope" {
        /// The sender's `Idempotency-Key`, or empty.
        pub idempotency_key: String,
        /// Gateway instance.
        pub gateway_id: String,
        /// Sequence number of a spooled batch within its gateway; 0 when it was not spooled.
        pub spool_sequence: i64,
        /// `User-Agent` as sent.
        pub user_agent: String,
        /// Records in the payload of the raw record, rejected ones included.
        pub record_count: u32,
        /// Index of the raw record's first record within the request.
        pub first_record: u32,
        /// Indexes (within the raw record) of records the gateway rejected; empty where the letter is of a single record.
        pub rejected: Vec<u32>,
        /// Number of the raw record among the pieces of its request, from 0.
        pub piece: u32,
        /// Pieces of the request.
        pub pieces: u32,
        /// Context of the stream the payload continues.
        pub stream: Option<StreamContext>,
        /// Dead letter that the raw record repeated already, or empty.
        pub replay_of: String,
    }
}

avro_record! {
    /// What could not be used, with its bytes and the reason.
    pub struct DeadLetter, "DeadLetter" {
        /// Project; empty when the envelope itself was unreadable.
        pub project_id: String,
        /// Why.
        pub reason: DeadReason,
        /// What exactly went wrong; never contains payload bytes.
        pub message: String,
        /// Stage that gave up: `processor` or `aggregator`.
        pub stage: String,
        /// Partition of the raw record.
        pub raw_partition: i32,
        /// Offset of the raw record.
        pub raw_offset: i64,
        /// Index of the record within the request; -1 for all of it.
        pub raw_index: i32,
        /// Records lost with it, as the gateway counted them.
        pub records: u32,
        /// When the gateway accepted it, nanoseconds UTC.
        pub received_at: i64,
        /// When it was given up, nanoseconds UTC.
        pub failed_at: i64,
        /// The gateway's request id.
        pub request_id: String,
        /// Public id of the key that sent it.
        pub key_id: String,
        /// Door it came in by.
        pub route: Route,
        /// Format named by the sender, or empty.
        pub format_hint: String,
        /// `Content-Type` as sent.
        pub content_type: String,
        /// Encoding of `payload`.
        pub content_encoding: String,
        /// The original bytes.
        pub payload: Blob,
        /// What replaying it needs of its raw record's envelope; `None` when that was unreadable, and in letters of
        /// earlier versions.
        pub envelope: Option<Envelope>,
        /// Beginning of the bytes as text, with secrets replaced; empty when they are no text.
        pub preview: String,
    }
}

avro_record! {
    /// What a gateway holds in its spool, as it last told; the latest of each gateway stands.
    ///
    /// # Invariants
    /// It stays true for ever: what a gateway has put into the raw topic stays there. So the last word of a gateway that
    /// was killed still bounds what it may hold.
    pub struct SpoolStanding, "SpoolStanding" {
        /// Gateway instance; the record's Kafka key.
        pub gateway_id: String,
        /// Every request accepted to the spool before this time, by the gateway's clock, nanoseconds UTC, is counted here
        /// or is in the raw topic.
        pub as_of: i64,
        /// Messages in the spool that Kafka has not acknowledged.
        pub records: u64,
        /// Bytes that they take.
        pub bytes: u64,
        /// None of them was accepted before this time, nanoseconds UTC; `None` when there are none.
        pub oldest: Option<i64>,
    }
}

impl DeadLetter {
    /// The letter that its raw record repeated already, `partition/offset`; empty when that came from a gateway.
    pub fn replay_of(&self) -> &str {
        self.envelope.as_ref().map_or("", |envelope| &envelope.replay_of)
    }
}

impl RawBatch {
    /// Records the gateway accepted in this piece.
    pub fn accepted(&self) -> u32 {
        self.record_count.saturating_sub(u32::try_from(self.rejected.len()).unwrap_or(u32::MAX))
    }
}

impl Settlement {
    /// The raw record it settles.
    pub fn position(&self) -> Position {
        Position { partition: self.raw_partition, offset: self.raw_offset }
    }

    /// Whether every record has exactly one fate.
    pub fn balances(&self) -> bool {
        let gone: u64 = self.pieces.iter().map(|piece| u64::from(piece.records)).sum();
        u64::from(self.records)
            == u64::from(self.filtered) + u64::from(self.dead) + u64::from(self.context) + gone
    }
}
