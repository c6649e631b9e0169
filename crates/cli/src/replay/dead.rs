//! `fleetlog replay dead`: reads the dead-letter topic once through and publishes what is selected to the raw topic.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use fleetlog_log::{
    Admin, Delivery, From, Isolation, KafkaConfig, LogError, Lookup, Outgoing, Producer, Record, Tail,
    TailRead, Target,
};
use fleetlog_runtime::{Clock, Settings};
use fleetlog_schemas::avro::{from_single_object, to_single_object};
use fleetlog_schemas::id::Position;
use fleetlog_schemas::record::{DeadLetter, DeadReason, RawBatch};
use fleetlog_schemas::topic;

use super::letters::{Choice, Refusal, Repeat, Selection, raw_needed};
use crate::moment::{Moment, told};
use crate::output::{note, say};

/// Records that wait for their acknowledgement at a time.
const IN_FLIGHT: usize = 64;
/// Refused letters that are named one by one.
const NAMED: u64 = 20;
/// How long an original raw record is waited for.
const RAW_WITHIN: Duration = Duration::from_secs(20);
/// A letter may be written by a clock behind the one that dated it.
const CLOCKS_NS: i64 = 60_000_000_000;
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Sends dead letters through the pipeline again.
///
/// The letters that are there when it begins are read once, and the original bytes of those selected are published to
/// the raw topic as they came. Their events keep the identities of the first attempt, so each is stored once however
/// often this is repeated or interrupted. What cannot be used again becomes a letter again; such letters are skipped
/// unless --replays is given, because their first letter is still there.
#[derive(Debug, Args)]
pub(crate) struct Dead {
    /// Only these reasons; can be repeated [default: all]
    #[arg(long, value_delimiter = ',', value_parser = reason_words())]
    reason: Vec<String>,
    /// Only this project
    #[arg(long)]
    project: Option<String>,
    /// Only letters given up since: RFC 3339, or now-N followed by s, m, h or d
    #[arg(long, value_parser = Moment::parse, value_name = "TIME")]
    from: Option<Moment>,
    /// Only letters given up before [default: now]
    #[arg(long, value_parser = Moment::parse, value_name = "TIME")]
    to: Option<Moment>,
    /// Also letters that came of a replay
    #[arg(long)]
    replays: bool,
    /// Publish nothing; say what would be
    #[arg(long)]
    dry_run: bool,
    /// The summary as one JSON object
    #[arg(long)]
    json: bool,
}

fn reason_words() -> Vec<&'static str> {
    DeadReason::ALL.iter().map(|reason| reason.as_str()).collect()
}

/// What a run came to.
#[derive(Debug, Default, serde::Serialize)]
struct Summary {
    /// Letters read.
    read: u64,
    /// Letters that were selected.
    selected: u64,
    /// Letters published again.
    published: u64,
    /// Raw records they were published as: several letters of one request travel together.
    raw_records: u64,
    /// Letters skipped because they came of a replay.
    replays_skipped: u64,
    /// Letters that cannot be replayed, by why.
    refused: BTreeMap<&'static str, u64>,
    dry_run: bool,
}

impl Dead {
    pub(crate) async fn run(self, settings: &Settings) -> anyhow::Result<()> {
        let kafka: KafkaConfig = settings.section(KafkaConfig::SECTION)?;
        let topics = Admin::new(&kafka)?
            .ensure_topics()
            .await
            .with_context(|| format!("Kafka at {}", kafka.brokers))?;
        let now_ns = Clock::system().now_ns();
        let failed =
            self.from.map_or(i64::MIN, |from| from.ns(now_ns))..self.to.unwrap_or(Moment::Ago(0)).ns(now_ns);
        if failed.is_empty() {
            anyhow::bail!("--from ({}) is not before --to ({})", told(failed.start), told(failed.end));
        }
        let reasons =
            DeadReason::ALL.iter().filter(|reason| self.reason.iter().any(|word| word == reason.as_str()));
        let selection = Selection {
            reasons: reasons.copied().collect(),
            project_id: self.project.clone(),
            failed,
            replays: self.replays,
        };
        let mut run = Run {
            letters: Lookup::open(&kafka, topic::DEAD)?,
            originals: Lookup::open(&kafka, topic::RAW)?,
            producer: Producer::new(&kafka, topic::RAW_MAX_MESSAGE_BYTES)?,
            raw_partitions: i32::try_from(topics.raw).unwrap_or(i32::MAX),
            selection,
            open: None,
            last_original: None,
            in_flight: VecDeque::new(),
            summary: Summary { dry_run: self.dry_run, ..Summary::default() },
            told: Instant::now(),
            kafka,
        };
        for partition in 0..i32::try_from(topics.dead).unwrap_or(i32::MAX) {
            run.partition(partition).await.with_context(|| run.so_far())?;
        }
        run.finish().await.with_context(|| run.so_far())?;
        run.summary.say(self.json)
    }
}

struct Run {
    kafka: KafkaConfig,
    letters: Lookup,
    originals: Lookup,
    producer: Producer,
    raw_partitions: i32,
    selection: Selection,
    /// A raw record that letters still to be read may belong to.
    open: Option<Repeat>,
    /// The last raw record looked up: the letters of one stand together.
    last_original: Option<(Position, Option<RawBatch>)>,
    in_flight: VecDeque<(u64, Delivery)>,
    summary: Summary,
    told: Instant,
}

impl Run {
    /// Reads the letters that a partition has now.
    async fn partition(&mut self, partition: i32) -> anyhow::Result<()> {
        let log = self.letters.log_range(partition).await?;
        let since_ms = self.selection.failed.start.saturating_sub(CLOCKS_NS).div_euclid(1_000_000);
        let since = match since_ms {
            ..=0 => Some(log.start),
            since_ms => self.letters.offset_at_time(partition, since_ms).await?,
        };
        let Some(first) = since.filter(|first| *first < log.end) else { return Ok(()) };
        let from = From::Offset(first.max(log.start));
        let tail = Tail::open(&self.kafka, topic::DEAD, [(partition, from)], Isolation::Committed)?;
        loop {
            match super::next(&tail).await? {
                TailRead::Record(record) if record.position.offset >= log.end => return Ok(()),
                TailRead::Record(record) => {
                    let last = record.position.offset + 1 == log.end;
                    self.letter(record).await?;
                    if last {
                        return Ok(());
                    }
                }
                TailRead::CaughtUp { .. } => return Ok(()),
            }
        }
    }

    async fn letter(&mut self, record: Record) -> anyhow::Result<()> {
        self.summary.read += 1;
        if self.told.elapsed() > PROGRESS_EVERY {
            self.told = Instant::now();
            note(&self.so_far());
        }
        let at = record.position;
        let payload = record.payload.as_deref().unwrap_or_default();
        let Ok(letter) = from_single_object::<DeadLetter>(payload) else {
            // Whether it was asked for is not known either, and the letters behind it are to be read.
            self.refuse(Refusal::UnreadableLetter, 1, &format!("{}/{}", at.partition, at.offset));
            return Ok(());
        };
        let choice = self.selection.choose(&letter);
        let original = match raw_needed(&letter).filter(|_| choice == Choice::Selected) {
            Some(raw) => self.original(raw).await?,
            None => None,
        };
        match self.selection.choose_knowing(choice, &letter, original.as_ref()) {
            Choice::Other => return Ok(()),
            Choice::Replay => {
                self.summary.replays_skipped += 1;
                return Ok(());
            }
            Choice::Selected => self.summary.selected += 1,
        }
        match Repeat::of(letter, at, original) {
            Ok(repeat) => self.take(repeat).await,
            Err(refusal) => {
                self.refuse(refusal, 1, &format!("{}/{}", at.partition, at.offset));
                Ok(())
            }
        }
    }

    /// The raw record at a position, if the raw topic still has it.
    async fn original(&mut self, raw: Position) -> anyhow::Result<Option<RawBatch>> {
        if let Some((last, original)) = &self.last_original
            && *last == raw
        {
            return Ok(original.clone());
        }
        let record = self.originals.record(raw, RAW_WITHIN).await?;
        let original =
            record.and_then(|record| record.payload).and_then(|payload| from_single_object(&payload).ok());
        self.last_original = Some((raw, original.clone()));
        Ok(original)
    }

    async fn take(&mut self, repeat: Repeat) -> anyhow::Result<()> {
        let rest = match &mut self.open {
            Some(open) => open.join(repeat),
            None => Some(repeat),
        };
        match rest.and_then(|repeat| self.open.replace(repeat)) {
            Some(complete) => self.publish(complete).await,
            None => Ok(()),
        }
    }

    async fn publish(&mut self, repeat: Repeat) -> anyhow::Result<()> {
        if self.summary.dry_run {
            self.summary.published += repeat.letters;
            self.summary.raw_records += 1;
            return Ok(());
        }
        let payload = to_single_object(&repeat.batch)?;
        let target = match repeat.raw.partition {
            partition if partition < self.raw_partitions => Target::Partition(partition),
            _ => Target::Spread,
        };
        loop {
            let outgoing = Outgoing { topic: topic::RAW, target, key: None, payload: Some(&payload) };
            match self.producer.enqueue(outgoing) {
                Ok(delivery) => {
                    self.in_flight.push_back((repeat.letters, delivery));
                    break;
                }
                Err(LogError::QueueFull) if !self.in_flight.is_empty() => self.settle_oldest().await?,
                Err(LogError::TooLarge { .. }) => {
                    self.refuse(Refusal::TooLarge, repeat.letters, &repeat.batch.replay_of);
                    return Ok(());
                }
                Err(e) => return Err(e.into()),
            }
        }
        while self.in_flight.len() >= IN_FLIGHT {
            self.settle_oldest().await?;
        }
        Ok(())
    }

    async fn settle_oldest(&mut self) -> anyhow::Result<()> {
        let Some((letters, delivery)) = self.in_flight.pop_front() else { return Ok(()) };
        delivery.await?;
        self.summary.published += letters;
        self.summary.raw_records += 1;
        Ok(())
    }

    async fn finish(&mut self) -> anyhow::Result<()> {
        if let Some(open) = self.open.take() {
            self.publish(open).await?;
        }
        while !self.in_flight.is_empty() {
            self.settle_oldest().await?;
        }
        Ok(())
    }

    fn refuse(&mut self, refusal: Refusal, letters: u64, letter: &str) {
        let refused: u64 = self.summary.refused.values().sum();
        if refused < NAMED {
            note(&format!("dead letter {letter} cannot be replayed: {refusal}"));
        } else if refused == NAMED {
            note("and more");
        }
        *self.summary.refused.entry(refusal.code()).or_default() += letters;
    }

    fn so_far(&self) -> String {
        let Summary { read, selected, published, .. } = &self.summary;
        format!(
            "{read} letters read, {selected} selected, {published} published so far; the command can be repeated"
        )
    }
}

impl Summary {
    fn say(&self, json: bool) -> anyhow::Result<()> {
        if json {
            say(&serde_json::to_string(self)?);
            return Ok(());
        }
        let would = if self.dry_run { "would be " } else { "" };
        let Self { read, selected, published, raw_records, replays_skipped, refused, .. } = self;
        say(&format!("{read} dead letters read, {selected} selected"));
        say(&format!("{published} {would}published as {raw_records} raw records"));
        if *replays_skipped > 0 {
            say(&format!("{replays_skipped} skipped: they came of a replay (--replays takes them too)"));
        }
        for (code, letters) in refused {
            say(&format!("{letters} cannot be replayed: {code}"));
        }
        Ok(())
    }
}
