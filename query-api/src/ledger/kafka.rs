//! Where the logs stand, in a Kafka cluster.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use fleetlog_log::{
    Admin, From, Isolation, KafkaConfig, LogError, Offsets, SpoolReader, Tail, TailRead, Topics,
};
use fleetlog_runtime::Shutdown;
use fleetlog_schemas::record::SpoolStanding;
use fleetlog_schemas::topic;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Logs, Outlet, Pipeline, Sampler};

/// The consumer groups whose offsets tell where the pipeline stands.
#[derive(Clone, Debug)]
pub(crate) struct Groups {
    /// The processor's.
    pub(crate) processor: String,
    /// The aggregator's; with `.dead` behind it, its group for dead letters.
    pub(crate) aggregator: String,
}

/// Samples a cluster until shutdown.
///
/// # Errors
/// Whatever waiting cannot cure.
pub(crate) async fn sample_kafka(
    sampler: Sampler,
    config: KafkaConfig,
    groups: Groups,
    shutdown: Shutdown,
) -> Result<(), LogError> {
    let Some(topics) = Admin::new(&config)?.wait_for_topics(&shutdown).await? else { return Ok(()) };
    let logs = KafkaLogs::open(&config, topics, &groups)?;
    sampler.run(Arc::new(logs), shutdown).await
}

struct KafkaLogs {
    config: KafkaConfig,
    raw: Offsets,
    spools: SpoolReader,
    outlets: [KafkaOutlet; 2],
}

/// Offsets behind what is committed that may all be markers and aborted records; more of them hold something to store.
const TAIL_MAX: i64 = 256;
/// How long they are read; the first fetch of a reader takes half a second.
const TAIL_WITHIN: Duration = Duration::from_secs(5);

/// A topic that the processor writes.
struct KafkaOutlet {
    topic: &'static str,
    /// Ends before the first open transaction.
    stable: Offsets,
    /// Ends behind the last record.
    whole: Offsets,
}

impl KafkaLogs {
    fn open(config: &KafkaConfig, topics: Topics, groups: &Groups) -> Result<Self, LogError> {
        let outlet = |topic: &'static str, partitions, group: &str| {
            let open = |isolation| Offsets::open(config, topic, partitions, group, isolation);
            Ok::<_, LogError>(KafkaOutlet {
                topic,
                stable: open(Isolation::Committed)?,
                whole: open(Isolation::Uncommitted)?,
            })
        };
        let dead_group = format!("{}.dead", groups.aggregator);
        Ok(Self {
            config: config.clone(),
            raw: Offsets::open(config, topic::RAW, topics.raw, &groups.processor, Isolation::Uncommitted)?,
            spools: SpoolReader::open(config)?,
            outlets: [
                outlet(topic::EVENTS, topics.events, &groups.aggregator)?,
                outlet(topic::DEAD, topics.dead, &dead_group)?,
            ],
        })
    }
}

impl KafkaOutlet {
    async fn look(&self, config: &KafkaConfig) -> Result<Vec<Outlet>, LogError> {
        let logs = self.whole.ranges().await?;
        let stable: Vec<i64> = self.stable.ranges().await?.into_iter().map(|log| log.end).collect();
        let committed = self.whole.committed().await?;
        let mut outlets: Vec<Outlet> = logs
            .into_iter()
            .zip(committed)
            .map(|(log, committed)| Outlet { stored: committed.unwrap_or(0).max(log.start), log })
            .collect();
        let short: Vec<(i32, From)> = (0_i32..)
            .zip(outlets.iter().zip(&stable))
            .filter(|(_, (outlet, stable))| (1..=TAIL_MAX).contains(&(**stable - outlet.stored)))
            .map(|(partition, (outlet, _))| (partition, From::Offset(outlet.stored)))
            .collect();
        for partition in read_to_their_ends(config, self.topic, short).await? {
            let place = usize::try_from(partition).ok();
            let outlet = place.and_then(|place| Some((outlets.get_mut(place)?, stable.get(place)?)));
            if let Some((outlet, stable)) = outlet {
                outlet.stored = *stable;
            }
        }
        Ok(outlets)
    }
}

/// Those of the partitions in which a reader is given nothing from these offsets on.
async fn read_to_their_ends(
    config: &KafkaConfig,
    topic: &str,
    partitions: Vec<(i32, From)>,
) -> Result<Vec<i32>, LogError> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let mut open: Vec<i32> = partitions.iter().map(|(partition, _)| *partition).collect();
    let tail = Tail::open(config, topic, partitions, Isolation::Committed)?;
    let mut ends = Vec::new();
    let reading = async {
        while !open.is_empty() {
            match tail.next().await {
                Ok(TailRead::Record(record)) => open.retain(|other| *other != record.position.partition),
                Ok(TailRead::CaughtUp { partition }) => {
                    // The end is reached again after each record, so only the first news of a partition counts.
                    if open.contains(&partition) {
                        ends.push(partition);
                        open.retain(|other| *other != partition);
                    }
                }
                // Retention has overtaken it: nothing is known.
                Err(LogError::PositionGone { .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    match tokio::time::timeout(TAIL_WITHIN, reading).await {
        Ok(read) => read.map(|()| ends),
        Err(_) => Ok(Vec::new()),
    }
}

impl Logs for KafkaLogs {
    fn raw(&self) -> BoxFuture<'_, Result<Vec<Range<i64>>, LogError>> {
        self.raw.ranges().boxed()
    }

    fn spools(&self) -> BoxFuture<'_, Result<Vec<SpoolStanding>, LogError>> {
        self.spools.standings().boxed()
    }

    fn raw_since(&self, time_ms: i64) -> BoxFuture<'_, Result<Vec<Option<i64>>, LogError>> {
        self.raw.at_time(time_ms).boxed()
    }

    fn pipeline(&self) -> BoxFuture<'_, Result<Pipeline, LogError>> {
        async {
            let raw = self.raw.committed().await?;
            let mut outlets = Vec::new();
            for outlet in &self.outlets {
                outlets.extend(outlet.look(&self.config).await?);
            }
            Ok(Pipeline { raw, outlets })
        }
        .boxed()
    }
}
