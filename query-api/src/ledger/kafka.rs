//! Where the logs stand, in a Kafka cluster.

use std::ops::Range;
use std::sync::Arc;

use fleetlog_log::{Admin, Isolation, KafkaConfig, LogError, Offsets, Topics};
use fleetlog_runtime::Shutdown;
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
    raw: Offsets,
    outlets: [KafkaOutlet; 2],
}

/// A topic that the processor writes.
struct KafkaOutlet {
    /// Ends before the first open transaction.
    stable: Offsets,
    /// Ends behind the last record.
    whole: Offsets,
}

impl KafkaLogs {
    fn open(config: &KafkaConfig, topics: Topics, groups: &Groups) -> Result<Self, LogError> {
        let outlet = |topic, partitions, group: &str| {
            let open = |isolation| Offsets::open(config, topic, partitions, group, isolation);
            Ok::<_, LogError>(KafkaOutlet {
                stable: open(Isolation::Committed)?,
                whole: open(Isolation::Uncommitted)?,
            })
        };
        let dead_group = format!("{}.dead", groups.aggregator);
        Ok(Self {
            raw: Offsets::open(config, topic::RAW, topics.raw, &groups.processor, Isolation::Uncommitted)?,
            outlets: [
                outlet(topic::EVENTS, topics.events, &groups.aggregator)?,
                outlet(topic::DEAD, topics.dead, &dead_group)?,
            ],
        })
    }
}

impl KafkaOutlet {
    async fn look(&self) -> Result<Vec<Outlet>, LogError> {
        let stable = self.stable.ranges().await?;
        let whole = self.whole.ranges().await?;
        let committed = self.whole.committed().await?;
        let of = |((stable, log), committed): ((Range<i64>, Range<i64>), Option<i64>)| Outlet {
            log,
            stable: stable.end,
            committed,
        };
        Ok(stable.into_iter().zip(whole).zip(committed).map(of).collect())
    }
}

impl Logs for KafkaLogs {
    fn raw(&self) -> BoxFuture<'_, Result<Vec<Range<i64>>, LogError>> {
        self.raw.ranges().boxed()
    }

    fn raw_since(&self, time_ms: i64) -> BoxFuture<'_, Result<Vec<Option<i64>>, LogError>> {
        self.raw.at_time(time_ms).boxed()
    }

    fn pipeline(&self) -> BoxFuture<'_, Result<Pipeline, LogError>> {
        async {
            let raw = self.raw.committed().await?;
            let mut outlets = Vec::new();
            for outlet in &self.outlets {
                outlets.extend(outlet.look().await?);
            }
            Ok(Pipeline { raw, outlets })
        }
        .boxed()
    }
}
