//! What is still under way: the embedded engine's bridge knows it, a server lists it in `system.processes`, and on a
//! cluster every replica has to be asked, because a statement may have gone to any of them.

use std::time::Duration;

use serde::Deserialize;

use crate::{Store, StoreError};

const WITHIN: Duration = Duration::from_secs(5);

/// The bridge's answer.
#[derive(Deserialize)]
struct Listing {
    running: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {}

impl Store {
    /// How many statements whose id begins so are under way, on this node or on all replicas of the cluster.
    ///
    /// # Errors
    /// Whatever keeps ClickHouse from telling: then nothing is known.
    pub(crate) async fn running(&self, query_id_prefix: &str) -> Result<u64, StoreError> {
        if let Some(cluster) = self.cluster() {
            // A replica that does not answer may be running anything: that is an error, not a zero.
            let sql = format!(
                "SELECT count() FROM clusterAllReplicas('{}', system.processes) \
                 WHERE startsWith(query_id, {{prefix:String}}) SETTINGS skip_unavailable_shards = 0",
                cluster.as_str()
            );
            let counts: Vec<u64> =
                self.read_with(&sql, |query| query.param("prefix", query_id_prefix)).await?;
            return counts.first().copied().ok_or_else(|| StoreError::Answer("no count".to_owned()));
        }
        let failed = |e: reqwest::Error| StoreError::Unavailable(e.without_url().to_string());
        let request = self.http.get(&self.bridge_url).query(&[("query_id_prefix", query_id_prefix)]);
        let answer = request.timeout(WITHIN).send().await.map_err(failed)?;
        if answer.status().is_success() {
            let listing: Listing = answer.json().await.map_err(failed)?;
            return Ok(listing.running.len() as u64);
        }
        // A server has no such path.
        let sql = "SELECT count() FROM system.processes WHERE startsWith(query_id, {prefix:String})";
        let counts: Vec<u64> = self.read_with(sql, |query| query.param("prefix", query_id_prefix)).await?;
        Ok(counts.first().copied().unwrap_or(0))
    }
    /// Whether a part of a table is written and not acknowledged by its quorum yet.
    ///
    /// # Errors
    /// Whatever keeps ClickHouse or Keeper from telling.
    pub(crate) async fn awaits_quorum(&self, table: &str) -> Result<bool, StoreError> {
        let sql = format!(
            "SELECT count() FROM system.zookeeper WHERE name = 'status' AND path IN \
             (SELECT concat(zookeeper_path, '/quorum') FROM system.replicas \
              WHERE database = '{}' AND table = '{table}')",
            self.database()
        );
        let pending: u64 = self.read_one(&sql, WITHIN).await?;
        Ok(pending > 0)
    }

    /// Proves that the cluster is one this version can work with: of a single shard, and defined on the server.
    ///
    /// # Errors
    /// [`StoreError::Config`] when it is not.
    pub async fn verify_cluster(&self) -> Result<(), StoreError> {
        let Some(cluster) = self.cluster() else { return Ok(()) };
        let sql = format!(
            "SELECT uniqExact(shard_num) FROM system.clusters WHERE cluster = '{}'",
            cluster.as_str()
        );
        let shards: u64 = self.read_one(&sql, WITHIN).await?;
        if shards == 1 {
            tracing::warn!(
                cluster = cluster.as_str(),
                "replicated tables: not proved against a replicated server yet"
            );
            return Ok(());
        }
        Err(StoreError::Config(format!(
            "clickhouse.cluster {:?} has {shards} shards; one with replicas is what this version can keep exactly once",
            cluster.as_str()
        )))
    }
}
