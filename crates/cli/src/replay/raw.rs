//! `fleetlog replay raw`: a window of the raw topic through today's processor into a shadow database, held against a
//! copy of what is stored of the same window.
//!
//! ```text
//! raw topic ─▶ transform (this program's, this configuration's) ─▶ …_shadow_replayed ─▶ derive ─┐
//! ClickHouse: events of the window ────────── copied ───────────▶ …_shadow_stored ───▶ derive ─┴▶ report
//! ```
//!
//! Both sides are derived by the same code from the same window alone, so whatever differs, the processor makes differ.
//! Memory is bounded by one raw record and one batch of events. Nothing that is stored is changed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use fleetlog_aggregator::ShadowWriter;
use fleetlog_log::{Admin, ControlWriter, From, Isolation, KafkaConfig, Lookup, Record, Tail, TailRead};
use fleetlog_processor::transform::{Transform, Transformed};
use fleetlog_runtime::{Clock, Settings};
use fleetlog_schemas::avro::from_single_object;
use fleetlog_schemas::ddl::Shadow;
use fleetlog_schemas::record::{DeadReason, RawBatch};
use fleetlog_schemas::{AgentEvent, topic};
use fleetlog_store::{Fates, Gone, ReasonCount, Store, StoreConfig, Window};

use super::report::{Report, Side};
use crate::moment::{Moment, told};
use crate::output::{complain, note, say};

/// What `diff` says of differences, and when it is in trouble.
const DIFFERS: u8 = 1;
const TROUBLE: u8 = 2;
/// How long the pipeline is waited for when it is still storing the window.
const STORED_WITHIN: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(500);
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// What an event takes besides its data and context, about.
const EVENT_BYTES: usize = 1000;
const NS_PER_MS: i64 = 1_000_000;

/// Runs a window of the raw topic through today's processor and reports the differences from what is stored.
///
/// The window is told by when the gateway wrote its records. They are transformed by this program with its
/// configuration (prices, redaction, span policy), stored in a shadow database beside the real one, and held against a
/// copy of what is stored of the same records: rows, calls, tokens, cost, dead letters. Nothing stored is changed.
///
/// Exit codes: 0 no difference, 1 differences, 2 it could not be told, 64 the configuration cannot work.
#[derive(Debug, Args)]
pub(crate) struct Raw {
    /// Begin of the window: RFC 3339, or now-N followed by s, m, h or d
    #[arg(long, value_parser = Moment::parse, value_name = "TIME")]
    from: Moment,
    /// End of the window
    #[arg(long, value_parser = Moment::parse, value_name = "TIME", default_value = "now")]
    to: Moment,
    /// Only this project
    #[arg(long)]
    project: Option<String>,
    /// Leave the shadow databases for a closer look
    #[arg(long)]
    keep_tables: bool,
    /// Drop shadow databases that an earlier run has left
    #[arg(long)]
    replace: bool,
    /// Go on although a part of the window is no longer in the raw topic, or not stored yet
    #[arg(long)]
    allow_partial: bool,
    /// Sessions that are listed, those that differ most first
    #[arg(long, default_value_t = 20, value_name = "N")]
    sessions: u32,
    /// The report as one JSON object
    #[arg(long)]
    json: bool,
}

impl Raw {
    pub(crate) async fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let processor = fleetlog_processor::Config::from_settings(settings)?;
        let aggregator = fleetlog_aggregator::Config::from_settings(settings)?;
        let compared = self.compare(processor, aggregator).await;
        match compared.and_then(|report| self.tell(&report).map(|()| report.equal)) {
            Ok(true) => Ok(ExitCode::SUCCESS),
            Ok(false) => Ok(ExitCode::from(DIFFERS)),
            Err(e) => {
                complain(&format!("{e:#}"));
                Ok(ExitCode::from(TROUBLE))
            }
        }
    }

    fn tell(&self, report: &Report) -> anyhow::Result<()> {
        if self.json {
            say(&serde_json::to_string(report)?);
        } else {
            report.table().iter().for_each(|line| say(line));
        }
        Ok(())
    }

    async fn compare(
        &self,
        processor: fleetlog_processor::Config,
        aggregator: fleetlog_aggregator::Config,
    ) -> anyhow::Result<Report> {
        let kafka = processor.kafka.clone();
        let topics = Admin::new(&kafka)?
            .ensure_topics()
            .await
            .with_context(|| format!("Kafka at {}", kafka.brokers))?;
        let prices = aggregator.prices.table()?;
        let live = Store::new(&aggregator.clickhouse)?;
        let window = self.window(&kafka, topics.raw, &live).await?;
        let shadows = self.shadows(&live, &aggregator.clickhouse).await?;
        let projects = ControlWriter::new(&kafka)?.projects().await?;
        let replay = Replay {
            transform: Arc::new(Transform::configured(&processor, topics.events)?),
            unredacted: projects
                .into_iter()
                .filter(|project| !project.redaction)
                .map(|project| project.project_id)
                .collect(),
            writer: ShadowWriter::new(
                live.clone(),
                shadows.replayed.clone(),
                prices,
                aggregator.aggregator.clone(),
            ),
            batch_max_bytes: aggregator.aggregator.batch_max_bytes,
            kafka,
            window,
            now_ns: Clock::system().now_ns(),
        };
        let compared = self.side_by_side(replay, &live, &shadows).await;
        if self.keep_tables {
            note(&format!("kept: {} and {}", shadows.stored.database(), shadows.replayed.database()));
        } else {
            shadows.drop_both().await?;
        }
        compared
    }

    async fn side_by_side(&self, replay: Replay, live: &Store, shadows: &Shadows) -> anyhow::Result<Report> {
        let replayed = replay.run().await?;
        self.until_stored(live, &replay.window, &replayed).await?;
        let copied = live.copy_window(&shadows.stored, &replay.window).await?;
        note(&format!("{copied} events are stored of the window; deriving both sides"));
        replay.writer.derive(shadows.stored.clone()).await?;
        let before = Side {
            fates: live.window_fates(&replay.window).await?,
            dead: live.window_dead(&replay.window).await?,
            ..side(&shadows.stored).await?
        };
        // An unreadable envelope is no project's, and its settlement has no time by which it would be kept.
        let fates = Fates { raw_records: replayed.fates.raw_records - replayed.unreadable, ..replayed.fates };
        let after = Side { fates, dead: replayed.dead(), ..side(&shadows.replayed).await? };
        let rows = shadows.stored.row_changes(&shadows.replayed).await?;
        let sessions = shadows.stored.session_pairs(&shadows.replayed, self.sessions.max(1)).await?;
        Ok(Report::of(before, after, rows, sessions))
    }

    /// The window's offsets, once it is known that all of it is there.
    async fn window(&self, kafka: &KafkaConfig, partitions: u32, live: &Store) -> anyhow::Result<Window> {
        let now_ns = Clock::system().now_ns();
        let written = self.from.ns(now_ns)..self.to.ns(now_ns);
        if written.is_empty() {
            bail!("--from ({}) is not before --to ({})", told(written.start), told(written.end));
        }
        let lookup = Lookup::open(kafka, topic::RAW)?;
        let mut offsets = Vec::new();
        let mut gone = Gone::default();
        for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
            let log = lookup.log_range(partition).await?;
            let at = async |ns: i64| {
                let found = lookup.offset_at_time(partition, ns.div_euclid(NS_PER_MS)).await;
                found.map(|offset| offset.unwrap_or(log.end).clamp(log.start, log.end))
            };
            offsets.push((partition, at(written.start).await?..at(written.end).await?));
            if log.start > 0 {
                let before = live.settled_before(partition, log.start, &written).await?;
                gone.raw_records += before.raw_records;
                gone.records += before.records;
            }
        }
        if gone.raw_records > 0 {
            let Gone { raw_records, records } = gone;
            let missing = format!(
                "the raw topic no longer has {raw_records} raw records ({records} records) of the window: they were trimmed"
            );
            self.partial(&missing, "choose a later --from")?;
        }
        let raw_records: i64 = offsets.iter().map(|(_, offsets)| offsets.end - offsets.start).sum();
        note(&format!("{} to {}: {raw_records} raw records", told(written.start), told(written.end)));
        Ok(Window { offsets, written, project_id: self.project.clone() })
    }

    /// Two empty databases with all tables, which readers are confined in as in the real one.
    async fn shadows(&self, live: &Store, config: &StoreConfig) -> anyhow::Result<Shadows> {
        let shadows =
            Shadows { stored: live.shadow(Shadow::Stored)?, replayed: live.shadow(Shadow::Replayed)? };
        for shadow in [&shadows.stored, &shadows.replayed] {
            if shadow.exists().await.with_context(|| format!("ClickHouse at {}", config.url))? {
                if !self.replace {
                    bail!(
                        "the database {} exists: another replay is running, or an earlier one kept or left it; \
                         --replace drops it first",
                        shadow.database()
                    );
                }
                shadow.drop_shadow().await?;
            }
        }
        for shadow in [&shadows.stored, &shadows.replayed] {
            let confined = shadow.migrate().await?.confined;
            if !confined {
                shadows.drop_both().await?;
                bail!(
                    "readers would not be confined in {}: the embedded engine has to be started by this version, a \
                     server has to let us create row policies",
                    shadow.database()
                );
            }
        }
        Ok(shadows)
    }

    /// Waits until what was replayed is stored too.
    async fn until_stored(&self, live: &Store, window: &Window, replayed: &Replayed) -> anyhow::Result<()> {
        let expected = replayed.fates.raw_records - replayed.unreadable;
        let deadline = Instant::now() + STORED_WITHIN;
        loop {
            let settled = live.window_fates(window).await?;
            let stored = live.window_stored(window).await?;
            if settled.raw_records >= expected && stored >= settled.with_events {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let missing = format!(
                    "of {expected} raw records {} are settled, and of {} records with events {stored} are stored",
                    settled.raw_records, settled.with_events
                );
                return self.partial(&missing, "choose an earlier --to, or see why the pipeline lags behind");
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn partial(&self, missing: &str, advice: &str) -> anyhow::Result<()> {
        if !self.allow_partial {
            bail!("{missing}; {advice}, or go on with --allow-partial");
        }
        note(&format!("partial: {missing}"));
        Ok(())
    }
}

/// The databases of both sides.
struct Shadows {
    stored: Store,
    replayed: Store,
}

impl Shadows {
    async fn drop_both(&self) -> anyhow::Result<()> {
        self.stored.drop_shadow().await?;
        Ok(self.replayed.drop_shadow().await?)
    }
}

async fn side(shadow: &Store) -> anyhow::Result<Side> {
    Ok(Side {
        events: shadow.event_counts().await?,
        calls: shadow.call_totals().await?,
        tools: shadow.tool_counts().await?,
        ..Side::default()
    })
}

/// What the raw records of the window became.
#[derive(Debug, Default)]
struct Replayed {
    fates: Fates,
    /// Raw records whose envelope cannot be read.
    unreadable: u64,
    dead: BTreeMap<&'static str, u64>,
    told: Option<Instant>,
}

impl Replayed {
    fn dead(&self) -> Vec<ReasonCount> {
        let count = |(reason, letters): (&&str, &u64)| ReasonCount {
            reason: (*reason).to_owned(),
            letters: *letters,
        };
        self.dead.iter().map(count).collect()
    }

    fn add(&mut self, done: &Transformed) {
        let settlement = &done.settlement;
        self.fates.raw_records += 1;
        self.fates.records += u64::from(settlement.records);
        self.fates.filtered += u64::from(settlement.filtered);
        self.fates.dead += u64::from(settlement.dead);
        self.fates.context += u64::from(settlement.context);
        self.fates.with_events += settlement.pieces.iter().map(|piece| u64::from(piece.records)).sum::<u64>();
        for letter in &done.dead {
            if letter.reason == DeadReason::BadEnvelope {
                self.unreadable += 1;
            } else {
                *self.dead.entry(letter.reason.as_str()).or_default() += 1;
            }
        }
    }

    fn progress(&mut self) {
        if self.told.is_none_or(|told| told.elapsed() > PROGRESS_EVERY) {
            if self.told.is_some() {
                note(&format!(
                    "{} raw records, {} records so far",
                    self.fates.raw_records, self.fates.records
                ));
            }
            self.told = Some(Instant::now());
        }
    }
}

/// A replay under way.
struct Replay {
    kafka: KafkaConfig,
    transform: Arc<Transform>,
    /// Projects whose secrets are not replaced.
    unredacted: Arc<[String]>,
    writer: ShadowWriter,
    batch_max_bytes: usize,
    window: Window,
    now_ns: i64,
}

impl Replay {
    async fn run(&self) -> anyhow::Result<Replayed> {
        let mut replayed = Replayed::default();
        for (partition, offsets) in &self.window.offsets {
            self.partition(*partition, offsets, &mut replayed).await?;
        }
        Ok(replayed)
    }

    async fn partition(
        &self,
        partition: i32,
        offsets: &Range<i64>,
        replayed: &mut Replayed,
    ) -> anyhow::Result<()> {
        if offsets.is_empty() {
            return Ok(());
        }
        let from = [(partition, From::Offset(offsets.start))];
        let tail = Tail::open(&self.kafka, topic::RAW, from, Isolation::Committed)?;
        let (mut batch, mut bytes) = (Vec::new(), 0);
        loop {
            let record = match super::next(&tail).await? {
                TailRead::Record(record) if record.position.offset < offsets.end => record,
                TailRead::Record(_) | TailRead::CaughtUp { .. } => break,
            };
            let last = record.position.offset + 1 == offsets.end;
            if let Some(done) = self.transformed(record).await? {
                replayed.add(&done);
                let events = done.events.into_values().flatten();
                let before = batch.len();
                batch.extend(events);
                bytes += batch.get(before..).unwrap_or_default().iter().map(size).sum::<usize>();
            }
            if batch.len() >= self.writer.batch_max_rows() || bytes >= self.batch_max_bytes {
                self.writer.store(partition, &batch).await?;
                batch.clear();
                bytes = 0;
            }
            replayed.progress();
            if last {
                break;
            }
        }
        self.writer.store(partition, &batch).await?;
        Ok(())
    }

    /// What a raw record becomes; `None` when it is another project's.
    async fn transformed(&self, record: Record) -> anyhow::Result<Option<Transformed>> {
        let (transform, unredacted, now_ns) =
            (Arc::clone(&self.transform), Arc::clone(&self.unredacted), self.now_ns);
        let project_id = self.window.project_id.clone();
        // Decoding is CPU work, and the tail's connection wants to be served meanwhile.
        let done = tokio::task::spawn_blocking(move || {
            let payload = record.payload.as_deref().unwrap_or_default();
            if let Some(wanted) = project_id {
                let batch = from_single_object::<RawBatch>(payload);
                if batch.is_ok_and(|batch| batch.project_id != wanted) {
                    return None;
                }
            }
            let redacts = |project: &str| !unredacted.iter().any(|unredacted| unredacted == project);
            Some(transform.apply(record.position, payload, redacts, now_ns))
        });
        Ok(done.await?)
    }
}

fn size(event: &AgentEvent) -> usize {
    event.data.len() + event.context.len() + EVENT_BYTES
}
