//! Both engines of a run, watched together and stopped in their order.

use std::time::Duration;

use crate::clickhouse::ClickHouseNode;
use crate::kafka::KafkaNode;
use crate::pins::Engine;
use crate::process::{EngineExit, Stopped};

/// The engines that this run started; one that is configured to run elsewhere is absent.
///
/// Stop the services first: they drain into Kafka and ClickHouse.
#[derive(Default)]
pub struct EngineSet {
    /// The Kafka node.
    pub kafka: Option<KafkaNode>,
    /// The ClickHouse engine.
    pub clickhouse: Option<ClickHouseNode>,
}

impl EngineSet {
    /// Waits until one of the engines ends; for ever when there is none. Safe to cancel.
    pub async fn wait_any(&self) -> EngineExit {
        let kafka = async {
            match &self.kafka {
                Some(node) => node.wait().await,
                None => std::future::pending().await,
            }
        };
        let clickhouse = async {
            match &self.clickhouse {
                Some(node) => node.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            exit = kafka => exit,
            exit = clickhouse => exit,
        }
    }

    /// Stops ClickHouse, then Kafka, each within the budget, and tells how each went.
    ///
    /// Kafka goes last: it holds what ClickHouse has not stored yet.
    pub async fn stop(&self, budget: Duration) -> Vec<(Engine, Stopped)> {
        let mut outcome = Vec::with_capacity(2);
        if let Some(node) = &self.clickhouse {
            outcome.push((Engine::ClickHouse, node.stop(budget).await));
        }
        if let Some(node) = &self.kafka {
            outcome.push((Engine::Kafka, node.stop(budget).await));
        }
        outcome
    }
}
